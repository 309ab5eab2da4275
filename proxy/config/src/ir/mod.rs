//! The internal configuration.
//!
//! A `…Config` is what a control plane asked for, validated. The runtime object
//! made from it drops the suffix.

mod access_log;
mod bind;
mod bootstrap;
mod cluster;
mod common;
mod dns;
mod endpoint;
mod hcm;
mod listener;
mod listener_filter;
mod metadata_exchange;
mod retry_on;
mod route;
mod tcp_proxy;
mod tls;

pub use access_log::*;
pub use bind::*;
pub use bootstrap::*;
pub use cluster::*;
pub use common::*;
pub use dns::*;
pub use endpoint::*;
pub use hcm::*;
pub use listener::*;
pub use listener_filter::*;
pub use metadata_exchange::*;
pub use retry_on::*;
pub use route::*;
pub use tcp_proxy::*;
pub use tls::*;
