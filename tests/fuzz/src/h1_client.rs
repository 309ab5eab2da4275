//! HTTP/1, the side that takes responses.

use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use outrigger::http::codec::h1::{ClientConnection, Options};
use outrigger::http::codec::{BodyEvent, HeadEvent, StreamError};
use outrigger::network::io::Io;
use outrigger_types::{Headers, Method, RequestHead, StatusCode, names};

use crate::bytes::{PIPE, first, pieces, poll, shut, write};

/// What was read, in order.
#[derive(Debug, PartialEq)]
enum Event {
    Head(HeadEvent),
    Body(Vec<u8>),
    Trailers(Headers),
    End,
    Failed(StreamError),
}

/// A byte that says what was asked, one that says where the input is cut, and the
/// response. It is read alike in one piece and in many.
pub(crate) fn client(data: &[u8]) {
    let (flags, rest) = first(data);
    let (seed, response) = first(rest);
    let whole = read(flags, &[response]);
    let cut = read(flags, &pieces(response, seed));
    assert!(alike(&whole, &cut), "cut: {cut:?}\nin one: {whole:?}");
    framed(&request(flags), &whole);
}

/// What was read before the end, what of a body came before it failed, and
/// whether it failed. What is wrong with a head is told before the head is whole
/// or after, as it happens to come, and of several faults the first one that is
/// seen.
fn until_end(events: &[Event]) -> (&[Event], &[u8], bool) {
    match events {
        [rest @ .., Event::Body(body), Event::Failed(_)] => (rest, body, true),
        [rest @ .., Event::Failed(_)] => (rest, &[], true),
        [rest @ .., Event::End] => (rest, &[], false),
        _ => panic!("no end: {events:?}"),
    }
}

/// Whether two ways to cut an input read the same. Of a body that fails, what is
/// at hand with the fault is not passed on.
fn alike(a: &[Event], b: &[Event]) -> bool {
    let (a, b) = (until_end(a), until_end(b));
    a.0 == b.0 && a.2 == b.2 && (a.1.starts_with(b.1) || b.1.starts_with(a.1))
}

fn request(flags: u8) -> RequestHead {
    let method = match flags & 3 {
        0 => Method::GET,
        1 => Method::HEAD,
        2 => Method::CONNECT,
        _ => Method::POST,
    };
    let mut head = RequestHead::new(method, "/");
    head.authority = Some(Bytes::from_static(b"host"));
    if flags & 7 == 4 {
        head.protocol = Some(Bytes::from_static(b"websocket"));
    }
    head
}

fn options(flags: u8) -> Arc<Options> {
    let small = flags & 16 != 0;
    Arc::new(Options {
        enable_trailers: flags & 8 != 0,
        max_headers_bytes: if small { 256 } else { 60 * 1024 },
        max_headers_count: if small { 4 } else { 100 },
        allow_chunked_length: flags & 32 != 0,
        ..Options::default()
    })
}

/// The body is what the head promised, or the stream failed.
fn framed(request: &RequestHead, events: &[Event]) {
    let is_final = |event: &Event| matches!(event, Event::Head(HeadEvent::Final { .. }));
    let Some(at) = events.iter().position(is_final) else {
        assert!(matches!(events.last(), Some(Event::Failed(_))));
        return;
    };
    let Event::Head(HeadEvent::Final { head, end_stream }) = &events[at] else {
        return;
    };
    let raw = head.status == StatusCode::SWITCHING_PROTOCOLS
        || (request.method == Method::CONNECT && head.status.is_success());
    let bodiless = request.method == Method::HEAD
        || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&head.status);
    if bodiless && !raw {
        assert!(end_stream, "a body where none can be");
    }
    let is_body = |event: &Event| matches!(event, Event::Body(_) | Event::Trailers(_));
    if *end_stream {
        assert!(
            !events[at + 1..].iter().any(is_body),
            "a body after the end"
        );
    }
    let declared = head.headers.get_bytes(&names::CONTENT_LENGTH);
    let whole = matches!(events.last(), Some(Event::End));
    if let (Some(declared), true, false) = (declared, whole, bodiless || raw) {
        let body = match &events[at + 1] {
            Event::Body(body) => body.len(),
            _ => 0,
        };
        let declared = String::from_utf8_lossy(declared).trim().parse();
        assert_eq!(declared, Ok(body), "not as long as it said");
    }
}

/// A connection, and what came of it so far.
struct Reader {
    connection: ClientConnection,
    in_body: bool,
    over: bool,
    events: Vec<Event>,
}

fn read(flags: u8, pieces: &[&[u8]]) -> Vec<Event> {
    let (near, mut far) = Io::pair(PIPE);
    let mut connection = ClientConnection::new(near, options(flags));
    let sent = connection.send_head(request(flags), flags & 3 != 2 && flags & 7 != 4);
    assert_eq!(sent, Ok(()));
    assert!(poll(|cx| connection.poll_flush(cx)).is_ready());
    let mut reader = Reader {
        connection,
        in_body: false,
        over: false,
        events: Vec::new(),
    };
    for piece in pieces {
        write(&mut far, piece);
        reader.advance();
    }
    shut(&mut far);
    reader.advance();
    assert!(reader.over, "it waits for a server gone");
    reader.events
}

impl Reader {
    /// Goes on until more bytes are needed, or nothing is to come.
    fn advance(&mut self) {
        while !self.over {
            let went_on = match self.in_body {
                true => poll(|cx| self.connection.poll_recv(cx)).map(|next| self.body(next)),
                false => poll(|cx| self.connection.poll_head(cx)).map(|next| self.head(next)),
            };
            if went_on.is_pending() {
                return;
            }
        }
    }

    fn end(&mut self, event: Event) {
        self.events.push(event);
        self.over = true;
    }

    fn head(&mut self, next: Result<HeadEvent, StreamError>) {
        match next {
            Ok(event) => {
                let end = matches!(event, HeadEvent::Final { end_stream, .. } if end_stream);
                self.in_body = matches!(event, HeadEvent::Final { .. });
                self.events.push(Event::Head(event));
                if end {
                    self.end(Event::End);
                }
            }
            Err(error) => self.fail(error),
        }
    }

    fn body(&mut self, next: Result<BodyEvent, StreamError>) {
        match next {
            Ok(BodyEvent::Data { bytes, end_stream }) => {
                assert!(end_stream || !bytes.is_empty(), "an empty piece");
                match self.events.last_mut() {
                    Some(Event::Body(body)) => body.extend_from_slice(&bytes),
                    _ if bytes.is_empty() => {}
                    _ => self.events.push(Event::Body(bytes.to_vec())),
                }
                if end_stream {
                    self.end(Event::End);
                }
            }
            Ok(BodyEvent::Trailers(trailers)) => {
                self.events.push(Event::Trailers(trailers));
                self.end(Event::End);
            }
            Ok(BodyEvent::End) => self.end(Event::End),
            Err(error) => self.fail(error),
        }
    }

    fn fail(&mut self, error: StreamError) {
        let again = poll(|cx| self.connection.poll_recv(cx));
        assert_eq!(again, Poll::Ready(Err(error.clone())), "after an error");
        assert!(!self.connection.is_reusable(), "reused after an error");
        self.end(Event::Failed(error));
    }
}
