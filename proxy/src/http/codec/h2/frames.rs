//! The beginnings of frames in a stream of bytes.

/// A frame as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) len: usize,
    /// Bytes of padding with its length, of a padded DATA frame.
    pub(super) padding: usize,
    /// The first word of a RST_STREAM or GOAWAY: the code, or the last stream.
    pub(super) first: u32,
    /// The second word of a GOAWAY: the code.
    pub(super) second: u32,
}

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// The header of a frame, bytes.
pub(super) const HEADER: usize = 9;
/// Bytes of payload that are looked at, at most.
const LOOK: usize = 8;

impl Frame {
    /// Whether it has this flag.
    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Finds the frames in a stream of bytes that comes in pieces of any size.
#[derive(Debug)]
pub(super) struct Scanner {
    /// The header of the frame, and the first bytes of its payload.
    header: [u8; HEADER + LOOK],
    have: usize,
    /// Bytes to pass over.
    skip: usize,
}

impl Scanner {
    /// One that passes over the first `skip` bytes.
    pub(super) fn new(skip: usize) -> Self {
        Self {
            header: [0; HEADER + LOOK],
            have: 0,
            skip,
        }
    }

    /// Whether the bytes so far end where a frame ends.
    pub(super) fn is_between_frames(&self) -> bool {
        self.have == 0 && self.skip == 0
    }

    /// Goes on to the next frame whose beginning is in `bytes`, and takes what it
    /// passed out of `bytes`: the rest begins behind what is known of the frame.
    pub(super) fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let n = self.skip.min(bytes.len());
                self.skip -= n;
                *bytes = &bytes[n..];
                continue;
            }
            let n = self.wanted().min(bytes.len());
            self.header[self.have..self.have + n].copy_from_slice(&bytes[..n]);
            self.have += n;
            *bytes = &bytes[n..];
            if self.wanted() == 0 {
                let frame = self.frame();
                self.skip = frame.len + HEADER - self.have;
                self.have = 0;
                return Some(frame);
            }
        }
        None
    }

    /// Bytes of the last frame that were passed when it was returned.
    pub(super) fn passed(&self, frame: Frame) -> usize {
        frame.len + HEADER - self.skip
    }

    /// Bytes that are still needed to know the frame.
    fn wanted(&self) -> usize {
        if self.have < HEADER {
            return HEADER - self.have;
        }
        HEADER + self.payload_looked_at() - self.have
    }

    fn payload_looked_at(&self) -> usize {
        let most = match self.header[3] {
            DATA if self.header[4] & PADDED != 0 => 1,
            RST_STREAM => 4,
            GOAWAY => 8,
            _ => return 0,
        };
        most.min(self.len())
    }

    fn len(&self) -> usize {
        let h = &self.header;
        usize::from(h[0]) << 16 | usize::from(h[1]) << 8 | usize::from(h[2])
    }

    fn frame(&self) -> Frame {
        let h = &self.header;
        let word = |at: usize| u32::from_be_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]);
        let control = h[3] == RST_STREAM || h[3] == GOAWAY;
        Frame {
            kind: h[3],
            flags: h[4],
            stream: word(5) & 0x7fff_ffff,
            len: self.len(),
            padding: match self.have {
                10 => usize::from(h[HEADER]) + 1,
                _ => 0,
            },
            first: if control && self.have >= 13 {
                word(9)
            } else {
                0
            },
            second: if self.have == 17 { word(13) } else { 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pieces: impl Iterator<Item = Vec<u8>>) -> Vec<(u8, u32, usize, usize, u32, u32)> {
        let mut scanner = Scanner::new(3);
        let mut all = Vec::new();
        for piece in pieces {
            let mut bytes = &piece[..];
            while let Some(f) = scanner.next(&mut bytes) {
                all.push((f.kind, f.stream, f.len, f.padding, f.first, f.second));
            }
        }
        assert!(scanner.is_between_frames());
        all
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let bytes = [
            &b"PRI"[..],
            b"\0\0\x04\x00\x08\0\0\0\x05\x02x\0\0",
            b"\0\0\x04\x03\x00\0\0\0\x05\0\0\0\x08",
            b"\0\0\x0a\x07\x00\0\0\0\x00\0\0\0\x07\0\0\0\x01hi",
            b"\0\0\x00\x04\x01\0\0\0\x00",
            b"\0\0\x02\x03\x00\0\0\0\x05\0\0",
        ]
        .concat();
        let expected = vec![
            (DATA, 5, 4, 3, 0, 0),
            (RST_STREAM, 5, 4, 0, 8, 0),
            (GOAWAY, 0, 10, 0, 7, 1),
            (SETTINGS, 0, 0, 0, 0, 0),
            (RST_STREAM, 5, 2, 0, 0, 0),
        ];
        for size in 1..=bytes.len() {
            assert_eq!(found(bytes.chunks(size).map(<[u8]>::to_vec)), expected);
        }
    }
}
