//! The greeter service: its messages, a server over a [`Greeter`], and a client.
//!
//! Written by hand after `greeter.proto`, in the shape tonic's generator gives.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use prost::Message;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// What is asked.
#[derive(Clone, PartialEq, Message)]
pub struct HelloRequest {
    /// Who asks.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Milliseconds the backend waits before it answers, on top of its own delay.
    #[prost(uint32, tag = "2")]
    pub linger_ms: u32,
}

/// What is answered.
#[derive(Clone, PartialEq, Message)]
pub struct HelloReply {
    /// The greeting.
    #[prost(string, tag = "1")]
    pub message: String,
    /// Which backend answered.
    #[prost(string, tag = "2")]
    pub backend: String,
}

/// The methods of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// Unary.
    SayHello,
    /// Unary.
    SayGoodbye,
    /// Streams its answers.
    StreamHellos,
}

impl Method {
    /// All methods, in the order of the table.
    pub const ALL: [Self; 3] = [Self::SayHello, Self::SayGoodbye, Self::StreamHellos];

    /// The name in the `.proto`.
    pub fn name(self) -> &'static str {
        match self {
            Self::SayHello => "SayHello",
            Self::SayGoodbye => "SayGoodbye",
            Self::StreamHellos => "StreamHellos",
        }
    }

    /// The path of its calls.
    pub fn path(self) -> &'static str {
        match self {
            Self::SayHello => "/demo.Greeter/SayHello",
            Self::SayGoodbye => "/demo.Greeter/SayGoodbye",
            Self::StreamHellos => "/demo.Greeter/StreamHellos",
        }
    }

    fn of_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.path() == path)
    }
}

/// The future of a unary answer.
type Reply = BoxFuture<Response<HelloReply>, Status>;
/// The future of a stream of answers.
type Replies = BoxFuture<Response<ReceiverStream<Result<HelloReply, Status>>>, Status>;

/// What a backend does.
pub trait Greeter: Send + Sync + 'static {
    /// Answers `SayHello` and `SayGoodbye`.
    fn greet(
        self: Arc<Self>,
        method: Method,
        request: HelloRequest,
    ) -> impl Future<Output = Result<HelloReply, Status>> + Send;

    /// Answers `StreamHellos`.
    fn stream(
        self: Arc<Self>,
        request: HelloRequest,
    ) -> impl Future<Output = Result<ReceiverStream<Result<HelloReply, Status>>, Status>> + Send;
}

/// Serves a [`Greeter`] under the name `demo.Greeter`.
#[derive(Debug)]
pub struct GreeterServer<G>(Arc<G>);

impl<G> GreeterServer<G> {
    /// Serves this greeter.
    pub fn new(greeter: Arc<G>) -> Self {
        Self(greeter)
    }
}

impl<G> Clone for GreeterServer<G> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<G> NamedService for GreeterServer<G> {
    const NAME: &'static str = "demo.Greeter";
}

impl<G: Greeter> Service<http::Request<Body>> for GreeterServer<G> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let greeter = Arc::clone(&self.0);
        let method = Method::of_path(request.uri().path());
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
            Ok(match method {
                Some(Method::StreamHellos) => {
                    grpc.server_streaming(StreamCall(greeter), request).await
                }
                Some(method) => grpc.unary(UnaryCall(greeter, method), request).await,
                None => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

struct UnaryCall<G>(Arc<G>, Method);

impl<G: Greeter> Service<Request<HelloRequest>> for UnaryCall<G> {
    type Response = Response<HelloReply>;
    type Error = Status;
    type Future = Reply;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<HelloRequest>) -> Reply {
        let (greeter, method) = (Arc::clone(&self.0), self.1);
        Box::pin(async move {
            greeter
                .greet(method, request.into_inner())
                .await
                .map(Response::new)
        })
    }
}

struct StreamCall<G>(Arc<G>);

impl<G: Greeter> tonic::server::ServerStreamingService<HelloRequest> for StreamCall<G> {
    type Response = HelloReply;
    type ResponseStream = ReceiverStream<Result<HelloReply, Status>>;
    type Future = Replies;

    fn call(&mut self, request: Request<HelloRequest>) -> Replies {
        let greeter = Arc::clone(&self.0);
        Box::pin(async move {
            greeter
                .stream(request.into_inner())
                .await
                .map(Response::new)
        })
    }
}

/// A client of the service on one channel.
#[derive(Debug, Clone)]
pub struct GreeterClient(Grpc<Channel>);

impl GreeterClient {
    /// Calls over this channel.
    pub fn new(channel: Channel) -> Self {
        Self(Grpc::new(channel))
    }

    /// Calls `SayHello` or `SayGoodbye`.
    pub async fn greet(
        &mut self,
        method: Method,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        self.ready().await?;
        self.0
            .unary(
                request,
                PathAndQuery::from_static(method.path()),
                ProstCodec::default(),
            )
            .await
    }

    /// Calls `StreamHellos`.
    pub async fn stream(
        &mut self,
        request: Request<HelloRequest>,
    ) -> Result<Response<Streaming<HelloReply>>, Status> {
        self.ready().await?;
        let path = PathAndQuery::from_static(Method::StreamHellos.path());
        self.0
            .server_streaming(request, path, ProstCodec::default())
            .await
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.0
            .ready()
            .await
            .map_err(|e| Status::unknown(format!("the channel is not ready: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_their_methods() {
        for method in Method::ALL {
            assert_eq!(Method::of_path(method.path()), Some(method));
            assert!(method.path().ends_with(method.name()));
        }
        assert_eq!(Method::of_path("/demo.Greeter/Shout"), None);
    }
}
