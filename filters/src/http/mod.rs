//! HTTP filters, one folder each under Envoy's name.

pub mod alpn;
pub mod buffer;
pub mod compressor;
pub mod cors;
pub mod fault;
pub mod grpc_stats;
pub mod istio_stats;
pub mod peer_metadata;
#[cfg(any(test, feature = "test-filters"))]
pub mod testing;
