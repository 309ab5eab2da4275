//! Peers that read or write slowly or not at all, close half of a connection, or vanish, with
//! as much pushed at the proxy as it takes.

use std::io;
use std::time::Duration;

use integration_tests::h2::conn::Conn;
use libtest_mimic::Trial;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::backend::BIG;
use crate::bench::{Bench, MB, head_h1, head_h2};
use crate::{Outcome, trial};

/// What one stream may hold, bytes: both of its halves, and what the allocator keeps.
const ONE: u64 = 24 * MB;
/// Time in which a peer that does not read gets all that the proxy takes for it.
const WHILE: Duration = Duration::from_millis(500);

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (to, to_h2) in [("h1", false), ("h2", true)] {
        let named = |what: &str| format!("slow/{what}_{to}");
        trials.extend([
            trial(&named("reader_h1_of"), move || reader_h1(to_h2)),
            trial(&named("reader_h2_of"), move || reader_h2(to_h2)),
            trial(&named("upload_h1_to"), move || upload_h1(to_h2)),
            trial(&named("upload_h2_to"), move || upload_h2(to_h2)),
            trial(&named("half_closed_to"), move || half_closed(to_h2)),
            trial(&named("vanished_to"), move || vanished(to_h2)),
            trial(&named("silent_upstream"), move || silent_upstream(to_h2)),
        ]);
    }
    trials.push(trial("slow/heads", heads));
    trials.push(trial("slow/streams_unread", streams_unread));
    trials.push(trial("slow/tiny_messages_unread", tiny_messages_unread));
    trials.push(trial("slow/connection_unread", connection_unread));
    trials
}

fn text(error: io::Error) -> String {
    error.to_string()
}

/// Closes a connection with a reset.
fn vanish(socket: TcpStream) {
    // The reset is what the trial is about, and a socket always takes the option.
    SockRef::from(&socket).set_linger(Some(Duration::ZERO)).ok();
    drop(socket);
}

async fn ask_h1(bench: &Bench, head: &[u8]) -> Result<TcpStream, String> {
    let mut socket = bench.connect().await.map_err(text)?;
    socket.write_all(head).await.map_err(text)?;
    Ok(socket)
}

/// What two unread answers may hold, bytes: on the side of HTTP/2 the window of a stream each,
/// which is what Envoy grants, too.
fn unread(from_h2: bool) -> u64 {
    const WINDOW: u64 = 16 * MB;
    if from_h2 { ONE + 2 * WINDOW } else { ONE }
}

/// A client that leaves a big answer unread for a while, then reads it whole; another never does.
async fn reader_h1(to_h2: bool) -> Outcome {
    let mut bench = Bench::start("").await?;
    let head = head_h1("GET", "/big", to_h2, "");
    let mut socket = ask_h1(&bench, &head).await?;
    let never = ask_h1(&bench, &head).await?;
    tokio::time::sleep(WHILE).await;
    bench.holds_at_most(unread(to_h2))?;
    let mut left = BIG;
    let mut bytes = vec![0; 256 * 1024];
    while left > 0 {
        match socket.read(&mut bytes).await.map_err(text)? {
            0 => return Err(format!("{left} bytes are missing")),
            n => left = left.saturating_sub(n),
        }
    }
    bench.holds_at_most(unread(to_h2))?;
    vanish(never);
    drop(socket);
    bench.is_clean().await
}

/// A client that grants no window gets one, and no more.
async fn reader_h2(to_h2: bool) -> Outcome {
    let mut bench = Bench::start("").await?;
    let conn = bench.connect_h2(true).await.map_err(text)?;
    let (stream, exchange) = conn.open();
    let head = head_h2("GET", "/big", to_h2);
    conn.headers(stream, &head, true).await.map_err(text)?;
    tokio::time::sleep(WHILE).await;
    bench.holds_at_most(unread(to_h2))?;
    let got = exchange.seen().body.len();
    if !(60_000..70_000).contains(&got) {
        return Err(format!("{got} bytes, not one window"));
    }
    conn.abort().await;
    bench.is_clean().await
}

/// Pushes until nothing more is taken; the bytes that were.
async fn push(socket: &mut TcpStream) -> usize {
    let piece = vec![b'x'; 64 * 1024];
    let mut pushed = 0;
    while pushed < BIG {
        match tokio::time::timeout(WHILE, socket.write(&piece)).await {
            Ok(Ok(n)) => pushed += n,
            Ok(Err(_)) | Err(_) => break,
        }
    }
    pushed
}

/// An upstream that takes no body: its client is held up, and vanishes in the end, which shows
/// at the idle timeout of the stream at the latest, as nothing is read of it.
async fn upload_h1(to_h2: bool) -> Outcome {
    let mut bench = Bench::start("{hcm: {stream_idle_timeout: 2s}}").await?;
    let length = format!("content-length: {BIG}\r\n");
    let mut socket = ask_h1(&bench, &head_h1("POST", "/deaf", to_h2, &length)).await?;
    let pushed = push(&mut socket).await;
    if pushed >= BIG {
        return Err("it all went somewhere".to_owned());
    }
    bench.holds_at_most(ONE)?;
    vanish(socket);
    // One that reads gets it all.
    let mut socket = ask_h1(&bench, &head_h1("POST", "/answer", to_h2, &length)).await?;
    if push(&mut socket).await < BIG {
        return Err("an upload is stuck".to_owned());
    }
    let mut line = [0; 15];
    socket.read_exact(&mut line).await.map_err(text)?;
    if &line != b"HTTP/1.1 200 OK" {
        return Err(format!("an upload got {}", line.escape_ascii()));
    }
    bench.holds_at_most(ONE)?;
    drop(socket);
    bench.is_clean().await
}

async fn upload_h2(to_h2: bool) -> Outcome {
    // As much as the window of a stream lets a client send.
    let config = "{hcm: {http2_protocol_options: {initial_stream_window_size: 1048576}}}";
    let mut bench = Bench::start(config).await?;
    let conn = bench.connect_h2(false).await.map_err(text)?;
    let (stream, _) = conn.open();
    let head = head_h2("POST", "/deaf", to_h2);
    conn.headers(stream, &head, false).await.map_err(text)?;
    let sender = conn.clone();
    let sending = tokio::spawn(async move { sender.data(stream, &vec![b'x'; BIG], true).await });
    tokio::time::sleep(WHILE).await;
    if sending.is_finished() {
        return Err("it all went somewhere".to_owned());
    }
    bench.holds_at_most(ONE)?;
    conn.abort().await;
    sending.abort();
    bench.is_clean().await
}

/// Clients that end their side: in a head, after it, in a body, in the answer.
async fn half_closed(to_h2: bool) -> Outcome {
    let mut bench = Bench::start("").await?;
    let mut kept = Vec::new();
    let body = "content-length: 9\r\n";
    for path in ["/silent", "/stall", "/big", "/late", "/slow"] {
        let whole = head_h1("GET", path, to_h2, "");
        let part = &whole[..whole.len() / 2];
        let cut = [head_h1("POST", path, to_h2, body), b"part".to_vec()].concat();
        for bytes in [whole.as_slice(), part, &cut] {
            let mut socket = ask_h1(&bench, bytes).await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
            socket.shutdown().await.map_err(text)?;
            kept.push(socket);
        }
        for ends in [true, false] {
            let conn = bench.connect_h2(false).await.map_err(text)?;
            let (stream, _) = conn.open();
            let head = head_h2("POST", path, to_h2);
            conn.headers(stream, &head, ends).await.map_err(text)?;
            tokio::time::sleep(Duration::from_millis(20)).await;
            conn.close().await.map_err(text)?;
        }
    }
    bench.holds_at_most(ONE)?;
    bench.is_clean().await
}

/// Clients whose connection is reset in the middle of an upload or of an answer.
async fn vanished(to_h2: bool) -> Outcome {
    let mut bench = Bench::start("").await?;
    let length = format!("content-length: {BIG}\r\n");
    for path in ["/answer", "/early", "/deaf", "/silent", "/stall"] {
        for _ in 0..4 {
            let mut socket = ask_h1(&bench, &head_h1("POST", path, to_h2, &length)).await?;
            // An early answer ends the connection, which is fine here.
            socket.write_all(&[b'x'; 300_000]).await.ok();
            vanish(socket);
            let conn = bench.connect_h2(false).await.map_err(text)?;
            let (stream, _) = conn.open();
            let head = head_h2("POST", path, to_h2);
            conn.headers(stream, &head, false).await.map_err(text)?;
            conn.data(stream, &[b'x'; 60_000], false).await.ok();
            conn.abort().await;
        }
    }
    bench.holds_at_most(ONE)?;
    bench.is_clean().await
}

/// Many calls to an upstream that never answers, or stops in the middle, given up one by one
/// and all at once.
async fn silent_upstream(to_h2: bool) -> Outcome {
    let mut bench = Bench::start("").await?;
    let neighbours = bench.neighbours().await?;
    let conn = bench.connect_h2(false).await.map_err(text)?;
    let mut streams = Vec::new();
    for n in 0..150 {
        let (stream, _) = conn.open();
        let path = if n % 2 == 0 { "/silent" } else { "/stall" };
        let head = head_h2("GET", path, to_h2);
        conn.headers(stream, &head, true).await.map_err(text)?;
        streams.push(stream);
    }
    let active = "http.ingress_http.downstream_rq_active";
    bench.counts(active, 150).await?;
    bench.holds_at_most(ONE)?;
    for stream in &streams[..75] {
        conn.reset(*stream, 8).await.map_err(text)?;
    }
    neighbours.were_served().await?;
    conn.abort().await;
    bench.is_clean().await
}

/// Heads that come byte by byte, on many connections, until their time is up.
async fn heads() -> Outcome {
    const CONNECTIONS: usize = 60;
    let config = "{hcm: {request_headers_timeout: 0.6s, delayed_close_timeout: 0.1s}}";
    let mut bench = Bench::start(config).await?;
    let neighbours = bench.neighbours().await?;
    let mut sockets = Vec::new();
    for _ in 0..CONNECTIONS {
        sockets.push(bench.connect().await.map_err(text)?);
    }
    let head = head_h1("GET", "/answer", false, &"x-pad: pad\r\n".repeat(20));
    for byte in &head[..60] {
        for socket in &mut sockets {
            // Those whose time is up are closed in the middle of it.
            socket.write_all(&[*byte]).await.ok();
        }
        tokio::time::sleep(Duration::from_millis(12)).await;
    }
    let stat = "http.ingress_http.downstream_rq_header_timeout";
    bench.counts(stat, CONNECTIONS as u64).await?;
    bench.holds_at_most(ONE)?;
    neighbours.were_served().await?;
    bench.is_clean().await
}

const SMALL: &str = "\
{listener: {per_connection_buffer_limit_bytes: 32768}, \
cluster: {per_connection_buffer_limit_bytes: 32768}, hcm: {delayed_close_timeout: 0.1s}}";
/// What a thousand streams may hold with these limits, bytes.
const THOUSAND: u64 = 128 * MB;

async fn open_all(conn: &Conn) -> Outcome {
    for _ in 0..1000 {
        let (stream, _) = conn.open();
        let head = head_h2("GET", "/slow", true);
        conn.headers(stream, &head, true).await.map_err(text)?;
    }
    Ok(())
}

/// As many streams as may be, for whose answers no window is granted.
async fn streams_unread() -> Outcome {
    let mut bench = Bench::start(SMALL).await?;
    let neighbours = bench.neighbours_of_h1().await?;
    let conn = bench.connect_h2(true).await.map_err(text)?;
    open_all(&conn).await?;
    bench
        .counts("http.ingress_http.downstream_rq_total", 1004)
        .await?;
    tokio::time::sleep(WHILE).await;
    bench.holds_at_most(THOUSAND)?;
    neighbours.were_served().await?;
    conn.abort().await;
    bench.is_clean().await
}

/// The same on a connection of which nothing is read.
async fn connection_unread() -> Outcome {
    let mut bench = Bench::start(SMALL).await?;
    let neighbours = bench.neighbours_of_h1().await?;
    let conn = bench.connect_h2(true).await.map_err(text)?;
    conn.deaf();
    open_all(&conn).await?;
    tokio::time::sleep(WHILE).await;
    bench.holds_at_most(THOUSAND)?;
    neighbours.were_served().await?;
    conn.abort().await;
    bench.is_clean().await
}

/// A stream of tiny messages that its server does not read, with calls beside it on the same
/// connection.
async fn tiny_messages_unread() -> Outcome {
    const MESSAGES: usize = 6_000;
    let mut bench = Bench::start("").await?;
    let conn = bench.connect_h2(false).await.map_err(text)?;
    let (slow, _exchange) = conn.open();
    let head = head_h2("POST", "/deaf/stream", true);
    conn.headers(slow, &head, false).await.map_err(text)?;
    for message in 0..MESSAGES {
        conn.data(slow, b"x", false).await.map_err(text)?;
        if message % 1_000 == 0 {
            is_answered_beside(&conn).await?;
        }
    }
    tokio::time::sleep(WHILE).await;
    is_answered_beside(&conn).await?;
    bench.holds_at_most(ONE)?;
    conn.reset(slow, 8).await.map_err(text)?;
    is_answered_beside(&conn).await?;
    conn.shut().await;
    bench.is_clean().await
}

/// A call on a connection that another stream is on, too.
async fn is_answered_beside(conn: &Conn) -> Outcome {
    let (stream, exchange) = conn.open();
    let head = head_h2("GET", "/answer", false);
    conn.headers(stream, &head, true).await.map_err(text)?;
    exchange
        .until(Duration::from_secs(5), |seen| {
            seen.ended || seen.broken.is_some()
        })
        .await;
    let seen = exchange.seen();
    match (seen.head.unwrap_or_default().status(), &*seen.body) {
        (200, b"ok") => Ok(()),
        (status, _) => Err(format!("a call on the same connection got {status}")),
    }
}
