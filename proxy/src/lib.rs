//! Sidecar data-plane proxy, programmed over xDS, in the place of the envoy binary.

pub mod http;
pub mod network;
