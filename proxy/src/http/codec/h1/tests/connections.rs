//! The connections, over a pipe in memory.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use outrigger_types::{
    Buffer, HeaderName, HeaderValue, Headers, Method, RequestHead, ResetReason, ResponseHead,
    StatusCode,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::http::codec::h1::{ClientConnection, Options, ServerConnection};
use crate::http::codec::{BodyEvent, ClientStream, HeadEvent, ServerStream, StreamError};
use crate::network::io::Io;

fn server(options: Options) -> (ServerConnection, Io) {
    let (near, far) = Io::pair(1 << 16);
    (ServerConnection::new(near, Arc::new(options)), far)
}

fn client(options: Options) -> (ClientConnection, Io) {
    let (near, far) = Io::pair(1 << 16);
    (ClientConnection::new(near, Arc::new(options)), far)
}

fn head(status: u16, fields: &[(&'static str, &'static str)]) -> ResponseHead {
    let mut head = ResponseHead::new(StatusCode::from_u16(status).unwrap());
    head.headers = headers(fields);
    head
}

fn headers(fields: &[(&'static str, &'static str)]) -> Headers {
    fields
        .iter()
        .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
        .collect()
}

fn request(method: Method, fields: &[(&'static str, &'static str)]) -> RequestHead {
    let mut head = RequestHead::new(method, "/p");
    head.authority = Some(Bytes::from_static(b"h"));
    head.headers = headers(fields);
    head
}

async fn read(io: &mut Io) -> String {
    let mut bytes = vec![0; 1 << 16];
    let n = io.read(&mut bytes).await.unwrap();
    String::from_utf8_lossy(&bytes[..n]).into_owned()
}

async fn next(connection: &mut ServerConnection) -> crate::http::codec::h1::NextRequest {
    poll_fn(|cx| connection.poll_next_head(cx))
        .await
        .unwrap()
        .unwrap()
}

async fn body(stream: &mut ServerStream) -> Result<Vec<u8>, StreamError> {
    let mut all = Vec::new();
    loop {
        match poll_fn(|cx| stream.poll_recv(cx)).await? {
            BodyEvent::Data { bytes, end_stream } => {
                all.extend_from_slice(&bytes);
                if end_stream {
                    return Ok(all);
                }
            }
            BodyEvent::Trailers(_) | BodyEvent::End => return Ok(all),
        }
    }
}

async fn send(stream: &mut ServerStream, data: &'static [u8], end: bool) {
    let mut data = Buffer::from(Bytes::from_static(data));
    poll_fn(|cx| stream.poll_send_data(cx, &mut data, end))
        .await
        .unwrap();
    assert!(data.is_empty());
    poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
}

#[tokio::test]
async fn serves_pipelined_requests_in_order() {
    let (mut connection, mut peer) = server(Options::default());
    let two = b"POST /1 HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nhost: a\r\n\r\n";
    peer.write_all(two).await.unwrap();
    let first = next(&mut connection).await;
    assert_eq!(
        (&first.head.path[..], first.end_stream),
        (&b"/1"[..], false)
    );
    let mut stream = ServerStream::H1(Box::new(connection));
    assert_eq!(body(&mut stream).await.unwrap(), b"abc");
    stream.send_head(head(200, &[("x", "1")]), false).unwrap();
    send(&mut stream, b"hello", true).await;
    let expected =
        "HTTP/1.1 200 OK\r\nx: 1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    assert_eq!(read(&mut peer).await, expected);
    let mut connection = stream.into_h1().unwrap().into_next().unwrap();
    assert!(connection.is_between_requests() && !connection.is_idle());
    let second = next(&mut connection).await;
    assert_eq!(
        (&second.head.path[..], second.end_stream),
        (&b"/2"[..], true)
    );
    connection.send_head(head(204, &[]), true).unwrap();
    assert!(connection.is_idle() && !connection.should_close());
    poll_fn(|cx| connection.poll_flush(cx)).await.unwrap();
    assert_eq!(read(&mut peer).await, "HTTP/1.1 204 No Content\r\n\r\n");
}

#[tokio::test]
async fn heads_leave_with_envoys_framing() {
    let cases: [(&str, ResponseHead, bool, &str); 7] = [
        (
            "GET",
            head(200, &[]),
            true,
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            "GET",
            head(304, &[]),
            true,
            "HTTP/1.1 304 Not Modified\r\n\r\n",
        ),
        (
            "GET",
            head(304, &[("content-length", "5")]),
            true,
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
        ),
        (
            "HEAD",
            head(200, &[]),
            true,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        ),
        (
            "HEAD",
            head(200, &[("content-length", "2")]),
            true,
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n",
        ),
        (
            "GET",
            head(299, &[]),
            true,
            "HTTP/1.1 299 Unknown\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            "GET",
            head(200, &[("connection", "close")]),
            true,
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        ),
    ];
    for (method, head, end, expected) in cases {
        let (mut connection, mut peer) = server(Options::default());
        let text = format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n");
        peer.write_all(text.as_bytes()).await.unwrap();
        next(&mut connection).await;
        let close = head.headers.contains(&http::header::CONNECTION);
        connection.send_head(head, end).unwrap();
        assert_eq!(connection.should_close(), close);
        poll_fn(|cx| connection.poll_flush(cx)).await.unwrap();
        assert_eq!(read(&mut peer).await, expected);
    }
}

#[tokio::test]
async fn an_early_answer_closes_the_connection() {
    let (mut connection, mut peer) = server(Options::default());
    let half = b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n";
    peer.write_all(half).await.unwrap();
    assert!(!next(&mut connection).await.end_stream);
    connection.send_informational(head(100, &[])).unwrap();
    connection.send_head(head(200, &[]), true).unwrap();
    poll_fn(|cx| connection.poll_shutdown(cx)).await.unwrap();
    let text = read(&mut peer).await;
    let expected = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(text, expected);
    assert!(connection.should_close() && !connection.is_between_requests());
    peer.write_all(b"late").await.unwrap();
    drop(peer);
    poll_fn(|cx| connection.poll_discard(cx)).await;
}

#[tokio::test]
async fn a_half_close_is_a_disconnect() {
    let (mut connection, mut peer) = server(Options::default());
    peer.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    next(&mut connection).await;
    peer.shutdown().await.unwrap();
    let error = poll_fn(|cx| connection.poll_reset(cx)).await;
    assert_eq!(error.reason, ResetReason::ConnectionTermination);
    let (mut connection, mut peer) = server(Options::default());
    peer.write_all(b"GET / HT").await.unwrap();
    drop(peer);
    let gone = poll_fn(|cx| connection.poll_next_head(cx)).await;
    assert!(gone.is_err_and(|error| error.disconnected));
    let (mut connection, peer) = server(Options::default());
    drop(peer);
    assert_eq!(poll_fn(|cx| connection.poll_next_head(cx)).await, Ok(None));
}

#[tokio::test]
async fn a_malformed_request_can_be_answered() {
    let (mut connection, mut peer) = server(Options::default());
    peer.write_all(b"FOO / HTTP/1.1\r\n\r\n").await.unwrap();
    let error = poll_fn(|cx| connection.poll_next_head(cx))
        .await
        .unwrap_err();
    connection
        .send_head(ResponseHead::new(error.status), true)
        .unwrap();
    poll_fn(|cx| connection.poll_flush(cx)).await.unwrap();
    let text = read(&mut peer).await;
    assert_eq!(
        text,
        "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
}

#[tokio::test]
async fn a_malformed_chunk_is_a_protocol_error() {
    let (mut connection, mut peer) = server(Options::default());
    peer.write_all(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nz\r\n")
        .await
        .unwrap();
    next(&mut connection).await;
    let mut stream = ServerStream::H1(Box::new(connection));
    let error = body(&mut stream).await.unwrap_err();
    assert_eq!(error, StreamError::protocol("http1.codec_error"));
}

#[tokio::test]
async fn writes_wait_when_the_peer_does_not_read() {
    let (near, mut peer) = Io::pair(16);
    let options = Options {
        write_buffer: 64,
        ..Options::default()
    };
    let mut connection = ServerConnection::new(near, Arc::new(options));
    peer.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let wanted = tokio::spawn(async move {
        peer.write_all(b"\r\n").await.unwrap();
        tokio::task::yield_now().await;
        let mut all = Vec::new();
        peer.read_to_end(&mut all).await.unwrap();
        all
    });
    next(&mut connection).await;
    connection
        .send_head(head(200, &[("content-length", "5000")]), false)
        .unwrap();
    let mut data = Buffer::new();
    for _ in 0..50 {
        data.push(Bytes::from(vec![b'x'; 100]));
    }
    while !data.is_empty() {
        poll_fn(|cx| connection.poll_send_data(cx, &mut data, true))
            .await
            .unwrap();
        assert!(
            connection.unwritten() <= 64 + 100,
            "the write buffer is bounded"
        );
    }
    poll_fn(|cx| connection.poll_shutdown(cx)).await.unwrap();
    drop(connection);
    assert!(wanted.await.unwrap().ends_with(&[b'x'; 5000]));
}

#[tokio::test]
async fn requests_leave_as_envoy_writes_them() {
    let cases = [
        (
            request(Method::GET, &[("x", "1")]),
            "GET /p HTTP/1.1\r\nhost: h\r\nx: 1\r\n\r\n",
        ),
        (
            request(Method::POST, &[]),
            "POST /p HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            request(Method::DELETE, &[]),
            "DELETE /p HTTP/1.1\r\nhost: h\r\n\r\n",
        ),
        (
            request(Method::PUT, &[("content-length", "0"), ("a", "b")]),
            "PUT /p HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\na: b\r\n\r\n",
        ),
    ];
    for (head, expected) in cases {
        let (mut connection, mut peer) = client(Options::default());
        connection.send_head(head, true).unwrap();
        poll_fn(|cx| connection.poll_flush(cx)).await.unwrap();
        assert_eq!(read(&mut peer).await, expected);
    }
    let (mut connection, _peer) = client(Options::default());
    let mut split = request(Method::GET, &[]);
    split.path = Bytes::from_static(b"/ HTTP/1.1\r\nx: y");
    assert!(connection.send_head(split, true).is_err());
}

#[tokio::test]
async fn reads_interim_heads_then_the_response_and_is_reusable() {
    let (mut connection, mut peer) = client(Options {
        enable_trailers: true,
        ..Options::default()
    });
    for _ in 0..2 {
        connection
            .send_head(request(Method::POST, &[]), false)
            .unwrap();
        let mut data = Buffer::from(Bytes::from_static(b"abc"));
        poll_fn(|cx| connection.poll_send_data(cx, &mut data, false))
            .await
            .unwrap();
        connection.send_trailers(headers(&[("t", "1")])).unwrap();
        poll_fn(|cx| connection.poll_flush(cx)).await.unwrap();
        let text = read(&mut peer).await;
        assert!(
            text.ends_with("transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nt: 1\r\n\r\n"),
            "{text}"
        );
        let answer =
            b"HTTP/1.1 103 Early\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        peer.write_all(answer).await.unwrap();
        let interim = poll_fn(|cx| connection.poll_head(cx)).await.unwrap();
        assert_eq!(
            interim,
            HeadEvent::Informational(head(103, &[("link", "a")]))
        );
        let last = poll_fn(|cx| connection.poll_head(cx)).await.unwrap();
        assert_eq!(
            last,
            HeadEvent::Final {
                head: head(200, &[("content-length", "2")]),
                end_stream: false
            }
        );
        assert!(!connection.is_reusable());
        let data = poll_fn(|cx| connection.poll_recv(cx)).await.unwrap();
        assert_eq!(
            data,
            BodyEvent::Data {
                bytes: Bytes::from_static(b"ok"),
                end_stream: true
            }
        );
        assert!(connection.is_reusable());
    }
    peer.write_all(b"unasked").await.unwrap();
    poll_fn(|cx| connection.poll_idle(cx)).await;
    assert!(!connection.is_reusable());
}

#[tokio::test]
async fn the_end_of_the_connection_ends_or_cuts_a_response() {
    let cases: [(&[u8], Option<ResetReason>); 6] = [
        (b"", Some(ResetReason::ConnectionTermination)),
        (b"HTTP/1.1 200 OK\r\nfo", Some(ResetReason::ProtocolError)),
        (b"HTTP/1.1 200 OK\r\n\r\nabc", None),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc",
            Some(ResetReason::ProtocolError),
        ),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab",
            Some(ResetReason::ProtocolError),
        ),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n3",
            Some(ResetReason::ProtocolError),
        ),
    ];
    for (text, reason) in cases {
        let (mut connection, mut peer) = client(Options::default());
        connection
            .send_head(request(Method::GET, &[]), true)
            .unwrap();
        poll_fn(|cx| connection.poll_flush(cx)).await.unwrap();
        peer.write_all(text).await.unwrap();
        drop(peer);
        let mut stream = ClientStream::H1(Box::new(connection));
        let mut result = poll_fn(|cx| stream.poll_head(cx)).await.map(|_| ());
        while result.is_ok() {
            match poll_fn(|cx| stream.poll_recv(cx)).await {
                Ok(BodyEvent::Data {
                    end_stream: false, ..
                }) => {}
                other => {
                    result = other.map(|_| ());
                    break;
                }
            }
        }
        assert_eq!(
            result.err().map(|e| e.reason),
            reason,
            "{:?}",
            String::from_utf8_lossy(text)
        );
        assert!(!stream.into_h1().unwrap().is_reusable());
    }
}

#[tokio::test]
async fn an_upgrade_carries_raw_bytes_once_accepted() {
    let (mut downstream, mut peer) = server(Options::default());
    let ask =
        b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nearly";
    peer.write_all(ask).await.unwrap();
    let next = next(&mut downstream).await;
    assert!(!next.end_stream);
    let (mut upstream, mut far) = client(Options::default());
    upstream.send_head(next.head, false).unwrap();
    let mut early = Buffer::from(Bytes::from_static(b"early"));
    poll_fn(|cx| {
        assert!(upstream.poll_send_data(cx, &mut early, false).is_pending());
        upstream.poll_flush(cx)
    })
    .await
    .unwrap();
    let asked = read(&mut far).await;
    assert!(
        asked.ends_with("upgrade: websocket\r\n\r\n") && !asked.contains("chunked"),
        "{asked}"
    );
    far.write_all(b"HTTP/1.1 101 Up\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nraw")
        .await
        .unwrap();
    let HeadEvent::Final {
        head,
        end_stream: false,
    } = poll_fn(|cx| upstream.poll_head(cx)).await.unwrap()
    else {
        panic!("101 is a final head");
    };
    poll_fn(|cx| upstream.poll_send_data(cx, &mut early, false))
        .await
        .unwrap();
    poll_fn(|cx| upstream.poll_flush(cx)).await.unwrap();
    assert_eq!(read(&mut far).await, "early");
    let raw = poll_fn(|cx| upstream.poll_recv(cx)).await.unwrap();
    assert_eq!(
        raw,
        BodyEvent::Data {
            bytes: Bytes::from_static(b"raw"),
            end_stream: false
        }
    );
    downstream.send_head(head, false).unwrap();
    let mut stream = ServerStream::H1(Box::new(downstream));
    send(&mut stream, b"raw", false).await;
    let text = read(&mut peer).await;
    assert_eq!(
        text,
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nraw"
    );
    let early = poll_fn(|cx| stream.poll_recv(cx)).await.unwrap();
    assert_eq!(
        early,
        BodyEvent::Data {
            bytes: Bytes::from_static(b"early"),
            end_stream: false
        }
    );
}

#[tokio::test]
async fn a_refused_upgrade_drops_what_was_to_follow() {
    let (mut upstream, mut far) = client(Options::default());
    let mut ask = request(Method::GET, &[("connection", "upgrade"), ("upgrade", "x")]);
    ask.protocol = Some(Bytes::from_static(b"x"));
    upstream.send_head(ask, false).unwrap();
    poll_fn(|cx| upstream.poll_flush(cx)).await.unwrap();
    read(&mut far).await;
    far.write_all(b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    poll_fn(|cx| upstream.poll_head(cx)).await.unwrap();
    let mut data = Buffer::from(Bytes::from_static(b"GET /smuggled HTTP/1.1\r\n\r\n"));
    poll_fn(|cx| upstream.poll_send_data(cx, &mut data, true))
        .await
        .unwrap();
    poll_fn(|cx| upstream.poll_shutdown(cx)).await.unwrap();
    assert!(!upstream.is_reusable());
    drop(upstream);
    assert_eq!(read(&mut far).await, "");
}

#[tokio::test]
async fn the_end_of_an_upstream_that_switched_protocols_is_a_loss() {
    let (mut upstream, mut far) = client(Options::default());
    let mut ask = request(Method::GET, &[("connection", "upgrade"), ("upgrade", "x")]);
    ask.protocol = Some(Bytes::from_static(b"x"));
    upstream.send_head(ask, false).unwrap();
    far.write_all(b"HTTP/1.1 101 Up\r\n\r\nlast").await.unwrap();
    drop(far);
    poll_fn(|cx| upstream.poll_head(cx)).await.unwrap();
    let last = poll_fn(|cx| upstream.poll_recv(cx)).await.unwrap();
    assert!(matches!(last, BodyEvent::Data { bytes, end_stream: false } if &bytes[..] == b"last"));
    let lost = poll_fn(|cx| upstream.poll_recv(cx)).await.unwrap_err();
    assert_eq!(lost.reason, ResetReason::ConnectionTermination);
}

#[tokio::test]
async fn a_tunnel_is_open_at_once_and_each_direction_ends_by_itself() {
    let (mut upstream, mut far) = client(Options::default());
    upstream.open_tunnel(false).unwrap();
    let opened = poll_fn(|cx| upstream.poll_head(cx)).await.unwrap();
    assert!(matches!(opened, HeadEvent::Final { head, end_stream: false } if head.status == 200));
    let mut data = Buffer::from(Bytes::from_static(b"ping"));
    poll_fn(|cx| upstream.poll_send_data(cx, &mut data, true))
        .await
        .unwrap();
    poll_fn(|cx| upstream.poll_flush(cx)).await.unwrap();
    assert_eq!(read(&mut far).await, "ping");
    assert_eq!(read(&mut far).await, "", "our direction is ended");
    assert!(!upstream.is_complete());
    far.write_all(b"pong").await.unwrap();
    drop(far);
    let pong = poll_fn(|cx| upstream.poll_recv(cx)).await.unwrap();
    assert!(matches!(pong, BodyEvent::Data { bytes, end_stream: false } if &bytes[..] == b"pong"));
    let end = poll_fn(|cx| upstream.poll_recv(cx)).await.unwrap();
    assert_eq!(end, BodyEvent::End);
    assert!(upstream.is_complete() && !upstream.is_reusable());
}

#[tokio::test]
async fn a_body_that_does_not_fit_its_length_is_refused() {
    for (length, data) in [("2", &b"abc"[..]), ("5", b"abc")] {
        let (mut connection, mut peer) = server(Options::default());
        peer.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        next(&mut connection).await;
        connection
            .send_head(head(200, &[("content-length", length)]), false)
            .unwrap();
        let mut data = Buffer::from(Bytes::from_static(data));
        let result = poll_fn(|cx| connection.poll_send_data(cx, &mut data, true)).await;
        assert!(result.is_err() && connection.should_close());
    }
}
