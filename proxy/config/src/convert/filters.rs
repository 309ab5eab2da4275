//! The HTTP filter chain and its per-route overrides.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use filter_api::{Chain, ConfigError, FactoryContext};
use outrigger_types::{HeaderName, names};

use super::any::Typed;
use super::path::{Within, bool_or, each, refuse};
use super::{ConvertContext, Result};
use crate::ir::{FilterOverride, FilterOverrides, HttpFilterEntry, RouterConfig};
use crate::pb::envoy::config::route::v3::FilterConfig;
use crate::pb::envoy::extensions::filters::http::router::v3 as router_pb;
use crate::pb::envoy::extensions::filters::network::http_connection_manager::v3 as pb;
use crate::pb::google::protobuf as wkt;

const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
const FILTER_CONFIG: &str = "envoy.config.route.v3.FilterConfig";

/// The chain, and the options of the router that ends it. `stat_prefix` ends in
/// a dot.
pub(super) fn filters(
    messages: Vec<pb::HttpFilter>,
    stat_prefix: &str,
    cx: &ConvertContext<'_>,
) -> Result<(Vec<HttpFilterEntry>, RouterConfig)> {
    let factory = FactoryContext {
        stat_prefix: stat_prefix.into(),
        store: cx.store.clone(),
        node: cx.node.clone(),
        chain: Chain::default(),
    };
    if messages.is_empty() {
        return refuse("http_filters", "a terminal filter (router) is required");
    }
    let count = messages.len();
    let mut router = None;
    let entries = each(
        "http_filters",
        messages.into_iter().enumerate(),
        |(i, message)| {
            let filter = filter(message, &factory, cx)?;
            if let Some(config) = filter.router {
                router = Some(config);
            }
            terminal_is_last(&filter.entry, i + 1 == count)?;
            Ok(filter.entry)
        },
    )?;
    let router = router.ok_or_else(|| {
        ConfigError::field(
            "http_filters",
            "the last filter must be a terminal one (router)",
        )
    })?;
    Ok((entries, router))
}

fn terminal_is_last(entry: &HttpFilterEntry, last: bool) -> Result<()> {
    let name = &entry.name;
    match (entry.config.is_terminal(), last) {
        (true, false) => refuse(
            "name",
            format!("terminal filter \"{name}\" must be the last one"),
        ),
        (false, true) => refuse(
            "name",
            format!("non-terminal filter \"{name}\" is the last one"),
        ),
        (true, true) if entry.disabled => refuse(
            "disabled",
            format!("terminal filter \"{name}\" cannot be disabled"),
        ),
        _ => Ok(()),
    }
}

struct Filter {
    entry: HttpFilterEntry,
    router: Option<RouterConfig>,
}

/// One filter. Of those that may be left out because nobody knows them
/// (`is_optional`) Envoy knows most: they are refused like any other.
fn filter(
    message: pb::HttpFilter,
    factory: &FactoryContext,
    cx: &ConvertContext<'_>,
) -> Result<Filter> {
    let pb::HttpFilter {
        name,
        is_optional: _,
        disabled,
        config_type,
    } = message;
    if name.is_empty() {
        return refuse("name", "value length must be at least 1 characters");
    }
    let config = match config_type {
        Some(pb::http_filter::ConfigType::TypedConfig(config)) => config,
        Some(pb::http_filter::ConfigType::ConfigDiscovery(_)) => {
            return refuse("config_discovery", "is not supported");
        }
        None => return refuse("typed_config", format!("HTTP filter \"{name}\" has none")),
    };
    let typed = Typed::unpack(config).within("typed_config")?;
    let name: Arc<str> = name.into();
    if typed.name == ROUTER {
        let config = typed.decode().and_then(router).within("typed_config")?;
        let entry = HttpFilterEntry {
            name,
            config: Arc::new(config.clone()),
            disabled,
        };
        return Ok(Filter {
            entry,
            router: Some(config),
        });
    }
    let config = cx
        .registry
        .http_filter(&typed.type_url(), &typed.bytes, factory)
        .within("typed_config")?;
    let entry = HttpFilterEntry {
        name,
        config,
        disabled,
    };
    Ok(Filter {
        entry,
        router: None,
    })
}

fn router(message: router_pb::Router) -> Result<RouterConfig> {
    let router_pb::Router {
        dynamic_stats,
        start_child_span: _,
        upstream_log: _,
        upstream_log_options: _,
        suppress_envoy_headers,
        strict_check_headers,
        respect_expected_rq_timeout,
        suppress_grpc_request_failure_code_stats,
        upstream_http_filters: _,
        reject_connect_request_early_data: _,
    } = message;
    Ok(RouterConfig {
        dynamic_stats: bool_or(dynamic_stats, true),
        suppress_envoy_headers,
        respect_expected_rq_timeout,
        strict_check_headers: each("strict_check_headers", strict_check_headers, checkable)?,
        suppress_grpc_request_failure_code_stats,
    })
}

/// The fields that `strict_check_headers` may name.
fn checkable(name: String) -> Result<HeaderName> {
    const NAMES: [HeaderName; 5] = [
        names::X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS,
        names::X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS,
        names::X_ENVOY_MAX_RETRIES,
        names::X_ENVOY_RETRY_GRPC_ON,
        names::X_ENVOY_RETRY_ON,
    ];
    let name = name.to_ascii_lowercase();
    let known = NAMES.into_iter().find(|known| known.as_str() == name);
    known.ok_or_else(|| ConfigError::new(format!("\"{name}\" cannot be checked")))
}

/// The overrides of a route, a virtual host, a weighted cluster or a table.
pub(super) fn overrides(
    configs: HashMap<String, wkt::Any>,
    cx: &ConvertContext<'_>,
) -> Result<FilterOverrides> {
    let mut all = FilterOverrides::new();
    let sorted: BTreeMap<String, wkt::Any> = configs.into_iter().collect();
    for (name, config) in sorted {
        let segment = format!("typed_per_filter_config[\"{name}\"]");
        let converted = Typed::unpack(config)
            .and_then(|typed| filter_override(typed, cx))
            .within(&segment)?;
        all.insert(name.into(), converted);
    }
    Ok(all)
}

/// One override, plain or within a `FilterConfig`.
fn filter_override(typed: Typed, cx: &ConvertContext<'_>) -> Result<FilterOverride> {
    if typed.name != FILTER_CONFIG {
        let config = cx.registry.route_filter(&typed.type_url(), &typed.bytes)?;
        return Ok(FilterOverride {
            disabled: false,
            config: Some(config),
        });
    }
    let FilterConfig {
        config,
        is_optional: _,
        disabled,
    } = typed.decode()?;
    let config = match config {
        _ if disabled => None,
        None => {
            return refuse(
                "config",
                "a FilterConfig that does not disable needs a config",
            );
        }
        Some(any) => {
            let inner = Typed::unpack(any).within("config")?;
            let config = cx.registry.route_filter(&inner.type_url(), &inner.bytes);
            Some(config.within("config")?)
        }
    };
    Ok(FilterOverride { disabled, config })
}
