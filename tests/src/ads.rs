//! A control plane that does what a script says: an ADS server over TCP, incremental and
//! state-of-the-world, that records every request it gets.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming};
use xds_api::pb::envoy::service::discovery::v3 as pb;
use xds_api::pb::envoy::service::discovery::v3::aggregated_discovery_service_server as service;
use xds_api::pb::google::protobuf::Any;

use crate::ports;

const PREFIX: &str = "type.googleapis.com/";

/// Short names of the resource types.
const TYPES: &[(&str, &str)] = &[
    ("cluster", "envoy.config.cluster.v3.Cluster"),
    (
        "endpoints",
        "envoy.config.endpoint.v3.ClusterLoadAssignment",
    ),
    ("listener", "envoy.config.listener.v3.Listener"),
    ("route", "envoy.config.route.v3.RouteConfiguration"),
    ("virtual_host", "envoy.config.route.v3.VirtualHost"),
    ("secret", "envoy.extensions.transport_sockets.tls.v3.Secret"),
    ("runtime", "envoy.service.runtime.v3.Runtime"),
];

/// The full name for a short one; a full name stays.
#[must_use]
pub fn full_type(kind: &str) -> &str {
    TYPES
        .iter()
        .find(|(short, _)| *short == kind)
        .map_or(kind, |(_, full)| full)
}

/// The short name of a type URL; an unknown one stays.
#[must_use]
pub fn short_type(url: &str) -> &str {
    let full = url.strip_prefix(PREFIX).unwrap_or(url);
    TYPES
        .iter()
        .find(|(_, known)| *known == full)
        .map_or(full, |(short, _)| short)
}

/// One request of the proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Number of the stream, from 1.
    pub stream: usize,
    /// Short name of the type.
    pub kind: String,
    /// Version acknowledged (state-of-the-world).
    pub version: String,
    /// Nonce answered, empty on a first request.
    pub nonce: String,
    /// Names asked for; on incremental streams those added.
    pub names: Vec<String>,
    /// Names given up (incremental).
    pub unsubscribed: Vec<String>,
    /// Versions already held, as `name=version`, sorted (incremental).
    pub held: Vec<String>,
    /// The error of a NACK.
    pub error: Option<String>,
    /// Whether the node was sent.
    pub node: bool,
}

impl Seen {
    /// The request as one line; the text of an error is each proxy's own.
    #[must_use]
    pub fn line(&self) -> String {
        let verdict = match (&self.error, self.nonce.is_empty()) {
            (Some(_), _) => "NACK",
            (None, true) => "ask",
            (None, false) => "ACK",
        };
        format!(
            "stream {} {verdict} nonce={} version={} names=[{}] unsubscribed=[{}] held=[{}] node={}",
            self.stream,
            self.nonce,
            self.version,
            self.names.join(","),
            self.unsubscribed.join(","),
            self.held.join(","),
            self.node,
        )
    }
}

/// A resource to send.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Its name.
    pub name: String,
    /// Its message.
    pub body: Any,
}

impl Resource {
    /// Converts ProtoJSON of the type `kind` (short or full name).
    ///
    /// # Errors
    /// When the value is no such message.
    pub fn from_json(kind: &str, value: &Value) -> Result<Self, String> {
        let full = full_type(kind);
        let parsed = xds_api::json::from_json(full, value).map_err(|e| format!("{full}: {e}"))?;
        let name = value.get("name").or_else(|| value.get("cluster_name"));
        let name = name.and_then(Value::as_str).unwrap_or_default().to_owned();
        let body = Any {
            type_url: format!("{PREFIX}{full}"),
            value: parsed.bytes,
        };
        Ok(Self { name, body })
    }
}

/// The server.
pub struct Ads {
    shared: Arc<Shared>,
    port: u16,
    serving: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    streams: usize,
    nonces: usize,
    incremental: Option<mpsc::UnboundedSender<Result<pb::DeltaDiscoveryResponse, Status>>>,
    whole: Option<mpsc::UnboundedSender<Result<pb::DiscoveryResponse, Status>>>,
}

impl Ads {
    /// Listens on `port` of the loopback address.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn start(port: u16) -> io::Result<Self> {
        let mut ads = Self {
            shared: Arc::default(),
            port,
            serving: None,
        };
        ads.listen().await?;
        Ok(ads)
    }

    /// Listens (again).
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn listen(&mut self) -> io::Result<()> {
        let incoming = TcpListenerStream::new(ports::reuse(self.port).await?);
        let (stop, stopped) = oneshot::channel::<()>();
        let service =
            service::AggregatedDiscoveryServiceServer::new(Service(Arc::clone(&self.shared)));
        let server = tonic::transport::Server::builder().add_service(service);
        let task = tokio::spawn(async move {
            let stopped = async {
                // Also the loss of the sender means the end.
                stopped.await.ok();
            };
            server
                .serve_with_incoming_shutdown(incoming, stopped)
                .await
                .ok();
        });
        self.serving = Some((stop, task));
        Ok(())
    }

    /// Ends every stream and stops listening.
    pub async fn stop(&mut self) {
        self.disconnect();
        if let Some((stop, task)) = self.serving.take() {
            drop(stop);
            task.abort();
            // Aborted on purpose: the only outcome is that it is over.
            task.await.ok();
        }
    }

    /// Ends every stream; the proxy may come back.
    pub fn disconnect(&self) {
        let mut state = self.shared.lock();
        state.incremental = None;
        state.whole = None;
    }

    /// Everything asked so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.lock().seen.clone()
    }

    /// Sends resources on the newest stream; the nonce, or `None` without a stream.
    pub fn push(
        &self,
        kind: &str,
        version: &str,
        resources: &[Resource],
        removed: &[String],
    ) -> Option<String> {
        let mut state = self.shared.lock();
        state.nonces += 1;
        let nonce = format!("n{}", state.nonces);
        let type_url = format!("{PREFIX}{}", full_type(kind));
        let sent = if let Some(out) = &state.incremental {
            let resource = |r: &Resource| pb::Resource {
                name: r.name.clone(),
                version: version.to_owned(),
                resource: Some(r.body.clone()),
                ..pb::Resource::default()
            };
            out.send(Ok(pb::DeltaDiscoveryResponse {
                system_version_info: version.to_owned(),
                resources: resources.iter().map(resource).collect(),
                removed_resources: removed.to_vec(),
                type_url,
                nonce: nonce.clone(),
                ..pb::DeltaDiscoveryResponse::default()
            }))
            .is_ok()
        } else if let Some(out) = &state.whole {
            out.send(Ok(pb::DiscoveryResponse {
                version_info: version.to_owned(),
                resources: resources.iter().map(|r| r.body.clone()).collect(),
                type_url,
                nonce: nonce.clone(),
                ..pb::DiscoveryResponse::default()
            }))
            .is_ok()
        } else {
            false
        };
        sent.then_some(nonce)
    }

    /// Waits for a request that `wanted` accepts; `None` when `limit` passed first.
    pub async fn until(&self, limit: Duration, wanted: impl Fn(&Seen) -> bool) -> Option<Seen> {
        let wait = async {
            loop {
                let changed = self.shared.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(found) = self.shared.lock().seen.iter().find(|s| wanted(s)) {
                    return found.clone();
                }
                changed.await;
            }
        };
        tokio::time::timeout(limit, wait).await.ok()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn record(&self, seen: Seen) {
        self.lock().seen.push(seen);
        self.changed.notify_waiters();
    }
}

struct Service(Arc<Shared>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl service::AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Answers<pb::DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<pb::DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<pb::DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let (out, answers) = mpsc::unbounded_channel();
        let stream = {
            let mut state = self.0.lock();
            state.streams += 1;
            state.whole = Some(out);
            state.streams
        };
        let shared = Arc::clone(&self.0);
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                shared.record(whole(stream, request));
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(
            answers,
        ))))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<pb::DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (out, answers) = mpsc::unbounded_channel();
        let stream = {
            let mut state = self.0.lock();
            state.streams += 1;
            state.incremental = Some(out);
            state.streams
        };
        let shared = Arc::clone(&self.0);
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                shared.record(incremental(stream, request));
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(
            answers,
        ))))
    }
}

fn whole(stream: usize, request: pb::DiscoveryRequest) -> Seen {
    let mut names = request.resource_names;
    names.sort();
    Seen {
        stream,
        kind: short_type(&request.type_url).to_owned(),
        version: request.version_info,
        nonce: request.response_nonce,
        names,
        error: request.error_detail.map(|e| e.message),
        node: request.node.is_some(),
        ..Seen::default()
    }
}

fn incremental(stream: usize, request: pb::DeltaDiscoveryRequest) -> Seen {
    let mut names = request.resource_names_subscribe;
    names.sort();
    let mut unsubscribed = request.resource_names_unsubscribe;
    unsubscribed.sort();
    let held = request.initial_resource_versions.into_iter();
    let mut held: Vec<String> = held
        .map(|(name, version)| format!("{name}={version}"))
        .collect();
    held.sort();
    Seen {
        stream,
        kind: short_type(&request.type_url).to_owned(),
        version: String::new(),
        nonce: request.response_nonce,
        names,
        unsubscribed,
        held,
        error: request.error_detail.map(|e| e.message),
        node: request.node.is_some(),
    }
}
