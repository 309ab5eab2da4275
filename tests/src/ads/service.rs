//! The gRPC services of the control plane.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::server::Router;
use tonic::{Request, Response, Status, Streaming};
use xds_api::pb::envoy::service::discovery::v3 as pb;
use xds_api::pb::envoy::service::{
    cluster::v3 as cluster, endpoint::v3 as endpoint, listener::v3 as listener, route::v3 as route,
    secret::v3 as secret,
};

use super::{Out, Seen, Shared, short_type};

/// All services over one state.
pub(super) fn router(shared: &Arc<Shared>) -> Router {
    use cluster::cluster_discovery_service_server::ClusterDiscoveryServiceServer;
    use endpoint::endpoint_discovery_service_server::EndpointDiscoveryServiceServer;
    use listener::listener_discovery_service_server::ListenerDiscoveryServiceServer;
    use pb::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
    use route::route_discovery_service_server::RouteDiscoveryServiceServer;
    use secret::secret_discovery_service_server::SecretDiscoveryServiceServer;
    let service = || Service(Arc::clone(shared));
    tonic::transport::Server::builder()
        .add_service(AggregatedDiscoveryServiceServer::new(service()))
        .add_service(ClusterDiscoveryServiceServer::new(service()))
        .add_service(EndpointDiscoveryServiceServer::new(service()))
        .add_service(ListenerDiscoveryServiceServer::new(service()))
        .add_service(RouteDiscoveryServiceServer::new(service()))
        .add_service(SecretDiscoveryServiceServer::new(service()))
}

struct Service(Arc<Shared>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    fn whole(
        &self,
        kind: Option<&'static str>,
        request: Request<Streaming<pb::DiscoveryRequest>>,
    ) -> Response<Answers<pb::DiscoveryResponse>> {
        let (out, answers) = mpsc::unbounded_channel();
        let stream = self.0.open(kind, Out::Whole(out));
        let shared = Arc::clone(&self.0);
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                shared.record(whole(stream, request));
            }
        });
        Response::new(Box::pin(UnboundedReceiverStream::new(answers)))
    }

    fn incremental(
        &self,
        kind: Option<&'static str>,
        request: Request<Streaming<pb::DeltaDiscoveryRequest>>,
    ) -> Response<Answers<pb::DeltaDiscoveryResponse>> {
        let (out, answers) = mpsc::unbounded_channel();
        let stream = self.0.open(kind, Out::Incremental(out));
        let shared = Arc::clone(&self.0);
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                shared.record(incremental(stream, request));
            }
        });
        Response::new(Box::pin(UnboundedReceiverStream::new(answers)))
    }
}

#[tonic::async_trait]
impl pb::aggregated_discovery_service_server::AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Answers<pb::DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<pb::DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<pb::DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Ok(self.whole(None, request))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<pb::DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Ok(self.incremental(None, request))
    }
}

/// The service of one type: the two kinds of streams, and no polling.
macro_rules! service {
    ($kind:literal, $($path:ident)::+, $stream:ident $whole:ident, $delta:ident $incremental:ident, $fetch:ident) => {
        #[tonic::async_trait]
        impl $($path)::+ for Service {
            type $stream = Answers<pb::DiscoveryResponse>;
            type $delta = Answers<pb::DeltaDiscoveryResponse>;

            async fn $whole(
                &self,
                request: Request<Streaming<pb::DiscoveryRequest>>,
            ) -> Result<Response<Self::$stream>, Status> {
                Ok(self.whole(Some($kind), request))
            }

            async fn $incremental(
                &self,
                request: Request<Streaming<pb::DeltaDiscoveryRequest>>,
            ) -> Result<Response<Self::$delta>, Status> {
                Ok(self.incremental(Some($kind), request))
            }

            async fn $fetch(
                &self,
                _request: Request<pb::DiscoveryRequest>,
            ) -> Result<Response<pb::DiscoveryResponse>, Status> {
                Err(Status::unimplemented("nobody polls"))
            }
        }
    };
}

service!(
    "cluster",
    cluster::cluster_discovery_service_server::ClusterDiscoveryService,
    StreamClustersStream stream_clusters,
    DeltaClustersStream delta_clusters,
    fetch_clusters
);
service!(
    "endpoints",
    endpoint::endpoint_discovery_service_server::EndpointDiscoveryService,
    StreamEndpointsStream stream_endpoints,
    DeltaEndpointsStream delta_endpoints,
    fetch_endpoints
);
service!(
    "listener",
    listener::listener_discovery_service_server::ListenerDiscoveryService,
    StreamListenersStream stream_listeners,
    DeltaListenersStream delta_listeners,
    fetch_listeners
);
service!(
    "route",
    route::route_discovery_service_server::RouteDiscoveryService,
    StreamRoutesStream stream_routes,
    DeltaRoutesStream delta_routes,
    fetch_routes
);

service!(
    "secret",
    secret::secret_discovery_service_server::SecretDiscoveryService,
    StreamSecretsStream stream_secrets,
    DeltaSecretsStream delta_secrets,
    fetch_secrets
);

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
