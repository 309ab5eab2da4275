//! The client side: connections that keep a number of requests in flight (closed loop), or that send
//! each request at its intended time whatever the answers do (open loop).

mod http1;
mod http2;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;
use tokio::task::{JoinHandle, spawn_local};

use crate::backend::Protocol;

/// What the client sends and what it expects.
#[derive(Debug, Clone)]
pub struct Request {
    /// The protocol towards the proxy.
    pub protocol: Protocol,
    /// The path.
    pub path: &'static str,
    /// gRPC: POST with gRPC's headers. Otherwise GET.
    pub grpc: bool,
    /// The request's body, which must be empty for HTTP/1.1.
    pub body: Vec<u8>,
    /// Body bytes of a right answer.
    pub expected: usize,
}

/// When requests are sent.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// So many in flight on each connection, the next when one ends.
    Closed {
        /// Requests in flight on a connection.
        streams: usize,
    },
    /// One request on each connection every so often, from a start that differs by connection.
    Open {
        /// Between two requests of one connection.
        every: Duration,
    },
    /// One request on each connection, the next on a new one.
    Reconnect,
    /// One request on each connection, then nothing: the connection stays open and idle.
    Once,
}

/// What the connections have counted so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests answered whole.
    pub done: Cell<u64>,
    /// Resets, answers of the wrong length, connections lost.
    pub failed: Cell<u64>,
    /// Nanoseconds from the intended send to the end of the answer, while [`Counts::timing`] is set.
    pub latencies: RefCell<Vec<u64>>,
    /// Whether latencies are kept.
    pub timing: Cell<bool>,
}

impl Counts {
    fn finish(&self, right: bool, intended: Instant) {
        let cell = if right { &self.done } else { &self.failed };
        cell.set(cell.get() + 1);
        if self.timing.get() && right {
            self.latencies
                .borrow_mut()
                .push(intended.elapsed().as_nanos() as u64);
        }
    }
}

/// Running connections; they end when this is dropped.
#[derive(Debug)]
pub struct Load {
    /// What they have counted.
    pub counts: Rc<Counts>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    /// Opens the connections and begins, on the current `LocalSet`. A connection that is lost counts as
    /// a failure and is not opened again; with [`Pace::Reconnect`] one that has done its request is.
    pub fn start(target: SocketAddr, request: &Request, connections: usize, pace: Pace) -> Self {
        let counts = Rc::new(Counts::default());
        let request = Rc::new(request.clone());
        let begin = Instant::now() + Duration::from_millis(50);
        let tasks = (0..connections)
            .map(|index| {
                let (counts, request) = (Rc::clone(&counts), Rc::clone(&request));
                spawn_local(async move {
                    loop {
                        let clock = Clock::new(pace, begin, index, connections);
                        let ended = connect(target, index, &request, clock, &counts).await;
                        if ended.is_err() {
                            counts.failed.set(counts.failed.get() + 1);
                        }
                        if ended.is_err() || !matches!(pace, Pace::Reconnect) {
                            return;
                        }
                    }
                })
            })
            .collect();
        Self { counts, tasks }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn connect(
    target: SocketAddr,
    index: usize,
    request: &Request,
    clock: Clock,
    counts: &Counts,
) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    if clock.reconnects() {
        // An address for each, or the ports run out while closed connections linger.
        let host = 2 + u8::try_from(index % 250).unwrap_or_default();
        socket.bind(SocketAddr::from(([127, 0, 0, host], 0)))?;
    }
    let socket = socket.connect(target).await?;
    match request.protocol {
        Protocol::Http1 => http1::run(socket, request, clock, counts).await,
        Protocol::Http2 => http2::run(socket, request, clock, counts).await,
    }
}

/// Says when the next request of a connection is due.
struct Clock {
    pace: Pace,
    next: Instant,
    sent: u64,
}

impl Clock {
    fn new(pace: Pace, begin: Instant, index: usize, connections: usize) -> Self {
        let offset = match pace {
            Pace::Open { every } => every * index as u32 / connections as u32,
            Pace::Closed { .. } | Pace::Reconnect | Pace::Once => Duration::ZERO,
        };
        Self {
            pace,
            next: begin + offset,
            sent: 0,
        }
    }

    /// The intended time of a request to be sent now, with so many in flight.
    fn due(&mut self, in_flight: usize) -> Option<Instant> {
        match self.pace {
            Pace::Closed { streams } => (in_flight < streams).then(Instant::now),
            Pace::Reconnect | Pace::Once if self.sent == 0 => {
                self.sent = 1;
                Some(Instant::now())
            }
            Pace::Reconnect | Pace::Once => None,
            Pace::Open { every } => {
                let intended = self.next;
                (intended <= Instant::now()).then(|| {
                    self.next += every;
                    intended
                })
            }
        }
    }

    /// Whether a connection ends with its request.
    fn reconnects(&self) -> bool {
        matches!(self.pace, Pace::Reconnect)
    }

    /// Whether a request may come due without anything arriving: the connection then polls without rest,
    /// because timers are too coarse for what is measured.
    fn is_open_loop(&self) -> bool {
        matches!(self.pace, Pace::Open { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_loop_catches_up_and_keeps_intended_times() {
        let begin = Instant::now() - Duration::from_millis(25);
        let mut clock = Clock::new(
            Pace::Open {
                every: Duration::from_millis(10),
            },
            begin,
            0,
            1,
        );
        assert_eq!(clock.due(0), Some(begin));
        assert_eq!(clock.due(9), Some(begin + Duration::from_millis(10)));
        assert_eq!(clock.due(0), Some(begin + Duration::from_millis(20)));
        assert_eq!(clock.due(0), None);
    }

    #[test]
    fn a_closed_loop_stops_at_its_streams() {
        let mut clock = Clock::new(Pace::Closed { streams: 2 }, Instant::now(), 0, 1);
        assert!(clock.due(1).is_some());
        assert!(clock.due(2).is_none());
    }
}
