//! Configuration of the peer metadata filter.

use std::sync::Arc;

use filter_api::{ConfigError, FactoryContext, HttpFilterConfig, LocalNode};
use outrigger_config::workload::{Labels, Workload};
use outrigger_types::HeaderValue;
use xds_api::pb::io::istio::http::peer_metadata as pb;

use super::PeerMetadata;
use crate::registry::decode;

pub(crate) const MESSAGE: &str = "io.istio.http.peer_metadata.Config";

/// What is done for the peers of one side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SideConfig {
    /// Its headers say who it is, and are removed.
    pub(super) discovers: bool,
    /// It is told who this workload is, once for each method: those that spare clusters
    /// outside of the mesh are true.
    pub(super) propagates: Vec<bool>,
}

/// The filter's options.
#[derive(Debug)]
pub(super) struct PeerMetadataConfig {
    pub(super) downstream: SideConfig,
    pub(super) upstream: SideConfig,
    /// Labels of peers that are kept beside those that always are.
    pub(super) labels: Labels,
    /// What is sent.
    pub(super) id: HeaderValue,
    pub(super) metadata: HeaderValue,
}

pub(crate) fn filter(
    bytes: &[u8],
    cx: &FactoryContext,
) -> Result<Arc<dyn HttpFilterConfig>, ConfigError> {
    let config = options(decode(MESSAGE, bytes)?, &cx.node)?;
    Ok(Arc::new(PeerMetadata(Arc::new(config))))
}

fn options(message: pb::Config, node: &LocalNode) -> Result<PeerMetadataConfig, ConfigError> {
    let pb::Config {
        downstream_discovery,
        upstream_discovery,
        downstream_propagation,
        upstream_propagation,
        shared_with_upstream: _,
        additional_labels,
    } = message;
    let labels: Labels = additional_labels.into_iter().map(Into::into).collect();
    let metadata = Workload::placed(node, &labels).to_header();
    let sendable = |text: &str| {
        let value = HeaderValue::from_str(text);
        value.map_err(|_| ConfigError::new("the node's id cannot be sent in a header"))
    };
    Ok(PeerMetadataConfig {
        downstream: side(downstream_discovery, downstream_propagation),
        upstream: side(upstream_discovery, upstream_propagation),
        id: sendable(&node.id)?,
        metadata: sendable(&metadata)?,
        labels,
    })
}

fn side(
    discovery: Vec<pb::config::DiscoveryMethod>,
    propagation: Vec<pb::config::PropagationMethod>,
) -> SideConfig {
    SideConfig {
        discovers: discovery.into_iter().any(by_headers),
        propagates: propagation.into_iter().filter_map(spares).collect(),
    }
}

/// Whether a method is by headers; the others have a verdict of their own.
fn by_headers(message: pb::config::DiscoveryMethod) -> bool {
    use pb::config::discovery_method::MethodSpecifier;
    let pb::config::DiscoveryMethod { method_specifier } = message;
    match method_specifier {
        // What it says concerns propagation.
        Some(MethodSpecifier::IstioHeaders(pb::config::IstioHeaders {
            skip_external_clusters: _,
        })) => true,
        Some(MethodSpecifier::Baggage(_) | MethodSpecifier::WorkloadDiscovery(_)) | None => false,
    }
}

fn spares(message: pb::config::PropagationMethod) -> Option<bool> {
    use pb::config::propagation_method::MethodSpecifier;
    let pb::config::PropagationMethod { method_specifier } = message;
    let MethodSpecifier::IstioHeaders(pb::config::IstioHeaders {
        skip_external_clusters,
    }) = method_specifier?;
    Some(skip_external_clusters)
}
