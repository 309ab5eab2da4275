//! The half of HTTP/2 that load and backend share, written to cost next to nothing.
//!
//! Both sides know what they will say, so header blocks are encoded once per connection and written
//! as bytes; neither decodes the peer's header blocks (a wrong answer shows in the number of body
//! bytes). Flow control is kept in full for what is sent. What is received is given the largest
//! windows that RFC 9113 allows, and topped up.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What a client sends before anything else.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length of a frame header.
const FRAME_HEADER: usize = 9;
/// A peer that announces a larger frame than the default is refused: nothing here allows it.
const MAX_FRAME: usize = 16_384;
/// The largest window, given to the peer.
const MAX_WINDOW: u32 = 0x7fff_ffff;
/// Received bytes after which the connection window is topped up.
const TOP_UP: u32 = 0x4000_0000;
/// Bytes read from the socket at a time.
const READ_SIZE: usize = 64 * 1024;
/// Bytes waiting to be written above which no more DATA is made.
const OUT_LIMIT: usize = 256 * 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const SETTINGS_HEADER_TABLE_SIZE: u16 = 1;
const SETTINGS_INITIAL_WINDOW_SIZE: u16 = 4;

/// A header block in the forms it takes over the life of a connection.
#[derive(Debug, Clone, Default)]
pub struct Block {
    /// The first time: fields go into the peer's dynamic table.
    first: Vec<u8>,
    /// From then on: one byte a field.
    later: Vec<u8>,
    /// For a peer that has no dynamic table.
    plain: Vec<u8>,
}

/// Which form of a [`Block`] to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// All blocks of the connection are written in order now, and never were before.
    First,
    /// All blocks have been written in their first form.
    Later,
    /// Neither: write the block without the table.
    Plain,
}

/// Encodes the header blocks that a connection always sends in this order (a response's headers and
/// its trailers, say).
pub fn blocks(lists: &[&[(&str, &str)]]) -> Vec<Block> {
    let mut table = Table::default();
    let first: Vec<_> = lists.iter().map(|l| table.encode(l)).collect();
    let later: Vec<_> = lists.iter().map(|l| table.encode(l)).collect();
    let plain = lists.iter().map(|l| {
        Table {
            off: true,
            ..Table::default()
        }
        .encode(l)
    });
    first
        .into_iter()
        .zip(later)
        .zip(plain)
        .map(|((first, later), plain)| Block {
            first,
            later,
            plain,
        })
        .collect()
}

/// An HPACK encoder (RFC 7541) without Huffman codes.
#[derive(Default)]
struct Table {
    entries: Vec<(String, String)>,
    off: bool,
}

impl Table {
    fn encode(&mut self, list: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in list {
            self.field(name, value, &mut out);
        }
        out
    }

    fn field(&mut self, name: &str, value: &str, out: &mut Vec<u8>) {
        if let Some(index) = static_field(name, value) {
            return out.push(0x80 | index);
        }
        if let Some(at) = self
            .entries
            .iter()
            .position(|(n, v)| n == name && v == value)
        {
            let index = 62 + self.entries.len() - 1 - at;
            assert!(index < 127, "more fields than one byte can index");
            return out.push(0x80 | index as u8);
        }
        let (pattern, prefix) = if self.off { (0x00, 4) } else { (0x40, 6) };
        integer(pattern, prefix, static_name(name) as usize, out);
        if static_name(name) == 0 {
            string(name, out);
        }
        string(value, out);
        if !self.off {
            self.entries.push((name.to_owned(), value.to_owned()));
        }
    }
}

fn string(text: &str, out: &mut Vec<u8>) {
    integer(0, 7, text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

/// An integer with a prefix of so many bits (RFC 7541, section 5.1).
fn integer(pattern: u8, prefix: u32, mut value: usize, out: &mut Vec<u8>) {
    let max = (1usize << prefix) - 1;
    if value < max {
        return out.push(pattern | value as u8);
    }
    out.push(pattern | max as u8);
    value -= max;
    while value >= 128 {
        out.push((value % 128) as u8 | 0x80);
        value /= 128;
    }
    out.push(value as u8);
}

fn static_field(name: &str, value: &str) -> Option<u8> {
    Some(match (name, value) {
        (":method", "GET") => 2,
        (":method", "POST") => 3,
        (":path", "/") => 4,
        (":scheme", "http") => 6,
        (":status", "200") => 8,
        _ => return None,
    })
}

/// The index of the name in the static table, 0 if it is not there (or not used here).
fn static_name(name: &str) -> u8 {
    match name {
        ":authority" => 1,
        ":path" => 4,
        "content-length" => 28,
        "content-type" => 31,
        "user-agent" => 58,
        _ => 0,
    }
}

/// What the peer did to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A header block arrived.
    Headers {
        /// The stream.
        stream: u32,
        /// The peer has ended its side.
        end: bool,
    },
    /// Body bytes arrived.
    Data {
        /// The stream.
        stream: u32,
        /// How many bytes, without padding.
        len: usize,
        /// The peer has ended its side.
        end: bool,
    },
    /// The stream was reset.
    Reset {
        /// The stream.
        stream: u32,
    },
    /// A stream's send window grew by so many bytes.
    StreamWindow {
        /// The stream.
        stream: u32,
        /// By how much.
        by: i64,
    },
    /// The connection's send window, or every stream's, grew by so many bytes.
    ConnectionWindow {
        /// How much every stream's window changed (by a new SETTINGS value).
        all_streams: i64,
    },
}

/// Why [`Connection::turn`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// There is input: take it with [`Connection::next_event`].
    Read,
    /// Everything queued has been written.
    Written,
    /// The peer has closed the connection.
    Closed,
}

/// One HTTP/2 connection: socket, buffers, windows.
pub struct Connection {
    socket: TcpStream,
    input: Box<[u8]>,
    /// Where the bytes read so far end in `input`.
    filled: usize,
    /// Where the bytes not yet looked at begin in `input`.
    parsed: usize,
    /// Bytes to write at the next [`Connection::turn`].
    out: Vec<u8>,
    written: usize,
    send_window: i64,
    peer_stream_window: i64,
    received: u32,
    peer_has_table: bool,
    settled: bool,
}

impl Connection {
    /// Wraps a connected socket and queues what this side has to say first.
    pub fn new(socket: TcpStream, client: bool) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        let mut out = Vec::with_capacity(READ_SIZE);
        if client {
            out.extend_from_slice(PREFACE);
        }
        frame(&mut out, 6, SETTINGS, 0, 0);
        out.extend_from_slice(&SETTINGS_INITIAL_WINDOW_SIZE.to_be_bytes());
        out.extend_from_slice(&MAX_WINDOW.to_be_bytes());
        window_update(&mut out, MAX_WINDOW - 65_535);
        Ok(Self {
            socket,
            input: vec![0; READ_SIZE].into_boxed_slice(),
            filled: 0,
            parsed: if client { 0 } else { PREFACE.len() },
            out,
            written: 0,
            send_window: 65_535,
            peer_stream_window: 65_535,
            received: 0,
            peer_has_table: true,
            settled: false,
        })
    }

    /// Whether the peer's SETTINGS have arrived.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// The send window with which a new stream begins.
    pub fn stream_window(&self) -> i64 {
        self.peer_stream_window
    }

    /// Whether so many bytes of DATA fit the connection's window.
    pub fn has_window(&self, len: usize) -> bool {
        self.send_window >= len as i64
    }

    /// Whether so much waits to be written that no more should be made.
    pub fn is_full(&self) -> bool {
        self.out.len() - self.written >= OUT_LIMIT
    }

    /// Queues a header block.
    pub fn headers(&mut self, stream: u32, block: &Block, form: Form, end: bool) {
        let bytes = match form {
            Form::First if self.peer_has_table => &block.first,
            Form::Later if self.peer_has_table => &block.later,
            _ => &block.plain,
        };
        let flags = END_HEADERS | if end { END_STREAM } else { 0 };
        frame(&mut self.out, bytes.len(), HEADERS, flags, stream);
        self.out.extend_from_slice(bytes);
    }

    /// Queues a DATA frame. The caller has asked [`Connection::has_window`].
    pub fn data(&mut self, stream: u32, bytes: &[u8], end: bool) {
        self.send_window -= bytes.len() as i64;
        frame(
            &mut self.out,
            bytes.len(),
            DATA,
            if end { END_STREAM } else { 0 },
            stream,
        );
        self.out.extend_from_slice(bytes);
    }

    /// Writes what is queued, then waits for input; or, if `until_written`, for the queue to be empty.
    pub async fn turn(&mut self, until_written: bool) -> io::Result<Turn> {
        poll_fn(|cx| self.poll_turn(cx, until_written)).await
    }

    /// As [`Connection::turn`], for callers that have something else to wait for.
    pub fn poll_turn(
        &mut self,
        cx: &mut Context<'_>,
        until_written: bool,
    ) -> Poll<io::Result<Turn>> {
        self.poll_write(cx)?;
        if until_written && self.out.is_empty() {
            return Poll::Ready(Ok(Turn::Written));
        }
        if self.parsed <= self.filled {
            self.input.copy_within(self.parsed..self.filled, 0);
            self.filled -= self.parsed;
            self.parsed = 0;
        }
        self.poll_read(cx)
    }

    /// Writes as much as the socket takes.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.written < self.out.len() {
            match Pin::new(&mut self.socket).poll_write(cx, &self.out[self.written..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => self.written += n,
                Poll::Ready(Err(e)) => return Err(e),
                Poll::Pending => return Ok(()),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Turn>> {
        let mut buf = ReadBuf::new(&mut self.input[self.filled..]);
        let polled = Pin::new(&mut self.socket).poll_read(cx, &mut buf);
        let got = buf.filled().len();
        self.filled += got;
        polled.map_ok(|()| if got == 0 { Turn::Closed } else { Turn::Read })
    }

    /// The next thing that happened to a stream, from what has been read. Frames about the connection
    /// are answered here.
    pub fn next_event(&mut self) -> io::Result<Option<Event>> {
        while let Some((kind, flags, stream, len)) = self.frame_header()? {
            let start = self.parsed + FRAME_HEADER;
            self.parsed = start + len;
            if let Some(event) = self.on_frame(kind, flags, stream, start, len)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn frame_header(&self) -> io::Result<Option<(u8, u8, u32, usize)>> {
        if self.filled < self.parsed + FRAME_HEADER {
            return Ok(None);
        }
        let head = &self.input[self.parsed..self.parsed + FRAME_HEADER];
        let len = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        if len > MAX_FRAME {
            return Err(io::Error::other("frame too large"));
        }
        if self.filled < self.parsed + FRAME_HEADER + len {
            return Ok(None);
        }
        let stream = be32(&head[5..9]) & MAX_WINDOW;
        Ok(Some((head[3], head[4], stream, len)))
    }

    fn on_frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        start: usize,
        len: usize,
    ) -> io::Result<Option<Event>> {
        let end = flags & END_STREAM != 0;
        match kind {
            DATA => {
                self.account(len as u32);
                let padding = if flags & PADDED != 0 {
                    usize::from(self.input[start]) + 1
                } else {
                    0
                };
                return Ok(Some(Event::Data {
                    stream,
                    len: len.saturating_sub(padding),
                    end,
                }));
            }
            HEADERS => return Ok(Some(Event::Headers { stream, end })),
            RST_STREAM => return Ok(Some(Event::Reset { stream })),
            SETTINGS if flags & ACK == 0 => {
                let all_streams = self.on_settings(start, len);
                return Ok(Some(Event::ConnectionWindow { all_streams }));
            }
            PING if flags & ACK == 0 => {
                frame(&mut self.out, len, PING, ACK, 0);
                self.out.extend_from_slice(&self.input[start..start + len]);
            }
            GOAWAY => return Err(io::Error::other("the peer sent GOAWAY")),
            WINDOW_UPDATE if len == 4 => {
                let by = i64::from(be32(&self.input[start..start + 4]) & MAX_WINDOW);
                if stream != 0 {
                    return Ok(Some(Event::StreamWindow { stream, by }));
                }
                self.send_window += by;
                return Ok(Some(Event::ConnectionWindow { all_streams: 0 }));
            }
            _ => {}
        }
        Ok(None)
    }

    /// Takes the settings that matter here and says how much every stream's window changed.
    fn on_settings(&mut self, start: usize, len: usize) -> i64 {
        let mut grown = 0;
        for entry in self.input[start..start + len].chunks_exact(6) {
            let value = be32(&entry[2..6]);
            match u16::from_be_bytes([entry[0], entry[1]]) {
                SETTINGS_HEADER_TABLE_SIZE => self.peer_has_table = value >= 4096,
                SETTINGS_INITIAL_WINDOW_SIZE => {
                    grown = i64::from(value) - self.peer_stream_window;
                    self.peer_stream_window = i64::from(value);
                }
                _ => {}
            }
        }
        frame(&mut self.out, 0, SETTINGS, ACK, 0);
        self.settled = true;
        grown
    }

    fn account(&mut self, len: u32) {
        self.received += len;
        if self.received > TOP_UP {
            window_update(&mut self.out, self.received);
            self.received = 0;
        }
    }
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn window_update(out: &mut Vec<u8>, by: u32) {
    frame(out, 4, WINDOW_UPDATE, 0, 0);
    out.extend_from_slice(&by.to_be_bytes());
}

fn frame(out: &mut Vec<u8>, len: usize, kind: u8, flags: u8, stream: u32) {
    out.extend_from_slice(&[(len >> 16) as u8, (len >> 8) as u8, len as u8, kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

/// A gRPC message frame of so many bytes of payload: not compressed, length, zeros.
pub fn grpc_message(payload: usize) -> Vec<u8> {
    let mut message = vec![0u8; 5 + payload];
    message[1..5].copy_from_slice(&(payload as u32).to_be_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_what_it_has_said_before() {
        let made = blocks(&[
            &[(":status", "200"), ("content-type", "application/grpc")],
            &[("grpc-status", "0")],
        ]);
        assert_eq!(made[0].later, [0x88, 0x80 | 63]);
        assert_eq!(made[1].later, [0x80 | 62]);
        assert_eq!(made[0].first[..3], [0x88, 0x40 | 31, 16]);
        assert_eq!(made[1].plain[..2], [0x00, 11]);
    }

    #[test]
    fn spreads_a_long_integer_over_bytes() {
        let mut out = Vec::new();
        integer(0, 5, 1337, &mut out);
        assert_eq!(out, [31, 154, 10]);
    }

    #[test]
    fn frames_a_grpc_message() {
        assert_eq!(grpc_message(2), [0, 0, 0, 0, 2, 0, 0]);
    }
}
