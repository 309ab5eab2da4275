//! Rewriting of local replies (`LocalReplyConfig`).

use super::Result;
use super::access_log::filter;
use super::body::{body_format, data_source};
use super::header_mutation::additions;
use super::path::{Within, each, optional, required, status};
use crate::ir::{LocalReplyConfig, LocalReplyMapper};
use crate::pb::envoy::extensions::filters::network::http_connection_manager::v3 as pb;

/// The longest body of a reply.
const MAX_BODY: usize = 1 << 20;

/// The mappers and the format of all bodies.
pub(super) fn local_reply(message: Option<pb::LocalReplyConfig>) -> Result<LocalReplyConfig> {
    let pb::LocalReplyConfig {
        mappers,
        body_format: format,
    } = message.unwrap_or_default();
    Ok(LocalReplyConfig {
        mappers: each("mappers", mappers, mapper)?,
        body_format: optional("body_format", format, body_format)?,
    })
}

fn mapper(message: pb::ResponseMapper) -> Result<LocalReplyMapper> {
    let pb::ResponseMapper {
        filter: filter_message,
        status_code,
        body,
        body_format_override,
        headers_to_add,
    } = message;
    let body = optional("body", body, |source| data_source(source, MAX_BODY))?;
    Ok(LocalReplyMapper {
        filter: filter(required("filter", filter_message)?).within("filter")?,
        status: optional("status_code", status_code, |code| status(code.value))?,
        body: body.map(|bytes| bytes.as_ref().into()),
        body_format: optional("body_format_override", body_format_override, body_format)?,
        headers_to_add: additions("headers_to_add", headers_to_add)?,
    })
}
