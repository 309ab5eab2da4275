//! The admin endpoint: Envoy's pages on the bootstrap's admin address.
//!
//! Connections are served by hyper on the main thread's runtime. A request is
//! handed as a [`Call`] to the main loop, which owns everything that pages show
//! and answers between two of its other duties: no lock, no torn view.

mod clusters;
mod config_dump;
mod pages;
mod query;
mod server_info;

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, SERVER};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use outrigger_types::Address;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot};

pub use pages::{AdminContext, ServerState, answer};
pub use server_info::resident_bytes;

/// Calls that may wait for the main loop.
const WAITING_CALLS: usize = 64;
/// Time a client has for the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// A request for a page.
#[derive(Debug)]
pub struct Call {
    /// Its method.
    pub method: Method,
    /// Its path.
    pub path: String,
    /// What follows `?`.
    pub query: String,
    /// Where the page goes.
    pub reply: oneshot::Sender<Page>,
}

/// A page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its status.
    pub status: StatusCode,
    /// Its content type.
    pub content_type: &'static str,
    /// Its body.
    pub body: String,
}

/// Plain text, as Envoy labels it.
const TEXT: &str = "text/plain; charset=UTF-8";
const JSON: &str = "application/json";

impl Page {
    /// A text with status 200.
    pub fn text(body: impl Into<String>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: TEXT,
            body: body.into(),
        }
    }

    /// A JSON value with status 200, indented by one blank as Envoy's.
    pub fn json(value: &serde_json::Value) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: JSON,
            body: pretty(value),
        }
    }

    /// A text with another status.
    pub fn error(status: StatusCode, body: impl Into<String>) -> Self {
        Self {
            status,
            content_type: TEXT,
            body: body.into(),
        }
    }
}

fn pretty(value: &serde_json::Value) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    // A value in memory is always written.
    let written = serde::Serialize::serialize(value, &mut serializer);
    debug_assert!(written.is_ok());
    out.push(b'\n');
    String::from_utf8_lossy(&out).into_owned()
}

/// The bound admin socket.
pub enum AdminListener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix domain socket.
    Unix(UnixListener),
}

impl AdminListener {
    /// Binds the admin address.
    ///
    /// # Errors
    /// The system's, with the address.
    pub async fn bind(address: &Address) -> Result<Self, String> {
        let bound = match address {
            Address::Ip(addr) => TcpListener::bind(addr).await.map(Self::Tcp),
            Address::Pipe(path) => UnixListener::bind(&**path).map(Self::Unix),
            Address::Internal(..) => return Err("the admin address cannot be internal".to_owned()),
        };
        bound.map_err(|e| format!("cannot bind the admin address '{address}': {e}"))
    }

    /// The address as bound.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(tcp) => tcp.local_addr().map(|a| a.to_string()).unwrap_or_default(),
            Self::Unix(unix) => {
                let addr = unix.local_addr().ok();
                addr.and_then(|a| a.as_pathname().map(|p| p.display().to_string()))
                    .unwrap_or_default()
            }
        }
    }
}

/// Serves the endpoint; calls come out of the receiver.
pub fn serve(listener: AdminListener) -> mpsc::Receiver<Call> {
    let (calls, receiver) = mpsc::channel(WAITING_CALLS);
    tokio::spawn(async move {
        loop {
            let accepted = match &listener {
                AdminListener::Tcp(tcp) => tcp.accept().await.map(|(s, _)| {
                    tokio::spawn(connection(TokioIo::new(s), calls.clone()));
                }),
                AdminListener::Unix(unix) => unix.accept().await.map(|(s, _)| {
                    tokio::spawn(connection(TokioIo::new(s), calls.clone()));
                }),
            };
            if let Err(error) = accepted {
                tracing::warn!(target: "admin", %error, "accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    });
    receiver
}

async fn connection<S>(io: TokioIo<S>, calls: mpsc::Sender<Call>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let service = service_fn(move |request| respond(request, calls.clone()));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(io, service)
        .await;
    if let Err(error) = served {
        tracing::debug!(target: "admin", %error, "an admin connection ended");
    }
}

async fn respond(
    request: Request<Incoming>,
    calls: mpsc::Sender<Call>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (reply, page) = oneshot::channel();
    let call = Call {
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        reply,
    };
    let page = match calls.send(call).await {
        Ok(()) => page.await.ok(),
        Err(_) => None,
    };
    let page =
        page.unwrap_or_else(|| Page::error(StatusCode::SERVICE_UNAVAILABLE, "shutting down"));
    let mut response = Response::new(Full::new(Bytes::from(page.body)));
    *response.status_mut() = page.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("no-cache, max-age=0"),
    );
    headers.insert(
        "x-content-type-options",
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(SERVER, HeaderValue::from_static("envoy"));
    Ok(response)
}
