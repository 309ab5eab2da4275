//! Sidecar data-plane proxy, programmed over xDS, in the place of the envoy binary.

pub mod access_log;
pub mod admin;
pub mod bootstrap;
pub mod grpc_client;
pub mod http;
pub mod listener;
pub mod network;
pub mod router;
pub mod runtime;
pub mod server;
pub mod snapshot;
pub mod tcp_proxy;
pub mod upstream;
pub mod version;
pub mod xds;
