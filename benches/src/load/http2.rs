//! A client connection of HTTP/2.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::net::TcpStream;

use super::{Clock, Counts, Request};
use crate::http2::{Block, Connection, Event, Form, Turn, blocks};

/// Requests in flight above which an open loop sends no more on a connection.
const IN_FLIGHT_LIMIT: usize = 1_000;

struct InFlight {
    stream: u32,
    got: usize,
    intended: Instant,
}

struct Client<'a> {
    connection: Connection,
    request: &'a Request,
    counts: &'a Counts,
    clock: Clock,
    head: Block,
    next_stream: u32,
    in_flight: Vec<InFlight>,
}

/// Runs the connection until it is lost.
pub(super) async fn run(
    socket: TcpStream,
    request: &Request,
    clock: Clock,
    counts: &Counts,
) -> io::Result<()> {
    let connection = Connection::new(socket, true)?;
    let head = head(request);
    let mut client = Client {
        connection,
        request,
        counts,
        clock,
        head,
        next_stream: 1,
        in_flight: Vec::new(),
    };
    loop {
        client.send_due();
        if poll_fn(|cx| client.poll_turn(cx)).await? == Turn::Closed {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while let Some(event) = client.connection.next_event()? {
            client.on_event(event);
        }
    }
}

fn head(request: &Request) -> Block {
    let mut fields = vec![
        (":method", "GET"),
        (":scheme", "http"),
        (":path", request.path),
        (":authority", "bench"),
    ];
    if request.grpc {
        fields[0].1 = "POST";
        fields.extend([
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("grpc-accept-encoding", "identity"),
        ]);
    }
    fields.push(("user-agent", "outrigger-bench"));
    blocks(&[&fields]).pop().unwrap_or_default()
}

impl Client<'_> {
    /// Waits for input. In an open loop it comes back at once with [`Turn::Written`], having given the
    /// others on this thread their turn.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Turn>> {
        let polled = self.connection.poll_turn(cx, false);
        if polled.is_pending() && self.clock.is_open_loop() {
            if self.send_due() {
                return Poll::Ready(Ok(Turn::Written));
            }
            cx.waker().wake_by_ref();
        }
        polled
    }

    /// Queues the requests that are due. Says whether there were any.
    fn send_due(&mut self) -> bool {
        let before = self.next_stream;
        let len = self.request.body.len();
        while self.connection.is_settled()
            && self.connection.has_window(len)
            && self.in_flight.len() < IN_FLIGHT_LIMIT
            && let Some(intended) = self.clock.due(self.in_flight.len())
        {
            self.send(intended);
        }
        self.next_stream != before
    }

    fn send(&mut self, intended: Instant) {
        let stream = self.next_stream;
        let form = if stream == 1 {
            Form::First
        } else {
            Form::Later
        };
        let bodyless = self.request.body.is_empty();
        self.connection.headers(stream, &self.head, form, bodyless);
        if !bodyless {
            self.connection.data(stream, &self.request.body, true);
        }
        self.next_stream += 2;
        self.in_flight.push(InFlight {
            stream,
            got: 0,
            intended,
        });
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Data { stream, len, end } => {
                if let Some(call) = self.in_flight.iter_mut().find(|c| c.stream == stream) {
                    call.got += len;
                }
                if end {
                    self.finish(stream, true);
                }
            }
            Event::Headers { stream, end: true } => self.finish(stream, true),
            Event::Reset { stream } => self.finish(stream, false),
            Event::Headers { .. } | Event::StreamWindow { .. } | Event::ConnectionWindow { .. } => {
            }
        }
    }

    fn finish(&mut self, stream: u32, ended: bool) {
        if let Some(at) = self.in_flight.iter().position(|c| c.stream == stream) {
            let call = self.in_flight.swap_remove(at);
            self.counts
                .finish(ended && call.got == self.request.expected, call.intended);
        }
    }
}
