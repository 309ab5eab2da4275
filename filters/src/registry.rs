//! The one table of extensions. The router is not in it: its options are part of
//! the HCM's own configuration.

use std::sync::Arc;

use filter_api::{
    ConfigError, ExtensionRegistry, FactoryContext, HttpFilterConfig, RouteFilterConfig,
};
use prost::Message;
use xds_api::validate::validate;
use xds_api::verdict;

use crate::http::{alpn, buffer, compressor, cors, fault, grpc_stats, istio_stats, peer_metadata};

type MakeFilter = fn(&[u8], &FactoryContext) -> Result<Arc<dyn HttpFilterConfig>, ConfigError>;
type MakeOverride = fn(&[u8]) -> Result<RouteFilterConfig, ConfigError>;

/// One message that configures a filter, for a chain, for a route or for both.
struct Entry {
    message: &'static str,
    filter: Option<MakeFilter>,
    route: Option<MakeOverride>,
}

const ENTRIES: &[Entry] = &[
    Entry {
        message: alpn::MESSAGE,
        filter: Some(alpn::filter),
        route: None,
    },
    Entry {
        message: buffer::MESSAGE,
        filter: Some(buffer::filter),
        route: None,
    },
    Entry {
        message: buffer::ROUTE_MESSAGE,
        filter: None,
        route: Some(buffer::route),
    },
    Entry {
        message: compressor::MESSAGE,
        filter: Some(compressor::filter),
        route: None,
    },
    Entry {
        message: compressor::ROUTE_MESSAGE,
        filter: None,
        route: Some(compressor::route),
    },
    Entry {
        message: cors::MESSAGE,
        filter: Some(cors::filter),
        route: None,
    },
    Entry {
        message: cors::ROUTE_MESSAGE,
        filter: None,
        route: Some(cors::route),
    },
    Entry {
        message: fault::MESSAGE,
        filter: Some(fault::filter),
        route: Some(fault::route),
    },
    Entry {
        message: grpc_stats::MESSAGE,
        filter: Some(grpc_stats::filter),
        route: None,
    },
    Entry {
        message: istio_stats::MESSAGE,
        filter: Some(istio_stats::filter),
        route: None,
    },
    Entry {
        message: peer_metadata::MESSAGE,
        filter: Some(peer_metadata::filter),
        route: None,
    },
];

/// The filters that are built in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Registry;

impl ExtensionRegistry for Registry {
    fn http_filter(
        &self,
        type_url: &str,
        config: &[u8],
        cx: &FactoryContext,
    ) -> Result<Arc<dyn HttpFilterConfig>, ConfigError> {
        let make = find(type_url).and_then(|entry| entry.filter);
        make.ok_or_else(|| unknown("HTTP filter", type_url))?(config, cx)
    }

    fn route_filter(
        &self,
        type_url: &str,
        config: &[u8],
    ) -> Result<RouteFilterConfig, ConfigError> {
        let make = find(type_url).and_then(|entry| entry.route);
        make.ok_or_else(|| unknown("per-route override", type_url))?(config)
    }
}

fn find(type_url: &str) -> Option<&'static Entry> {
    let name = type_url.rsplit_once('/').map_or(type_url, |(_, name)| name);
    ENTRIES.iter().find(|entry| entry.message == name)
}

fn unknown(what: &str, type_url: &str) -> ConfigError {
    ConfigError::new(format!("{what} {type_url} is not supported"))
}

/// Decodes a filter's message once its rules and verdicts allow it.
pub(crate) fn decode<M: Message + Default>(message: &str, bytes: &[u8]) -> Result<M, ConfigError> {
    let at = |path: String, reason: String| match path.is_empty() {
        true => ConfigError::new(reason),
        false => ConfigError::field(path, reason),
    };
    validate(message, bytes).map_err(|broken| at(broken.path.to_string(), broken.rule))?;
    let report = verdict::check(message, bytes, "")
        .map_err(|error| at(error.path.to_string(), error.reason))?;
    if let Some((path, reason)) = report.rejected.into_iter().next() {
        return Err(at(path.to_string(), reason));
    }
    M::decode(bytes).map_err(|error| ConfigError::new(format!("not a {message}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::factory_context;

    const PREFIX: &str = "type.googleapis.com/";

    #[test]
    fn every_entry_is_known_to_the_schema() {
        for entry in ENTRIES {
            assert!(
                verdict::check(entry.message, b"", "").is_ok(),
                "{}",
                entry.message
            );
            assert!(entry.filter.is_some() || entry.route.is_some());
        }
    }

    #[test]
    fn an_unknown_type_is_named() {
        let cx = factory_context();
        let error = Registry
            .http_filter("type.googleapis.com/a.B", b"", &cx)
            .unwrap_err();
        assert!(
            error.to_string().contains("a.B is not supported"),
            "{error}"
        );
        let url = format!("{PREFIX}{}", grpc_stats::MESSAGE);
        assert!(Registry.http_filter(&url, b"", &cx).is_ok());
        assert!(Registry.route_filter(&url, b"").is_err());
    }

    #[test]
    fn a_broken_rule_is_refused_with_its_path() {
        let url = format!("{PREFIX}{}", buffer::MESSAGE);
        let error = Registry
            .http_filter(&url, b"", &factory_context())
            .unwrap_err();
        assert!(error.to_string().contains("max_request_bytes"), "{error}");
    }
}
