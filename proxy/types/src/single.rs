//! Fields that Envoy keeps as a single one ("inline headers"): several lines of such a field are
//! joined with a comma as soon as they are read, and what is appended to it is joined to it.

use http::{HeaderName, HeaderValue};

use crate::Headers;

/// Of requests.
const OF_REQUESTS: &[&str] = &[
    "accept",
    "accept-encoding",
    "access-control-request-headers",
    "access-control-request-method",
    "access-control-request-private-network",
    "authorization",
    "cache-control",
    "cdn-loop",
    "content-encoding",
    "content-type",
    "expect",
    "grpc-accept-encoding",
    "grpc-timeout",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "origin",
    "pragma",
    "proxy-status",
    "referer",
    "user-agent",
    "via",
    "x-client-trace-id",
    "x-envoy-attempt-count",
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-external-address",
    "x-envoy-force-trace",
    "x-envoy-ip-tags",
    "x-envoy-is-timeout-retry",
    "x-envoy-max-retries",
    "x-envoy-original-host",
    "x-envoy-original-path",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-stream-duration-ms",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-request-id",
];

/// Of responses.
const OF_RESPONSES: &[&str] = &[
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-allow-private-network",
    "access-control-expose-headers",
    "access-control-max-age",
    "age",
    "cache-control",
    "content-encoding",
    "content-type",
    "date",
    "etag",
    "expires",
    "grpc-message",
    "grpc-status",
    "last-modified",
    "location",
    "proxy-status",
    "server",
    "vary",
    "via",
    "x-envoy-attempt-count",
    "x-envoy-decorator-operation",
    "x-envoy-degraded",
    "x-envoy-immediate-health-check-fail",
    "x-envoy-ratelimited",
    "x-envoy-upstream-canary",
    "x-envoy-upstream-healthchecked-cluster",
    "x-envoy-upstream-service-time",
    "x-request-id",
];

/// Whose head fields stand in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadKind {
    /// A request's.
    Request,
    /// A response's.
    Response,
}

impl HeadKind {
    fn keeps_single(self, name: &HeaderName) -> bool {
        let names = match self {
            Self::Request => OF_REQUESTS,
            Self::Response => OF_RESPONSES,
        };
        names.binary_search(&name.as_str()).is_ok()
    }
}

impl Headers {
    /// Joins the lines of each field that is kept as a single one, at the place of its first.
    pub fn join_singles(&mut self, kind: HeadKind) {
        if !self.may_repeat() {
            return;
        }
        let mut at = 0;
        while at < self.len() {
            let Some((name, _)) = self.iter().nth(at) else {
                return;
            };
            let name = name.clone();
            if kind.keeps_single(&name)
                && let Some(std::borrow::Cow::Owned(all)) = self.joined(&name)
                && let Ok(all) = HeaderValue::from_bytes(&all)
            {
                self.set(name, all);
            }
            at += 1;
        }
    }

    /// Whether two names may be the same; that no two are is seen at a glance, mostly.
    fn may_repeat(&self) -> bool {
        let mut seen = 0u128;
        self.iter().any(|(name, _)| {
            let name = name.as_str().as_bytes();
            let (first, last) = (name.first(), name.last());
            let of = |byte: Option<&u8>| usize::from(byte.copied().unwrap_or_default());
            let bit = 1u128 << ((name.len() * 37 + of(first) * 5 + of(last)) % 128);
            let found = seen & bit != 0;
            seen |= bit;
            found
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lists_are_sorted() {
        assert!(OF_REQUESTS.is_sorted() && OF_RESPONSES.is_sorted());
    }

    #[test]
    fn singles_are_joined_in_the_place_of_the_first_and_others_stay() {
        let mut headers = Headers::default();
        for (name, value) in [
            ("via", "a"),
            ("x-custom", "1"),
            ("via", "b"),
            ("vary", "a"),
            ("x-custom", "2"),
            ("vary", "b"),
        ] {
            let value = HeaderValue::from_static(value);
            headers.append(HeaderName::from_static(name), value);
        }
        headers.join_singles(HeadKind::Request);
        let shown: Vec<_> = headers
            .iter()
            .map(|(n, v)| format!("{n}: {}", v.to_str().unwrap_or_default()))
            .collect();
        assert_eq!(
            shown,
            [
                "via: a,b",
                "x-custom: 1",
                "vary: a",
                "x-custom: 2",
                "vary: b"
            ]
        );
    }
}
