//! Tests of the HTTP/2 codec: two of our own ends, or one end and a script of
//! frames, over a pipe in memory.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use outrigger_stats::Store;
use outrigger_types::{
    Buffer, HeaderName, HeaderValue, Headers, Method, RequestHead, ResetReason, ResponseHead,
    Scheme, StatusCode,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;
use crate::http::codec::{BodyEvent, HeadEvent, StreamError, UnderscoresAction};
use crate::http::codec_stats::CodecStats;
use crate::network::io::Io;

mod keepalive;
mod limits;
mod malformed;
mod streams;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `:method: GET`, `:scheme: http`, `:path: /`, `:authority: a`.
const GET: &[u8] = b"\x82\x86\x84\x41\x01a";

fn headers(fields: &[(&'static str, &'static str)]) -> Headers {
    fields
        .iter()
        .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
        .collect()
}

fn request(method: Method) -> RequestHead {
    let mut head = RequestHead::new(method, "/p?q");
    head.authority = Some(Bytes::from_static(b"h:1"));
    head.headers = headers(&[("x", "1"), ("y", "2"), ("x", "3"), ("te", "trailers")]);
    head
}

fn ok() -> ResponseHead {
    ResponseHead::new(StatusCode::OK)
}

/// A store, and the cells of a codec in it.
fn cells() -> (Store, CodecStats) {
    let store = Store::default();
    let cells = CodecStats::from(&store.scope("http2.").slab());
    (store, cells)
}

fn server(io: Io, options: Options) -> ServerConnection {
    ServerConnection::new(io, Arc::new(options), cells().1)
}

fn counted(store: &Store, name: &str) -> u64 {
    store.counter_value(&format!("http2.{name}")).unwrap_or(0)
}

/// Both ends, connected, the client's driver running.
async fn pair(ours: Options, client: Options) -> (ServerConnection, ClientHandle) {
    let (near, far) = Io::pair(1 << 20);
    let mut connection = server(near, ours);
    let shake = ClientConnection::handshake(far, Arc::new(client), cells().1);
    let (driver, handle) = shake.await.unwrap();
    tokio::spawn(driver);
    poll_fn(|cx| {
        assert!(connection.poll_accept(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    (connection, handle)
}

async fn defaults() -> (ServerConnection, ClientHandle) {
    pair(Options::default(), Options::default()).await
}

/// The next request; the connection is driven on in a task of its own.
async fn accept(
    mut connection: ServerConnection,
) -> (Accepted, JoinHandle<Vec<Result<Next, ConnError>>>) {
    let accepted = poll_fn(|cx| connection.poll_accept(cx)).await;
    let task = tokio::spawn(async move {
        let mut rest = Vec::new();
        while let Some(next) = poll_fn(|cx| connection.poll_accept(cx)).await {
            rest.push(next);
        }
        rest
    });
    (request_of(accepted), task)
}

fn request_of(next: Option<Result<Next, ConnError>>) -> Accepted {
    match next {
        Some(Ok(Next::Request(accepted))) => accepted,
        other => panic!("no request: {other:?}"),
    }
}

async fn head_of(stream: &mut ClientStream) -> Result<HeadEvent, StreamError> {
    poll_fn(|cx| stream.poll_head(cx)).await
}

async fn send(stream: &mut ServerStream, data: &'static [u8], end: bool) {
    let mut data = Buffer::from(Bytes::from_static(data));
    poll_fn(|cx| stream.poll_send_data(cx, &mut data, end))
        .await
        .unwrap();
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Kind, flags, stream and payload of each frame.
fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut found = Vec::new();
    while bytes.len() >= 9 {
        let len = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        let stream = u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]);
        found.push((bytes[3], bytes[4], stream, bytes[9..9 + len].to_vec()));
        bytes = &bytes[9 + len..];
    }
    found
}

/// What the server says, and how it ends, when a client sends this.
async fn play(options: Options, script: &[u8]) -> (Vec<(u8, u8, u32, Vec<u8>)>, Option<ConnError>) {
    let (near, mut far) = Io::pair(1 << 22);
    let mut connection = server(near, options);
    far.write_all(PREFACE).await.unwrap();
    far.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    far.write_all(script).await.unwrap();
    let mut held = Vec::new();
    let mut end = None;
    for _ in 0..200 {
        let next = poll_fn(|cx| Poll::Ready(connection.poll_accept(cx))).await;
        match next {
            Poll::Ready(Some(Ok(accepted))) => held.push(accepted),
            Poll::Ready(Some(Err(error))) => end = Some(error),
            Poll::Ready(None) => break,
            Poll::Pending => tokio::task::yield_now().await,
        }
    }
    connection.close();
    drop(held);
    drop(connection);
    let mut said = Vec::new();
    far.read_to_end(&mut said).await.unwrap();
    (frames(&said), end)
}
