//! HTTP/2, the side that takes requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use outrigger::http::codec::BodyEvent;
use outrigger::http::codec::h2::{Accepted, Next, Options, ServerConnection, ServerStream};
use outrigger::http::codec_stats::CodecStats;
use outrigger::network::io::Io;
use outrigger_types::{Buffer, Headers, ResponseHead, StatusCode};

use crate::bytes::{PIPE, first, pieces, poll, read, shut, write};
use crate::config::store;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Bytes before the payload of a frame.
const HEADER: usize = 9;

/// A byte of options, one that says where the input is cut, and what a client
/// sends after its preface (or, for an odd first byte, instead of it). Whatever
/// it is, the connection comes to its end, says only whole frames, and answers
/// nothing that was not asked.
pub(crate) fn server(data: &[u8]) {
    let (flags, rest) = first(data);
    let (seed, script) = first(rest);
    let (near, mut far) = Io::pair(PIPE);
    let store = store();
    let stats = CodecStats::from(&store.scope("http2.").slab());
    let mut server = Server {
        connection: ServerConnection::new(near, options(flags), stats),
        streams: Vec::new(),
        over: false,
    };
    let mut said = Vec::new();
    if flags & 1 == 0 {
        write(&mut far, PREFACE);
        server.advance();
    }
    for piece in pieces(script, seed) {
        write(&mut far, piece);
        server.advance();
        said.extend(read(&mut far));
    }
    shut(&mut far);
    server.advance();
    assert!(server.over, "it waits for a client gone");
    let parting = server.connection.take_parting();
    drop(server.connection);
    drop(parting);
    said.extend(read(&mut far));
    check(&said);
}

fn options(flags: u8) -> Arc<Options> {
    let small = flags & 2 != 0;
    let defaults = Options::default();
    Arc::new(Options {
        max_concurrent_streams: if small { 2 } else { 100 },
        max_headers_bytes: if small { 256 } else { 60 * 1024 },
        max_headers_count: if small { 6 } else { 100 },
        initial_stream_window_size: if flags & 4 != 0 { 65_535 } else { 1 << 20 },
        allow_connect: flags & 8 != 0,
        ..defaults
    })
}

/// A connection whose requests are answered when they are over.
struct Server {
    connection: ServerConnection,
    streams: Vec<Exchange>,
    over: bool,
}

/// A request that is being read.
struct Exchange {
    stream: Box<ServerStream>,
    read: bool,
}

impl Server {
    /// Goes on until nothing happens any more. What one input may cause is
    /// bounded: past that, it runs in a circle.
    fn advance(&mut self) {
        for _ in 0..100_000 {
            if !self.step() {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// Whether anything happened.
    fn step(&mut self) -> bool {
        let moved = self.accept();
        let before = self.streams.len();
        let mut read = false;
        self.streams.retain_mut(|exchange| {
            let (went_on, goes_on) = exchange.step();
            read |= went_on;
            goes_on
        });
        moved || read || before != self.streams.len()
    }

    fn accept(&mut self) -> bool {
        if self.over {
            return false;
        }
        match poll(|cx| self.connection.poll_accept(cx)) {
            Poll::Pending => return false,
            Poll::Ready(Some(Ok(Next::Request(accepted)))) => self.take(accepted),
            Poll::Ready(Some(Ok(Next::Refused(refusal)))) => {
                assert!(!refusal.details.is_empty(), "refused without a reason");
            }
            Poll::Ready(Some(Err(_)) | None) => self.over = true,
        }
        true
    }

    fn take(&mut self, accepted: Accepted) {
        let Accepted {
            head,
            stream,
            end_stream,
        } = accepted;
        assert!(head.authority.is_some(), "a request without authority");
        let safe = |b: &u8| !matches!(b, b'\r' | b'\n' | 0);
        assert!(head.path.iter().all(safe), "{:?}", head.path);
        for (name, value) in head.headers.iter() {
            assert!(value.as_bytes().iter().all(safe), "{name}: {value:?}");
            assert_eq!(name.as_str(), name.as_str().to_ascii_lowercase());
        }
        self.streams.push(Exchange {
            stream,
            read: end_stream,
        });
    }
}

impl Exchange {
    /// Whether anything happened, and whether the exchange goes on.
    fn step(&mut self) -> (bool, bool) {
        if self.read {
            self.answer();
            return (true, false);
        }
        match poll(|cx| self.stream.poll_recv(cx)) {
            Poll::Pending => (false, true),
            Poll::Ready(Ok(BodyEvent::Data { bytes, end_stream })) => {
                assert!(end_stream || !bytes.is_empty(), "an empty piece");
                self.stream.release(bytes.len());
                self.read = end_stream;
                (true, true)
            }
            Poll::Ready(Ok(BodyEvent::Trailers(_) | BodyEvent::End)) => {
                self.read = true;
                (true, true)
            }
            Poll::Ready(Err(_)) => (true, false),
        }
    }

    /// Head, a little body, trailers; the client may be gone by now.
    fn answer(&mut self) {
        let mut data = Buffer::from(Bytes::from_static(b"answer"));
        let head = ResponseHead::new(StatusCode::OK);
        if self.stream.send_head(head, false).is_ok() {
            let _ = poll(|cx| self.stream.poll_send_data(cx, &mut data, false));
            if data.is_empty() {
                let _ = self.stream.send_trailers(Headers::new());
            }
        }
    }
}

/// What was said is whole frames, the first of them SETTINGS, and on each stream
/// one answer at most.
fn check(mut said: &[u8]) {
    let mut heads = BTreeMap::new();
    let mut is_first = true;
    while !said.is_empty() {
        let header = said.first_chunk::<HEADER>().expect("a frame's header");
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
        assert!(length <= 16_384, "a frame of {length} bytes");
        assert!(stream == 0 || stream % 2 == 1, "on stream {stream}");
        assert!(!is_first || header[3] == 4, "SETTINGS do not come first");
        is_first = false;
        if header[3] == 1 {
            let heads = heads.entry(stream).or_insert(0);
            *heads += 1;
            // The second one is the trailers.
            assert!(*heads <= 2, "stream {stream} is answered again");
        }
        said = said.get(HEADER + length..).expect("a whole frame");
    }
}
