//! HTTP/1 at the level of bytes: heads as they were written, framing undone, nothing corrected.
//!
//! A strict parser would hide exactly what these tests look for, so this one
//! splits lines and believes the lengths it is told.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;

use crate::exchange::{Exchange, Head};
use crate::values::Fields;

/// How the length of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body follows.
    None,
    /// `content-length`.
    Length(usize),
    /// `transfer-encoding: chunked`.
    Chunked,
    /// Until the connection ends (also tunnels after an upgrade).
    Close,
}

/// Framing of a request as its head says. A tunnel request (`CONNECT`, `upgrade`) runs to the close.
#[must_use]
pub fn request_framing(head: &Head) -> Framing {
    let tunnel = head.method() == "CONNECT" || head.fields.get("upgrade").is_some();
    match declared(head) {
        Framing::Close if tunnel => Framing::Close,
        Framing::Close => Framing::None,
        framing => framing,
    }
}

/// Framing of a response to a request of `method`.
#[must_use]
pub fn response_framing(head: &Head, method: &str) -> Framing {
    match head.status() {
        101 => Framing::Close,
        200..=299 if method == "CONNECT" => Framing::Close,
        100..=199 | 204 | 304 => Framing::None,
        _ if method == "HEAD" => Framing::None,
        _ => declared(head),
    }
}

fn declared(head: &Head) -> Framing {
    let chunked = head
        .fields
        .get("transfer-encoding")
        .is_some_and(|v| v.to_ascii_lowercase().contains("chunked"));
    if chunked {
        return Framing::Chunked;
    }
    match head.fields.get("content-length").map(str::parse) {
        Some(Ok(length)) => Framing::Length(length),
        _ => Framing::Close,
    }
}

/// The reading half of a connection with what was read ahead.
#[derive(Debug)]
pub struct Reader {
    half: OwnedReadHalf,
    buffer: Vec<u8>,
    tap: Option<Tap>,
}

/// All bytes that came over a connection, as they came.
pub type Tap = Arc<Mutex<Vec<u8>>>;

impl Reader {
    /// Wraps the half of a fresh connection.
    #[must_use]
    pub fn new(half: OwnedReadHalf) -> Self {
        Self {
            half,
            buffer: Vec::new(),
            tap: None,
        }
    }

    /// Keeps all that is read from now on in `tap` too.
    #[must_use]
    pub fn tapped(self, tap: Tap) -> Self {
        Self {
            tap: Some(tap),
            ..self
        }
    }

    /// Reads more; false at the end of the stream.
    ///
    /// # Errors
    /// What the socket says, a reset above all.
    pub async fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = vec![0; 64 * 1024];
        let count = self.half.read(&mut chunk).await?;
        self.buffer.extend_from_slice(&chunk[..count]);
        if let Some(tap) = &self.tap {
            tap.lock().extend_from_slice(&chunk[..count]);
        }
        Ok(count > 0)
    }

    /// Takes all bytes read and not yet consumed.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// One line without its ending; `None` when the stream ends first.
    async fn line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(at) = self.buffer.iter().position(|b| *b == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=at).collect();
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(Some(line.iter().map(|b| char::from(*b)).collect()));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    async fn fields(&mut self) -> io::Result<Option<Fields>> {
        let mut fields = Fields::default();
        while let Some(line) = self.line().await? {
            if line.is_empty() {
                return Ok(Some(fields));
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            fields.push(name, value.trim());
        }
        Ok(None)
    }

    /// The next head; `None` when the stream ends before it is whole.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn head(&mut self) -> io::Result<Option<Head>> {
        let Some(line) = self.line().await? else {
            return Ok(None);
        };
        Ok(self.fields().await?.map(|fields| Head { line, fields }))
    }

    /// Reads a body into `to`; false when the stream ended before the framing did.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn body(&mut self, framing: Framing, to: &Exchange) -> io::Result<bool> {
        match framing {
            Framing::None => Ok(true),
            Framing::Length(length) => self.exactly(length, to).await,
            Framing::Chunked => self.chunks(to).await,
            Framing::Close => loop {
                let bytes = self.take();
                to.update(|seen| seen.body.extend(bytes));
                if !self.fill().await? {
                    return Ok(true);
                }
            },
        }
    }

    async fn exactly(&mut self, mut length: usize, to: &Exchange) -> io::Result<bool> {
        while length > 0 {
            if self.buffer.is_empty() && !self.fill().await? {
                return Ok(false);
            }
            let count = length.min(self.buffer.len());
            length -= count;
            let bytes: Vec<u8> = self.buffer.drain(..count).collect();
            to.update(|seen| seen.body.extend(bytes));
        }
        Ok(true)
    }

    async fn chunks(&mut self, to: &Exchange) -> io::Result<bool> {
        while let Some(line) = self.line().await? {
            let size = line.split(';').next().unwrap_or("").trim();
            let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
            if size == 0 {
                let Some(trailers) = self.fields().await? else {
                    return Ok(false);
                };
                if !trailers.0.is_empty() {
                    to.update(|seen| seen.trailers = Some(trailers));
                }
                return Ok(true);
            }
            if !self.exactly(size, to).await? || self.line().await?.is_none() {
                return Ok(false);
            }
        }
        Ok(false)
    }
}

/// A head as bytes, names as given.
#[must_use]
pub fn write_head(line: &str, fields: &Fields) -> Vec<u8> {
    let mut out = format!("{line}\r\n");
    for (name, value) in &fields.0 {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    out.push_str("\r\n");
    out.into_bytes()
}

/// How a socket error shows in a report. A peer that closes with unread bytes in its
/// socket resets the connection, so whether one sees a reset or an end is chance.
#[must_use]
pub fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "closed".to_owned(),
        _ => error.to_string(),
    }
}
