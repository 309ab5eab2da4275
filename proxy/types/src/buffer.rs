//! The only way the data path holds body bytes.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// A queue of byte chunks that are never copied while they wait.
#[derive(Clone, Debug, Default)]
pub struct Buffer {
    chunks: VecDeque<Bytes>,
    len: usize,
}

impl Buffer {
    /// Empty.
    pub const fn new() -> Self {
        Self {
            chunks: VecDeque::new(),
            len: 0,
        }
    }

    /// Bytes held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a chunk at the end; an empty one is dropped.
    pub fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.len += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    /// Puts a chunk back at the front.
    pub fn push_front(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.len += chunk.len();
            self.chunks.push_front(chunk);
        }
    }

    /// Moves everything of `other` to the end.
    pub fn append(&mut self, other: &mut Buffer) {
        self.len += std::mem::take(&mut other.len);
        self.chunks.append(&mut other.chunks);
    }

    /// Takes the first chunk.
    pub fn pop(&mut self) -> Option<Bytes> {
        let chunk = self.chunks.pop_front()?;
        self.len -= chunk.len();
        Some(chunk)
    }

    /// Takes at most `max` bytes off the first chunk; none if `max` is 0 or
    /// nothing is held.
    pub fn pop_up_to(&mut self, max: usize) -> Option<Bytes> {
        let front = self.chunks.front_mut()?;
        if max == 0 {
            return None;
        }
        if front.len() <= max {
            return self.pop();
        }
        self.len -= max;
        Some(front.split_to(max))
    }

    /// The chunks in order.
    pub fn chunks(&self) -> impl Iterator<Item = &Bytes> {
        self.chunks.iter()
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.chunks.clear();
        self.len = 0;
    }

    /// All bytes as one chunk; copies only if there are several.
    pub fn to_bytes(&self) -> Bytes {
        if self.chunks.len() <= 1 {
            return self.chunks.front().cloned().unwrap_or_default();
        }
        let mut all = BytesMut::with_capacity(self.len);
        for chunk in &self.chunks {
            all.extend_from_slice(chunk);
        }
        all.freeze()
    }
}

impl From<Bytes> for Buffer {
    fn from(chunk: Bytes) -> Self {
        let mut buffer = Self::new();
        buffer.push(chunk);
        buffer
    }
}

impl Buf for Buffer {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |c| &c[..])
    }

    fn advance(&mut self, mut n: usize) {
        assert!(n <= self.len, "advance past the end of the buffer");
        self.len -= n;
        while n > 0 {
            let Some(front) = self.chunks.front_mut() else {
                break;
            };
            if front.len() > n {
                front.advance(n);
                break;
            }
            n -= front.len();
            self.chunks.pop_front();
        }
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [std::io::IoSlice<'a>]) -> usize {
        let mut n = 0;
        for (slot, chunk) in dst.iter_mut().zip(&self.chunks) {
            *slot = std::io::IoSlice::new(chunk);
            n += 1;
        }
        n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_it_holds() {
        let mut b = Buffer::new();
        b.push(Bytes::from_static(b"hello "));
        b.push(Bytes::new());
        b.push(Bytes::from_static(b"world"));
        assert_eq!(b.len(), 11);
        assert_eq!(b.pop_up_to(3).as_deref(), Some(&b"hel"[..]));
        assert_eq!(&b.to_bytes()[..], b"lo world");
        b.advance(4);
        assert_eq!((b.len(), b.chunk()), (4, &b"orld"[..]));
        assert_eq!(b.pop().as_deref(), Some(&b"orld"[..]));
        assert!(b.is_empty() && b.pop().is_none());
    }
}
