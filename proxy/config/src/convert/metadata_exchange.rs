//! The exchange of peer metadata, a network filter of listeners and of clusters.

use std::sync::Arc;

use filter_api::LocalNode;

use super::any::Typed;
use super::path::{Within, each, refuse};
use super::{ConvertContext, Result};
use crate::ir::MetadataExchangeConfig;
use crate::pb::envoy::config::cluster::v3 as cluster;
use crate::pb::envoy::tcp::metadataexchange::config as pb;
use crate::workload::Workload;

pub(super) const MESSAGE: &str = "envoy.tcp.metadataexchange.config.MetadataExchange";

pub(super) fn metadata_exchange(
    message: pb::MetadataExchange,
    node: &LocalNode,
) -> Result<Arc<MetadataExchangeConfig>> {
    let pb::MetadataExchange {
        protocol,
        enable_discovery: _,
        additional_labels,
    } = message;
    if protocol.is_empty() {
        return refuse("protocol", "value length must be at least 1 characters");
    }
    let labels = additional_labels.into_iter().map(Into::into).collect();
    Ok(Arc::new(MetadataExchangeConfig {
        preamble: Workload::of_node(node, &labels).to_preamble(&node.id),
        protocol: protocol.into_bytes().into(),
        labels,
    }))
}

/// The filters of a cluster, of which there is this one.
pub(super) fn of_cluster(
    filters: Vec<cluster::Filter>,
    cx: &ConvertContext<'_>,
) -> Result<Option<Arc<MetadataExchangeConfig>>> {
    let mut found = None;
    each("filters", filters, |filter| {
        let exchange = upstream_filter(filter, cx)?;
        match found.replace(exchange) {
            Some(_) => refuse("typed_config", "metadata is exchanged once on a connection"),
            None => Ok(()),
        }
    })?;
    Ok(found)
}

fn upstream_filter(
    message: cluster::Filter,
    cx: &ConvertContext<'_>,
) -> Result<Arc<MetadataExchangeConfig>> {
    let cluster::Filter {
        name,
        typed_config,
        config_discovery: _,
    } = message;
    let Some(config) = typed_config else {
        let reason = format!("upstream network filter \"{name}\" has none");
        return refuse("typed_config", reason);
    };
    let typed = Typed::unpack(config).within("typed_config")?;
    if typed.name != MESSAGE {
        let unsupported = typed.unsupported("upstream network filter");
        return unsupported.within("typed_config");
    }
    let message = typed.decode().within("typed_config")?;
    metadata_exchange(message, &cx.node).within("typed_config")
}
