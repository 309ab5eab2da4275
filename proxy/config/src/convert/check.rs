//! The one place where a resource meets the schema: validation rules, verdicts,
//! unknown fields.

use filter_api::ConfigError;
use prost::Message;
use xds_api::validate::validate;
use xds_api::verdict::{self, Report};

use super::path::Within;
use super::{ConvertContext, Converted, Result};

pub(super) const LISTENER: &str = "envoy.config.listener.v3.Listener";
pub(super) const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
pub(super) const ROUTE_CONFIGURATION: &str = "envoy.config.route.v3.RouteConfiguration";
pub(super) const LOAD_ASSIGNMENT: &str = "envoy.config.endpoint.v3.ClusterLoadAssignment";
pub(super) const SECRET: &str = "envoy.extensions.transport_sockets.tls.v3.Secret";
pub(super) const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

/// How many places an error names beside the first.
const MAX_OTHERS: usize = 8;

/// Takes one resource through all steps. `root` is how errors name it.
pub(super) fn entry<M: Message + Default, T>(
    type_name: &str,
    bytes: &[u8],
    cx: &ConvertContext<'_>,
    root: impl FnOnce(&M) -> String,
    convert: impl FnOnce(M) -> Result<T>,
) -> Result<Converted<T>> {
    let message = M::decode(bytes)
        .map_err(|error| ConfigError::new(format!("not a {type_name}: {error}")))?;
    let root = root(&message);
    let report = examine(type_name, bytes, cx).within(&root)?;
    let value = convert(message).within(&root)?;
    let below = |path: String| format!("{root} / {path}");
    Ok(Converted {
        value,
        ignored: report
            .ignored
            .into_iter()
            .map(|(path, reason)| (below(path.to_string()), reason.to_owned()))
            .collect(),
        unknown: report
            .unknown
            .into_iter()
            .map(|unknown| below(unknown_field(&unknown)))
            .collect(),
    })
}

/// Validation rules first, as Envoy does, then what is not supported here.
fn examine(type_name: &str, bytes: &[u8], cx: &ConvertContext<'_>) -> Result<Report> {
    validate(type_name, bytes)
        .map_err(|violation| refusal(&violation.path.to_string(), violation.rule))?;
    let report = verdict::check(type_name, bytes, "")
        .map_err(|error| refusal(&error.path.to_string(), error.reason))?;
    let mut refused: Vec<(String, String)> = report
        .rejected
        .iter()
        .map(|(path, reason)| (path.to_string(), reason.clone()))
        .collect();
    let unknown = report
        .unknown
        .iter()
        .filter(|unknown| unknown.strict || cx.reject_unknown_fields);
    refused.extend(unknown.map(|unknown| (unknown_field(unknown), "unknown field".to_owned())));
    first_of(refused).map_or(Ok(report), Err)
}

/// An unknown field by the message that holds it and its number.
fn unknown_field(unknown: &verdict::Unknown) -> String {
    match (unknown.number, unknown.path.to_string()) {
        (0, path) => path,
        (number, path) if path.is_empty() => format!("field {number}"),
        (number, path) => format!("{path} / field {number}"),
    }
}

/// An error for the first refusal that mentions the others.
fn first_of(refused: Vec<(String, String)>) -> Option<ConfigError> {
    let others = refused.len().saturating_sub(1);
    let mut refused = refused.into_iter();
    let (path, mut reason) = refused.next()?;
    if others > 0 {
        let named: Vec<String> = refused.take(MAX_OTHERS).map(|(path, _)| path).collect();
        let more = if others > named.len() { ", ..." } else { "" };
        reason = format!("{reason} (and {others} more: {}{more})", named.join(", "));
    }
    Some(refusal(&path, reason))
}

fn refusal(path: &str, reason: String) -> ConfigError {
    if path.is_empty() {
        ConfigError::new(reason)
    } else {
        ConfigError::field(path, reason)
    }
}
