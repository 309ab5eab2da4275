//! The CORS filter (`envoy.filters.http.cors`): answers preflight requests, and lets
//! browsers see the answers to those whose origin is allowed. Policies are overrides of
//! routes; each level says what the more specific ones leave open.

mod config;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use filter_api::{
    CreateContext, FilterContext, FilterStatus, HttpFilter, HttpFilterConfig, HttpFilterFactory,
    Interest, LocalReply, RouteFilterConfig, RuntimeFraction, WorkerContext,
};
use outrigger_stats::Slab;
use outrigger_types::{HeaderName, HeaderValue, Headers, Method, ResponseHead, StatusCode};
use smallvec::SmallVec;

pub(crate) use config::{MESSAGE, ROUTE_MESSAGE, filter, route};

use config::CorsPolicy;

const ORIGIN: HeaderName = HeaderName::from_static("origin");
const REQUEST_METHOD: HeaderName = HeaderName::from_static("access-control-request-method");
const REQUEST_HEADERS: HeaderName = HeaderName::from_static("access-control-request-headers");
const REQUEST_PRIVATE: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const ALLOW_ORIGIN: HeaderName = HeaderName::from_static("access-control-allow-origin");
const ALLOW_CREDENTIALS: HeaderName = HeaderName::from_static("access-control-allow-credentials");
const ALLOW_METHODS: HeaderName = HeaderName::from_static("access-control-allow-methods");
const ALLOW_HEADERS: HeaderName = HeaderName::from_static("access-control-allow-headers");
const ALLOW_PRIVATE: HeaderName = HeaderName::from_static("access-control-allow-private-network");
const EXPOSE_HEADERS: HeaderName = HeaderName::from_static("access-control-expose-headers");
const MAX_AGE: HeaderName = HeaderName::from_static("access-control-max-age");

/// `%RESPONSE_CODE_DETAILS%` of the answer to a preflight request.
const DETAILS: &str = "cors_response";

outrigger_stats::stat_set! {
    /// What CORS filters count (`http.<stat_prefix>.cors.`).
    struct CorsStats {
        counters {
            origin_invalid,
            origin_valid,
        }
    }
}

/// The filter's configuration.
#[derive(Debug)]
struct Cors {
    scope: Box<str>,
}

impl Cors {
    fn new(stat_prefix: &str) -> Self {
        Self {
            scope: format!("{stat_prefix}cors.").into(),
        }
    }
}

impl HttpFilterConfig for Cors {
    fn factory(&self, worker: &WorkerContext) -> Box<dyn HttpFilterFactory> {
        Box::new(Factory(worker.store.scope(&self.scope).slab()))
    }
}

struct Factory(Slab<CorsStats>);

impl HttpFilterFactory for Factory {
    fn interest(&self) -> Interest {
        Interest::DECODE_HEADERS | Interest::ENCODE_HEADERS
    }

    fn create(
        &self,
        route: Option<&RouteFilterConfig>,
        cx: &CreateContext<'_>,
    ) -> Option<Box<dyn HttpFilter>> {
        // Without a policy there is nothing to do.
        route?;
        let policies = (cx.overrides)().into_iter();
        let policies = policies.filter_map(|policy| policy.downcast::<CorsPolicy>().ok());
        Some(Box::new(CorsFilter {
            policies: Policies(policies.collect()),
            stats: self.0.clone(),
            origin: None,
        }))
    }
}

/// The policies of a request, the most specific first.
struct Policies(SmallVec<[Arc<CorsPolicy>; 2]>);

impl Policies {
    /// What the first level that says anything says.
    fn say<'a, T>(&'a self, of: impl Fn(&'a CorsPolicy) -> Option<T>) -> Option<T> {
        self.0.iter().find_map(|policy| of(policy))
    }

    fn allows(&self, origin: &[u8]) -> bool {
        let origins = self.say(|policy| Some(&policy.origins).filter(|o| !o.is_empty()));
        let mut matchers = origins.into_iter().flatten();
        matchers.any(|matcher| matcher.matches(b"*") || matcher.matches(origin))
    }

    fn allows_credentials(&self) -> bool {
        self.say(|policy| policy.credentials).unwrap_or(false)
    }
}

/// The filter on one stream.
struct CorsFilter {
    policies: Policies,
    stats: Slab<CorsStats>,
    /// The origin of the request, if it is allowed and the policy in force.
    origin: Option<HeaderValue>,
}

impl CorsFilter {
    /// Whether a share of the most specific policy takes the next request.
    fn takes(
        &self,
        cx: &FilterContext<'_>,
        share: impl Fn(&CorsPolicy) -> Option<&RuntimeFraction>,
        otherwise: bool,
    ) -> bool {
        let Some(policy) = self.policies.0.first() else {
            return false;
        };
        let picks = |share: &RuntimeFraction| {
            let share = share.resolve(&cx.services.runtime());
            share.picks(cx.services.random())
        };
        share(policy).map_or(otherwise, picks)
    }

    /// The answer to a preflight request.
    fn answer(&self, request: &Headers, origin: Option<&HeaderValue>) -> LocalReply {
        let mut reply = LocalReply::new(StatusCode::OK, "", DETAILS).verbatim();
        let headers = &mut reply.headers;
        if let Some(origin) = origin {
            headers.append(ALLOW_ORIGIN, origin.clone());
        }
        let policies = &self.policies;
        if policies.allows_credentials() {
            headers.append(ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        let allowed = |value: &HeaderValue, asked: HeaderName| match value.as_bytes() {
            b"*" => {
                let asked = request.get(&asked).cloned();
                asked.unwrap_or(HeaderValue::from_static(""))
            }
            _ => value.clone(),
        };
        if let Some(value) = policies.say(|policy| policy.methods.as_ref()) {
            headers.append(ALLOW_METHODS, allowed(value, REQUEST_METHOD));
        }
        if let Some(value) = policies.say(|policy| policy.headers.as_ref()) {
            headers.append(ALLOW_HEADERS, allowed(value, REQUEST_HEADERS));
        }
        if let Some(value) = policies.say(|policy| policy.max_age.as_ref()) {
            headers.append(MAX_AGE, value.clone());
        }
        let private = policies.say(|policy| policy.private_network);
        if private == Some(true) && request.get_bytes(&REQUEST_PRIVATE) == Some(b"true") {
            headers.append(ALLOW_PRIVATE, HeaderValue::from_static("true"));
        }
        reply
    }
}

impl HttpFilter for CorsFilter {
    fn decode_headers(&mut self, cx: &mut FilterContext<'_>, _: bool) -> FilterStatus {
        let forwarded = cx.route.is_some_and(|route| route.cluster.is_some());
        let enabled = forwarded && self.takes(cx, |policy| policy.enabled.as_ref(), true);
        if !forwarded || !enabled && !self.takes(cx, |policy| policy.shadow.as_ref(), false) {
            return FilterStatus::Continue;
        }
        let origin = cx.request.headers.get(&ORIGIN).cloned();
        let Some(origin) = origin.filter(|origin| !origin.is_empty()) else {
            return FilterStatus::Continue;
        };
        let allowed = self.policies.allows(origin.as_bytes());
        self.stats.inc(match allowed {
            true => CorsStats::origin_valid,
            false => CorsStats::origin_invalid,
        });
        if !enabled {
            return FilterStatus::Continue;
        }
        self.origin = allowed.then_some(origin);
        let headers = &cx.request.headers;
        let asked = headers.get_bytes(&REQUEST_METHOD).unwrap_or_default();
        let is_preflight = cx.request.method == Method::OPTIONS && !asked.is_empty();
        let forwards = || {
            let forwards = self.policies.say(|policy| policy.forwards_not_matching);
            forwards.unwrap_or(true)
        };
        if !is_preflight || !allowed && forwards() {
            return FilterStatus::Continue;
        }
        FilterStatus::Reply(Box::new(self.answer(headers, self.origin.as_ref())))
    }

    fn encode_headers(
        &mut self,
        _: &mut FilterContext<'_>,
        head: &mut ResponseHead,
        _: bool,
    ) -> FilterStatus {
        let Some(origin) = &self.origin else {
            return FilterStatus::Continue;
        };
        let headers = &mut head.headers;
        headers.set(ALLOW_ORIGIN, origin.clone());
        if self.policies.allows_credentials() {
            headers.set(ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(value) = self.policies.say(|policy| policy.exposed.as_ref()) {
            headers.set(EXPOSE_HEADERS, value.clone());
        }
        FilterStatus::Continue
    }
}
