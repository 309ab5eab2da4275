//! The sans-IO parts. The verdicts are those of Envoy 1.40, seen on the wire.

use bytes::{Bytes, BytesMut};
use outrigger_types::{Protocol, Scheme, names};
use proptest::prelude::*;

use crate::http::codec::h1::body::{Decoder, Framing};
use crate::http::codec::h1::head::{Asked, ParsedRequest, parse_request, parse_response};
use crate::http::codec::h1::locate::Scan;
use crate::http::codec::h1::{H1Error, Options};
use crate::http::codec::{BodyEvent, UnderscoresAction};

fn parse_with(text: &[u8], options: &Options) -> Result<Option<ParsedRequest>, H1Error> {
    parse_request(&mut BytesMut::from(text), &mut Scan::default(), options)
}

fn parse(text: &str) -> Result<Option<ParsedRequest>, H1Error> {
    parse_with(text.as_bytes(), &Options::default())
}

fn whole(text: &str) -> ParsedRequest {
    parse(text)
        .expect("a good request")
        .expect("a whole request")
}

#[test]
fn refuses_what_envoy_refuses() {
    let fields = |f: &str| format!("POST / HTTP/1.1\r\nhost: a\r\n{f}\r\n\r\n");
    let line = |l: &str| format!("{l}\r\nhost: a\r\n\r\n");
    let cases = [
        (line("FOO / HTTP/1.1"), 400, "http1.codec_error"),
        (line("get / HTTP/1.1"), 400, "http1.codec_error"),
        (line("M-SEARCH / HTTP/1.1"), 400, "http1.codec_error"),
        (line("GET / HTTP/1.0"), 426, "low_version"),
        (line("GET / HTTP/1.2"), 426, "low_version"),
        (line("GET / HTTP/2.0"), 426, "low_version"),
        (line("GET /"), 426, "low_version"),
        (line("GET / HTTX/1.1"), 400, "http1.codec_error"),
        (line("GET /a b HTTP/1.1"), 400, "http1.codec_error"),
        (line("GET /a\tb HTTP/1.1"), 400, "http1.codec_error"),
        (line("GET /a\0 HTTP/1.1"), 400, "http1.invalid_characters"),
        (line("GET /é HTTP/1.1"), 400, "http1.codec_error"),
        (line("GET a HTTP/1.1"), 400, "http1.codec_error"),
        (line("GET * HTTP/1.1"), 400, "http1.invalid_url"),
        (line("GET ftp://h/ HTTP/1.1"), 400, "http1.invalid_scheme"),
        (line("CONNECT /x HTTP/1.1"), 400, "http1.invalid_url"),
        (line("hello world"), 400, "http1.codec_error"),
        ("\x16\x03\x01".into(), 400, "http1.codec_error"),
        (
            fields("content-length: 1\r\ncontent-length: 1"),
            400,
            "http1.codec_error",
        ),
        (fields("content-length: 1, 1"), 400, "http1.codec_error"),
        (fields("content-length: +1"), 400, "http1.codec_error"),
        (fields("content-length: -1"), 400, "http1.codec_error"),
        (fields("content-length:"), 400, "http1.codec_error"),
        (
            fields("content-length: 99999999999999999999"),
            400,
            "http1.codec_error",
        ),
        (
            fields("content-length: 1\r\ntransfer-encoding: chunked"),
            400,
            "http1.content_length_and_chunked_not_allowed",
        ),
        (
            fields("transfer-encoding: gzip, chunked"),
            501,
            "http1.invalid_transfer_encoding",
        ),
        (
            fields("transfer-encoding: identity"),
            501,
            "http1.invalid_transfer_encoding",
        ),
        (
            fields("transfer-encoding:"),
            501,
            "http1.invalid_transfer_encoding",
        ),
        (
            fields("transfer-encoding: chunked\r\ntransfer-encoding: chunked"),
            501,
            "http1.invalid_transfer_encoding",
        ),
        (fields("x : b"), 400, "http1.codec_error"),
        (fields("xyz"), 400, "http1.codec_error"),
        (fields(": b"), 400, "http1.codec_error"),
        (fields("x(y: b"), 400, "http1.codec_error"),
        (fields("x: a\0b"), 400, "http1.invalid_characters"),
        (fields("x: a\x01b"), 400, "http1.invalid_characters"),
        (fields("x: a\x7fb"), 400, "http1.invalid_characters"),
        (
            "GET / HTTP/1.1\r\n x: b\r\nhost: a\r\n\r\n".into(),
            400,
            "http1.codec_error",
        ),
        (
            "GET / HTTP/1.1\r\nhost: a b\r\n\r\n".into(),
            400,
            "http.invalid_authority",
        ),
        (
            "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n".into(),
            400,
            "http.invalid_authority",
        ),
        (
            fields(&"x: a\r\n".repeat(100)),
            431,
            "http1.too_many_headers",
        ),
        (
            fields(&format!("x: {}", "a".repeat(62_000))),
            431,
            "http1.headers_too_large",
        ),
    ];
    for (text, status, details) in cases {
        let shown = &text[..text.len().min(60)];
        let error = parse(&text).expect_err(shown);
        assert_eq!(
            (error.status.as_u16(), error.details),
            (status, details),
            "{shown:?}"
        );
    }
}

#[test]
fn takes_what_envoy_takes() {
    let value = |text: &str| {
        let head = whole(text).head;
        let (name, value) = head.headers.iter().next().expect("a field");
        (name.to_string(), value.as_bytes().to_vec())
    };
    for (text, expected) in [
        ("GET / HTTP/1.1\r\nhost: a\r\nX: a\rb\r\n\r\n", "ab"),
        ("GET / HTTP/1.1\r\nhost: a\r\nx: a\r\n b\r\n\r\n", "a b"),
        ("GET / HTTP/1.1\nhost: a\nx: a\n\n", "a"),
        (
            "\r\n\r\nGET  / HTTP/1.1\r\nhost: a\r\nx:\t a \t\r\n\r\n",
            "a",
        ),
    ] {
        assert_eq!(value(text), ("x".into(), expected.into()), "{text:?}");
    }
    assert!(
        whole("UNSUBSCRIBE / HTTP/1.1\r\n\r\n")
            .head
            .authority
            .is_none()
    );
    let empty = whole("GET / HTTP/1.1\r\nhost:\r\n\r\n").head;
    assert_eq!(empty.authority.as_deref(), Some(&b""[..]));
    let two = whole("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n").head;
    assert_eq!(two.authority.as_deref(), Some(&b"a,b"[..]));
    let many = "x: a\r\n".repeat(99);
    assert!(parse(&format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n")).is_ok());
}

#[test]
fn reads_targets_into_scheme_authority_and_path() {
    let cases = [
        ("GET http://h:81/p?q", Scheme::Http, "h:81", "/p?q"),
        ("GET http://h", Scheme::Http, "h", "/"),
        ("GET http://h?x=1", Scheme::Http, "h", "?x=1"),
        ("GET HTTPS://h/", Scheme::Https, "h", "/"),
        ("OPTIONS *", Scheme::Http, "a", "*"),
        ("CONNECT h:80", Scheme::Http, "h:80", ""),
        ("GET /a#b", Scheme::Http, "a", "/a#b"),
    ];
    for (line, scheme, authority, path) in cases {
        let head = whole(&format!("{line} HTTP/1.1\r\nhost: a\r\n\r\n")).head;
        assert_eq!(head.scheme, scheme, "{line}");
        assert_eq!(head.authority_bytes(), authority.as_bytes(), "{line}");
        assert_eq!(&head.path[..], path.as_bytes(), "{line}");
    }
}

#[test]
fn tells_framing_keep_alive_and_upgrades() {
    let get = |fields: &str| whole(&format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n"));
    assert_eq!(get("").framing, Framing::None);
    assert_eq!(get("content-length: 0\r\n").framing, Framing::None);
    assert_eq!(get("content-length: 3 \r\n").framing, Framing::Length(3));
    assert_eq!(
        get("transfer-encoding: Chunked\r\n").framing,
        Framing::Chunked
    );
    assert!(get("").keep_alive);
    assert!(!get("connection: foo, Close\r\n").keep_alive);
    assert!(!get("proxy-connection: close\r\n").keep_alive);
    let upgrade = get("connection: Upgrade\r\nupgrade: websocket\r\n");
    assert_eq!(upgrade.framing, Framing::Raw);
    assert_eq!(upgrade.head.protocol.as_deref(), Some(&b"websocket"[..]));
    for body in ["content-length: 3\r\n", "transfer-encoding: chunked\r\n"] {
        let fields = format!("connection: upgrade\r\nupgrade: websocket\r\n{body}");
        assert_eq!(
            get(&fields).framing,
            Framing::Raw,
            "what follows is no body"
        );
    }
    let h2c = get("connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: A\r\n");
    assert_eq!((h2c.framing, h2c.head.headers.len()), (Framing::None, 0));
}

#[test]
fn options_widen_and_narrow() {
    let old = b"GET / HTTP/1.0\r\n\r\n";
    let options = Options {
        accept_http_10: true,
        default_host_for_http_10: Some(Bytes::from_static(b"d")),
        allow_custom_methods: true,
        allow_chunked_length: true,
        underscores: UnderscoresAction::DropHeader,
        allow_absolute_url: false,
        max_headers_count: 300,
        ..Options::default()
    };
    let request = parse_with(old, &options).unwrap().unwrap();
    assert_eq!(request.protocol, Protocol::Http10);
    assert_eq!(request.head.authority_bytes(), b"d");
    assert!(!request.keep_alive);
    let custom = b"FOO http://x/ HTTP/1.1\r\na_b: 1\r\n\r\n";
    let request = parse_with(custom, &options).unwrap().unwrap();
    assert_eq!(&request.head.path[..], b"http://x/");
    assert!(request.head.headers.is_empty());
    assert_eq!(request.dropped, 1);
    let both = b"PUT / HTTP/1.1\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n";
    let request = parse_with(both, &options).unwrap().unwrap();
    assert_eq!(request.framing, Framing::Chunked);
    assert!(!request.head.headers.contains(&names::CONTENT_LENGTH));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(300));
    assert!(parse_with(many.as_bytes(), &options).unwrap().is_some());
    let rejecting = Options {
        underscores: UnderscoresAction::RejectRequest,
        ..Options::default()
    };
    let refused = parse_with(b"GET / HTTP/1.1\r\na_b: 1\r\n\r\n", &rejecting);
    assert_eq!(refused.unwrap_err().details, "http1.unexpected_underscore");
}

#[test]
fn frames_responses_as_envoy_does() {
    let frame = |text: &str, asked| {
        let mut buf = BytesMut::from(text);
        parse_response(&mut buf, &mut Scan::default(), asked, &Options::default())
            .map(|r| r.expect("whole").framing)
            .map_err(|e| e.details)
    };
    let get = Asked::default();
    let head = Asked { head: true, ..get };
    let connect = Asked {
        connect: true,
        ..get
    };
    let upgrade = Asked {
        upgrade: true,
        ..get
    };
    for (text, asked, framing) in [
        ("HTTP/1.1 200 OK\r\n\r\n", get, Ok(Framing::UntilClose)),
        (
            "HTTP/1.1 200\r\ncontent-length: 5\r\n\r\n",
            get,
            Ok(Framing::Length(5)),
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
            head,
            Ok(Framing::None),
        ),
        (
            "HTTP/1.1 304 No\r\ncontent-length: 5\r\n\r\n",
            get,
            Ok(Framing::None),
        ),
        (
            "HTTP/1.1 204 No\r\ncontent-length: 0\r\n\r\n",
            get,
            Ok(Framing::None),
        ),
        (
            "HTTP/1.1 204 No\r\ncontent-length: 1\r\n\r\n",
            get,
            Err("http1.content_length_not_allowed"),
        ),
        ("HTTP/1.1 101 Up\r\n\r\n", upgrade, Ok(Framing::Raw)),
        ("HTTP/1.1 101 Up\r\n\r\n", get, Ok(Framing::None)),
        ("HTTP/1.1 200 OK\r\n\r\n", connect, Ok(Framing::Raw)),
        (
            "HTTP/1.1 700 Odd\r\ncontent-length: 1\r\n\r\n",
            get,
            Ok(Framing::Length(1)),
        ),
        ("HTTP/1.1 099 Odd\r\n\r\n", get, Err("http1.codec_error")),
        ("hello\r\n\r\n", get, Err("http1.codec_error")),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
            get,
            Err("http1.content_length_and_chunked_not_allowed"),
        ),
    ] {
        assert_eq!(frame(text, asked), framing, "{text:?}");
    }
}

/// All events of a body that comes in pieces of these sizes; data joined.
fn decode(framing: Framing, body: &[u8], pieces: &[usize]) -> Result<(Vec<u8>, Vec<u8>), H1Error> {
    let options = Options {
        enable_trailers: true,
        ..Options::default()
    };
    let mut decoder = Decoder::new(framing, &options);
    let (mut buf, mut data, mut trailers) = (BytesMut::new(), Vec::new(), Vec::new());
    let mut sizes = pieces.iter().copied().chain(std::iter::repeat(usize::MAX));
    let mut rest = body;
    while !decoder.is_done() && !rest.is_empty() {
        let (piece, after) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
        rest = after;
        buf.extend_from_slice(piece);
        while !decoder.is_done()
            && let Some(event) = decoder.decode(&mut buf)?
        {
            match event {
                BodyEvent::Data { bytes, .. } => data.extend_from_slice(&bytes),
                BodyEvent::Trailers(fields) => {
                    for (name, value) in fields.iter() {
                        trailers.extend_from_slice(name.as_str().as_bytes());
                        trailers.extend_from_slice(value.as_bytes());
                    }
                }
                BodyEvent::End => {}
            }
        }
    }
    assert!(decoder.is_done(), "the body is not over");
    Ok((data, trailers))
}

#[test]
fn chunk_framing_is_as_strict_as_envoys() {
    let read = |body: &str| decode(Framing::Chunked, body.as_bytes(), &[]).map(|(data, _)| data);
    for good in [
        "1;a=b\r\nx\r\n0\r\n\r\n",
        "1 \r\nx\r\n0\r\n\r\n",
        "1\t\r\nx\r\n0\r\n\r\n",
        "1\r\nx\n0\r\n\r\n",
        "1\r\nxy\r\n0\r\n\r\n",
        "1\r\nx\ry\r\n0\r\n\r\n",
        "1\r\nx\r\n0\r\n\n",
        "001\r\nx\r\n000\r\n\r\n",
    ] {
        assert_eq!(read(good), Ok(b"x".to_vec()), "{good:?}");
    }
    for bad in [
        "z\r\nx\r\n0\r\n\r\n",
        "1\nx\r\n0\r\n\r\n",
        "1;a\nx\r\n0\r\n\r\n",
        "1;a\rb\r\nx\r\n0\r\n\r\n",
        "0x1\r\nx\r\n0\r\n\r\n",
        " 1\r\nx\r\n0\r\n\r\n",
        "\r\nx\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nx\r\n",
        "1\r\nx\r\n0\r\nx t: 1\r\n\r\n",
    ] {
        assert_eq!(read(bad), Err(H1Error::CODEC), "{bad:?}");
    }
    let long = "a".repeat(70_000);
    let skipped = format!("1;{long}\r\nx{long}\r\n0;{long}\r\n\r\n");
    assert_eq!(read(&skipped), Ok(b"x".to_vec()));
}

#[test]
fn chunks_that_come_together_are_one_event_and_count_only_if_all_is_well() {
    let events = |body: &str| {
        let mut decoder = Decoder::new(Framing::Chunked, &Options::default());
        let mut buf = BytesMut::from(body);
        let mut out = Vec::new();
        while let Some(event) = decoder.decode(&mut buf)? {
            let end = !matches!(
                event,
                BodyEvent::Data {
                    end_stream: false,
                    ..
                }
            );
            out.push(event);
            if end {
                break;
            }
        }
        Ok::<_, H1Error>(out)
    };
    let data = |bytes: &'static str, end_stream| BodyEvent::Data {
        bytes: Bytes::from_static(bytes.as_bytes()),
        end_stream,
    };
    let both = "2\r\nab\r\n1\r\nc\r\n";
    assert_eq!(events(both), Ok(vec![data("abc", false)]));
    assert_eq!(
        events(&format!("{both}0\r\n\r\n")),
        Ok(vec![data("abc", true)])
    );
    assert_eq!(
        events(&format!("{both}0\r\nx: y\r\n\r\n")),
        Ok(vec![data("abc", false), BodyEvent::End])
    );
    assert_eq!(events(&format!("{both}zz\r\n")), Err(H1Error::CODEC));
    let mut decoder = Decoder::new(Framing::Chunked, &Options::default());
    let mut buf = BytesMut::from(&format!("{both}0\n")[..]);
    assert_eq!(decoder.decode(&mut buf), Ok(Some(data("abc", false))));
    assert_eq!(decoder.decode(&mut buf), Err(H1Error::CODEC));
}

proptest! {
    #[test]
    fn a_body_in_any_pieces_is_the_same_body(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
        pieces in prop::collection::vec(1usize..9, 0..200),
    ) {
        let mut wire = Vec::new();
        for chunk in &chunks {
            wire.extend_from_slice(format!("{:X};e=1\r\n", chunk.len()).as_bytes());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"0\r\nt: v\r\n\r\n");
        let (data, trailers) = decode(Framing::Chunked, &wire, &pieces).unwrap();
        prop_assert_eq!(data, chunks.concat());
        prop_assert_eq!(trailers, b"tv".to_vec());
    }

    #[test]
    fn a_head_in_any_pieces_is_the_same_head(pieces in prop::collection::vec(1usize..9, 0..80)) {
        let text = b"GET /p?q HTTP/1.1\r\nHost: h\r\nX: 1\r\n 2\r\ny: a\rb\r\nX: 3\r\n\r\nrest";
        let options = Options::default();
        let expected = parse_with(text, &options).unwrap().unwrap();
        let (mut buf, mut scan, mut found) = (BytesMut::new(), Scan::default(), None);
        let mut rest = &text[..];
        let mut sizes = pieces.into_iter().chain(std::iter::repeat(1));
        while found.is_none() {
            let (piece, after) = rest.split_at(sizes.next().unwrap_or(1).min(rest.len()));
            rest = after;
            buf.extend_from_slice(piece);
            found = parse_request(&mut buf, &mut scan, &options).unwrap();
        }
        prop_assert_eq!(found.unwrap(), expected);
        buf.extend_from_slice(rest);
        prop_assert_eq!(&buf[..], b"rest");
    }

    #[test]
    fn hostile_bytes_neither_panic_nor_pile_up(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b' ')], 0..300),
        pieces in prop::collection::vec(1usize..30, 1..20),
    ) {
        let options = Options { max_headers_bytes: 100, ..Options::default() };
        let starts: [&[u8]; 3] = [b"", b"GET / HTTP/1.1\r\nx: ", b"HTTP/1.1 200 OK\r\n"];
        for start in starts {
            let (mut buf, mut scan) = (BytesMut::from(start), Scan::default());
            let (mut answer, mut answer_scan) = (BytesMut::from(start), Scan::default());
            let mut body = (BytesMut::new(), Decoder::new(Framing::Chunked, &options));
            for piece in bytes.chunks(pieces[0]) {
                buf.extend_from_slice(piece);
                if parse_request(&mut buf, &mut scan, &options) == Ok(None) {
                    prop_assert!(buf.len() <= options.max_headers_bytes);
                }
                answer.extend_from_slice(piece);
                let _ = parse_response(&mut answer, &mut answer_scan, Asked::default(), &options);
                body.0.extend_from_slice(piece);
                let _ = body.1.decode(&mut body.0);
            }
        }
    }
}
