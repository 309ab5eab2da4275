//! What waits to be read and to be written on an HTTP/1 connection.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};

use crate::network::io::Io;

/// Room that a read is given.
const READ_CHUNK: usize = 16 * 1024;
/// A chunk up to this size is copied beside the head; a larger one is passed to
/// the socket where it is.
const COPY_UP_TO: usize = 1024;
/// Slices of one writev.
const SLICES: usize = 32;

/// A connection with its buffers.
#[derive(Debug)]
pub(super) struct Wire {
    io: Io,
    /// Read and not yet parsed.
    pub(super) input: BytesMut,
    output: VecDeque<Bytes>,
    /// The end of the output, still open to small additions.
    tail: BytesMut,
    waiting: usize,
    ended: bool,
}

impl Wire {
    pub(super) fn new(io: Io) -> Self {
        Self {
            io,
            input: BytesMut::new(),
            output: VecDeque::new(),
            tail: BytesMut::new(),
            waiting: 0,
            ended: false,
        }
    }

    pub(super) fn io(&self) -> &Io {
        &self.io
    }

    /// Whether a read has seen the end of the connection.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// The connection, with what was read of it and not used put back.
    pub(super) fn into_io(mut self) -> Io {
        self.io.rewind(self.input.freeze());
        self.io
    }

    /// Reads more; zero at the end of the connection.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        if self.input.capacity() - self.input.len() < READ_CHUNK / 4 {
            self.input.reserve(READ_CHUNK);
        }
        let read = match pin!(self.io.read_buf(&mut self.input)).poll(cx) {
            Poll::Ready(read) => read,
            Poll::Pending => {
                // An idle connection holds no buffer.
                if self.input.is_empty() {
                    self.input = BytesMut::new();
                }
                return Poll::Pending;
            }
        };
        self.ended = !matches!(read, Ok(n) if n > 0);
        Poll::Ready(read)
    }

    /// Bytes that wait to be written.
    pub(super) fn waiting(&self) -> usize {
        self.waiting + self.tail.len()
    }

    /// Bytes that were read and used so far.
    pub(super) fn consumed(&self) -> u64 {
        self.io.bytes_read().saturating_sub(self.input.len() as u64)
    }

    /// Bytes that were written, or wait to be.
    pub(super) fn queued(&self) -> u64 {
        self.io.bytes_written() + self.waiting() as u64
    }

    /// Where small things are written to.
    pub(super) fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Adds bytes to the output.
    pub(super) fn push(&mut self, bytes: Bytes) {
        if bytes.len() <= COPY_UP_TO {
            self.tail.extend_from_slice(&bytes);
        } else {
            self.seal();
            self.waiting += bytes.len();
            self.output.push_back(bytes);
        }
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            let sealed = self.tail.split().freeze();
            self.waiting += sealed.len();
            self.output.push_back(sealed);
        }
    }

    /// Writes all that waits.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.seal();
        while !self.output.is_empty() {
            let written = ready!(self.poll_write(cx))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let io = Pin::new(&mut self.io);
        if self.output.len() == 1 || !io.is_write_vectored() {
            return io.poll_write(cx, &self.output[0]);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut n = 0;
        for (slot, chunk) in slices.iter_mut().zip(&self.output) {
            *slot = IoSlice::new(chunk);
            n += 1;
        }
        io.poll_write_vectored(cx, &slices[..n])
    }

    fn advance(&mut self, mut written: usize) {
        self.waiting -= written;
        while let Some(front) = self.output.front_mut() {
            if front.len() > written {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.output.pop_front();
        }
    }

    /// Drops what waits to be written.
    pub(super) fn drop_output(&mut self) {
        self.output.clear();
        self.tail.clear();
        self.waiting = 0;
    }

    /// Ends our direction of the connection, after all that waits.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
