//! Configuration of the gRPC stats filter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use filter_api::{ConfigError, FactoryContext, HttpFilterConfig};
use xds_api::pb::envoy::config::core::v3 as core;
use xds_api::pb::envoy::extensions::filters::http::grpc_stats::v3 as pb;

use super::GrpcStats;
use crate::registry::decode;

pub(crate) const MESSAGE: &str = "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig";

/// Which methods have stats of their own; the others share the cluster's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Methods {
    All,
    /// Methods by service. Empty for none.
    Only(BTreeMap<Box<str>, BTreeSet<Box<str>>>),
}

impl Methods {
    pub(super) fn has(&self, service: &str, method: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(services) => services.get(service).is_some_and(|m| m.contains(method)),
        }
    }
}

/// The filter's options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GrpcStatsConfig {
    pub(super) methods: Methods,
    /// Record `upstream_rq_time`.
    pub(super) upstream_time: bool,
    /// `a.b.C` counts as `a_b_C`; the services of a list keep their names.
    pub(super) replace_dots: bool,
    /// Leave the counts of messages with the stream.
    pub(super) emit: bool,
}

pub(crate) fn filter(
    bytes: &[u8],
    cx: &FactoryContext,
) -> Result<Arc<dyn HttpFilterConfig>, ConfigError> {
    let config = options(decode(MESSAGE, bytes)?);
    Ok(Arc::new(GrpcStats::new(config, &cx.stat_prefix)))
}

fn options(message: pb::FilterConfig) -> GrpcStatsConfig {
    use pb::filter_config::PerMethodStatSpecifier as Kind;
    let pb::FilterConfig {
        emit_filter_state,
        enable_upstream_stats,
        replace_dots_in_grpc_service_name,
        per_method_stat_specifier,
    } = message;
    let methods = match per_method_stat_specifier {
        Some(Kind::StatsForAllMethods(all)) if all.value => Methods::All,
        Some(Kind::IndividualMethodStatsAllowlist(list)) => Methods::Only(allowed(list)),
        Some(Kind::StatsForAllMethods(_)) | None => Methods::Only(BTreeMap::new()),
    };
    GrpcStatsConfig {
        upstream_time: enable_upstream_stats,
        replace_dots: replace_dots_in_grpc_service_name && methods == Methods::All,
        methods,
        emit: emit_filter_state,
    }
}

fn allowed(list: core::GrpcMethodList) -> BTreeMap<Box<str>, BTreeSet<Box<str>>> {
    let core::GrpcMethodList { services } = list;
    let mut all = BTreeMap::<Box<str>, BTreeSet<Box<str>>>::new();
    for core::grpc_method_list::Service { name, method_names } in services {
        let methods = method_names.into_iter().map(Into::into);
        all.entry(name.into()).or_default().extend(methods);
    }
    all
}
