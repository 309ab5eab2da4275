//! gRPC calls of the proxy itself, over its own clusters.
//!
//! [`GrpcClient`] is what tonic's stubs call in place of a channel: the call takes a host, a connection
//! and a stream from the cluster as a request of a client would, so that load balancing, circuit breakers,
//! pipes, HTTP/2 options and the cluster's stats hold for it too.
//!
//! Nothing is spawned: until the head of the response is there the call's future sends the request's body,
//! afterwards the response's body does. Flow-control credit goes back when tonic takes the bytes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body as _, Frame};
use outrigger_types::{Buffer, Headers, Protocol, RequestHead, ResponseHead, Scheme};
use tonic::Status;
use tonic::body::Body;

use crate::http::codec::{BodyEvent, HeadEvent, StreamError};
use crate::server::worker::Worker;
use crate::upstream::cluster::{Wanted, WorkerCluster};
use crate::upstream::lb::LbContext;
use crate::upstream::pool::{Acquire, Speaks, UpstreamStream};
use crate::upstream::stats::ClusterStats;

/// A client of one cluster.
#[derive(Clone)]
pub struct GrpcClient {
    worker: Arc<Worker>,
    cluster: Arc<str>,
    authority: Bytes,
    metadata: Arc<[(HeaderName, HeaderValue)]>,
}

impl GrpcClient {
    /// A client of the cluster `cluster` of `worker`, which must be the one of this thread. `authority` is
    /// the cluster's name unless given; `metadata` goes with every call.
    pub fn new(
        worker: Arc<Worker>,
        cluster: Arc<str>,
        authority: Option<&str>,
        metadata: &[(Arc<str>, Arc<str>)],
    ) -> Self {
        let field = |(name, value): &(Arc<str>, Arc<str>)| {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            Some((name, HeaderValue::from_bytes(value.as_bytes()).ok()?))
        };
        let authority = authority.unwrap_or(&cluster);
        Self {
            authority: Bytes::copy_from_slice(authority.as_bytes()),
            metadata: metadata.iter().filter_map(field).collect(),
            worker,
            cluster,
        }
    }

    fn head(&self, parts: http::request::Parts) -> RequestHead {
        let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
        let mut head = RequestHead::new(parts.method, Bytes::copy_from_slice(path.as_bytes()));
        head.scheme = Scheme::Http;
        head.authority = Some(self.authority.clone());
        for (name, value) in &parts.headers {
            head.headers.append(name.clone(), value.clone());
        }
        for (name, value) in &*self.metadata {
            head.headers.append(name.clone(), value.clone());
        }
        head
    }
}

impl tower_service::Service<http::Request<Body>> for GrpcClient {
    type Response = http::Response<ResponseBody>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (parts, body) = request.into_parts();
        let head = self.head(parts);
        let cluster = self.worker.cluster_for_call(&self.cluster);
        let name = self.cluster.clone();
        Box::pin(async move {
            let Some(cluster) = cluster else {
                return Err(Status::unavailable(format!(
                    "Cluster not available: {name}"
                )));
            };
            let stream = start(&cluster, head).await?;
            let mut call = Call {
                stream,
                upload: Some(Upload {
                    body,
                    data: Buffer::new(),
                    ended: false,
                }),
            };
            let (head, ended) = std::future::poll_fn(|cx| call.poll_head(cx)).await?;
            cluster.charge_code(head.status.as_u16(), true, false);
            Ok(response(head, (!ended).then_some(call)))
        })
    }
}

/// Chooses a host, waits for a connection and sends the head.
async fn start(cluster: &Arc<WorkerCluster>, head: RequestHead) -> Result<UpstreamStream, Status> {
    let Some(host) = cluster.choose(&LbContext::default()).host else {
        cluster.stats.inc(ClusterStats::upstream_cx_none_healthy);
        return Err(Status::unavailable("no healthy upstream"));
    };
    let speaks = cluster.info.speaks(Protocol::Http2);
    if !matches!(speaks, Speaks::Http2 | Speaks::Agreed) {
        return Err(Status::internal("the cluster does not speak HTTP/2"));
    }
    let wanted = Wanted {
        speaks,
        ..Wanted::default()
    };
    let attached = match cluster.acquire(&host, wanted) {
        Acquire::Ready(attached) => attached,
        Acquire::Pending(mut pending) => std::future::poll_fn(|cx| pending.poll(cx))
            .await
            .map_err(|failure| {
                let why = failure.transport_failure.as_deref().unwrap_or_default();
                unavailable(failure.reason.as_str(), why)
            })?,
        Acquire::Failed(failure) => return Err(unavailable(failure.reason.as_str(), "")),
        Acquire::NoPool => return Err(Status::unavailable("no healthy upstream")),
    };
    attached.start(head, false).map_err(|e| broken(&e))
}

fn unavailable(reason: &str, why: &str) -> Status {
    Status::unavailable(format!("{reason} {why}").trim_end().to_owned())
}

fn broken(error: &StreamError) -> Status {
    Status::unavailable(error.to_string())
}

fn response(head: ResponseHead, call: Option<Call>) -> http::Response<ResponseBody> {
    let mut response = http::Response::new(ResponseBody { call });
    *response.status_mut() = head.status;
    *response.headers_mut() = header_map(&head.headers);
    response
}

fn header_map(fields: &Headers) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields.iter() {
        map.append(name.clone(), value.clone());
    }
    map
}

/// A call under way. Dropping it resets the stream.
struct Call {
    stream: UpstreamStream,
    /// What is still to be sent.
    upload: Option<Upload>,
}

struct Upload {
    body: Body,
    data: Buffer,
    /// The body has ended; `data` is the last of it.
    ended: bool,
}

impl Call {
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(ResponseHead, bool), Status>> {
        self.poll_upload(cx)?;
        loop {
            match std::task::ready!(self.stream.stream().poll_head(cx)).map_err(|e| broken(&e))? {
                HeadEvent::Informational(_) => {}
                HeadEvent::Final { head, end_stream } => {
                    return Poll::Ready(Ok((head, end_stream)));
                }
            }
        }
    }

    /// Sends what there is to send and room for.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Status> {
        while let Some(upload) = &mut self.upload {
            if upload.data.is_empty() && !upload.ended {
                match Pin::new(&mut upload.body).poll_frame(cx) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(None) => upload.ended = true,
                    Poll::Ready(Some(frame)) => {
                        if let Ok(data) = frame?.into_data() {
                            upload.data.push(data);
                        }
                        continue;
                    }
                }
            }
            let stream = self.stream.stream();
            match stream.poll_send_data(cx, &mut upload.data, upload.ended) {
                Poll::Pending => return Ok(()),
                Poll::Ready(sent) => sent.map_err(|e| broken(&e))?,
            };
            if upload.ended && upload.data.is_empty() {
                self.upload = None;
            }
        }
        Ok(())
    }
}

/// The body of a response. Dropping it before its end resets the stream.
pub struct ResponseBody {
    call: Option<Call>,
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(call) = &mut self.call else {
            return Poll::Ready(None);
        };
        let event = match call.poll_upload(cx) {
            Ok(()) => std::task::ready!(call.stream.stream().poll_recv(cx)).map_err(|e| broken(&e)),
            Err(status) => Err(status),
        };
        let (frame, over) = match event {
            Ok(BodyEvent::Data { bytes, end_stream }) => {
                call.stream.stream().release(bytes.len());
                (Some(Ok(Frame::data(bytes))), end_stream)
            }
            Ok(BodyEvent::Trailers(fields)) => {
                (Some(Ok(Frame::trailers(header_map(&fields)))), true)
            }
            Ok(BodyEvent::End) => (None, true),
            Err(status) => (Some(Err(status)), true),
        };
        if over {
            self.call = None;
        }
        Poll::Ready(frame)
    }
}
