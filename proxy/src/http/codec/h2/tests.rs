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

#[tokio::test]
async fn carries_heads_bodies_trailers_and_interim_heads() {
    let (connection, mut handle) = defaults().await;
    let mut up = handle.send_request(request(Method::POST), false).unwrap();
    let (accepted, _task) = accept(connection).await;
    let (head, mut down) = (accepted.head, accepted.stream);
    assert_eq!(
        (&head.path[..], head.authority_bytes()),
        (&b"/p?q"[..], &b"h:1"[..])
    );
    assert_eq!((head.method, head.scheme), (Method::POST, Scheme::Http));
    assert_eq!(head.headers.len(), 4);
    assert!(!accepted.end_stream);
    let mut data = Buffer::from(Bytes::from_static(b"abc"));
    poll_fn(|cx| up.poll_send_data(cx, &mut data, false))
        .await
        .unwrap();
    up.send_trailers(headers(&[("t", "1")])).unwrap();
    let body = poll_fn(|cx| down.poll_recv(cx)).await.unwrap();
    assert_eq!(
        body,
        BodyEvent::Data {
            bytes: Bytes::from_static(b"abc"),
            end_stream: false
        }
    );
    down.release(3);
    let trailers = poll_fn(|cx| down.poll_recv(cx)).await.unwrap();
    assert_eq!(trailers, BodyEvent::Trailers(headers(&[("t", "1")])));
    let early = ResponseHead::new(StatusCode::from_u16(103).unwrap());
    down.send_informational(early.clone()).unwrap();
    assert_eq!(
        head_of(&mut up).await.unwrap(),
        HeadEvent::Informational(early)
    );
    let mut final_head = ok();
    final_head.headers = headers(&[("connection", "close"), ("a", "b")]);
    down.send_head(final_head, false).unwrap();
    send(&mut down, b"hello", true).await;
    let HeadEvent::Final { head, end_stream } = head_of(&mut up).await.unwrap() else {
        panic!("the final head");
    };
    assert_eq!((head.headers, end_stream), (headers(&[("a", "b")]), false));
    let body = poll_fn(|cx| up.poll_recv(cx)).await.unwrap();
    assert_eq!(
        body,
        BodyEvent::Data {
            bytes: Bytes::from_static(b"hello"),
            end_stream: true
        }
    );
    assert_eq!(handle.active_streams(), 1);
    drop(up);
    assert_eq!(handle.active_streams(), 0);
}

#[tokio::test]
async fn sending_stops_at_the_window_until_it_is_released() {
    let small = Options {
        initial_stream_window_size: 10,
        ..Options::default()
    };
    let (connection, mut handle) = pair(small, Options::default()).await;
    poll_fn(|cx| handle.poll_ready(cx)).await.unwrap();
    tokio::task::yield_now().await;
    let mut up = handle.send_request(request(Method::POST), false).unwrap();
    let (mut accepted, _task) = accept(connection).await;
    let mut data = Buffer::from(Bytes::from_static(b"0123456789abcdef"));
    let sent = poll_fn(|cx| up.poll_send_data(cx, &mut data, true))
        .await
        .unwrap();
    assert_eq!((sent, data.len()), (10, 6));
    let mut read = 0;
    while read < 10 {
        let event = poll_fn(|cx| accepted.stream.poll_recv(cx)).await.unwrap();
        let BodyEvent::Data {
            bytes,
            end_stream: false,
        } = event
        else {
            panic!("more is to come")
        };
        read += bytes.len();
    }
    poll_fn(|cx| {
        assert!(up.poll_send_data(cx, &mut data, true).is_pending());
        Poll::Ready(())
    })
    .await;
    accepted.stream.release(10);
    let sent = poll_fn(|cx| up.poll_send_data(cx, &mut data, true))
        .await
        .unwrap();
    assert_eq!((sent, data.len()), (6, 0));
}

#[tokio::test]
async fn resets_reach_the_other_end_with_envoys_codes() {
    for (reason, code, seen) in [
        (ResetReason::LocalReset, 2, ResetReason::RemoteReset),
        (
            ResetReason::LocalRefusedStreamReset,
            7,
            ResetReason::RemoteRefusedStreamReset,
        ),
        (ResetReason::ConnectError, 10, ResetReason::ConnectError),
        (ResetReason::ProtocolError, 1, ResetReason::ProtocolError),
    ] {
        let (connection, mut handle) = defaults().await;
        let mut up = handle.send_request(request(Method::POST), false).unwrap();
        let (mut accepted, _task) = accept(connection).await;
        accepted.stream.reset(reason);
        let error = head_of(&mut up).await.unwrap_err();
        assert_eq!(
            (error.reason, error.code, error.remote),
            (seen, Some(code), true)
        );
        assert_eq!(poll_fn(|cx| up.poll_reset(cx)).await.reason, seen);
    }
    let (connection, mut handle) = defaults().await;
    let mut up = handle.send_request(request(Method::POST), false).unwrap();
    let (mut accepted, _task) = accept(connection).await;
    up.reset(ResetReason::LocalReset);
    let error = poll_fn(|cx| accepted.stream.poll_reset(cx)).await;
    assert_eq!(
        (error.reason, error.code),
        (ResetReason::RemoteReset, Some(2))
    );
}

#[tokio::test]
async fn an_early_answer_is_whole_though_a_reset_follows() {
    let (connection, mut handle) = defaults().await;
    let mut up = handle.send_request(request(Method::POST), false).unwrap();
    let (mut accepted, _task) = accept(connection).await;
    accepted.stream.send_head(ok(), false).unwrap();
    send(&mut accepted.stream, b"done", true).await;
    drop(accepted);
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(
        head_of(&mut up).await,
        Ok(HeadEvent::Final { .. })
    ));
    let data = poll_fn(|cx| up.poll_recv(cx)).await.unwrap();
    let BodyEvent::Data { bytes, end_stream } = data else {
        panic!("data")
    };
    assert_eq!(&bytes[..], b"done");
    if !end_stream {
        assert_eq!(poll_fn(|cx| up.poll_recv(cx)).await, Ok(BodyEvent::End));
    }
}

#[tokio::test]
async fn a_lost_connection_terminates_its_streams() {
    let (connection, mut handle) = defaults().await;
    let mut up = handle.send_request(request(Method::GET), true).unwrap();
    let (accepted, task) = accept(connection).await;
    task.abort();
    let _ = task.await;
    drop(accepted);
    let error = head_of(&mut up).await.unwrap_err();
    assert_eq!(error.reason, ResetReason::ConnectionTermination);
}

#[tokio::test]
async fn a_drain_finishes_open_streams_and_takes_no_new_ones() {
    let (mut connection, mut handle) = defaults().await;
    let mut up = handle.send_request(request(Method::GET), true).unwrap();
    let accepted = poll_fn(|cx| connection.poll_accept(cx)).await;
    let mut accepted = request_of(accepted);
    connection.graceful_shutdown();
    let task = tokio::spawn(async move {
        let rest = poll_fn(|cx| connection.poll_accept(cx)).await;
        rest.is_none()
    });
    while !handle.is_draining() {
        tokio::task::yield_now().await;
    }
    let refused = handle.send_request(request(Method::GET), true).unwrap_err();
    assert_eq!(refused.reason, ResetReason::RemoteRefusedStreamReset);
    accepted.stream.send_head(ok(), true).unwrap();
    assert!(matches!(
        head_of(&mut up).await,
        Ok(HeadEvent::Final {
            end_stream: true,
            ..
        })
    ));
    drop((up, accepted));
    assert!(task.await.unwrap());
}

#[tokio::test]
async fn streams_above_a_goaways_last_id_were_refused() {
    let (near, mut far) = Io::pair(1 << 16);
    let shake = ClientConnection::handshake(near, Arc::new(Options::default()), cells().1).await;
    let (driver, mut handle) = shake.unwrap();
    tokio::spawn(driver);
    let mut up = handle.send_request(request(Method::GET), true).unwrap();
    far.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    far.write_all(&frame(7, 0, 0, &[0; 8])).await.unwrap();
    let error = head_of(&mut up).await.unwrap_err();
    assert_eq!(error.reason, ResetReason::RemoteRefusedStreamReset);
}

#[tokio::test]
async fn advertises_envoys_settings_and_windows() {
    let (said, end) = play(Options::default(), &[]).await;
    assert_eq!(end, None);
    let settings = &said[0].3;
    let value = |id: u8| {
        let found = settings.chunks(6).find(|s| s[1] == id)?;
        Some(u32::from_be_bytes([found[2], found[3], found[4], found[5]]))
    };
    assert_eq!(
        (said[0].0, value(1), value(3), value(4)),
        (4, Some(4096), Some(1024), Some(16 << 20))
    );
    let window = said.iter().find(|f| f.0 == 8).expect("a WINDOW_UPDATE");
    assert_eq!(window.3, (24u32 * 1024 * 1024 - 65_535).to_be_bytes());
}

#[tokio::test]
async fn extended_connect_needs_to_be_allowed() {
    let allowed = Options {
        allow_connect: true,
        ..Options::default()
    };
    let (mut connection, mut handle) = pair(allowed, Options::default()).await;
    while !handle.takes_extended_connect() {
        poll_fn(|cx| Poll::Ready(connection.poll_accept(cx).is_ready())).await;
        tokio::task::yield_now().await;
    }
    let mut head = request(Method::CONNECT);
    head.protocol = Some(Bytes::from_static(b"websocket"));
    let _up = handle.send_request(head, false).unwrap();
    let (accepted, _task) = accept(connection).await;
    assert_eq!(accepted.head.protocol.as_deref(), Some(&b"websocket"[..]));
    assert_eq!(
        (&accepted.head.path[..], accepted.end_stream),
        (&b"/p?q"[..], false)
    );
}

#[tokio::test]
async fn heads_over_the_limits_are_reset() {
    let get = frame(1, 5, 1, &[GET, b"\x00\x03a_b\x01c"].concat());
    for (options, reset, dropped) in [
        (
            Options {
                max_headers_bytes: 20,
                ..Options::default()
            },
            true,
            0,
        ),
        (
            Options {
                max_headers_count: 0,
                ..Options::default()
            },
            true,
            0,
        ),
        (
            Options {
                underscores: UnderscoresAction::RejectRequest,
                ..Options::default()
            },
            true,
            0,
        ),
        (
            Options {
                underscores: UnderscoresAction::DropHeader,
                ..Options::default()
            },
            false,
            1,
        ),
        (Options::default(), false, 0),
    ] {
        let (near, mut far) = Io::pair(1 << 16);
        let (store, cells) = cells();
        let mut connection = ServerConnection::new(near, Arc::new(options), cells);
        far.write_all(&[PREFACE, &frame(4, 0, 0, &[]), &get].concat())
            .await
            .unwrap();
        let (mut accepted, mut refused) = (false, false);
        for _ in 0..20 {
            match poll_fn(|cx| Poll::Ready(connection.poll_accept(cx))).await {
                Poll::Ready(Some(Ok(Next::Request(_)))) => accepted = true,
                Poll::Ready(Some(Ok(Next::Refused(refusal)))) => refused = !refusal.malformed,
                _ => {}
            }
        }
        assert_eq!((accepted, refused), (!reset, reset));
        assert_eq!(counted(&store, "dropped_headers_with_underscores"), dropped);
        drop(connection);
        let mut said = Vec::new();
        far.read_to_end(&mut said).await.unwrap();
        let internal_error = frames(&said).contains(&(3, 0, 1, vec![0, 0, 0, 2]));
        assert_eq!(internal_error, reset);
    }
}

#[tokio::test]
async fn floods_end_the_connection_without_goaway() {
    let open = frame(1, 4, 1, GET);
    let empty = [open.clone(), frame(0, 0, 1, &[]).repeat(2)].concat();
    let small = [open.clone(), frame(0, 0, 1, b"x").repeat(9)].concat();
    let padded = [open.clone(), frame(0, 8, 1, b"\x02x\0\0").repeat(9)].concat();
    let floods = [
        (empty, Flood::EmptyFrames { stream: 1 }),
        (
            frame(2, 0, 1, &[0, 0, 0, 0, 1]).repeat(101),
            Flood::Priority,
        ),
        (frame(8, 0, 0, &[0, 0, 0, 1]).repeat(6), Flood::WindowUpdate),
        (frame(6, 0, 0, &[0; 8]).repeat(1001), Flood::Control),
        (small, Flood::UnreadFrames),
        (padded, Flood::UnreadFrames),
    ];
    for (script, flood) in floods {
        let options = Options {
            max_unread_small_frames: 8,
            max_outbound_control_frames: 100,
            ..Options::default()
        };
        let (said, end) = play(options, &script).await;
        assert_eq!(end, Some(ConnError::Fault(Fault::Flood(flood))));
        assert!(said.iter().all(|f| f.0 != 7), "no GOAWAY");
    }
}

#[tokio::test]
async fn many_small_frames_do_no_harm_while_they_are_read() {
    let bounded = Options {
        max_unread_small_frames: 8,
        ..Options::default()
    };
    let (connection, mut handle) = pair(bounded, Options::default()).await;
    let mut up = handle.send_request(request(Method::POST), false).unwrap();
    let (mut accepted, task) = accept(connection).await;
    for _ in 0..500 {
        let mut data = Buffer::from(Bytes::from_static(b"tiny"));
        poll_fn(|cx| up.poll_send_data(cx, &mut data, false))
            .await
            .unwrap();
        let event = poll_fn(|cx| accepted.stream.poll_recv(cx)).await.unwrap();
        assert!(matches!(event, BodyEvent::Data { .. }));
        accepted.stream.release(4);
    }
    assert!(!task.is_finished());
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_ping_ends_the_connection() {
    let keepalive = Keepalive {
        interval: Some(Duration::from_secs(5)),
        jitter: Duration::ZERO,
        timeout: Duration::from_secs(2),
        idle_interval: None,
    };
    let options = Options {
        keepalive: Some(keepalive),
        ..Options::default()
    };
    let (near, mut far) = Io::pair(1 << 16);
    let mut connection = server(near, options.clone());
    far.write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat())
        .await
        .unwrap();
    let begin = tokio::time::Instant::now();
    let end = poll_fn(|cx| connection.poll_accept(cx)).await;
    assert_eq!(end.unwrap().unwrap_err(), ConnError::KeepaliveTimeout);
    assert_eq!(begin.elapsed().as_secs(), 7);
    let (connection, mut handle) = pair(options, Options::default()).await;
    let _up = handle.send_request(request(Method::GET), true).unwrap();
    let (_accepted, task) = accept(connection).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!task.is_finished(), "answered PINGs keep it");
}

#[tokio::test]
async fn cookies_in_crumbs_are_joined_and_host_stands_in() {
    let crumbs = [
        &b"\x82\x86\x84"[..],
        b"\x00\x06cookie\x03a=1",
        b"\x00\x06cookie\x03b=2",
        b"\x00\x04host\x01z",
    ]
    .concat();
    let (near, mut far) = Io::pair(1 << 16);
    let connection = server(near, Options::default());
    let script = [PREFACE, &frame(4, 0, 0, &[]), &frame(1, 5, 1, &crumbs)].concat();
    far.write_all(&script).await.unwrap();
    let (accepted, _task) = accept(connection).await;
    assert_eq!(accepted.head.authority_bytes(), b"z");
    assert_eq!(accepted.head.headers, headers(&[("cookie", "a=1; b=2")]));
    assert!(accepted.end_stream);
}

/// What the server says at the end, what comes of its connection, and what it counted,
/// when a client sends these one after the other.
async fn judged(
    script: &[Vec<u8>],
) -> (
    Vec<(u8, u8, u32, Vec<u8>)>,
    Vec<String>,
    (Store, CodecStats),
) {
    let (near, mut far) = Io::pair(1 << 22);
    let (store, cells) = cells();
    let mut connection = ServerConnection::new(near, Arc::new(Options::default()), cells.clone());
    far.write_all(PREFACE).await.unwrap();
    far.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    let mut events = Vec::new();
    let mut held = Vec::new();
    for part in script {
        far.write_all(part).await.unwrap();
        for _ in 0..20 {
            match poll_fn(|cx| Poll::Ready(connection.poll_accept(cx))).await {
                Poll::Ready(Some(Ok(Next::Request(accepted)))) => {
                    events.push("request".to_owned());
                    held.push(accepted);
                }
                Poll::Ready(Some(Ok(Next::Refused(refusal)))) => {
                    events.push(refusal.details.to_owned());
                }
                Poll::Ready(Some(Err(error))) => events.push(format!("{error:?}")),
                Poll::Ready(None) => break,
                Poll::Pending => tokio::task::yield_now().await,
            }
        }
    }
    if let Some(mut parting) = connection.take_parting() {
        parting.io.write_all(&parting.last_words).await.unwrap();
    }
    for accepted in &mut held {
        let end = poll_fn(|cx| accepted.stream.poll_reset(cx));
        let end = tokio::time::timeout(Duration::from_millis(1), end).await;
        events.extend(end.map(|error| error.details.into_owned()));
    }
    drop(held);
    drop(connection);
    let mut said = Vec::new();
    far.read_to_end(&mut said).await.unwrap();
    let ends = |f: &(u8, u8, u32, Vec<u8>)| f.0 == 3 || f.0 == 7;
    let said = frames(&said).into_iter().filter(ends).collect();
    (said, events, (store, cells))
}

const CALLBACK: &str = "codec_error:The_user_callback_function_failed";

#[tokio::test]
async fn malformed_heads_end_the_connection_in_silence() {
    let upper = [GET, b"\x00\x01X\x011"].concat();
    let connection = [GET, b"\x00\x0aconnection\x05close"].concat();
    let heads: [(&[u8], &str); 4] = [
        (&upper, "http2.invalid.header.field"),
        (&connection, "http2.invalid.header.field"),
        (b"\x86\x84\x41\x01a", "http2.violation.of.messaging.rule"),
        (b"\x82\x86\x84", "http2.violation.of.messaging.rule"),
    ];
    for (head, details) in heads {
        let script = [frame(1, 4, 1, GET), frame(1, 5, 3, head)];
        let (said, events, (store, _cells)) = judged(&script).await;
        assert!(said.is_empty(), "{said:?}");
        assert_eq!(events.len(), 4, "{events:?}");
        assert_eq!((&*events[0], &*events[1]), ("request", details));
        assert!(events[2].contains("Malformed"), "{events:?}");
        assert_eq!(events[3], CALLBACK);
        assert_eq!(counted(&store, "rx_messaging_error"), 1);
        assert_eq!(store.gauge_value("http2.streams_active"), Some(0));
    }
}

#[tokio::test]
async fn broken_framing_is_answered_in_the_words_of_envoys_library() {
    let open = frame(1, 4, 1, GET);
    let cases: [(Vec<u8>, u8, &[u8]); 5] = [
        (frame(0, 0, 0, b"x"), 1, b"DATA: stream_id == 0"),
        (frame(0, 0, 9, b"x"), 1, b"DATA: stream in idle"),
        (frame(9, 4, 1, GET), 1, b"CONTINUATION: unexpected"),
        (frame(6, 0, 0, &[0; 7]), 6, b""),
        (frame(99, 0, 0, &[0; 16_385]), 6, b"too large frame size"),
    ];
    for (broken, code, text) in cases {
        let (said, events, _) = judged(&[open.clone(), broken]).await;
        let words = [&[0, 0, 0, 1, 0, 0, 0, code][..], text].concat();
        assert_eq!(said, vec![(7, 0, 0, words)]);
        assert_eq!((&*events[0], &*events[2]), ("request", CALLBACK));
    }
}

#[tokio::test]
async fn a_body_that_does_not_fit_resets_its_stream_alone() {
    let post = [
        &b"\x83\x86\x84\x41\x01a"[..],
        b"\x00\x0econtent-length\x013",
    ]
    .concat();
    let script = [
        frame(1, 4, 1, &post),
        frame(0, 1, 1, b"ab"),
        frame(1, 4, 3, GET),
    ];
    let (said, events, (store, _cells)) = judged(&[script.concat()]).await;
    assert_eq!(said[0], (3, 0, 1, vec![0, 0, 0, 1]));
    assert_eq!(events[..2], ["request", "request"]);
    assert!(
        events.contains(&"http2.remote_reset".to_owned()),
        "{events:?}"
    );
    assert_eq!(counted(&store, "tx_reset"), 1);
}

#[tokio::test]
async fn questions_of_a_peer_that_does_not_read_are_counted_on() {
    let (near, mut far) = Io::pair(512);
    let (store, cells) = cells();
    let options = Arc::new(Options::default());
    let mut connection = ServerConnection::new(near, options, cells.clone());
    let questions = frame(6, 0, 0, &[0; 8]).repeat(3000);
    let script = [PREFACE, &frame(4, 0, 0, &[]), &questions].concat();
    let writer = tokio::spawn(async move {
        // The other end is closed before everything is taken.
        let _ = far.write_all(&script).await;
        far
    });
    let end = poll_fn(|cx| connection.poll_accept(cx)).await;
    let flood = ConnError::Fault(Fault::Flood(Flood::Control));
    assert_eq!(end.unwrap().unwrap_err(), flood);
    assert_eq!(counted(&store, "outbound_control_flood"), 1);
    drop(connection);
    drop(writer.await.unwrap());
    let gauge = store.gauge_value("http2.outbound_control_frames_active");
    assert_eq!(gauge, Some(0));
}

#[tokio::test]
async fn answers_that_wait_end_the_connection_when_there_are_too_many() {
    let (near, mut far) = Io::pair(128);
    let (store, cells) = cells();
    let few = Options {
        max_outbound_frames: 5,
        ..Options::default()
    };
    let mut connection = ServerConnection::new(near, Arc::new(few), cells.clone());
    let heads: Vec<u8> = (0..20).flat_map(|n| frame(1, 5, 2 * n + 1, GET)).collect();
    let script = [PREFACE, &frame(4, 0, 0, &[]), &heads].concat();
    let writer = tokio::spawn(async move {
        // The other end is closed before everything is taken.
        let _ = far.write_all(&script).await;
        far
    });
    let mut held = Vec::new();
    let end = loop {
        match poll_fn(|cx| connection.poll_accept(cx)).await.unwrap() {
            Ok(next) => {
                let mut accepted = request_of(Some(Ok(next)));
                // Above the limit the stream is cut already.
                let _ = accepted.stream.send_head(ok(), false);
                held.push(accepted);
            }
            Err(error) => break error,
        }
    };
    assert_eq!(end, ConnError::Fault(Fault::Flood(Flood::Outbound)));
    assert_eq!(counted(&store, "outbound_flood"), 1);
    drop((held, connection));
    drop(writer.await.unwrap());
    assert_eq!(store.gauge_value("http2.streams_active"), Some(0));
}

#[tokio::test]
async fn the_end_is_announced_once_and_the_connection_goes_on() {
    let (near, mut far) = Io::pair(1 << 16);
    let mut connection = server(near, Options::default());
    let hello = [PREFACE, &frame(4, 0, 0, &[])].concat();
    far.write_all(&hello).await.unwrap();
    let next = poll_fn(|cx| Poll::Ready(connection.poll_accept(cx))).await;
    assert!(next.is_pending());
    connection.announce_shutdown();
    far.write_all(&frame(1, 5, 1, GET)).await.unwrap();
    let mut accepted = request_of(poll_fn(|cx| connection.poll_accept(cx)).await);
    accepted.stream.send_head(ok(), true).unwrap();
    connection.graceful_shutdown();
    let next = poll_fn(|cx| Poll::Ready(connection.poll_accept(cx))).await;
    assert!(next.is_pending());
    drop((accepted, connection));
    let mut said = Vec::new();
    far.read_to_end(&mut said).await.unwrap();
    let goaways = frames(&said).into_iter().filter(|f| f.0 == 7);
    let announced = vec![0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    assert_eq!(goaways.collect::<Vec<_>>(), vec![(7, 0, 0, announced)]);
    assert!(
        frames(&said).iter().any(|f| f.0 == 1),
        "the request is answered"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_after_a_silence_is_preceded_by_a_ping() {
    let keepalive = Keepalive {
        interval: None,
        jitter: Duration::ZERO,
        timeout: Duration::from_secs(2),
        idle_interval: Some(Duration::from_secs(10)),
    };
    let options = Arc::new(Options {
        keepalive: Some(keepalive),
        ..Options::default()
    });
    let (near, mut far) = Io::pair(1 << 16);
    let (store, cells) = cells();
    let (driver, mut handle) = ClientConnection::handshake(near, options, cells.clone())
        .await
        .unwrap();
    let driver = tokio::spawn(driver);
    far.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let first = handle.send_request(request(Method::GET), true).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!driver.is_finished(), "not silent for long enough");
    tokio::time::sleep(Duration::from_secs(10)).await;
    let second = handle.send_request(request(Method::GET), true).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!driver.is_finished());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(driver.await.unwrap(), Err(ConnError::KeepaliveTimeout));
    drop((first, second, handle));
    assert_eq!(store.gauge_value("http2.streams_active"), Some(0));
}
