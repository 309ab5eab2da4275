//! HTTP/2 frames as bytes (RFC 9113, section 4 and 6).

use std::io;

use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;

/// What a client sends first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// DATA.
pub const DATA: u8 = 0;
/// HEADERS.
pub const HEADERS: u8 = 1;
/// RST_STREAM.
pub const RST_STREAM: u8 = 3;
/// SETTINGS.
pub const SETTINGS: u8 = 4;
/// PING.
pub const PING: u8 = 6;
/// GOAWAY.
pub const GOAWAY: u8 = 7;
/// WINDOW_UPDATE.
pub const WINDOW_UPDATE: u8 = 8;
/// CONTINUATION.
pub const CONTINUATION: u8 = 9;

/// END_STREAM, and ACK on SETTINGS and PING.
pub const END_STREAM: u8 = 1;
/// END_HEADERS.
pub const END_HEADERS: u8 = 4;
/// PADDED.
pub const PADDED: u8 = 8;
/// PRIORITY.
pub const PRIORITY: u8 = 32;

/// One frame.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Frame type.
    pub kind: u8,
    /// Flags.
    pub flags: u8,
    /// Stream, zero for the connection.
    pub stream: u32,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame from its parts.
    #[must_use]
    pub fn new(kind: u8, flags: u8, stream: u32, payload: Vec<u8>) -> Self {
        Self {
            kind,
            flags,
            stream,
            payload,
        }
    }

    /// Whether any of `flags` is set.
    #[must_use]
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// The big-endian number at `at`, zero when the payload is shorter.
    #[must_use]
    pub fn number(&self, at: usize) -> u32 {
        let bytes = self.payload.get(at..at + 4).and_then(|b| b.try_into().ok());
        u32::from_be_bytes(bytes.unwrap_or_default())
    }

    /// The frame as it goes on the wire.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        let mut out = length.to_be_bytes()[1..].to_vec();
        out.extend([self.kind, self.flags]);
        out.extend(self.stream.to_be_bytes());
        out.extend(&self.payload);
        out
    }

    /// The payload of DATA or HEADERS without padding and priority.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        let mut content = self.payload.as_slice();
        if self.has(PADDED) {
            let padding = usize::from(content.first().copied().unwrap_or(0));
            let end = content
                .len()
                .saturating_sub(padding)
                .max(1)
                .min(content.len());
            content = content.get(1..end).unwrap_or_default();
        }
        if self.kind == HEADERS && self.has(PRIORITY) {
            content = content.get(5..).unwrap_or_default();
        }
        content
    }

    /// Reads one frame; `None` at the end of the stream.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn read(half: &mut OwnedReadHalf) -> io::Result<Option<Self>> {
        let mut head = [0; 9];
        match half.read_exact(&mut head).await {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        };
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        half.read_exact(&mut payload).await?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        Ok(Some(Self::new(head[3], head[4], stream, payload)))
    }
}

/// A SETTINGS payload.
#[must_use]
pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (id, value) in values {
        out.extend(id.to_be_bytes());
        out.extend(value.to_be_bytes());
    }
    out
}
