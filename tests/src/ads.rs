//! A control plane that does what a script says, over TCP and over a pipe, that records every
//! request it gets: ADS and the streams of single types, incremental and state-of-the-world.

mod service;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use tokio::net::UnixListener;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::Status;
use xds_api::pb::envoy::config::core::v3::ControlPlane;
use xds_api::pb::envoy::service::discovery::v3 as pb;
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
    pipe: Option<PathBuf>,
    serving: Vec<(oneshot::Sender<()>, JoinHandle<()>)>,
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
    /// The streams of each type alone, by its short name, and of all types under none; the newest
    /// last, with their numbers.
    open: BTreeMap<Option<&'static str>, Vec<(usize, Out)>>,
}

impl State {
    /// Where resources of a type go: to the newest stream of the type alone that asked for the first
    /// of them, else the newest of the type, else the newest of all types.
    fn out(&self, kind: &str, resources: &[Resource]) -> Option<&Out> {
        let own = self.open.iter().find(|(k, _)| **k == Some(kind));
        let Some((_, own)) = own else {
            return self.open.get(&None)?.last().map(|(_, out)| out);
        };
        let wanted = resources.first().map(|r| &r.name);
        let asked = |stream: usize| {
            let requests = self.seen.iter().filter(|s| s.stream == stream);
            wanted.is_some_and(|name| requests.clone().any(|s| s.names.contains(name)))
        };
        let asked = own.iter().rfind(|(stream, _)| asked(*stream));
        asked.or(own.last()).map(|(_, out)| out)
    }
}

/// Where the answers of a stream go.
#[derive(Clone)]
enum Out {
    Incremental(mpsc::UnboundedSender<Result<pb::DeltaDiscoveryResponse, Status>>),
    Whole(mpsc::UnboundedSender<Result<pb::DiscoveryResponse, Status>>),
}

/// Who the server says it is.
const IDENTIFIER: &str = "parity";

impl Ads {
    /// Listens on `port` of the loopback address, and on a pipe if one is given.
    ///
    /// # Errors
    /// When the port is taken, or the pipe cannot be made.
    pub async fn start(port: u16, pipe: Option<PathBuf>) -> io::Result<Self> {
        let mut ads = Self::silent(port, pipe);
        ads.listen().await?;
        Ok(ads)
    }

    /// A server that does not listen yet.
    #[must_use]
    pub fn silent(port: u16, pipe: Option<PathBuf>) -> Self {
        Self {
            shared: Arc::default(),
            port,
            pipe,
            serving: Vec::new(),
        }
    }

    /// Listens (again).
    ///
    /// # Errors
    /// When the port is taken, or the pipe cannot be made.
    pub async fn listen(&mut self) -> io::Result<()> {
        let incoming = TcpListenerStream::new(ports::reuse(self.port).await?);
        let (stop, stopped) = oneshot::channel::<()>();
        let router = service::router(&self.shared);
        let task = tokio::spawn(async move {
            let end = async { drop(stopped.await) };
            router
                .serve_with_incoming_shutdown(incoming, end)
                .await
                .ok();
        });
        self.serving.push((stop, task));
        let Some(path) = &self.pipe else {
            return Ok(());
        };
        std::fs::remove_file(path).ok();
        let incoming = UnixListenerStream::new(UnixListener::bind(path)?);
        let (stop, stopped) = oneshot::channel::<()>();
        let router = service::router(&self.shared);
        let task = tokio::spawn(async move {
            let end = async { drop(stopped.await) };
            router
                .serve_with_incoming_shutdown(incoming, end)
                .await
                .ok();
        });
        self.serving.push((stop, task));
        Ok(())
    }

    /// Ends every stream and stops listening.
    pub async fn stop(&mut self) {
        self.disconnect();
        for (stop, task) in self.serving.drain(..) {
            drop(stop);
            task.abort();
            // Aborted on purpose: the only outcome is that it is over.
            task.await.ok();
        }
    }

    /// Ends every stream; the proxy may come back.
    pub fn disconnect(&self) {
        self.shared.lock().open.clear();
    }

    /// Everything asked so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.lock().seen.clone()
    }

    /// Sends resources on the newest stream of their type alone that asked for them, else on that of all
    /// types; the nonce, or `None` without a stream.
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
        let control_plane = Some(ControlPlane {
            identifier: IDENTIFIER.to_owned(),
        });
        let wanted = short_type(full_type(kind));
        let out = state.out(wanted, resources)?;
        let sent = match out {
            Out::Incremental(out) => {
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
                    control_plane,
                    ..pb::DeltaDiscoveryResponse::default()
                }))
                .is_ok()
            }
            Out::Whole(out) => out
                .send(Ok(pb::DiscoveryResponse {
                    version_info: version.to_owned(),
                    resources: resources.iter().map(|r| r.body.clone()).collect(),
                    type_url,
                    nonce: nonce.clone(),
                    control_plane,
                    ..pb::DiscoveryResponse::default()
                }))
                .is_ok(),
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

    /// Makes a stream the newest of its kind; its number.
    fn open(&self, kind: Option<&'static str>, out: Out) -> usize {
        let mut state = self.lock();
        state.streams += 1;
        let stream = state.streams;
        state.open.entry(kind).or_default().push((stream, out));
        stream
    }

    fn record(&self, seen: Seen) {
        self.lock().seen.push(seen);
        self.changed.notify_waiters();
    }
}
