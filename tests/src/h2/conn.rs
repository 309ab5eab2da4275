//! One HTTP/2 connection, either end: a reader that records, and calls that send.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use httlib_hpack::Decoder;
use parking_lot::{Mutex, MutexGuard};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

use super::frame::{self, Frame};
use super::hpack;
use crate::exchange::{Exchange, Head};
use crate::h1::describe;
use crate::values::Fields;

/// `SETTINGS_INITIAL_WINDOW_SIZE`.
const INITIAL_WINDOW: u16 = 4;
/// `SETTINGS_MAX_FRAME_SIZE`.
const MAX_FRAME: u16 = 5;
/// What both windows start with (RFC 9113, 6.9.2).
const DEFAULT_WINDOW: i64 = 65_535;

/// How this end behaves.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// True for the end that accepts streams.
    pub server: bool,
    /// SETTINGS sent at the start, as id and value.
    pub settings: Vec<(u16, u32)>,
    /// Grant no window for received DATA.
    pub hold_windows: bool,
}

/// A connection; clones share it.
#[derive(Clone)]
pub struct Conn(Arc<Shared>);

struct Shared {
    options: Options,
    state: Mutex<State>,
    changed: Notify,
    writer: tokio::sync::Mutex<Option<OwnedWriteHalf>>,
    corked: Mutex<Option<Vec<u8>>>,
    aborted: Notify,
    deaf: AtomicBool,
}

#[derive(Default)]
struct State {
    streams: BTreeMap<u32, Stream>,
    accepted: VecDeque<u32>,
    next_stream: u32,
    window: i64,
    initial_window: i64,
    max_frame: usize,
    peer_settings: Vec<(u16, u32)>,
    goaways: Vec<(u32, u32, String)>,
    closed: Option<String>,
}

struct Stream {
    exchange: Arc<Exchange>,
    window: i64,
}

impl Conn {
    /// Takes over a socket: sends the preface (client) and SETTINGS, and starts the reader.
    ///
    /// # Errors
    /// When the socket cannot be written to.
    pub async fn start(socket: TcpStream, options: Options) -> io::Result<Self> {
        let (read, mut write) = socket.into_split();
        if !options.server {
            write.write_all(frame::PREFACE).await?;
        }
        let settings = frame::settings(&options.settings);
        write
            .write_all(&Frame::new(frame::SETTINGS, 0, 0, settings).bytes())
            .await?;
        let state = State {
            next_stream: 1,
            window: DEFAULT_WINDOW,
            initial_window: DEFAULT_WINDOW,
            max_frame: 16_384,
            ..State::default()
        };
        let conn = Self(Arc::new(Shared {
            options,
            state: Mutex::new(state),
            changed: Notify::new(),
            writer: tokio::sync::Mutex::new(Some(write)),
            corked: Mutex::new(None),
            aborted: Notify::new(),
            deaf: AtomicBool::new(false),
        }));
        tokio::spawn(conn.clone().read_all(read));
        Ok(conn)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }

    async fn until<T>(&self, ready: impl Fn(&mut State) -> Option<T>) -> T {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(value) = ready(&mut self.state()) {
                return value;
            }
            changed.await;
        }
    }

    /// Opens the next client stream.
    #[must_use]
    pub fn open(&self) -> (u32, Arc<Exchange>) {
        let mut state = self.state();
        let id = state.next_stream;
        state.next_stream += 2;
        (id, state.add(id))
    }

    /// The next stream that the peer opened; `None` when the connection is over.
    pub async fn accept(&self) -> Option<(u32, Arc<Exchange>)> {
        self.until(|state| match state.accepted.pop_front() {
            Some(id) => Some(
                state
                    .streams
                    .get(&id)
                    .map(|s| (id, Arc::clone(&s.exchange))),
            ),
            None => state.closed.as_ref().map(|_| None),
        })
        .await
    }

    /// GOAWAY frames received: last stream, code, debug text.
    #[must_use]
    pub fn goaways(&self) -> Vec<(u32, u32, String)> {
        self.state().goaways.clone()
    }

    /// Why the connection is over, when it is.
    #[must_use]
    pub fn closed(&self) -> Option<String> {
        self.state().closed.clone()
    }

    /// The SETTINGS that the peer sent first.
    #[must_use]
    pub fn peer_settings(&self) -> Vec<(u16, u32)> {
        self.state().peer_settings.clone()
    }

    /// Waits for the end of the connection; false when `limit` passed first.
    pub async fn until_closed(&self, limit: Duration) -> bool {
        let wait = self.until(|state| state.closed.as_ref().map(|_| ()));
        tokio::time::timeout(limit, wait).await.is_ok()
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn raw(&self, bytes: &[u8]) -> io::Result<()> {
        if let Some(held) = self.corked().as_mut() {
            held.extend(bytes);
            return Ok(());
        }
        match self.0.writer.lock().await.as_mut() {
            Some(writer) => writer.write_all(bytes).await,
            None => Ok(()),
        }
    }

    fn corked(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        self.0.corked.lock()
    }

    /// Holds back what is sent from now on, so that it goes out in one piece:
    /// whether a peer answers before or after the end of a request must not be left to chance.
    pub fn cork(&self) {
        self.corked().get_or_insert_with(Vec::new);
    }

    /// Reads at most one more frame, and then nothing more.
    pub fn deaf(&self) {
        self.0.deaf.store(true, Relaxed);
    }

    /// Sends what was held back.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn uncork(&self) -> io::Result<()> {
        let held = self.corked().take().unwrap_or_default();
        self.raw(&held).await
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn send(&self, frame: &Frame) -> io::Result<()> {
        self.raw(&frame.bytes()).await
    }

    /// Sends HEADERS, and CONTINUATION when the block is long.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn headers(&self, stream: u32, fields: &Fields, end: bool) -> io::Result<()> {
        let block = hpack::encode(fields);
        let end_flag = if end { frame::END_STREAM } else { 0 };
        let parts: Vec<&[u8]> = block.chunks(16_384).collect();
        let last = parts.len().saturating_sub(1);
        let mut bytes = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            let (kind, mut flags) = match at {
                0 => (frame::HEADERS, end_flag),
                _ => (frame::CONTINUATION, 0),
            };
            if at == last {
                flags |= frame::END_HEADERS;
            }
            bytes.extend(Frame::new(kind, flags, stream, part.to_vec()).bytes());
        }
        self.raw(&bytes).await
    }

    /// Sends DATA as far as the peer's windows let it; stops quietly when the
    /// stream or the connection is over.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn data(&self, stream: u32, mut bytes: &[u8], end: bool) -> io::Result<()> {
        loop {
            let Some(count) = self.grant(stream, bytes.len()).await else {
                return Ok(());
            };
            let (now, rest) = bytes.split_at(count);
            let flags = if end && rest.is_empty() {
                frame::END_STREAM
            } else {
                0
            };
            self.send(&Frame::new(frame::DATA, flags, stream, now.to_vec()))
                .await?;
            bytes = rest;
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    /// Takes up to `wanted` bytes of window; `None` when nothing can be sent any more.
    async fn grant(&self, id: u32, wanted: usize) -> Option<usize> {
        self.until(|state| {
            if state.closed.is_some() {
                return Some(None);
            }
            let most = state
                .max_frame
                .min(usize::try_from(state.window).unwrap_or(0));
            let stream = state.streams.get_mut(&id)?;
            if stream.exchange.seen().broken.is_some() {
                return Some(None);
            }
            let count = wanted
                .min(most)
                .min(usize::try_from(stream.window).unwrap_or(0));
            if count == 0 && wanted > 0 {
                return None;
            }
            let used = i64::try_from(count).unwrap_or(0);
            stream.window -= used;
            state.window -= used;
            Some(Some(count))
        })
        .await
    }

    /// Sends RST_STREAM.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn reset(&self, stream: u32, code: u32) -> io::Result<()> {
        let payload = code.to_be_bytes().to_vec();
        self.send(&Frame::new(frame::RST_STREAM, 0, stream, payload))
            .await
    }

    /// Sends GOAWAY.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn goaway(&self, last: u32, code: u32) -> io::Result<()> {
        let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
        self.send(&Frame::new(frame::GOAWAY, 0, 0, payload)).await
    }

    /// Shuts down the sending side.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn close(&self) -> io::Result<()> {
        match self.0.writer.lock().await.as_mut() {
            Some(writer) => writer.shutdown().await,
            None => Ok(()),
        }
    }

    /// Drops the connection in good order.
    pub async fn shut(&self) {
        self.0.writer.lock().await.take();
        self.0.aborted.notify_one();
    }

    /// Ends the connection with a TCP reset.
    pub async fn abort(&self) {
        if let Some(writer) = self.0.writer.lock().await.take() {
            SockRef::from(writer.as_ref())
                .set_linger(Some(Duration::ZERO))
                .ok();
            writer.forget();
        }
        self.0.aborted.notify_one();
    }

    async fn read_all(self, mut half: OwnedReadHalf) {
        let mut decoder = Decoder::default();
        let mut block: Option<(Frame, Vec<u8>)> = None;
        if self.0.options.server {
            let mut preface = [0; frame::PREFACE.len()];
            // A connection that ends here ends in the loop below too.
            half.read_exact(&mut preface).await.ok();
        }
        let why = loop {
            if self.0.deaf.load(Relaxed) {
                self.0.aborted.notified().await;
                break "aborted".to_owned();
            }
            let read = tokio::select! {
                read = Frame::read(&mut half) => read,
                () = self.0.aborted.notified() => break "aborted".to_owned(),
            };
            match read {
                Ok(Some(frame)) => {
                    if let Err(e) = self.receive(frame, &mut decoder, &mut block).await {
                        break e;
                    }
                }
                Ok(None) => break "closed".to_owned(),
                Err(e) => break describe(&e),
            }
        };
        drop(half);
        let streams: Vec<_> = {
            let mut state = self.state();
            state.closed = Some(why.clone());
            state
                .streams
                .values()
                .map(|s| Arc::clone(&s.exchange))
                .collect()
        };
        for exchange in streams {
            exchange.broke(&format!("connection: {why}"));
        }
        self.0.changed.notify_waiters();
    }

    async fn receive(
        &self,
        frame: Frame,
        decoder: &mut Decoder<'_>,
        block: &mut Option<(Frame, Vec<u8>)>,
    ) -> Result<(), String> {
        match frame.kind {
            frame::HEADERS => {
                let content = frame.content().to_vec();
                self.block(frame, content, decoder, block)?;
            }
            frame::CONTINUATION => {
                let (first, mut bytes) = block.take().ok_or("stray CONTINUATION")?;
                bytes.extend(&frame.payload);
                let flags = first.flags | (frame.flags & frame::END_HEADERS);
                self.block(Frame { flags, ..first }, bytes, decoder, block)?;
            }
            frame::DATA => self.on_data(&frame).await,
            frame::RST_STREAM => self.on_stream(frame.stream, |exchange| {
                exchange.broke(&format!("RST {}", frame.number(0)));
            }),
            frame::SETTINGS if !frame.has(frame::END_STREAM) => self.on_settings(&frame).await,
            frame::PING if !frame.has(frame::END_STREAM) => {
                let ack = Frame {
                    flags: frame::END_STREAM,
                    ..frame
                };
                self.send(&ack).await.ok();
            }
            frame::GOAWAY => {
                let text = frame
                    .payload
                    .get(8..)
                    .unwrap_or_default()
                    .escape_ascii()
                    .to_string();
                self.state()
                    .goaways
                    .push((frame.number(0), frame.number(4), text));
            }
            frame::WINDOW_UPDATE => self.on_window(&frame),
            _ => {}
        }
        self.0.changed.notify_waiters();
        Ok(())
    }

    /// A header block, whole or not yet.
    fn block(
        &self,
        frame: Frame,
        bytes: Vec<u8>,
        decoder: &mut Decoder<'_>,
        pending: &mut Option<(Frame, Vec<u8>)>,
    ) -> Result<(), String> {
        if !frame.has(frame::END_HEADERS) {
            *pending = Some((frame, bytes));
            return Ok(());
        }
        let fields = hpack::decode(decoder, &bytes)?;
        let exchange = {
            let mut state = self.state();
            if self.0.options.server && !state.streams.contains_key(&frame.stream) {
                state.accepted.push_back(frame.stream);
            }
            state.add(frame.stream)
        };
        let ended = frame.has(frame::END_STREAM);
        exchange.update(|seen| {
            let head = Head {
                line: String::new(),
                fields,
            };
            match &seen.head {
                Some(_) => seen.trailers = Some(head.fields),
                None if (100..200).contains(&head.status()) => seen.interim.push(head),
                None => seen.head = Some(head),
            }
            seen.ended |= ended;
        });
        Ok(())
    }

    async fn on_data(&self, frame: &Frame) {
        let content = frame.content();
        self.on_stream(frame.stream, |exchange| {
            exchange.update(|seen| {
                seen.body.extend(content);
                seen.ended |= frame.has(frame::END_STREAM);
            });
        });
        let length = u32::try_from(frame.payload.len()).unwrap_or(0);
        if length == 0 || self.0.options.hold_windows {
            return;
        }
        let grant = length.to_be_bytes().to_vec();
        let mut bytes = Frame::new(frame::WINDOW_UPDATE, 0, 0, grant.clone()).bytes();
        if !frame.has(frame::END_STREAM) {
            bytes.extend(Frame::new(frame::WINDOW_UPDATE, 0, frame.stream, grant).bytes());
        }
        self.raw(&bytes).await.ok();
    }

    fn on_stream(&self, id: u32, act: impl FnOnce(&Exchange)) {
        let exchange = self
            .state()
            .streams
            .get(&id)
            .map(|s| Arc::clone(&s.exchange));
        if let Some(exchange) = exchange {
            act(&exchange);
        }
    }

    async fn on_settings(&self, frame: &Frame) {
        {
            let mut state = self.state();
            let first = state.peer_settings.is_empty();
            for entry in frame.payload.chunks_exact(6) {
                let id = u16::from_be_bytes([entry[0], entry[1]]);
                let value = u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]);
                state.apply(id, value);
                if first {
                    state.peer_settings.push((id, value));
                }
            }
        }
        let ack = Frame::new(frame::SETTINGS, frame::END_STREAM, 0, Vec::new());
        self.send(&ack).await.ok();
    }

    fn on_window(&self, frame: &Frame) {
        let grant = i64::from(frame.number(0) & 0x7fff_ffff);
        let mut state = self.state();
        if frame.stream == 0 {
            state.window += grant;
        } else if let Some(stream) = state.streams.get_mut(&frame.stream) {
            stream.window += grant;
        }
    }
}

impl State {
    fn add(&mut self, id: u32) -> Arc<Exchange> {
        let window = self.initial_window;
        let stream = self.streams.entry(id).or_insert_with(|| Stream {
            exchange: Exchange::new(),
            window,
        });
        Arc::clone(&stream.exchange)
    }

    fn apply(&mut self, id: u16, value: u32) {
        match id {
            INITIAL_WINDOW => {
                let change = i64::from(value) - self.initial_window;
                self.initial_window += change;
                for stream in self.streams.values_mut() {
                    stream.window += change;
                }
            }
            MAX_FRAME => self.max_frame = value as usize,
            _ => {}
        }
    }
}
