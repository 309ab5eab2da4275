//! Bytes from one connection to another, both ways, each direction ended by itself.
//! What the other side does not take at once is kept up to a limit; beyond it nothing
//! more is read. A connection on which nothing passes holds no memory.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::network::io::Io;

/// Room for one read. All connections of a thread share it.
const CHUNK: usize = 64 * 1024;

thread_local! {
    static ROOM: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into());
}

/// One of the two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Downstream,
    Upstream,
}

/// What a relay tells while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Bytes passed.
    Moved,
    /// No more is read of this side for now.
    Paused(Side),
    /// It is read again.
    Resumed(Side),
}

/// How both connections ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Each side ended its direction; this one was the last to do so.
    Both(Side),
    /// This side broke. What it had sent is delivered.
    Broken(Side),
}

/// One direction.
#[derive(Debug)]
struct Direction {
    from: Side,
    /// Read, and not written yet.
    waiting: BytesMut,
    limit: usize,
    paused: bool,
    state: State,
    /// The side that broke.
    broken: Option<Side>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The sender is done: what waits is written, then the end.
    Ending,
    /// The sender broke: what waits is written, and then all is over.
    Breaking,
    Ended,
}

/// Two connections and what passes between them.
#[derive(Debug)]
pub(super) struct Relay {
    upload: Direction,
    download: Direction,
    last: Side,
}

impl Relay {
    /// A relay that lets so many bytes wait at the upstream, and at the downstream.
    pub(super) fn new(at_upstream: usize, at_downstream: usize) -> Self {
        Self {
            upload: Direction::new(Side::Downstream, at_upstream),
            download: Direction::new(Side::Upstream, at_downstream),
            last: Side::Downstream,
        }
    }

    /// Whether the downstream is gone, and only what it had sent is still delivered.
    pub(super) fn is_flushing(&self) -> bool {
        self.upload.state == State::Breaking
    }

    /// Moves what can be moved; ready when both connections are over.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        downstream: &mut Io,
        upstream: &mut Io,
        tell: &mut dyn FnMut(Event),
    ) -> Poll<End> {
        loop {
            let before = self.states();
            self.upload.poll(cx, downstream, upstream, tell);
            self.download.poll(cx, upstream, downstream, tell);
            let after = self.states();
            if before == after {
                return Poll::Pending;
            }
            self.note_last(before, after);
            // Nobody is left to read what the other side sends.
            if self.upload.broken == Some(Side::Downstream) || after.0 == State::Breaking {
                self.download.stop();
            }
            if self.download.broken == Some(Side::Upstream) || after.1 == State::Breaking {
                self.upload.stop();
            }
            if self.states() == (State::Ended, State::Ended) {
                let broken = self.download.broken.or(self.upload.broken);
                return Poll::Ready(broken.map_or(End::Both(self.last), End::Broken));
            }
        }
    }

    fn states(&self) -> (State, State) {
        (self.upload.state, self.download.state)
    }

    /// Remembers which side ended last.
    fn note_last(&mut self, before: (State, State), after: (State, State)) {
        if before.0 == State::Open && after.0 != State::Open {
            self.last = Side::Downstream;
        }
        if before.1 == State::Open && after.1 != State::Open {
            self.last = Side::Upstream;
        }
    }
}

impl Direction {
    fn new(from: Side, limit: usize) -> Self {
        Self {
            from,
            waiting: BytesMut::new(),
            limit,
            paused: false,
            state: State::Open,
            broken: None,
        }
    }

    /// The side that is written to.
    fn to(&self) -> Side {
        match self.from {
            Side::Downstream => Side::Upstream,
            Side::Upstream => Side::Downstream,
        }
    }

    /// Drops what is left.
    fn stop(&mut self) {
        self.waiting = BytesMut::new();
        self.state = State::Ended;
    }

    fn broke(&mut self, side: Side) {
        self.broken = Some(side);
        self.stop();
    }

    /// Moves bytes until neither side lets it.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Io,
        to: &mut Io,
        tell: &mut dyn FnMut(Event),
    ) {
        while self.state != State::Ended {
            let written = match self.write(cx, to, tell) {
                // What it had sent before is still read on the way back.
                Poll::Ready(Err(_)) => return self.broke(self.to()),
                written => written.is_ready(),
            };
            match self.state {
                State::Open if self.paused => return,
                State::Open => {
                    if !self.turn(cx, from, to, written, tell) {
                        return;
                    }
                }
                _ if !written => return,
                State::Breaking => self.broke(self.from),
                State::Ending | State::Ended => match Pin::new(&mut *to).poll_shutdown(cx) {
                    Poll::Ready(Ok(())) => self.stop(),
                    Poll::Ready(Err(_)) => self.broke(self.to()),
                    Poll::Pending => return,
                },
            }
        }
    }

    /// Reads once; whether there may be more.
    fn turn(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Io,
        to: &mut Io,
        written: bool,
        tell: &mut dyn FnMut(Event),
    ) -> bool {
        match self.read(cx, from, to, tell) {
            Poll::Ready(Ok(0)) => self.state = State::Ending,
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(_)) => self.state = State::Breaking,
            Poll::Pending => {
                // A TLS session may hold back what it was given.
                if written && Pin::new(to).poll_flush(cx).is_ready() {
                    self.waiting = BytesMut::new();
                }
                return false;
            }
        }
        true
    }

    /// Writes what waits.
    fn write(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut Io,
        tell: &mut dyn FnMut(Event),
    ) -> Poll<io::Result<()>> {
        let before = self.waiting.len();
        let mut outcome = Poll::Ready(Ok(()));
        while !self.waiting.is_empty() {
            match Pin::new(&mut *to).poll_write(cx, &self.waiting) {
                Poll::Ready(Ok(0)) => {
                    outcome = Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    break;
                }
                Poll::Ready(Ok(n)) => self.waiting.advance(n),
                other => {
                    outcome = other.map_ok(|_| ());
                    break;
                }
            }
        }
        if self.waiting.len() != before {
            tell(Event::Moved);
            self.note_waiting(tell);
        }
        outcome
    }

    /// Reads once, and writes at once what the other side takes.
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Io,
        to: &mut Io,
        tell: &mut dyn FnMut(Event),
    ) -> Poll<io::Result<usize>> {
        ROOM.with_borrow_mut(|room| {
            let mut room = ReadBuf::new(room);
            ready!(Pin::new(from).poll_read(cx, &mut room))?;
            let mut rest = room.filled();
            let read = rest.len();
            if read > 0 {
                tell(Event::Moved);
            }
            while self.waiting.is_empty() && !rest.is_empty() {
                match Pin::new(&mut *to).poll_write(cx, rest) {
                    Poll::Ready(Ok(n)) if n > 0 => rest = &rest[n..],
                    // What is wrong with it shows when it is written to again.
                    Poll::Ready(_) | Poll::Pending => break,
                }
            }
            if !rest.is_empty() {
                self.waiting.extend_from_slice(rest);
                self.note_waiting(tell);
            }
            Poll::Ready(Ok(read))
        })
    }

    /// Tells how much waits, and whether the sender has to wait too.
    fn note_waiting(&mut self, tell: &mut dyn FnMut(Event)) {
        let waiting = self.waiting.len();
        if !self.paused && self.limit > 0 && waiting > self.limit {
            self.paused = true;
            tell(Event::Paused(self.from));
        } else if self.paused && waiting <= self.limit / 2 {
            self.paused = false;
            tell(Event::Resumed(self.from));
        }
    }
}

#[cfg(test)]
mod tests;
