//! Decoding of bodies, sans-IO.

use bytes::{Buf, BytesMut};

use super::head::parse_trailers;
use super::options::{H1Error, Options};
use crate::http::codec::BodyEvent;

/// Extensions and padding of a chunk's size line, and what may stand after its data, bytes.
const MAX_CHUNK_LINE: u32 = 16 * 1024;

/// What delimits a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    None,
    /// So many bytes, at least one.
    Length(u64),
    /// Chunks, and perhaps trailers.
    Chunked,
    /// The end of the connection.
    UntilClose,
    /// No message any more: an upgrade or a tunnel.
    Raw,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    Size(SizeLine),
    Data(u64),
    /// So many bytes of the line after a chunk's data were skipped.
    DataEnd(usize),
    Trailers,
    UntilClose,
    Raw,
    Done,
}

/// Where in the line with a chunk's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SizeLine {
    size: u64,
    digits: u32,
    rest: u32,
    part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Digits,
    Padding,
    Extension,
    Lf,
}

impl SizeLine {
    const START: Self = Self {
        size: 0,
        digits: 0,
        rest: 0,
        part: Part::Digits,
    };

    /// Takes a byte; true when the line is over.
    fn take(&mut self, byte: u8) -> Result<bool, H1Error> {
        match (self.part, byte) {
            (Part::Digits, b) if b.is_ascii_hexdigit() => self.digit(b)?,
            (Part::Lf, b'\n') => return Ok(true),
            (Part::Lf, _) => return Err(H1Error::CODEC),
            _ if self.digits == 0 => return Err(H1Error::CODEC),
            (_, b'\r') => self.part = Part::Lf,
            (Part::Digits | Part::Padding, b' ' | b'\t') => self.part = Part::Padding,
            (Part::Digits | Part::Padding, b';') => self.part = Part::Extension,
            (Part::Extension, b) if b == b'\t' || (b >= 0x20 && b != 0x7f) => {}
            _ => return Err(H1Error::CODEC),
        }
        self.rest += 1;
        match self.rest > MAX_CHUNK_LINE {
            true => Err(H1Error::CODEC),
            false => Ok(false),
        }
    }

    fn digit(&mut self, byte: u8) -> Result<(), H1Error> {
        let digit = char::from(byte).to_digit(16).unwrap_or_default();
        let size = self.size.checked_mul(16);
        self.size = size.ok_or(H1Error::CODEC)? + u64::from(digit);
        self.digits += 1;
        Ok(())
    }
}

/// Turns the bytes after a head into [`BodyEvent`]s.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    max_bytes: usize,
    max_count: usize,
    keep_trailers: bool,
}

impl Decoder {
    pub(super) fn new(framing: Framing, options: &Options) -> Self {
        Self {
            state: match framing {
                Framing::None => State::Done,
                Framing::Length(n) => State::Length(n),
                Framing::Chunked => State::Size(SizeLine::START),
                Framing::UntilClose => State::UntilClose,
                Framing::Raw => State::Raw,
            },
            max_bytes: options.max_headers_bytes,
            max_count: options.max_headers_count,
            keep_trailers: options.enable_trailers,
        }
    }

    /// Whether there is no message any more, whose end the end of the connection could
    /// be.
    pub(super) fn is_raw(&self) -> bool {
        self.state == State::Raw
    }

    /// Whether the body is over.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The next event; none if more bytes are needed.
    pub(super) fn decode(&mut self, buf: &mut BytesMut) -> Result<Option<BodyEvent>, H1Error> {
        loop {
            match &mut self.state {
                State::Done => return Ok(Some(BodyEvent::End)),
                State::Trailers => return self.trailers(buf),
                _ if buf.is_empty() => return Ok(None),
                State::Length(left) => {
                    let bytes = split(buf, *left);
                    *left -= bytes.len() as u64;
                    let end_stream = *left == 0;
                    if end_stream {
                        self.state = State::Done;
                    }
                    return Ok(Some(BodyEvent::Data { bytes, end_stream }));
                }
                State::UntilClose | State::Raw => {
                    return Ok(Some(BodyEvent::Data {
                        bytes: buf.split().freeze(),
                        end_stream: false,
                    }));
                }
                State::Size(line) => {
                    if line.take(buf.get_u8())? {
                        self.state = match line.size {
                            0 => State::Trailers,
                            size => State::Data(size),
                        };
                    }
                }
                State::Data(left) => {
                    let bytes = split(buf, *left);
                    *left -= bytes.len() as u64;
                    let end_stream = *left == 0 && self.end_chunk(buf);
                    return Ok(Some(BodyEvent::Data { bytes, end_stream }));
                }
                // As in Envoy what stands there is skipped: the body is framed anew for
                // the other side, which sees none of it.
                State::DataEnd(skipped) => {
                    let end = buf.iter().position(|b| *b == b'\n');
                    let line = end.map_or(buf.len(), |lf| lf + 1);
                    *skipped += line;
                    if *skipped > MAX_CHUNK_LINE as usize {
                        return Err(H1Error::CODEC);
                    }
                    buf.advance(line);
                    if end.is_some() {
                        self.state = State::Size(SizeLine::START);
                    }
                }
            }
        }
    }

    /// After the last byte of a chunk. True if the end of the body is at hand,
    /// which spares an event.
    fn end_chunk(&mut self, buf: &mut BytesMut) -> bool {
        const LAST: &[u8] = b"\r\n0\r\n\r\n";
        if buf.starts_with(LAST) {
            buf.advance(LAST.len());
            self.state = State::Done;
            return true;
        }
        self.state = State::DataEnd(0);
        false
    }

    fn trailers(&mut self, buf: &mut BytesMut) -> Result<Option<BodyEvent>, H1Error> {
        let Some(trailers) = parse_trailers(buf, self.max_bytes, self.max_count)? else {
            return Ok(None);
        };
        self.state = State::Done;
        Ok(Some(match trailers.is_empty() || !self.keep_trailers {
            true => BodyEvent::End,
            false => BodyEvent::Trailers(trailers),
        }))
    }

    /// The connection ended: true if that ends the body, false if it cuts it.
    pub(super) fn end_of_connection(&mut self) -> bool {
        let whole = matches!(self.state, State::UntilClose | State::Done);
        if whole {
            self.state = State::Done;
        }
        whole
    }
}

/// At most `left` bytes from the front.
fn split(buf: &mut BytesMut, left: u64) -> bytes::Bytes {
    let n = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
    buf.split_to(n).freeze()
}
