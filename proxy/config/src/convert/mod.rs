//! From Envoy's messages to the internal configuration.
//!
//! Each entry point takes the bytes of one resource through the same four
//! steps: the protos' validation rules, the verdict on every field that is
//! present, decoding, and the conversion proper, which fills in the defaults
//! and refuses the values that Envoy refuses at load. A message is taken apart
//! without `..`, so that a field added to the protos fails the build until
//! somebody has decided about it; a field that the verdict table already
//! decided (ignored, or rejected before we get here) is bound to `_` by name.
//!
//! An error names the place by the protos' own field names:
//! `listener "x" / filter_chains[0] / filters[1] / route_config /
//! virtual_hosts[2] / domains[0]`.

#![allow(
    deprecated,
    reason = "a control plane may send deprecated fields, and they must not go unseen"
)]

mod access_log;
mod any;
mod bind;
mod body;
mod bootstrap;
mod breakers;
mod check;
mod cluster;
mod common;
pub mod defaults;
mod discovery;
mod dns;
mod endpoint;
mod filter_chain;
mod filters;
mod forward;
mod hcm;
mod header_mutation;
mod http_protocol_options;
mod lb_policy;
mod listener;
mod listener_filter;
mod local_reply;
mod matcher;
mod metadata_exchange;
mod original_dst;
mod path;
mod raw;
mod retry;
mod route;
mod route_match;
mod runtime_layer;
mod source;
mod stats;
pub(crate) mod structure;
mod tcp_proxy;
mod tls;
mod virtual_host;
mod weighted_cluster;

use std::sync::Arc;

use filter_api::{ConfigError, ExtensionRegistry, LocalNode};
use outrigger_stats::Store;

pub use access_log::access_logs;
pub use bootstrap::bootstrap;
pub use cluster::cluster;
pub use endpoint::load_assignment;
pub use listener::{differ_in_chains_alone, listener};
pub use matcher::{fraction, headers, optional_runtime_fraction, string};
pub use route::route_table;
pub use structure::metadata;
pub use tls::secret;

/// What a conversion may use.
#[derive(Clone)]
pub struct ConvertContext<'a> {
    /// The filters that are built in.
    pub registry: &'a dyn ExtensionRegistry,
    /// Where filters register their stats.
    pub store: Store,
    /// Who this proxy is.
    pub node: Arc<LocalNode>,
    /// Refuse a field that the schema does not know anywhere, instead of
    /// reporting it (`--reject-unknown-dynamic-fields`).
    pub reject_unknown_fields: bool,
}

/// A converted resource, with what its author should know about it.
#[derive(Clone, Debug)]
pub struct Converted<T> {
    /// The configuration.
    pub value: T,
    /// Fields without effect here: path and reason.
    pub ignored: Vec<(String, String)>,
    /// Paths of fields that the schema does not know.
    pub unknown: Vec<String>,
}

impl<T> Converted<T> {
    fn map<U>(self, f: impl FnOnce(T) -> U) -> Converted<U> {
        Converted {
            value: f(self.value),
            ignored: self.ignored,
            unknown: self.unknown,
        }
    }
}

type Result<T> = std::result::Result<T, ConfigError>;
