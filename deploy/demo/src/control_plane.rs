//! The control plane: delta ADS over gRPC.
//!
//! [`Session`] is the state of one stream, without sockets: requests and changes in, responses out.
//! [`ControlPlane`] runs it behind tonic and remembers what was pushed and acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use envoy_types::pb::google::protobuf::Any;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tonic::codegen::tokio_stream::Stream;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::resources::{Mesh, served_types, short_name};

/// Responses that may wait for a proxy that does not read.
const QUEUE: usize = 16;
/// Refusals that are kept word for word.
const KEPT_NACKS: usize = 8;

/// How far one type has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeProgress {
    /// Pushes so far, which is also the version of the last one.
    pub pushed: u64,
    /// The last version that was acknowledged.
    pub acked: u64,
    /// From the last acknowledged push to its acknowledgement.
    pub took: Duration,
    /// The waiting push.
    waiting: Option<(String, Instant)>,
}

/// What was pushed, acknowledged and refused, over all streams.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// By type URL.
    pub types: BTreeMap<String, TypeProgress>,
    /// What the proxy refused, and why.
    pub nacks: Vec<String>,
    /// Streams opened so far.
    pub streams: u64,
}

impl Progress {
    /// A push was made.
    fn pushed(&mut self, response: &DeltaDiscoveryResponse) {
        let of_type = self.types.entry(response.type_url.clone()).or_default();
        of_type.pushed += 1;
        of_type.waiting = Some((response.nonce.clone(), Instant::now()));
    }

    /// The proxy answered a push.
    fn answered(&mut self, request: &DeltaDiscoveryRequest) {
        let of_type = self.types.entry(request.type_url.clone()).or_default();
        let Some((_, at)) = of_type
            .waiting
            .take_if(|(nonce, _)| *nonce == request.response_nonce)
        else {
            return;
        };
        if let Some(error) = &request.error_detail {
            if self.nacks.len() < KEPT_NACKS {
                self.nacks.push(format!(
                    "{}: {}",
                    short_name(&request.type_url),
                    error.message
                ));
            }
            return;
        }
        of_type.acked = of_type.pushed;
        of_type.took = at.elapsed();
    }

    /// Whether everything pushed has been acknowledged, and something of each type was.
    pub fn is_settled(&self) -> bool {
        served_types().iter().all(|url| {
            self.types
                .get(url)
                .is_some_and(|t| t.pushed > 0 && t.acked == t.pushed)
        })
    }
}

/// What one stream has asked for and been sent.
#[derive(Debug, Default)]
pub struct Session {
    types: BTreeMap<String, Subscription>,
    nonce: u64,
}

#[derive(Debug, Default)]
struct Subscription {
    wildcard: bool,
    names: BTreeSet<String>,
    /// What was sent on this stream, by name.
    sent: BTreeMap<String, Any>,
}

impl Subscription {
    fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }
}

impl Session {
    /// Takes a request and says what to send in answer.
    pub fn on_request(
        &mut self,
        mesh: &Mesh,
        request: &DeltaDiscoveryRequest,
    ) -> Option<DeltaDiscoveryResponse> {
        let first = !self.types.contains_key(&request.type_url);
        let subscription = self.types.entry(request.type_url.clone()).or_default();
        let subscribes = &request.resource_names_subscribe;
        // The first request of a type with no names asks for all, as in the xDS protocol.
        subscription.wildcard |=
            (first && subscribes.is_empty()) || subscribes.iter().any(|n| n == "*");
        subscription
            .names
            .extend(subscribes.iter().filter(|n| *n != "*").cloned());
        // Asked for anew means that the proxy wants it sent anew.
        subscribes
            .iter()
            .for_each(|name| drop(subscription.sent.remove(name)));
        for name in &request.resource_names_unsubscribe {
            subscription.wildcard &= name != "*";
            subscription.names.remove(name);
            subscription.sent.remove(name);
        }
        self.difference(mesh, &request.type_url)
    }

    /// Says what to send after a change of the mesh, in the order of [`served_types`].
    pub fn on_change(&mut self, mesh: &Mesh) -> Vec<DeltaDiscoveryResponse> {
        served_types()
            .iter()
            .filter_map(|url| self.difference(mesh, url))
            .collect()
    }

    /// What the proxy wants of a type, and has not got.
    fn difference(&mut self, mesh: &Mesh, type_url: &str) -> Option<DeltaDiscoveryResponse> {
        let subscription = self.types.get_mut(type_url)?;
        let mut now = mesh.resources(type_url);
        now.retain(|name, _| subscription.wants(name));
        let removed: Vec<_> = subscription
            .sent
            .keys()
            .filter(|name| !now.contains_key(*name))
            .cloned()
            .collect();
        let changed: Vec<_> = now
            .iter()
            .filter(|(name, any)| subscription.sent.get(*name) != Some(any))
            .collect();
        if changed.is_empty() && removed.is_empty() {
            return None;
        }
        self.nonce += 1;
        let version = self.nonce.to_string();
        let resource = |(name, any): (&String, &Any)| Resource {
            name: name.clone(),
            version: version.clone(),
            resource: Some(any.clone()),
            ..Resource::default()
        };
        let response = DeltaDiscoveryResponse {
            system_version_info: version.clone(),
            resources: changed.into_iter().map(resource).collect(),
            type_url: type_url.to_owned(),
            removed_resources: removed,
            nonce: version.clone(),
            ..DeltaDiscoveryResponse::default()
        };
        subscription.sent = now;
        Some(response)
    }
}

/// A running control plane. It stops accepting when this is dropped.
#[derive(Debug)]
pub struct ControlPlane {
    /// Where it listens.
    pub address: SocketAddr,
    mesh: watch::Sender<Mesh>,
    progress: Arc<Mutex<Progress>>,
    task: JoinHandle<()>,
}

impl ControlPlane {
    /// Starts on a free port of the loopback.
    pub async fn start(mesh: Mesh) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (mesh, watched) = watch::channel(mesh);
        let progress = Arc::new(Mutex::new(Progress::default()));
        let service = Ads {
            mesh: watched,
            progress: Arc::clone(&progress),
        };
        let task = tokio::spawn(async move {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let server =
                Server::builder().add_service(AggregatedDiscoveryServiceServer::new(service));
            // It serves until this task is aborted: there is nobody left to tell of an error.
            let _ended = server.serve_with_incoming(incoming).await;
        });
        Ok(Self {
            address,
            mesh,
            progress,
            task,
        })
    }

    /// Changes the mesh; what changed is pushed.
    pub fn change(&self, change: impl FnOnce(&mut Mesh)) {
        self.mesh.send_modify(change);
    }

    /// What was pushed and acknowledged so far.
    pub fn progress(&self) -> Progress {
        lock(&self.progress).clone()
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Ads {
    mesh: watch::Receiver<Mesh>,
    progress: Arc<Mutex<Progress>>,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented(
            "this control plane speaks the delta protocol",
        ))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        lock(&self.progress).streams += 1;
        let stream = AdsStream {
            mesh: self.mesh.clone(),
            progress: Arc::clone(&self.progress),
            sender,
        };
        tokio::spawn(stream.run(request.into_inner()));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

struct AdsStream {
    mesh: watch::Receiver<Mesh>,
    progress: Arc<Mutex<Progress>>,
    sender: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
}

impl AdsStream {
    /// Serves the stream until either side ends it.
    async fn run(mut self, mut requests: Streaming<DeltaDiscoveryRequest>) {
        let mut session = Session::default();
        loop {
            let responses = tokio::select! {
                request = requests.message() => {
                    let Ok(Some(request)) = request else { return };
                    lock(&self.progress).answered(&request);
                    let mesh = self.mesh.borrow_and_update().clone();
                    // A change that came with the request is pushed for the other types too.
                    let answer = session.on_request(&mesh, &request);
                    answer.into_iter().chain(session.on_change(&mesh)).collect()
                }
                changed = self.mesh.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let mesh = self.mesh.borrow_and_update().clone();
                    session.on_change(&mesh)
                }
            };
            if self.push(responses).await.is_err() {
                return;
            }
        }
    }

    async fn push(&self, responses: Vec<DeltaDiscoveryResponse>) -> Result<(), ()> {
        for response in responses {
            lock(&self.progress).pushed(&response);
            self.sender.send(Ok(response)).await.map_err(|_| ())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::tests::mesh;
    use envoy_types::pb::google::rpc::Status as PbStatus;

    fn ask(type_url: &str, names: &[&str]) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_subscribe: names.iter().map(|n| (*n).to_owned()).collect(),
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
        response.resources.iter().map(|r| r.name.as_str()).collect()
    }

    #[test]
    fn a_first_request_without_names_gets_all_and_an_ack_gets_nothing() {
        let [cds, ..] = served_types();
        let mut session = Session::default();
        let response = session.on_request(&mesh(), &ask(&cds, &[])).unwrap();
        assert_eq!(names(&response), ["greeter-v1", "greeter-v2"]);
        let ack = DeltaDiscoveryRequest {
            response_nonce: response.nonce,
            ..ask(&cds, &[])
        };
        assert_eq!(session.on_request(&mesh(), &ack), None);
    }

    #[test]
    fn named_subscriptions_get_what_they_name_and_only_what_changed() {
        let [_, eds, ..] = served_types();
        let mut session = Session::default();
        assert_eq!(
            names(
                &session
                    .on_request(&mesh(), &ask(&eds, &["greeter-v2"]))
                    .unwrap()
            ),
            ["greeter-v2"]
        );
        let mut smaller = mesh();
        smaller.v1.pop();
        assert_eq!(
            session.on_change(&smaller),
            [],
            "nobody asked for version 1 yet"
        );
        assert_eq!(
            names(
                &session
                    .on_request(&smaller, &ask(&eds, &["greeter-v1"]))
                    .unwrap()
            ),
            ["greeter-v1"]
        );
        assert_eq!(names(&session.on_change(&mesh())[0]), ["greeter-v1"]);
    }

    #[test]
    fn a_resource_subscribed_again_is_sent_again() {
        let [_, eds, ..] = served_types();
        let mut session = Session::default();
        assert!(
            session
                .on_request(&mesh(), &ask(&eds, &["greeter-v1"]))
                .is_some()
        );
        assert!(
            session
                .on_request(&mesh(), &ask(&eds, &["greeter-v1"]))
                .is_some()
        );
        let leave = DeltaDiscoveryRequest {
            resource_names_unsubscribe: vec!["greeter-v1".to_owned()],
            ..ask(&eds, &[])
        };
        assert_eq!(session.on_request(&mesh(), &leave), None);
    }

    #[test]
    fn progress_tells_an_ack_from_a_nack_and_from_an_old_nonce() {
        let [cds, ..] = served_types();
        let mut progress = Progress::default();
        let pushed = |nonce: &str| DeltaDiscoveryResponse {
            type_url: cds.clone(),
            nonce: nonce.to_owned(),
            ..DeltaDiscoveryResponse::default()
        };
        let answer = |nonce: &str, error: Option<&str>| DeltaDiscoveryRequest {
            response_nonce: nonce.to_owned(),
            error_detail: error.map(|m| PbStatus {
                message: m.to_owned(),
                ..PbStatus::default()
            }),
            ..ask(&cds, &[])
        };
        progress.pushed(&pushed("1"));
        progress.answered(&answer("0", None));
        assert_eq!(progress.types[&cds].acked, 0);
        progress.answered(&answer("1", None));
        assert_eq!(progress.types[&cds].acked, 1);
        progress.pushed(&pushed("2"));
        progress.answered(&answer("2", Some("no such field")));
        assert_eq!(
            (progress.types[&cds].acked, progress.nacks.as_slice()),
            (1, &["CDS: no such field".to_owned()][..])
        );
        assert!(!progress.is_settled());
    }
}
