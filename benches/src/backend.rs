//! The upstream: answers every request on its port in the one way it was told to.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, spawn_local};

use crate::http2::{Block, Connection, Event, Form, Turn, blocks};

/// An answer with trailers of up to so many bytes is written in one piece on a fresh connection.
const ONE_PIECE: usize = 128 * 1024;

/// What the upstream answers.
#[derive(Debug, Clone)]
pub struct Answer {
    /// `content-type`.
    pub content_type: &'static str,
    /// What one DATA frame carries.
    pub frame: Vec<u8>,
    /// How many DATA frames there are.
    pub frames: usize,
    /// Ends with gRPC's trailers; otherwise a `content-length` is sent.
    pub grpc: bool,
}

impl Answer {
    /// Body bytes of the whole answer.
    pub fn len(&self) -> usize {
        self.frame.len() * self.frames
    }

    /// Whether the answer has no body.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The protocol of the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 with keep-alive.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// A running upstream. It stops accepting when this is dropped.
#[derive(Debug)]
pub struct Backend {
    /// Where it listens.
    pub address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Starts an upstream on a free port of the loopback, on the current `LocalSet`.
pub async fn start(protocol: Protocol, answer: Answer) -> io::Result<Backend> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let answer = Rc::new(answer);
    let accepting = spawn_local(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let answer = Rc::clone(&answer);
            spawn_local(async move {
                // A connection that the proxy closes is no failure of the bench.
                let _closed = serve(protocol, socket, &answer).await;
            });
        }
    });
    Ok(Backend { address, accepting })
}

async fn serve(protocol: Protocol, socket: TcpStream, answer: &Answer) -> io::Result<()> {
    match protocol {
        Protocol::Http1 => serve_http1(socket, answer).await,
        Protocol::Http2 => Http2Server::new(socket, answer)?.serve().await,
    }
}

async fn serve_http1(mut socket: TcpStream, answer: &Answer) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut response = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {}\r\ncontent-length: {}\r\n\r\n",
        answer.content_type,
        answer.len()
    )
    .into_bytes();
    for _ in 0..answer.frames {
        response.extend_from_slice(&answer.frame);
    }
    let mut input = Vec::with_capacity(16 * 1024);
    loop {
        if socket.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        // A request of the bench has no body: it ends with its headers.
        while let Some(end) = input.windows(4).position(|w| w == b"\r\n\r\n") {
            input.drain(..end + 4);
            socket.write_all(&response).await?;
        }
    }
}

/// An answer that is not yet written whole.
struct Sending {
    stream: u32,
    frames_left: usize,
    window: i64,
    form: Form,
}

struct Http2Server<'a> {
    connection: Connection,
    answer: &'a Answer,
    head: Block,
    trailers: Block,
    /// Head and trailers are in the peer's table.
    tabled: bool,
    sending: VecDeque<Sending>,
}

impl<'a> Http2Server<'a> {
    fn new(socket: TcpStream, answer: &'a Answer) -> io::Result<Self> {
        let length = answer.len().to_string();
        let mut head = vec![(":status", "200"), ("content-type", answer.content_type)];
        let trailers = [("grpc-status", "0"), ("grpc-message", "")];
        if !answer.grpc {
            head.push(("content-length", &length));
        }
        let mut made = blocks(&[&head, if answer.grpc { &trailers } else { &[] }]);
        let trailers = made.pop().unwrap_or_default();
        let head = made.pop().unwrap_or_default();
        let connection = Connection::new(socket, false)?;
        Ok(Self {
            connection,
            answer,
            head,
            trailers,
            tabled: false,
            sending: VecDeque::new(),
        })
    }

    async fn serve(mut self) -> io::Result<()> {
        let mut stalled = false;
        while self.connection.turn(stalled).await? != Turn::Closed {
            while let Some(event) = self.connection.next_event()? {
                self.on_event(event);
            }
            self.write_on();
            stalled = !self.sending.is_empty() && self.connection.is_full();
        }
        Ok(())
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Headers { stream, end: true }
            | Event::Data {
                stream, end: true, ..
            } => self.begin(stream),
            Event::Reset { stream } => self.sending.retain(|s| s.stream != stream),
            Event::StreamWindow { stream, by } => {
                self.sending
                    .iter_mut()
                    .filter(|s| s.stream == stream)
                    .for_each(|s| s.window += by);
            }
            Event::ConnectionWindow { all_streams } => {
                self.sending
                    .iter_mut()
                    .for_each(|s| s.window += all_streams);
            }
            Event::Headers { .. } | Event::Data { .. } => {}
        }
    }

    fn begin(&mut self, stream: u32) {
        let window = self.connection.stream_window();
        let form = self.choose_form(window);
        self.connection.headers(stream, &self.head, form, false);
        let mut sending = Sending {
            stream,
            frames_left: self.answer.frames,
            window,
            form,
        };
        if !self.write_some(&mut sending) {
            self.sending.push_back(sending);
        }
    }

    /// The table may be filled by an answer that goes out in one piece, or that has no trailers.
    fn choose_form(&mut self, window: i64) -> Form {
        if self.tabled {
            return Form::Later;
        }
        let len = self.answer.len();
        let whole =
            window >= len as i64 && self.connection.has_window(len) && !self.connection.is_full();
        self.tabled = !self.answer.grpc || (whole && len < ONE_PIECE);
        if self.tabled {
            Form::First
        } else {
            Form::Plain
        }
    }

    /// Writes what the windows allow. Says whether the answer is whole.
    fn write_some(&mut self, sending: &mut Sending) -> bool {
        let len = self.answer.frame.len();
        while sending.frames_left > 0 {
            if sending.window < len as i64
                || !self.connection.has_window(len)
                || self.connection.is_full()
            {
                return false;
            }
            sending.window -= len as i64;
            sending.frames_left -= 1;
            let end = sending.frames_left == 0 && !self.answer.grpc;
            self.connection
                .data(sending.stream, &self.answer.frame, end);
        }
        if self.answer.grpc {
            self.connection
                .headers(sending.stream, &self.trailers, sending.form, true);
        }
        true
    }

    /// Gives each unfinished answer one more try.
    fn write_on(&mut self) {
        for _ in 0..self.sending.len() {
            if let Some(mut sending) = self.sending.pop_front()
                && !self.write_some(&mut sending)
            {
                self.sending.push_back(sending);
            }
        }
    }
}
