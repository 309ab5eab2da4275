//! The step language in which both scripted clients and scripted upstreams are written,
//! and the runner of it over either HTTP version or plain TCP.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;

use crate::exchange::Exchange;
use crate::h1;
use crate::h2::conn::Conn;
use crate::h2::frame::{self, Frame};
use crate::values::{Fields, Payload, Span};

/// One step of a script.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A response head: final or 1xx.
    Respond(Respond),
    /// Body bytes.
    Data(Payload),
    /// Trailers; on HTTP/2 and with chunked framing they end the message.
    Trailers(Fields),
    /// The end of the message: the last chunk, or an empty DATA with END_STREAM.
    End,
    /// `RST_STREAM` with this code; on HTTP/1 a TCP reset.
    Reset(u32),
    /// GOAWAY.
    Goaway {
        /// Last stream id.
        last: u32,
        /// Error code.
        code: u32,
    },
    /// Shuts down the sending side of the connection.
    Close,
    /// Ends the connection with a TCP reset.
    Abort,
    /// Does nothing for a while.
    Wait(Span),
    /// Waits for something from the peer.
    Await(Await),
    /// Bytes as they are, on the connection.
    Raw(Payload),
    /// Sends the peer's body back while it comes, until it ends.
    Echo,
    /// Grants window on the stream and the connection (with `hold_windows`).
    Window(u32),
    /// Opens streams on the connection beside this one, whose answers nobody waits for.
    Streams(Streams),
    /// Reads nothing from the connection from now on (HTTP/2).
    Deaf,
}

/// The head of a response.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Respond {
    /// Status code.
    pub status: u16,
    /// Fields after the status.
    #[serde(default)]
    pub headers: Fields,
    /// Whether the head also ends the message (HTTP/2).
    #[serde(default)]
    pub end: bool,
}

/// Streams beside the one of the script (HTTP/2).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Streams {
    /// How many.
    pub times: u32,
    /// Path, `/` when unset.
    pub path: Option<String>,
    /// Fields after the pseudo headers.
    #[serde(default)]
    pub headers: Fields,
    /// Resets each at once with this code; otherwise its head ends it.
    pub reset: Option<u32>,
}

/// What to wait for.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Await {
    /// The peer's head.
    Head,
    /// The end of the peer's message.
    End,
    /// At least this many body bytes.
    Body(usize),
    /// A 1xx head.
    Interim,
    /// A reset, or the end of the connection.
    Broken,
}

/// What becomes of the connection after a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It may carry another exchange.
    Keep,
    /// The sending side is shut down.
    Closed,
    /// It was torn down.
    Aborted,
}

/// Where a script's bytes go.
pub enum Out<'a> {
    /// HTTP/1, or plain TCP when `chunked` is never set.
    H1 {
        /// The sending half.
        writer: &'a mut OwnedWriteHalf,
        /// Whether data is framed in chunks.
        chunked: bool,
    },
    /// One HTTP/2 stream.
    H2 {
        /// Its connection.
        conn: Conn,
        /// Its id.
        stream: u32,
    },
}

/// A step waits this long for the peer before the script goes on.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `steps`, sending to `out` and watching `peer`.
///
/// # Errors
/// What the socket says; a peer that is gone is an ordinary outcome.
pub async fn run(steps: &[Step], out: &mut Out<'_>, peer: &Arc<Exchange>) -> io::Result<After> {
    for (at, step) in steps.iter().enumerate() {
        let ends = matches!(steps.get(at + 1), Some(Step::End));
        match step {
            Step::Respond(respond) => out.respond(respond, ends).await?,
            Step::Data(payload) => out.data(&payload.0, ends).await?,
            Step::Trailers(fields) => out.trailers(fields).await?,
            Step::End => out.end(at == 0 || !steps[at - 1].carries_end()).await?,
            Step::Reset(code) => {
                if !out.reset(*code).await? {
                    return Ok(After::Aborted);
                }
            }
            Step::Goaway { last, code } => out.goaway(*last, *code).await?,
            Step::Close => {
                out.close().await?;
                return finish(&steps[at + 1..], peer, After::Closed).await;
            }
            Step::Abort => {
                out.abort().await;
                return Ok(After::Aborted);
            }
            Step::Wait(span) => wait(span.0, peer).await,
            Step::Await(what) => await_peer(*what, peer).await,
            Step::Raw(payload) => out.raw(&payload.0).await?,
            Step::Echo => echo(out, peer).await?,
            Step::Window(grant) => out.window(*grant).await?,
            Step::Streams(streams) => out.streams(streams).await?,
            Step::Deaf => out.deaf(),
        }
    }
    Ok(After::Keep)
}

/// After a close only waiting is left.
async fn finish(steps: &[Step], peer: &Arc<Exchange>, after: After) -> io::Result<After> {
    for step in steps {
        match step {
            Step::Wait(span) => wait(span.0, peer).await,
            Step::Await(what) => await_peer(*what, peer).await,
            other => return Err(io::Error::other(format!("{other:?} after a close"))),
        }
    }
    Ok(after)
}

/// A pause, cut short when the peer goes away.
async fn wait(time: Duration, peer: &Arc<Exchange>) {
    peer.until(time, |seen| seen.broken.is_some()).await;
}

async fn await_peer(what: Await, peer: &Arc<Exchange>) {
    peer.until(PATIENCE, |seen| {
        seen.broken.is_some()
            || match what {
                Await::Head => seen.head.is_some(),
                Await::End => seen.ended,
                Await::Body(count) => seen.body.len() >= count || seen.ended,
                Await::Interim => !seen.interim.is_empty(),
                Await::Broken => false,
            }
    })
    .await;
}

async fn echo(out: &mut Out<'_>, peer: &Arc<Exchange>) -> io::Result<()> {
    let mut sent = 0;
    loop {
        let done = |seen: &crate::exchange::Seen| seen.broken.is_some() || seen.ended;
        peer.until(PATIENCE, |seen| seen.body.len() > sent || done(seen))
            .await;
        let seen = peer.seen();
        if seen.body.len() > sent {
            out.data(&seen.body[sent..], false).await?;
            sent = seen.body.len();
        } else {
            return Ok(());
        }
    }
}

impl Step {
    /// Whether a following `End` rides on this step's own frame (HTTP/2).
    fn carries_end(&self) -> bool {
        matches!(self, Self::Respond(_) | Self::Data(_))
    }
}

impl Out<'_> {
    async fn respond(&mut self, respond: &Respond, ends: bool) -> io::Result<()> {
        match self {
            Self::H1 { writer, chunked } => {
                let coding = respond.headers.get("transfer-encoding");
                *chunked = coding.is_some_and(|v| v.contains("chunked"));
                let line = format!("HTTP/1.1 {} {}", respond.status, reason(respond.status));
                writer
                    .write_all(&h1::write_head(&line, &respond.headers))
                    .await
            }
            Self::H2 { conn, stream } => {
                let mut fields = Fields::default();
                fields.push(":status", respond.status.to_string());
                fields.0.extend(respond.headers.0.iter().cloned());
                conn.headers(*stream, &fields, respond.end || ends).await
            }
        }
    }

    async fn data(&mut self, bytes: &[u8], ends: bool) -> io::Result<()> {
        match self {
            Self::H1 {
                writer,
                chunked: true,
            } if !bytes.is_empty() => {
                writer
                    .write_all(format!("{:x}\r\n", bytes.len()).as_bytes())
                    .await?;
                writer.write_all(bytes).await?;
                writer.write_all(b"\r\n").await
            }
            Self::H1 { writer, .. } => writer.write_all(bytes).await,
            Self::H2 { conn, stream } => conn.data(*stream, bytes, ends).await,
        }
    }

    async fn trailers(&mut self, fields: &Fields) -> io::Result<()> {
        match self {
            Self::H1 { writer, .. } => writer.write_all(&h1::write_head("0", fields)).await,
            Self::H2 { conn, stream } => conn.headers(*stream, fields, true).await,
        }
    }

    async fn end(&mut self, alone: bool) -> io::Result<()> {
        match self {
            Self::H1 {
                writer,
                chunked: true,
            } => writer.write_all(b"0\r\n\r\n").await,
            Self::H2 { conn, stream } if alone => conn.data(*stream, b"", true).await,
            Self::H1 { .. } | Self::H2 { .. } => Ok(()),
        }
    }

    /// Resets the stream; false when the connection went with it.
    async fn reset(&mut self, code: u32) -> io::Result<bool> {
        if let Self::H2 { conn, stream } = self {
            conn.reset(*stream, code).await?;
            return Ok(true);
        }
        self.abort().await;
        Ok(false)
    }

    async fn goaway(&mut self, last: u32, code: u32) -> io::Result<()> {
        match self {
            Self::H2 { conn, .. } => conn.goaway(last, code).await,
            Self::H1 { .. } => Err(io::Error::other("GOAWAY on HTTP/1")),
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        match self {
            Self::H1 { writer, .. } => writer.shutdown().await,
            Self::H2 { conn, .. } => conn.close().await,
        }
    }

    /// HTTP/1: the reset goes out when the caller drops both halves.
    async fn abort(&mut self) {
        match self {
            Self::H1 { writer, .. } => {
                let socket: &tokio::net::TcpStream = (**writer).as_ref();
                SockRef::from(socket).set_linger(Some(Duration::ZERO)).ok();
            }
            Self::H2 { conn, .. } => conn.abort().await,
        }
    }

    async fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::H1 { writer, .. } => writer.write_all(bytes).await,
            Self::H2 { conn, .. } => conn.raw(bytes).await,
        }
    }

    async fn streams(&mut self, streams: &Streams) -> io::Result<()> {
        let Self::H2 { conn, .. } = self else {
            return Err(io::Error::other("streams on HTTP/1"));
        };
        let mut fields = Fields::default();
        fields.push(":method", "GET");
        fields.push(":scheme", "http");
        fields.push(":authority", "parity.test");
        fields.push(":path", streams.path.as_deref().unwrap_or("/"));
        fields.0.extend(streams.headers.0.iter().cloned());
        for _ in 0..streams.times {
            let (stream, _) = conn.open();
            conn.headers(stream, &fields, streams.reset.is_none())
                .await?;
            if let Some(code) = streams.reset {
                conn.reset(stream, code).await?;
            }
        }
        Ok(())
    }

    fn deaf(&mut self) {
        if let Self::H2 { conn, .. } = self {
            conn.deaf();
        }
    }

    async fn window(&mut self, grant: u32) -> io::Result<()> {
        if let Self::H2 { conn, stream } = self {
            for id in [0, *stream] {
                let payload = grant.to_be_bytes().to_vec();
                conn.send(&Frame::new(frame::WINDOW_UPDATE, 0, id, payload))
                    .await?;
            }
        }
        Ok(())
    }
}

/// The customary phrase of a status; scripts never need another.
fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status)
        .ok()
        .and_then(|s| s.canonical_reason())
        .unwrap_or("Unknown")
}
