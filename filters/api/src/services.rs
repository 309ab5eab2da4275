//! What the proxy offers to its filters.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use outrigger_stats::Scope;
use outrigger_types::{Metadata, Protocol, RequestHead, ResetReason, ResponseHead};

use crate::RuntimeSnapshot;

/// The answer to a call made by a filter.
#[derive(Debug)]
pub struct CallResponse {
    /// The head.
    pub head: ResponseHead,
    /// The whole body.
    pub body: Bytes,
}

/// Why a call made by a filter has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The cluster does not exist.
    NoCluster,
    /// The cluster has no host that can be used.
    NoHost,
    /// The timeout passed.
    Timeout,
    /// The answer was larger than the buffer limit.
    TooLarge,
    /// The stream was reset.
    Reset(ResetReason),
}

/// What filters may know of a cluster.
#[derive(Clone, Debug)]
pub struct ClusterFacts {
    /// The version of HTTP that it is spoken to for the stream that asks; the newest if the
    /// TLS handshake will say.
    pub protocol: Protocol,
    /// Its metadata, if it has any.
    pub metadata: Option<Arc<Metadata>>,
}

/// A call under way; dropping it cancels it.
pub type CallFuture = Pin<Box<dyn Future<Output = Result<CallResponse, CallError>> + Send>>;

/// Services of the worker that runs the stream.
pub trait Services: Send + Sync {
    /// Starts an HTTP request to a cluster, as Envoy's `AsyncClient` does, with
    /// that cluster's pools, breakers and stats.
    fn call(&self, cluster: &str, head: RequestHead, body: Bytes, timeout: Duration) -> CallFuture;

    /// The stats scope of a cluster; none if there is no such cluster.
    fn cluster_scope(&self, cluster: &str) -> Option<Scope>;

    /// What is known of a cluster, for a stream that came in `downstream`; none if there is
    /// no such cluster.
    fn cluster_facts(&self, cluster: &str, downstream: Protocol) -> Option<ClusterFacts>;

    /// The runtime as it is now.
    fn runtime(&self) -> Arc<RuntimeSnapshot>;

    /// A random number.
    fn random(&self) -> u64;
}
