//! Configuration of the buffer filter.

use std::sync::Arc;

use filter_api::{ConfigError, FactoryContext, HttpFilterConfig, RouteFilterConfig};
use xds_api::pb::envoy::extensions::filters::http::buffer::v3 as pb;

use crate::registry::decode;

pub(crate) const MESSAGE: &str = "envoy.extensions.filters.http.buffer.v3.Buffer";
pub(crate) const ROUTE_MESSAGE: &str = "envoy.extensions.filters.http.buffer.v3.BufferPerRoute";

/// How much of a request is held at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BufferConfig {
    pub(super) max_request_bytes: usize,
}

/// A route's override.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouteBuffer {
    Disabled,
    Limit(BufferConfig),
}

pub(crate) fn filter(
    bytes: &[u8],
    _cx: &FactoryContext,
) -> Result<Arc<dyn HttpFilterConfig>, ConfigError> {
    Ok(Arc::new(buffer(decode(MESSAGE, bytes)?)?))
}

pub(crate) fn route(bytes: &[u8]) -> Result<RouteFilterConfig, ConfigError> {
    let pb::BufferPerRoute { r#override } = decode(ROUTE_MESSAGE, bytes)?;
    let config = match r#override {
        Some(pb::buffer_per_route::Override::Disabled(_)) => RouteBuffer::Disabled,
        Some(pb::buffer_per_route::Override::Buffer(message)) => {
            RouteBuffer::Limit(buffer(message).map_err(|error| error.within("buffer"))?)
        }
        None => return Err(ConfigError::field("override", "is required")),
    };
    Ok(Arc::new(config))
}

fn buffer(message: pb::Buffer) -> Result<BufferConfig, ConfigError> {
    let pb::Buffer { max_request_bytes } = message;
    let max = max_request_bytes
        .ok_or_else(|| ConfigError::field("max_request_bytes", "value is required"))?;
    Ok(BufferConfig {
        max_request_bytes: max.value as usize,
    })
}
