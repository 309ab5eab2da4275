//! HTTP filters, one folder each under Envoy's name.

pub mod buffer;
pub mod fault;
pub mod grpc_stats;
#[cfg(any(test, feature = "test-filters"))]
pub mod testing;
