//! Tests of the HTTP/2 codec: two of our own ends, or one end and a script of
//! frames, over a pipe in memory.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use outrigger_types::{
    Buffer, HeaderName, HeaderValue, Headers, Method, RequestHead, ResetReason, ResponseHead,
    Scheme, StatusCode,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;
use crate::http::codec::{BodyEvent, HeadEvent, StreamError, UnderscoresAction};
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

/// Both ends, connected, the client's driver running.
async fn pair(server: Options, client: Options) -> (ServerConnection, ClientHandle) {
    let (near, far) = Io::pair(1 << 20);
    let mut connection = ServerConnection::new(near, Arc::new(server));
    let shake = ClientConnection::handshake(far, Arc::new(client));
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
) -> (Accepted, JoinHandle<Vec<Result<Accepted, ConnError>>>) {
    let accepted = poll_fn(|cx| connection.poll_accept(cx)).await;
    let task = tokio::spawn(async move {
        let mut rest = Vec::new();
        while let Some(next) = poll_fn(|cx| connection.poll_accept(cx)).await {
            rest.push(next);
        }
        rest
    });
    (accepted.unwrap().unwrap(), task)
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
    let mut connection = ServerConnection::new(near, Arc::new(options));
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
    assert_eq!(handle.counters().rx_reset, 1);
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
    let mut accepted = accepted.unwrap().unwrap();
    connection.graceful_shutdown();
    let task = tokio::spawn(async move {
        let rest = poll_fn(|cx| connection.poll_accept(cx)).await;
        (rest.is_none(), connection.counters().goaway_sent)
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
    assert_eq!(task.await.unwrap(), (true, 2));
}

#[tokio::test]
async fn streams_above_a_goaways_last_id_were_refused() {
    let (near, mut far) = Io::pair(1 << 16);
    let shake = ClientConnection::handshake(near, Arc::new(Options::default())).await;
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
        let mut connection = ServerConnection::new(near, Arc::new(options));
        far.write_all(&[PREFACE, &frame(4, 0, 0, &[]), &get].concat())
            .await
            .unwrap();
        let mut accepted = false;
        for _ in 0..20 {
            let next = poll_fn(|cx| Poll::Ready(connection.poll_accept(cx))).await;
            accepted |= next.is_ready();
        }
        assert_eq!(accepted, !reset);
        assert_eq!(
            connection.counters().dropped_headers_with_underscores,
            dropped
        );
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
        (empty, Flood::EmptyFrames),
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
        assert_eq!(end, Some(ConnError::Flood(flood)), "{}", flood.stat());
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
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
    };
    let options = Options {
        keepalive: Some(keepalive),
        ..Options::default()
    };
    let (near, mut far) = Io::pair(1 << 16);
    let mut connection = ServerConnection::new(near, Arc::new(options.clone()));
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
    let connection = ServerConnection::new(near, Arc::new(Options::default()));
    let script = [PREFACE, &frame(4, 0, 0, &[]), &frame(1, 5, 1, &crumbs)].concat();
    far.write_all(&script).await.unwrap();
    let (accepted, _task) = accept(connection).await;
    assert_eq!(accepted.head.authority_bytes(), b"z");
    assert_eq!(accepted.head.headers, headers(&[("cookie", "a=1; b=2")]));
    assert!(accepted.end_stream);
}
