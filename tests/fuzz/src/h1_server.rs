//! HTTP/1, the side that takes requests.

use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use outrigger::http::codec::h1::{
    ClientConnection, H1Error, NextRequest, Options, ServerConnection,
};
use outrigger::http::codec::{BodyEvent, StreamError, UnderscoresAction};
use outrigger::network::io::Io;
use outrigger_types::{Buffer, Headers, Method, ResponseHead, StatusCode, names};

use crate::bytes::{PIPE, first, pieces, poll, shut, write};

/// What was read, in order.
#[derive(Debug, PartialEq)]
enum Event {
    Head(NextRequest),
    Refused(H1Error),
    Body(Vec<u8>),
    Trailers(Headers),
    End,
    Failed(StreamError),
    Closed,
}

/// A byte of options, one that says where the input is cut, and requests. They
/// are read alike in one piece and in many, and each that was read whole is read
/// again as it was by whoever gets it from us.
pub(crate) fn server(data: &[u8]) {
    let (flags, rest) = first(data);
    let (seed, requests) = first(rest);
    let options = options(flags);
    let whole = read(&options, &[requests]);
    let cut = read(&options, &pieces(requests, seed));
    assert!(alike(&whole, &cut), "cut: {cut:?}\nin one: {whole:?}");
    for (at, event) in whole.iter().enumerate() {
        if let Event::Head(request) = event {
            exchange(request, &whole[at + 1..]);
        }
    }
}

/// What was read before the end, what of a body came before it failed, and
/// whether it failed. What is wrong with a head is told before the head is whole
/// or after, as it happens to come, and of several faults the first one that is
/// seen.
fn until_end(events: &[Event]) -> (&[Event], &[u8], bool) {
    match events {
        [rest @ .., Event::Body(body), Event::Failed(_)] => (rest, body, true),
        [rest @ .., Event::Failed(_)] => (rest, &[], true),
        [rest @ .., Event::Closed | Event::Refused(_)] => (rest, &[], false),
        _ => panic!("no end: {events:?}"),
    }
}

/// Whether two ways to cut an input read the same. Of a body that fails, what is
/// at hand with the fault is not passed on.
fn alike(a: &[Event], b: &[Event]) -> bool {
    let (a, b) = (until_end(a), until_end(b));
    a.0 == b.0 && a.2 == b.2 && (a.1.starts_with(b.1) || b.1.starts_with(a.1))
}

fn options(flags: u8) -> Arc<Options> {
    let on = |bit: u8| flags & 1 << bit != 0;
    Arc::new(Options {
        accept_http_10: on(0),
        default_host_for_http_10: on(0).then(|| Bytes::from_static(b"default")),
        enable_trailers: on(1),
        allow_chunked_length: on(2),
        allow_custom_methods: on(3),
        ignore_upgrade: on(4),
        allow_absolute_url: !on(5),
        max_headers_bytes: if on(6) { 256 } else { 60 * 1024 },
        max_headers_count: if on(6) { 4 } else { 100 },
        underscores: match on(7) {
            true => UnderscoresAction::DropHeader,
            false => UnderscoresAction::Allow,
        },
        ..Options::default()
    })
}

/// A connection, and what came of it so far.
struct Reader {
    connection: Option<Box<ServerConnection>>,
    in_body: bool,
    events: Vec<Event>,
}

fn read(options: &Arc<Options>, pieces: &[&[u8]]) -> Vec<Event> {
    let (near, mut far) = Io::pair(PIPE);
    let connection = ServerConnection::new(near, options.clone());
    let mut reader = Reader {
        connection: Some(Box::new(connection)),
        in_body: false,
        events: Vec::new(),
    };
    for piece in pieces {
        write(&mut far, piece);
        reader.advance();
    }
    shut(&mut far);
    reader.advance();
    assert!(reader.connection.is_none(), "it waits for a client gone");
    reader.events
}

impl Reader {
    /// Goes on until more bytes are needed, or nothing is to come.
    fn advance(&mut self) {
        while let Some(connection) = &mut self.connection {
            let went_on = match self.in_body {
                true => poll(|cx| connection.poll_recv(cx)).map(|next| self.body(next)),
                false => poll(|cx| connection.poll_next_head(cx)).map(|next| self.head(next)),
            };
            if went_on.is_pending() {
                return;
            }
        }
    }

    fn end(&mut self, event: Event) {
        self.events.push(event);
        self.connection = None;
    }

    fn head(&mut self, next: Result<Option<NextRequest>, H1Error>) {
        match next {
            Ok(Some(request)) => {
                let end_stream = request.end_stream;
                self.events.push(Event::Head(request));
                self.in_body = true;
                if end_stream {
                    self.answer();
                }
            }
            Ok(None) => self.end(Event::Closed),
            Err(error) => self.end(Event::Refused(error)),
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
                    self.answer();
                }
            }
            Ok(BodyEvent::Trailers(trailers)) => {
                self.events.push(Event::Trailers(trailers));
                self.answer();
            }
            Ok(BodyEvent::End) => self.answer(),
            Err(error) => {
                if let Some(connection) = &mut self.connection {
                    let again = poll(|cx| connection.poll_recv(cx));
                    assert_eq!(again, Poll::Ready(Err(error.clone())), "after an error");
                }
                self.end(Event::Failed(error));
            }
        }
    }

    /// Answers a request that was read whole, and is ready for the next one.
    fn answer(&mut self) {
        self.events.push(Event::End);
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        let head = ResponseHead::new(StatusCode::OK);
        let sent = connection.send_head(head, true);
        assert_eq!(sent, Ok(()), "a request that was read cannot be answered");
        assert!(poll(|cx| connection.poll_flush(cx)).is_ready());
        self.in_body = false;
        self.connection = connection.into_next();
        if self.connection.is_none() {
            self.events.push(Event::Closed);
        }
    }
}

/// Fields that end at each hop, which the proxy takes out before it sends on.
const HOP_BY_HOP: [&str; 6] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "upgrade",
    "te",
    "expect",
];

/// Sends a request on, if it was read to its end: it arrives as it was, and
/// alone.
fn exchange(request: &NextRequest, after: &[Event]) {
    let (body, trailers) = match after {
        [Event::End, ..] => (&b""[..], None),
        [Event::Body(body), Event::End, ..] => (&**body, None),
        [Event::Trailers(trailers), Event::End, ..] => (&b""[..], Some(trailers)),
        [Event::Body(body), Event::Trailers(trailers), Event::End, ..] => (&**body, Some(trailers)),
        _ => return,
    };
    let declared = request.head.headers.get_bytes(&names::CONTENT_LENGTH);
    if let Some(declared) = declared {
        let declared = String::from_utf8_lossy(declared).trim().parse();
        assert_eq!(declared, Ok(body.len()), "not as long as it said");
    }
    // What is no path the proxy answers itself, and of an upgrade raw bytes follow.
    let has_path = request.head.path.starts_with(b"/");
    if request.head.protocol.is_some() || request.head.method == Method::CONNECT || !has_path {
        return;
    }
    let Some(events) = pass_on(request, body, trailers) else {
        return;
    };
    let [Event::Head(seen), rest @ ..] = &*events else {
        panic!("no request arrived: {events:?}");
    };
    assert_eq!(seen.head.method, request.head.method);
    assert_eq!(seen.head.path, request.head.path);
    assert_eq!(seen.head.authority, request.head.authority);
    let rest = match rest {
        [Event::Body(seen), rest @ ..] => {
            assert_eq!(seen, body);
            rest
        }
        rest => {
            assert!(body.is_empty(), "the body is lost");
            rest
        }
    };
    let rest = match (trailers, rest) {
        (Some(sent), [Event::Trailers(seen), rest @ ..]) => {
            let mut sent = sent.clone();
            // It belongs to the framing, wherever it stands.
            sent.remove(&names::TRANSFER_ENCODING);
            assert_eq!(*seen, sent);
            rest
        }
        (_, rest) => rest,
    };
    assert_eq!(rest, [Event::End, Event::Closed], "more arrived");
}

/// What another server of ours reads of a request that a client of ours sends;
/// none if the client refuses to.
fn pass_on(request: &NextRequest, body: &[u8], trailers: Option<&Headers>) -> Option<Vec<Event>> {
    let (near, mut far) = Io::pair(PIPE);
    let options = Arc::new(Options {
        enable_trailers: true,
        allow_custom_methods: true,
        max_headers_bytes: 1 << 20,
        max_headers_count: 1000,
        ..Options::default()
    });
    let mut client = ClientConnection::new(near, options.clone());
    let mut head = request.head.clone();
    let hop = |name: &str| HOP_BY_HOP.contains(&name);
    head.headers.retain(|name, _| !hop(name.as_str()));
    client.send_head(head, request.end_stream).ok()?;
    if !request.end_stream {
        let mut data = Buffer::from(Bytes::copy_from_slice(body));
        let end = trailers.is_none();
        let sent = poll(|cx| client.poll_send_data(cx, &mut data, end));
        assert_eq!(sent, Poll::Ready(Ok(body.len())), "the body is not taken");
        if let Some(trailers) = trailers {
            assert_eq!(client.send_trailers(trailers.clone()), Ok(()));
        }
    }
    assert!(poll(|cx| client.poll_flush(cx)).is_ready());
    let bytes = crate::bytes::read(&mut far);
    Some(read(&options, &[&bytes]))
}
