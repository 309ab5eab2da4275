//! Counts gRPC messages in a body, wherever its chunks are cut.

use outrigger_types::Buffer;

/// Flag and length before every message.
const HEADER: u8 = 5;

/// Where in the framing a body stands. A message counts from its first byte, as
/// in Envoy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameCounter {
    /// Bytes of the header seen so far.
    seen: u8,
    /// The length, as far as it was seen; then what is left of the message.
    left: u32,
}

impl FrameCounter {
    /// How many messages begin in `data`. Nothing is copied.
    pub fn count(&mut self, data: &Buffer) -> u64 {
        data.chunks().map(|chunk| self.count_chunk(chunk)).sum()
    }

    fn count_chunk(&mut self, mut chunk: &[u8]) -> u64 {
        let mut begun = 0;
        while let Some((first, rest)) = chunk.split_first() {
            if self.seen == HEADER {
                let length = usize::try_from(self.left).unwrap_or(usize::MAX);
                let skipped = length.min(chunk.len());
                chunk = &chunk[skipped..];
                self.left -= u32::try_from(skipped).unwrap_or(self.left);
                if self.left == 0 {
                    self.seen = 0;
                }
                continue;
            }
            match self.seen {
                0 => begun += 1,
                _ => self.left = self.left << 8 | u32::from(*first),
            }
            self.seen += 1;
            if self.seen == HEADER && self.left == 0 {
                self.seen = 0;
            }
            chunk = rest;
        }
        begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(messages: &[usize]) -> Vec<u8> {
        let mut body = Vec::new();
        for (i, len) in messages.iter().enumerate() {
            body.push(u8::from(i % 2 == 1));
            body.extend(u32::try_from(*len).unwrap().to_be_bytes());
            body.extend(std::iter::repeat_n(7, *len));
        }
        body
    }

    #[test]
    fn the_cut_of_chunks_does_not_matter() {
        let body = body(&[0, 1, 300, 0, 70_000, 5]);
        for size in [1, 2, 3, 4, 5, 6, 7, 299, 4096, body.len()] {
            let mut counter = FrameCounter::default();
            let mut total = 0;
            for chunk in body.chunks(size) {
                total += counter.count(&Buffer::from(bytes::Bytes::copy_from_slice(chunk)));
            }
            assert_eq!(total, 6, "chunks of {size}");
            assert_eq!(counter, FrameCounter::default());
        }
    }

    #[test]
    fn a_message_counts_from_its_first_byte() {
        let mut counter = FrameCounter::default();
        assert_eq!(
            counter.count(&Buffer::from(bytes::Bytes::from_static(&[0, 0, 0]))),
            1
        );
        assert_eq!(
            counter.count(&Buffer::from(bytes::Bytes::from_static(&[0, 1]))),
            0
        );
        assert_eq!(
            counter.count(&Buffer::from(bytes::Bytes::from_static(&[9, 0]))),
            1
        );
    }
}
