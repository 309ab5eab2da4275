//! Floods of HTTP/2 frames, each beside neighbours on other connections.

use std::time::{Duration, Instant};

use integration_tests::h2::frame::{self, Frame};
use integration_tests::h2::hpack;
use integration_tests::values::Fields;
use libtest_mimic::Trial;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::bench::{Bench, MB, head_h2};
use crate::{Outcome, trial};

const PRIORITY: u8 = 2;
/// What one connection may cost, bytes.
const ONE: u64 = 16 * MB;
/// What forty may cost, bytes.
const MANY: u64 = 48 * MB;
const CONFIG: &str = "{hcm: {delayed_close_timeout: 0.1s}}";

/// The frames of a round, by its number.
type Round = fn(u32) -> Vec<u8>;

/// One kind of flood: the frames of a round, and the stat that counts its end.
#[derive(Clone, Copy)]
struct Flood {
    name: &'static str,
    round: Round,
    stat: &'static str,
}

const FLOODS: &[Flood] = &[
    Flood {
        name: "rapid_reset",
        round: |round| {
            opened(round, 100, |id| {
                let reset = Frame::new(frame::RST_STREAM, 0, id, vec![0, 0, 0, 8]);
                [request("/silent", id), reset.bytes()].concat()
            })
        },
        stat: "http.ingress_http.downstream_rq_too_many_premature_resets",
    },
    Flood {
        name: "continuation_empty",
        round: |round| {
            let empty = Frame::new(frame::CONTINUATION, 0, 3, vec![]).bytes();
            begun(round, &empty.repeat(50))
        },
        stat: "http2.inbound_empty_frames_flood",
    },
    Flood {
        name: "continuation_endless",
        round: |round| {
            let field = b"\0\x07x-longa\x06vvvvvv".repeat(64);
            let more = Frame::new(frame::CONTINUATION, 0, 3, field).bytes();
            begun(round, &more.repeat(20))
        },
        stat: "http.ingress_http.downstream_cx_protocol_error",
    },
    Flood {
        name: "ping",
        round: |_| {
            Frame::new(frame::PING, 0, 0, vec![7; 8])
                .bytes()
                .repeat(500)
        },
        stat: "http2.outbound_control_flood",
    },
    Flood {
        name: "settings",
        round: |_| {
            Frame::new(frame::SETTINGS, 0, 0, vec![])
                .bytes()
                .repeat(500)
        },
        stat: "http2.outbound_control_flood",
    },
    Flood {
        name: "empty_data",
        round: |_| Frame::new(frame::DATA, 0, 1, vec![]).bytes().repeat(100),
        stat: "http2.inbound_empty_frames_flood",
    },
    Flood {
        name: "priority",
        round: |_| {
            Frame::new(PRIORITY, 0, 1, vec![0, 0, 0, 0, 16])
                .bytes()
                .repeat(100)
        },
        stat: "http2.inbound_priority_frames_flood",
    },
    Flood {
        name: "window_update",
        round: |_| {
            let one = Frame::new(frame::WINDOW_UPDATE, 0, 0, vec![0, 0, 0, 1]);
            one.bytes().repeat(100)
        },
        stat: "http2.inbound_window_update_frames_flood",
    },
];

/// Answered by resets, or by answers that are read: it may go on.
const LET_BE: &[(&str, Round)] = &[
    ("ping_answered", |_| {
        Frame::new(frame::PING, 0, 0, vec![7; 8])
            .bytes()
            .repeat(100)
    }),
    ("settings_answered", |_| {
        Frame::new(frame::SETTINGS, 0, 0, vec![])
            .bytes()
            .repeat(100)
    }),
];

pub fn trials() -> Vec<Trial> {
    let ended = FLOODS.iter().map(|flood| {
        let name = format!("floods/{}", flood.name);
        trial(&name, move || ended(flood))
    });
    let let_be = LET_BE
        .iter()
        .map(|(name, round)| trial(&format!("floods/{name}"), move || let_be(*round)));
    let others = [
        trial("floods/many_connections", many),
        trial("floods/huge_headers", huge_headers),
    ];
    ended.chain(let_be).chain(others).collect()
}

/// Streams of a round, ids of no two rounds the same.
fn opened(round: u32, streams: u32, frames: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    let first = 3 + round * streams * 2;
    (0..streams).flat_map(|n| frames(first + 2 * n)).collect()
}

fn request(path: &str, id: u32) -> Vec<u8> {
    let block = hpack::encode(&head_h2("GET", path, false));
    Frame::new(
        frame::HEADERS,
        frame::END_STREAM | frame::END_HEADERS,
        id,
        block,
    )
    .bytes()
}

/// A head that is begun in the first round, and goes on.
fn begun(round: u32, more: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if round == 0 {
        // `:method: GET`, from the static table.
        out = Frame::new(frame::HEADERS, 0, 3, vec![0x82]).bytes();
    }
    out.extend(more);
    out
}

/// Opens a connection with one stream that has not ended.
async fn begin(bench: &Bench) -> Result<TcpStream, String> {
    let mut socket = bench.connect_raw_h2().await.map_err(|e| e.to_string())?;
    let block = hpack::encode(&head_h2("POST", "/silent", false));
    let held = Frame::new(frame::HEADERS, frame::END_HEADERS, 1, block).bytes();
    socket.write_all(&held).await.map_err(|e| e.to_string())?;
    Ok(socket)
}

/// Sends rounds, and reads nothing, until the connection is over; false when it went on.
async fn flood(mut socket: TcpStream, round: Round, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    for n in 0.. {
        let bytes = round(n);
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, socket.write_all(&bytes)).await {
            Ok(Ok(())) => tokio::time::sleep(Duration::from_millis(1)).await,
            Ok(Err(_)) => return true,
            // Neither read nor closed: it waits for a socket that is full.
            Err(_) => break,
        }
    }
    false
}

async fn ended(kind: &Flood) -> Outcome {
    let mut bench = Bench::start(CONFIG).await?;
    let neighbours = bench.neighbours().await?;
    let socket = begin(&bench).await?;
    if !flood(socket, kind.round, Duration::from_secs(5)).await {
        return Err("it goes on".to_owned());
    }
    bench.holds_at_most(ONE)?;
    bench.counts(kind.stat, 1).await?;
    neighbours.were_served().await?;
    bench.is_clean().await
}

async fn let_be(round: Round) -> Outcome {
    const ROUNDS: u32 = 150;
    let mut bench = Bench::start(CONFIG).await?;
    let neighbours = bench.neighbours().await?;
    let (mut read, mut write) = begin(&bench).await?.into_split();
    let reading = tokio::spawn(async move {
        let mut bytes = vec![0; 64 * 1024];
        while !matches!(read.read(&mut bytes).await, Ok(0) | Err(_)) {}
    });
    for n in 0..ROUNDS {
        write
            .write_all(&round(n))
            .await
            .map_err(|e| format!("ended in round {n}: {e}"))?;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    if reading.is_finished() {
        return Err("ended".to_owned());
    }
    bench.holds_at_most(ONE)?;
    neighbours.were_served().await?;
    drop(write);
    bench.is_clean().await
}

async fn many() -> Outcome {
    const CONNECTIONS: usize = 40;
    let mut bench = Bench::start(CONFIG).await?;
    let neighbours = bench.neighbours().await?;
    let mut floods = JoinSet::new();
    for n in 0..CONNECTIONS {
        let socket = begin(&bench).await?;
        let kind = FLOODS[n % FLOODS.len()];
        floods.spawn(flood(socket, kind.round, Duration::from_secs(8)));
    }
    while let Some(ended) = floods.join_next().await {
        if !ended.map_err(|e| e.to_string())? {
            return Err("one goes on".to_owned());
        }
    }
    bench.holds_at_most(MANY)?;
    neighbours.were_served().await?;
    bench.is_clean().await
}

/// Heads over the limit, one after the other: each stream is reset, the connection goes on
/// until there were too many.
async fn huge_headers() -> Outcome {
    let mut bench = Bench::start(CONFIG).await?;
    let neighbours = bench.neighbours().await?;
    let conn = bench.connect_h2(false).await.map_err(|e| e.to_string())?;
    let mut fields: Fields = head_h2("GET", "/answer", false);
    for n in 0..90 {
        fields.push(format!("x-big-{n}"), "v".repeat(1000));
    }
    for _ in 0..400 {
        let (stream, _) = conn.open();
        if conn.headers(stream, &fields, true).await.is_err() {
            break;
        }
    }
    bench.counts("http2.tx_reset", 100).await?;
    bench.holds_at_most(ONE)?;
    neighbours.were_served().await?;
    conn.shut().await;
    bench.is_clean().await
}
