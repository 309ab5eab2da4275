//! Upstreams and clients of both versions, over loopback.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

/// Bodies of both peers.
pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// The versions that a test runs over.
pub(crate) const VERSIONS: [bool; 2] = [false, true];

/// Nothing in a test takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an upstream does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Answers 200 with the body and the trailers of the request.
    Echo,
    /// Takes in the request, and never answers.
    Silent,
    /// Answers 200 and a first piece, and never ends.
    Endless,
    /// Answers 200 and a first piece, and trailers some time after.
    LateTrailers,
}

/// A request as an upstream saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) headers: HeaderMap,
    pub(crate) path: String,
}

/// An upstream.
#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Requests under way.
    active: Arc<AtomicI64>,
    /// Bytes that silent ones took in.
    taken: Arc<AtomicI64>,
}

/// Counts a request while its service lives.
struct Active(Arc<AtomicI64>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Upstream {
    /// Serves both versions on a port of its own.
    pub(crate) async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            active: Arc::default(),
            taken: Arc::default(),
        };
        let served = upstream.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let served = served.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| served.clone().serve(manner, request));
                    // How the connection ends is up to the proxy.
                    let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        upstream
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// Waits until silent requests took in this many bytes.
    pub(crate) async fn has_taken(&self, bytes: i64) {
        for _ in 0..4000 {
            if self.taken.load(Ordering::Relaxed) >= bytes {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let taken = self.taken.load(Ordering::Relaxed);
        panic!("{taken} bytes were taken in, not {bytes}");
    }

    /// Waits until this many requests are under way.
    pub(crate) async fn has_active(&self, n: i64) {
        for _ in 0..400 {
            if self.active.load(Ordering::Relaxed) == n {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let active = self.active.load(Ordering::Relaxed);
        panic!("{active} requests are under way, not {n}");
    }

    async fn serve(
        self,
        manner: Manner,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, hyper::Error> {
        self.active.fetch_add(1, Ordering::Relaxed);
        let active = Active(self.active.clone());
        let (head, body) = request.into_parts();
        self.seen.lock().push(Seen {
            headers: head.headers,
            path: head.uri.path().to_owned(),
        });
        match manner {
            Manner::Silent => {
                // Who does not read does not see the end of the connection either.
                let mut body = body;
                while let Some(frame) = body.frame().await {
                    let bytes = frame?.into_data().map_or(0, |data| data.len());
                    self.taken.fetch_add(bytes as i64, Ordering::Relaxed);
                }
                std::future::pending().await
            }
            Manner::Endless => {
                let first = tokio_stream::once(Ok(Frame::data(Bytes::from_static(b"first"))));
                let rest = tokio_stream::pending().map(move |frame: Frame<Bytes>| {
                    let _ = &active;
                    Ok::<_, Infallible>(frame)
                });
                let stream = first.chain(rest);
                Ok(Response::new(BodyExt::boxed(StreamBody::new(stream))))
            }
            Manner::LateTrailers => {
                let body = of_any_length(Bytes::from_static(b"first"));
                let late = async {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    Some(Ok(HeaderMap::new()))
                };
                Ok(Response::new(body.with_trailers(Box::pin(late)).boxed()))
            }
            Manner::Echo => {
                let whole = body.collect().await?;
                let trailers = whole.trailers().cloned();
                let echoed = of_any_length(whole.to_bytes());
                Ok(Response::new(match trailers {
                    None => echoed.boxed(),
                    Some(trailers) => echoed
                        .with_trailers(std::future::ready(Some(Ok(trailers))))
                        .boxed(),
                }))
            }
        }
    }
}

/// A body that does not say how long it is, which leaves HTTP/1 a place for
/// trailers.
fn of_any_length(bytes: Bytes) -> Body {
    let piece = (!bytes.is_empty()).then(|| Ok::<_, Infallible>(Frame::data(bytes)));
    BodyExt::boxed(StreamBody::new(tokio_stream::iter(piece)))
}

/// A client's connection.
#[derive(Debug)]
pub(crate) enum Client {
    Http1(hyper::client::conn::http1::SendRequest<Body>),
    Http2(hyper::client::conn::http2::SendRequest<Body>),
}

/// What a client got, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

impl Client {
    /// Connects.
    pub(crate) async fn connect(address: SocketAddr, h2: bool) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let io = TokioIo::new(stream);
        if h2 {
            let (sender, connection) =
                hyper::client::conn::http2::Builder::new(TokioExecutor::new())
                    .handshake(io)
                    .await
                    .unwrap();
            tokio::spawn(connection);
            Self::Http2(sender)
        } else {
            let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            Self::Http1(sender)
        }
    }

    /// Sends a request; the error is that of a stream or connection that was cut.
    pub(crate) async fn send(
        &mut self,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        if let (Self::Http1(_), Some(path)) = (&*self, request.uri().path_and_query()) {
            *request.uri_mut() = path.clone().into();
        }
        let response = async {
            match self {
                Self::Http1(sender) => sender.send_request(request).await,
                Self::Http2(sender) => sender.send_request(request).await,
            }
        };
        tokio::time::timeout(PATIENCE, response)
            .await
            .expect("an answer in time")
    }

    /// Sends a request and takes in the whole answer.
    pub(crate) async fn call(&mut self, request: Request<Body>) -> Result<Answer, hyper::Error> {
        let (head, body) = self.send(request).await?.into_parts();
        let whole = tokio::time::timeout(PATIENCE, body.collect())
            .await
            .expect("a body in time")?;
        let trailers = whole.trailers().cloned().unwrap_or_default();
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: whole.to_bytes(),
            trailers,
        })
    }
}

/// A request without body.
pub(crate) fn get(path: &str) -> Request<Body> {
    let request = Request::builder().uri(format!("http://lab{path}"));
    let request = request.header("host", "lab");
    request.body(Empty::new().boxed()).unwrap()
}

/// A request with a body, and with trailers if there are any.
pub(crate) fn post(body: &[u8], trailers: &[(&'static str, &'static str)]) -> Request<Body> {
    let body = Bytes::copy_from_slice(body);
    let mut map = HeaderMap::new();
    for (name, value) in trailers {
        map.insert(*name, value.parse().unwrap());
    }
    let request = Request::post("http://lab/").header("host", "lab");
    let names: Vec<&str> = trailers.iter().map(|(name, _)| *name).collect();
    let request = match names.is_empty() {
        true => request,
        false => request.header("trailer", names.join(",")),
    };
    let body = match names.is_empty() {
        true => Full::new(body).boxed(),
        false => of_any_length(body)
            .with_trailers(std::future::ready(Some(Ok(map))))
            .boxed(),
    };
    request.body(body).unwrap()
}

/// A call as a client of gRPC sends it.
pub(crate) fn grpc() -> Request<Body> {
    let mut request = post(b"\0\0\0\0\x01x", &[]);
    let headers = request.headers_mut();
    headers.insert("content-type", "application/grpc".parse().unwrap());
    headers.insert("te", "trailers".parse().unwrap());
    request
}

/// A request whose body is sent piece by piece; it ends with the sender.
pub(crate) fn streamed() -> (mpsc::Sender<Bytes>, Request<Body>) {
    let (sender, pieces) = mpsc::channel(16);
    let frames = ReceiverStream::new(pieces).map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
    let body = BodyExt::boxed(StreamBody::new(frames));
    let request = Request::post("http://lab/").header("host", "lab");
    (sender, request.body(body).unwrap())
}
