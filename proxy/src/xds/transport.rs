//! Streams to control planes, over the proxy's own clusters.
//!
//! The `timeout` of a gRPC service is for unary calls; like Envoy, a stream of resources has none.

use http::uri::PathAndQuery;
use outrigger_config::ir::ApiConfigSource;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::{IntoStreamingRequest, Status};
use tonic_prost::ProstCodec;
use xds_api::pb::envoy::service::discovery::v3 as pb;
use xds_client::message::{Request, Response, Variant};
use xds_client::transport::{Opening, Responses, Transport};

use crate::grpc_client::GrpcClient;

/// Most bytes of one response. Pushes to a sidecar of a big mesh have tens of megabytes.
const MAX_RESPONSE: usize = 256 << 20;

/// Opens the streams of one source.
pub(crate) struct GrpcTransport {
    client: GrpcClient,
    method: &'static str,
    variant: Variant,
}

impl GrpcTransport {
    /// A transport over `client` for the method `method`.
    pub(crate) fn new(client: GrpcClient, method: &'static str, source: &ApiConfigSource) -> Self {
        Self {
            client,
            method,
            variant: variant(source),
        }
    }
}

/// The protocol of a source.
pub(crate) fn variant(source: &ApiConfigSource) -> Variant {
    if source.delta {
        Variant::Delta
    } else {
        Variant::StateOfTheWorld
    }
}

impl Transport for GrpcTransport {
    fn open(&mut self, requests: mpsc::Receiver<Request>) -> Opening {
        let grpc = Grpc::new(self.client.clone()).max_decoding_message_size(MAX_RESPONSE);
        let path = PathAndQuery::from_static(self.method);
        let requests = ReceiverStream::new(requests);
        match self.variant {
            Variant::StateOfTheWorld => {
                let requests = requests.filter_map(|request| match request {
                    Request::Whole(message) => Some(*message),
                    Request::Delta(_) => None,
                });
                open(grpc, path, requests, |m: pb::DiscoveryResponse| {
                    Response::Whole(Box::new(m))
                })
            }
            Variant::Delta => {
                let requests = requests.filter_map(|request| match request {
                    Request::Delta(message) => Some(*message),
                    Request::Whole(_) => None,
                });
                open(grpc, path, requests, |m: pb::DeltaDiscoveryResponse| {
                    Response::Delta(Box::new(m))
                })
            }
        }
    }
}

fn open<M, R>(
    mut grpc: Grpc<GrpcClient>,
    path: PathAndQuery,
    requests: impl tokio_stream::Stream<Item = M> + Send + 'static,
    wrap: fn(R) -> Response,
) -> Opening
where
    M: prost::Message + Send + Sync + 'static,
    R: prost::Message + Default + Send + Sync + 'static,
{
    Box::pin(async move {
        grpc.ready().await.map_err(|e| describe(&e))?;
        let request = requests.into_streaming_request();
        let codec = ProstCodec::<M, R>::default();
        let answer = grpc.streaming(request, path, codec).await;
        let stream = answer.map_err(|e| describe(&e))?.into_inner();
        let responses = stream.map(move |item| item.map(wrap).map_err(|e| describe(&e)));
        Ok(Box::pin(responses) as Responses)
    })
}

fn describe(status: &Status) -> String {
    format!("{}, {}", i32::from(status.code()), status.message())
}
