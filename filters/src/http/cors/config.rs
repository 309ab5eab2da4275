//! Configuration of the CORS filter: policies of routes.

use std::sync::Arc;

use filter_api::{
    ConfigError, FactoryContext, HttpFilterConfig, RouteFilterConfig, RuntimeFraction,
};
use outrigger_config::convert;
use outrigger_config::matcher::StringMatcher;
use outrigger_types::HeaderValue;
use xds_api::pb::envoy::extensions::filters::http::cors::v3 as pb;
use xds_api::pb::google::protobuf::BoolValue;

use super::Cors;
use crate::registry::decode;

pub(crate) const MESSAGE: &str = "envoy.extensions.filters.http.cors.v3.Cors";
pub(crate) const ROUTE_MESSAGE: &str = "envoy.extensions.filters.http.cors.v3.CorsPolicy";

/// What one level of the routes says; what it leaves open is for the next one to say.
#[derive(Clone, Debug)]
pub(super) struct CorsPolicy {
    /// Origins that may ask; empty for the next level's.
    pub(super) origins: Vec<StringMatcher>,
    pub(super) methods: Option<HeaderValue>,
    pub(super) headers: Option<HeaderValue>,
    pub(super) exposed: Option<HeaderValue>,
    pub(super) max_age: Option<HeaderValue>,
    pub(super) credentials: Option<bool>,
    pub(super) private_network: Option<bool>,
    pub(super) forwards_not_matching: Option<bool>,
    /// Share of requests; none for all.
    pub(super) enabled: Option<RuntimeFraction>,
    /// Share of those that are only counted; none for none.
    pub(super) shadow: Option<RuntimeFraction>,
}

pub(crate) fn filter(
    bytes: &[u8],
    cx: &FactoryContext,
) -> Result<Arc<dyn HttpFilterConfig>, ConfigError> {
    let pb::Cors {} = decode(MESSAGE, bytes)?;
    Ok(Arc::new(Cors::new(&cx.stat_prefix)))
}

pub(crate) fn route(bytes: &[u8]) -> Result<RouteFilterConfig, ConfigError> {
    let pb::CorsPolicy {
        allow_origin_string_match,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        filter_enabled,
        shadow_enabled,
        allow_private_network_access,
        forward_not_matching_preflights,
    } = decode(ROUTE_MESSAGE, bytes)?;
    let origins = allow_origin_string_match.into_iter().enumerate();
    let origins = origins.map(|(index, message)| {
        let path = format!("allow_origin_string_match[{index}]");
        convert::string(message).map_err(|error| error.within(&path))
    });
    let fraction = |name: &str, message| convert::optional_runtime_fraction(name, message);
    Ok(Arc::new(CorsPolicy {
        origins: origins.collect::<Result<_, _>>()?,
        methods: value("allow_methods", &allow_methods)?,
        headers: value("allow_headers", &allow_headers)?,
        exposed: value("expose_headers", &expose_headers)?,
        max_age: value("max_age", &max_age)?,
        credentials: flag(allow_credentials),
        private_network: flag(allow_private_network_access),
        forwards_not_matching: flag(forward_not_matching_preflights),
        enabled: fraction("filter_enabled", filter_enabled)?,
        shadow: fraction("shadow_enabled", shadow_enabled)?,
    }))
}

/// What a header is to say; none for an empty text.
fn value(field: &str, text: &str) -> Result<Option<HeaderValue>, ConfigError> {
    if text.is_empty() {
        return Ok(None);
    }
    let value = HeaderValue::from_str(text);
    let value = value.map_err(|_| ConfigError::field(field, "cannot be sent in a header"))?;
    Ok(Some(value))
}

fn flag(message: Option<BoolValue>) -> Option<bool> {
    message.map(|flag| flag.value)
}
