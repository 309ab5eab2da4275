//! What one message exchange took of its HTTP/1 connection.

use super::wire::Wire;
use crate::http::codec::{BodyEvent, ByteCounts};

/// Where on the connection an exchange began, and the bytes of its heads.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    consumed: u64,
    queued: u64,
    header_received: u64,
    header_sent: u64,
}

impl Tally {
    /// An exchange that begins after `consumed` bytes of what comes in.
    pub(super) fn begin(consumed: u64, wire: &Wire) -> Self {
        Self {
            consumed,
            queued: wire.queued(),
            ..Self::default()
        }
    }

    /// A head came in.
    pub(super) fn received(&mut self, field_bytes: u64) {
        self.header_received += field_bytes;
    }

    /// A part of a body came in, of which trailers count as fields.
    pub(super) fn received_in(&mut self, event: &BodyEvent) {
        if let BodyEvent::Trailers(trailers) = event {
            self.header_received += (trailers.byte_size() + 3 * trailers.len()) as u64;
        }
    }

    /// A head is written; of it Envoy counts the fields alone.
    pub(super) fn sent(&mut self, head: &[u8]) {
        let line = head.iter().position(|b| *b == b'\n').map_or(0, |lf| lf + 1);
        self.header_sent += head.len().saturating_sub(line + 2) as u64;
    }

    /// The bytes so far.
    pub(super) fn counts(&self, wire: &Wire) -> ByteCounts {
        ByteCounts {
            wire_received: wire.consumed().saturating_sub(self.consumed),
            wire_sent: wire.queued().saturating_sub(self.queued),
            header_received: self.header_received,
            header_sent: self.header_sent,
        }
    }
}
