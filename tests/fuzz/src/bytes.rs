//! Inputs cut into pieces, and a pipe that is polled by hand.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use outrigger::network::io::Io;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that a pipe holds: more than any input makes an end write.
pub(crate) const PIPE: usize = 4 << 20;

/// Polls once, with a waker that wakes nobody.
pub(crate) fn poll<T>(once: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    once(&mut Context::from_waker(Waker::noop()))
}

/// The first byte, zero if there is none, and the rest.
pub(crate) fn first(data: &[u8]) -> (u8, &[u8]) {
    data.split_first()
        .map_or((0, data), |(first, rest)| (*first, rest))
}

/// Cuts `data` into pieces whose lengths follow from `seed`; in one for 0.
pub(crate) fn pieces(mut data: &[u8], seed: u8) -> Vec<&[u8]> {
    const LENGTHS: [usize; 8] = [1, 1, 2, 3, 5, 16, 100, 1000];
    if seed == 0 {
        return vec![data];
    }
    let mut state = u32::from(seed);
    let mut all = Vec::new();
    while !data.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = LENGTHS[(state >> 29) as usize].min(data.len());
        let (piece, rest) = data.split_at(length);
        all.push(piece);
        data = rest;
    }
    all
}

/// Writes all of `bytes`, for which the pipe has room. The other end may be gone.
pub(crate) fn write(io: &mut Io, bytes: &[u8]) {
    let mut left = bytes;
    while !left.is_empty() {
        match poll(|cx| Pin::new(&mut *io).poll_write(cx, left)) {
            Poll::Ready(Ok(n)) => left = &left[n..],
            Poll::Ready(Err(_)) => return,
            Poll::Pending => panic!("the pipe is full"),
        }
    }
}

/// Ends the direction.
pub(crate) fn shut(io: &mut Io) {
    let _ = poll(|cx| Pin::new(io).poll_shutdown(cx));
}

/// All that is there to be read.
pub(crate) fn read(io: &mut Io) -> Vec<u8> {
    let mut all = Vec::new();
    let mut space = [0; 4096];
    loop {
        let mut buffer = ReadBuf::new(&mut space);
        match poll(|cx| Pin::new(&mut *io).poll_read(cx, &mut buffer)) {
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                all.extend_from_slice(buffer.filled());
            }
            _ => return all,
        }
    }
}
