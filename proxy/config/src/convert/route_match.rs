//! Which requests a route takes (`RouteMatch`).

use super::Result;
use super::matcher::{headers, optional_runtime_fraction, query_parameter, regex};
use super::path::{Within, bool_or, each, refuse, required};
use crate::ir::{PathMatchConfig, RouteMatchConfig};
use crate::pb::envoy::config::route::v3 as pb;

/// Converts the criteria of a route.
pub(super) fn route_match(message: pb::RouteMatch) -> Result<RouteMatchConfig> {
    let pb::RouteMatch {
        case_sensitive,
        runtime_fraction,
        headers: header_messages,
        query_parameters,
        cookies: _,
        grpc,
        tls_context,
        dynamic_metadata: _,
        filter_state: _,
        path_specifier,
    } = message;
    let pb::route_match::TlsContextMatchOptions {
        presented,
        validated,
    } = tls_context.unwrap_or_default();
    Ok(RouteMatchConfig {
        path: path(required("path_specifier", path_specifier)?)?,
        case_sensitive: bool_or(case_sensitive, true),
        runtime_fraction: optional_runtime_fraction("runtime_fraction", runtime_fraction)?,
        headers: headers("headers", header_messages)?,
        query_parameters: each("query_parameters", query_parameters, query_parameter)?,
        grpc: grpc.is_some(),
        tls_presented: presented.map(|wrapped| wrapped.value),
        tls_validated: validated.map(|wrapped| wrapped.value),
    })
}

fn path(specifier: pb::route_match::PathSpecifier) -> Result<PathMatchConfig> {
    use pb::route_match::PathSpecifier as Path;
    match specifier {
        Path::Prefix(prefix) => Ok(PathMatchConfig::Prefix(prefix.into())),
        Path::Path(path) => Ok(PathMatchConfig::Exact(path.into())),
        Path::SafeRegex(message) => regex(message)
            .within("safe_regex")
            .map(PathMatchConfig::Regex),
        Path::PathSeparatedPrefix(prefix) => {
            let well_formed = prefix.len() > 1
                && prefix.starts_with('/')
                && !prefix.ends_with('/')
                && !prefix.contains(['?', '#']);
            if well_formed {
                Ok(PathMatchConfig::PathSeparatedPrefix(prefix.into()))
            } else {
                refuse(
                    "path_separated_prefix",
                    "must begin but not end with a slash",
                )
            }
        }
        Path::ConnectMatcher(pb::route_match::ConnectMatcher {}) => Ok(PathMatchConfig::Connect),
        Path::PathMatchPolicy(_) => refuse("path_match_policy", "is not supported"),
    }
}
