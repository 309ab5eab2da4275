//! Decoding of bodies, sans-IO.

use bytes::{Buf, Bytes, BytesMut};

use super::head::parse_trailers;
use super::options::{H1Error, Options};
use crate::http::codec::BodyEvent;

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
    /// In the line after a chunk's data.
    DataEnd,
    Trailers,
    /// The framing broke after the last byte of the body.
    Broken,
    UntilClose,
    Raw,
    Done,
}

/// Where in the line with a chunk's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SizeLine {
    size: u64,
    digits: bool,
    part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Digits,
    /// Whatever it holds is skipped, and never kept.
    Extension,
    Lf,
}

impl SizeLine {
    const START: Self = Self {
        size: 0,
        digits: false,
        part: Part::Digits,
    };

    /// Whether it is the line of the last chunk.
    fn is_last(&self) -> bool {
        self.digits && self.size == 0
    }

    /// Takes a byte; true when the line is over.
    fn take(&mut self, byte: u8) -> Result<bool, H1Error> {
        match (self.part, byte) {
            (Part::Lf, b'\n') => return Ok(true),
            (Part::Lf, _) | (Part::Extension, b'\n') => return Err(H1Error::CODEC),
            (Part::Digits, b) if b.is_ascii_hexdigit() => self.digit(b)?,
            (Part::Digits, _) if !self.digits => return Err(H1Error::CODEC),
            (_, b'\r') => self.part = Part::Lf,
            (Part::Digits, b' ' | b'\t' | b';') => self.part = Part::Extension,
            (Part::Extension, _) => {}
            (Part::Digits, _) => return Err(H1Error::CODEC),
        }
        Ok(false)
    }

    fn digit(&mut self, byte: u8) -> Result<(), H1Error> {
        let digit = char::from(byte).to_digit(16).unwrap_or_default();
        let size = self.size.checked_mul(16);
        self.size = size.ok_or(H1Error::CODEC)? + u64::from(digit);
        self.digits = true;
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

    /// The next event; none if more bytes are needed. Chunks that are at hand together
    /// make one event, and none of them counts if what is at hand breaks the framing.
    pub(super) fn decode(&mut self, buf: &mut BytesMut) -> Result<Option<BodyEvent>, H1Error> {
        match &mut self.state {
            State::Done => Ok(Some(BodyEvent::End)),
            State::Trailers => self.trailers(buf),
            State::Broken => Err(H1Error::CODEC),
            _ if buf.is_empty() => Ok(None),
            State::Length(left) => {
                let bytes = split(buf, *left);
                *left -= bytes.len() as u64;
                let end_stream = *left == 0;
                if end_stream {
                    self.state = State::Done;
                }
                Ok(Some(BodyEvent::Data { bytes, end_stream }))
            }
            State::UntilClose | State::Raw => Ok(Some(BodyEvent::Data {
                bytes: buf.split().freeze(),
                end_stream: false,
            })),
            State::Size(_) | State::Data(_) | State::DataEnd => self.chunks(buf),
        }
    }

    fn chunks(&mut self, buf: &mut BytesMut) -> Result<Option<BodyEvent>, H1Error> {
        let mut gathered = Gathered::default();
        while !buf.is_empty() {
            match &mut self.state {
                State::Size(line) => match line.take(buf.get_u8()) {
                    Ok(false) => {}
                    Ok(true) if line.size == 0 => {
                        self.state = State::Trailers;
                        break;
                    }
                    Ok(true) => self.state = State::Data(line.size),
                    // The body was over before the line broke.
                    Err(_) if line.is_last() && !gathered.is_empty() => {
                        self.state = State::Broken;
                        break;
                    }
                    Err(error) => return Err(error),
                },
                State::Data(left) => {
                    let bytes = split(buf, *left);
                    *left -= bytes.len() as u64;
                    if *left == 0 {
                        self.state = State::DataEnd;
                    }
                    gathered.add(bytes);
                }
                // As in Envoy what stands there is skipped: the body is framed anew for
                // the other side, which sees none of it.
                State::DataEnd => match buf.iter().position(|b| *b == b'\n') {
                    None => buf.clear(),
                    Some(lf) => {
                        buf.advance(lf + 1);
                        self.state = State::Size(SizeLine::START);
                    }
                },
                _ => break,
            }
        }
        let ended = self.state == State::Trailers && self.end_at_once(buf);
        Ok(match (gathered.is_empty(), ended) {
            (true, true) => Some(BodyEvent::End),
            (true, false) if self.state == State::Trailers => self.trailers(buf)?,
            (true, false) => None,
            (false, end_stream) => Some(BodyEvent::Data {
                bytes: gathered.bytes(),
                end_stream,
            }),
        })
    }

    /// True if no trailers follow the last chunk and its end is at hand, which spares an
    /// event.
    fn end_at_once(&mut self, buf: &mut BytesMut) -> bool {
        let ends = buf.starts_with(b"\r\n");
        if ends {
            buf.advance(2);
            self.state = State::Done;
        }
        ends
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
fn split(buf: &mut BytesMut, left: u64) -> Bytes {
    let n = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
    buf.split_to(n).freeze()
}

/// The data of the chunks that are at hand together. One alone is not copied.
#[derive(Default)]
struct Gathered {
    first: Bytes,
    all: BytesMut,
}

impl Gathered {
    fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    fn add(&mut self, bytes: Bytes) {
        if self.first.is_empty() {
            self.first = bytes;
            return;
        }
        if self.all.is_empty() {
            self.all.extend_from_slice(&self.first);
        }
        self.all.extend_from_slice(&bytes);
    }

    fn bytes(self) -> Bytes {
        match self.all.is_empty() {
            true => self.first,
            false => self.all.freeze(),
        }
    }
}
