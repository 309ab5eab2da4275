//! The sending half of a message: framing of what leaves.

use std::io::Write;

use bytes::{BufMut, Bytes};
use outrigger_types::{Buffer, Headers};

use super::encode::{self, Outgoing};
use super::options::HeaderCase;
use super::wire::Wire;
use crate::http::codec::StreamError;

/// How far a message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    /// The head is still to come.
    Head,
    /// The body, of this framing.
    Body(Outgoing),
    /// All.
    Done,
}

impl Sending {
    /// Sends of `data` what `limit` bytes of waiting output allow, and the end
    /// if nothing is left.
    pub(super) fn data(
        &mut self,
        wire: &mut Wire,
        data: &mut Buffer,
        end_stream: bool,
        limit: usize,
    ) -> Result<usize, StreamError> {
        let Self::Body(framing) = self else {
            return Err(StreamError::local("http1.data_out_of_place"));
        };
        let before = data.len();
        while wire.waiting() < limit
            && let Some(chunk) = data.pop()
        {
            send_chunk(framing, wire, chunk)?;
        }
        if end_stream && data.is_empty() {
            self.end(wire, None)?;
        }
        Ok(before - data.len())
    }

    /// Ends the message. Trailers are sent if the framing has room for them.
    pub(super) fn end(
        &mut self,
        wire: &mut Wire,
        trailers: Option<(&Headers, HeaderCase)>,
    ) -> Result<(), StreamError> {
        let Self::Body(framing) = *self else {
            return Err(StreamError::local("http1.end_out_of_place"));
        };
        *self = Self::Done;
        match framing {
            Outgoing::Chunked => {
                let tail = wire.tail();
                tail.put_slice(b"0\r\n");
                if let Some((trailers, case)) = trailers {
                    encode::fields(tail, trailers, case);
                }
                tail.put_slice(b"\r\n");
                Ok(())
            }
            Outgoing::Length(0) | Outgoing::Discard | Outgoing::UntilClose | Outgoing::Raw => {
                Ok(())
            }
            Outgoing::Length(_) => Err(StreamError::local("http1.body_too_short")),
        }
    }
}

fn send_chunk(framing: &mut Outgoing, wire: &mut Wire, chunk: Bytes) -> Result<(), StreamError> {
    match framing {
        Outgoing::Chunked => {
            // A `BytesMut` grows as it is written to: this cannot fail.
            let _ = write!(wire.tail().writer(), "{:x}\r\n", chunk.len());
            wire.push(chunk);
            wire.tail().put_slice(b"\r\n");
        }
        Outgoing::Length(left) => {
            *left = left
                .checked_sub(chunk.len() as u64)
                .ok_or(StreamError::local("http1.body_too_long"))?;
            wire.push(chunk);
        }
        Outgoing::UntilClose | Outgoing::Raw => wire.push(chunk),
        Outgoing::Discard => {}
    }
    Ok(())
}
