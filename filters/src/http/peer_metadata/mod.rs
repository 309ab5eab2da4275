//! Istio's peer metadata filter (`istio.metadata_exchange` of HTTP): workloads tell each
//! other in headers who they are, which goes no further than to the next proxy.

mod cache;
mod config;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use filter_api::{
    CreateContext, FilterContext, FilterStatus, HttpFilter, HttpFilterConfig, HttpFilterFactory,
    Interest, RouteFilterConfig, WorkerContext,
};
use outrigger_config::workload::{PEER_METADATA, PEER_METADATA_ID, PeerSide, Workload};
use outrigger_types::{HeaderName, Headers, Metadata, MetadataValue, ResponseHead, StreamInfo};

use self::cache::Cache;
pub(crate) use self::config::{MESSAGE, filter};
use self::config::{PeerMetadataConfig, SideConfig};

const HEADER: HeaderName = HeaderName::from_static(PEER_METADATA);
const ID_HEADER: HeaderName = HeaderName::from_static(PEER_METADATA_ID);

/// The filter's configuration.
#[derive(Debug)]
struct PeerMetadata(Arc<PeerMetadataConfig>);

impl HttpFilterConfig for PeerMetadata {
    fn factory(&self, _: &WorkerContext) -> Box<dyn HttpFilterFactory> {
        Box::new(Factory(Arc::new(Shared {
            config: self.0.clone(),
            downstream: Cache::default(),
            upstream: Cache::default(),
        })))
    }
}

struct Factory(Arc<Shared>);

/// What the filters of one worker share.
struct Shared {
    config: Arc<PeerMetadataConfig>,
    downstream: Cache,
    upstream: Cache,
}

impl HttpFilterFactory for Factory {
    fn interest(&self) -> Interest {
        Interest::DECODE_HEADERS | Interest::ENCODE_HEADERS
    }

    fn create(
        &self,
        _: Option<&RouteFilterConfig>,
        _: &CreateContext<'_>,
    ) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter {
            shared: self.0.clone(),
            received: Received::default(),
        }))
    }
}

/// Which of the two headers came.
#[derive(Clone, Copy, Default)]
struct Received {
    id: bool,
    metadata: bool,
}

/// The filter on one stream.
struct Filter {
    shared: Arc<Shared>,
    /// With the request.
    received: Received,
}

impl HttpFilter for Filter {
    fn decode_headers(&mut self, cx: &mut FilterContext<'_>, _: bool) -> FilterStatus {
        let Shared {
            config, downstream, ..
        } = &*self.shared;
        let headers = &mut cx.request.headers;
        if config.downstream.discovers {
            let side = PeerSide::Downstream;
            self.received = discover(side, downstream, config, cx.info, headers);
        }
        let both = Received {
            id: true,
            metadata: true,
        };
        propagate(&config.upstream, both, config, cx.info, headers);
        FilterStatus::Continue
    }

    fn encode_headers(
        &mut self,
        cx: &mut FilterContext<'_>,
        head: &mut ResponseHead,
        _: bool,
    ) -> FilterStatus {
        let Shared {
            config, upstream, ..
        } = &*self.shared;
        let headers = &mut head.headers;
        if config.upstream.discovers {
            discover(PeerSide::Upstream, upstream, config, cx.info, headers);
        }
        propagate(&config.downstream, self.received, config, cx.info, headers);
        FilterStatus::Continue
    }
}

/// Takes what a peer says of itself out of the headers, and leaves it with the stream.
fn discover(
    side: PeerSide,
    cache: &Cache,
    config: &PeerMetadataConfig,
    info: &mut StreamInfo,
    headers: &mut Headers,
) -> Received {
    let received = Received {
        id: headers.contains(&ID_HEADER),
        metadata: headers.contains(&HEADER),
    };
    let value = headers.get_bytes(&HEADER).unwrap_or_default();
    if !value.is_empty() {
        let id = headers.get_bytes(&ID_HEADER).unwrap_or_default();
        let read = |value: &[u8]| {
            let workload = Workload::from_header(value, &config.labels)?;
            Some(workload.to_filter_state())
        };
        // What is there already is not overwritten.
        if let Some(peer) = cache.find(id, value, read)
            && info.filter_state_object(side.key()).is_none()
        {
            peer.leave(side, info.filter_state_mut());
        }
    }
    headers.remove(&ID_HEADER);
    headers.remove(&HEADER);
    received
}

/// Says who this workload is, in those of the headers that are `wanted`.
fn propagate(
    side: &SideConfig,
    wanted: Received,
    config: &PeerMetadataConfig,
    info: &StreamInfo,
    headers: &mut Headers,
) {
    for spares_external in &side.propagates {
        if is_spared(*spares_external, info) {
            continue;
        }
        if wanted.id {
            headers.set(ID_HEADER, config.id.clone());
        }
        if wanted.metadata {
            headers.set(HEADER, config.metadata.clone());
        }
    }
}

/// Whether the cluster of a stream is not to be told, nor its callers.
fn is_spared(spares_external: bool, info: &StreamInfo) -> bool {
    let name = info.upstream.cluster_raw.as_deref();
    if spares_external && name == Some("PassthroughCluster") {
        return true;
    }
    let metadata = info.upstream.cluster_metadata.as_deref();
    spares_external && says(metadata, "external") || says(metadata, "disable_mx")
}

/// Whether Istio's metadata of a cluster has a flag.
fn says(metadata: Option<&Metadata>, flag: &str) -> bool {
    let value = metadata.and_then(|all| all.get("istio")?.at([flag]));
    value == Some(&MetadataValue::Bool(true))
}
