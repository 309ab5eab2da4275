//! Parsing of heads, sans-IO: `httparse` finds the fields, the rules on top of
//! it are Envoy's.

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method};
use outrigger_types::{Headers, Protocol, RequestHead, ResponseHead, Scheme, StatusCode, names};
use smallvec::SmallVec;

use super::body::Framing;
use super::options::{H1Error, Options};
use crate::http::codec::UnderscoresAction;

/// Fields that are parsed without an allocation.
const FIELDS: usize = 128;

/// A request's head, and what follows it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ParsedRequest {
    pub(super) head: RequestHead,
    pub(super) framing: Framing,
    pub(super) protocol: Protocol,
    pub(super) keep_alive: bool,
}

/// A response's head, and what follows it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ParsedResponse {
    pub(super) head: ResponseHead,
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
}

/// How far the look-out for the end of a head got, so that a head that comes
/// byte by byte is not parsed anew for each byte.
#[derive(Debug, Default)]
pub(super) struct Scan {
    at: usize,
    waiting: bool,
}

impl Scan {
    /// Whether parsing may lead further than it did last time.
    fn worth_parsing(&mut self, buf: &[u8]) -> bool {
        if !self.waiting {
            return true;
        }
        let from = self.at.saturating_sub(3);
        self.at = buf.len();
        end_of_head(&buf[from..]).is_some()
    }

    fn wait(&mut self, buf: &[u8]) {
        self.waiting = true;
        self.at = buf.len();
    }
}

/// The length of `buf` up to and with the first empty line.
fn end_of_head(buf: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(lf) = buf[from..].iter().position(|b| *b == b'\n') {
        let next = from + lf + 1;
        match &buf[next..] {
            [b'\n', ..] => return Some(next + 1),
            [b'\r', b'\n', ..] => return Some(next + 2),
            _ => from = next,
        }
    }
    None
}

type Field = (Range<usize>, Range<usize>);

/// Where in the bytes of a head its parts are.
struct Layout {
    len: usize,
    method: Range<usize>,
    target: Range<usize>,
    status: u16,
    minor: u8,
    fields: SmallVec<[Field; 32]>,
}

/// Offsets of `part` in `whole`, of which it is a slice.
fn range(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

fn fields(buf: &[u8], parsed: &[httparse::Header<'_>]) -> SmallVec<[Field; 32]> {
    parsed
        .iter()
        .map(|h| (range(buf, h.name.as_bytes()), range(buf, h.value)))
        .collect()
}

/// Room for as many fields as are allowed.
fn room<'a>(limit: usize) -> SmallVec<[MaybeUninit<httparse::Header<'a>>; FIELDS]> {
    let mut room = SmallVec::new();
    room.resize_with(limit, MaybeUninit::uninit);
    room
}

fn layout_request(buf: &[u8], limit: usize) -> Result<Option<Layout>, httparse::Error> {
    let mut config = httparse::ParserConfig::default();
    config.allow_multiple_spaces_in_request_line_delimiters(true);
    let mut room = room(limit);
    let mut request = httparse::Request::new(&mut []);
    match config.parse_request_with_uninit_headers(&mut request, buf, &mut room)? {
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete(len) => Ok(Some(Layout {
            len,
            method: range(buf, request.method.unwrap_or_default().as_bytes()),
            target: range(buf, request.path.unwrap_or_default().as_bytes()),
            status: 0,
            minor: request.version.unwrap_or(1),
            fields: fields(buf, request.headers),
        })),
    }
}

fn layout_response(buf: &[u8], limit: usize) -> Result<Option<Layout>, httparse::Error> {
    let config = httparse::ParserConfig::default();
    let mut room = room(limit);
    let mut response = httparse::Response::new(&mut []);
    match config.parse_response_with_uninit_headers(&mut response, buf, &mut room)? {
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete(len) => Ok(Some(Layout {
            len,
            method: 0..0,
            target: 0..0,
            status: response.code.unwrap_or_default(),
            minor: response.version.unwrap_or(1),
            fields: fields(buf, response.headers),
        })),
    }
}

/// What one look at the bytes gave.
enum Found {
    Partial,
    Head(Bytes, Layout),
}

type Locate = fn(&[u8], usize) -> Result<Option<Layout>, httparse::Error>;

/// Takes a whole head out of `buf`, if there is one.
fn take_head(
    buf: &mut BytesMut,
    scan: &mut Scan,
    options: &Options,
    locate: Locate,
) -> Result<Found, H1Error> {
    let partial = |buf: &BytesMut| match buf.len() > options.max_headers_bytes {
        true => Err(H1Error::TOO_LARGE),
        false => Ok(Found::Partial),
    };
    if !scan.worth_parsing(buf) {
        return partial(buf);
    }
    match locate(buf, options.max_headers_count) {
        Ok(Some(layout)) if layout.len > options.max_headers_bytes => Err(H1Error::TOO_LARGE),
        Ok(Some(layout)) => {
            *scan = Scan::default();
            Ok(Found::Head(buf.split_to(layout.len).freeze(), layout))
        }
        Ok(None) => {
            scan.wait(buf);
            partial(buf)
        }
        Err(error) if may_be_mended(error) && needs_mending(buf) => {
            let Some(len) = end_of_head(buf) else {
                scan.wait(buf);
                return partial(buf);
            };
            if len > options.max_headers_bytes {
                return Err(H1Error::TOO_LARGE);
            }
            *scan = Scan::default();
            let mended = mend(&buf.split_to(len));
            match locate(&mended, options.max_headers_count) {
                Ok(Some(layout)) if layout.len == mended.len() => Ok(Found::Head(mended, layout)),
                Ok(_) => Err(H1Error::CODEC),
                Err(error) => Err(refusal(error, &mended)),
            }
        }
        Err(error) => Err(refusal(error, buf)),
    }
}

/// Whether the error may come from a fold or a bare CR.
fn may_be_mended(error: httparse::Error) -> bool {
    use httparse::Error as E;
    matches!(error, E::HeaderName | E::HeaderValue | E::NewLine)
}

/// Whether a line of the fields is folded or holds a bare CR.
fn needs_mending(buf: &[u8]) -> bool {
    buf.windows(2)
        .any(|w| matches!(w, [b'\n', b' ' | b'\t']) || (w[0] == b'\r' && w[1] != b'\n'))
}

/// Joins folded lines and drops bare CRs, after the first line.
fn mend(head: &[u8]) -> Bytes {
    let first = head.iter().position(|b| *b == b'\n').map_or(0, |lf| lf + 1);
    let mut out = Vec::with_capacity(head.len());
    out.extend_from_slice(&head[..first]);
    let mut at = first;
    while at < head.len() {
        match &head[at..] {
            [b'\r', b'\n', ..] => {
                out.push(b'\r');
                at += 1;
            }
            [b'\r', ..] => at += 1,
            [b'\n', b' ' | b'\t', ..] => {
                if out.last() == Some(&b'\r') {
                    out.pop();
                }
                out.push(b' ');
                at += 1;
                at += head[at..]
                    .iter()
                    .take_while(|b| matches!(b, b' ' | b'\t'))
                    .count();
            }
            [byte, ..] => {
                out.push(*byte);
                at += 1;
            }
            [] => break,
        }
    }
    out.into()
}

/// How Envoy answers what `httparse` refuses.
fn refusal(error: httparse::Error, buf: &[u8]) -> H1Error {
    use httparse::Error as E;
    let line = buf.split(|b| *b == b'\n').next().unwrap_or_default();
    match error {
        E::HeaderValue => H1Error::CHARACTERS,
        E::TooManyHeaders => H1Error::TOO_MANY,
        _ if line.contains(&0) && line.starts_with_method() => H1Error::CHARACTERS,
        E::Token | E::Version if is_of_another_version(line) => H1Error::VERSION,
        _ => H1Error::CODEC,
    }
}

trait RequestLine {
    fn starts_with_method(&self) -> bool;
}

impl RequestLine for [u8] {
    fn starts_with_method(&self) -> bool {
        let word = self.split(|b| *b == b' ').next().unwrap_or_default();
        Method::from_bytes(word).is_ok_and(|m| is_known(&m))
    }
}

/// A request line of HTTP/0.9 (no version), or of a version that is none of ours.
fn is_of_another_version(line: &[u8]) -> bool {
    if !line.starts_with_method() {
        return false;
    }
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = line.split(|b| *b == b' ').filter(|w| !w.is_empty());
    let (_, target, version) = (words.next(), words.next(), words.next());
    match (target, version, words.next()) {
        (Some(_), None, None) => true,
        (Some(_), Some([b'H', b'T', b'T', b'P', b'/', a, b'.', b]), None) => {
            a.is_ascii_digit() && b.is_ascii_digit() && !matches!((a, b), (b'1', b'0' | b'1'))
        }
        _ => false,
    }
}

/// The methods that Envoy's parser has a name for. `M-SEARCH` is not among them
/// under its real name.
fn is_known(method: &Method) -> bool {
    const NAMES: [&str; 26] = [
        "ACL",
        "BIND",
        "CHECKOUT",
        "COPY",
        "LINK",
        "LOCK",
        "MERGE",
        "MKACTIVITY",
        "MKCALENDAR",
        "MKCOL",
        "MOVE",
        "MSEARCH",
        "NOTIFY",
        "PROPFIND",
        "PROPPATCH",
        "PURGE",
        "QUERY",
        "REBIND",
        "REPORT",
        "SEARCH",
        "SOURCE",
        "SUBSCRIBE",
        "UNBIND",
        "UNLINK",
        "UNLOCK",
        "UNSUBSCRIBE",
    ];
    matches!(
        *method,
        Method::GET
            | Method::POST
            | Method::PUT
            | Method::DELETE
            | Method::HEAD
            | Method::OPTIONS
            | Method::CONNECT
            | Method::PATCH
            | Method::TRACE
    ) || NAMES.contains(&method.as_str())
}

/// Takes a request's head out of `buf`; none if it is not whole yet.
pub(super) fn parse_request(
    buf: &mut BytesMut,
    scan: &mut Scan,
    options: &Options,
) -> Result<Option<ParsedRequest>, H1Error> {
    if !scan.waiting {
        let empty = buf.iter().take_while(|b| matches!(b, b'\r' | b'\n'));
        buf.advance(empty.count());
    }
    if buf.is_empty() {
        return Ok(None);
    }
    match take_head(buf, scan, options, layout_request)? {
        Found::Partial => Ok(None),
        Found::Head(bytes, layout) => build_request(&bytes, layout, options).map(Some),
    }
}

/// What the fields say about the framing and the connection.
#[derive(Default)]
struct Framings {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    upgrade_to: Option<Bytes>,
}

impl Framings {
    /// Takes note of a field.
    fn note(&mut self, name: &HeaderName, value: &Bytes) -> Result<(), H1Error> {
        if *name == names::CONTENT_LENGTH {
            let length = parse_length(value).ok_or(H1Error::CODEC)?;
            if self.length.replace(length).is_some() {
                return Err(H1Error::CODEC);
            }
        } else if *name == names::TRANSFER_ENCODING {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(H1Error::TRANSFER_ENCODING);
            }
            self.chunked = true;
        } else if *name == names::CONNECTION || *name == names::PROXY_CONNECTION {
            for token in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                self.close |= token.eq_ignore_ascii_case(b"close");
                self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                self.upgrade |= token.eq_ignore_ascii_case(b"upgrade");
            }
        } else if *name == names::UPGRADE {
            self.upgrade_to = Some(value.clone());
        }
        Ok(())
    }

    fn keeps_alive(&self, minor: u8) -> bool {
        !self.close && (minor == 1 || self.keep_alive)
    }

    /// Refuses two framings at once, unless Content-Length is to be dropped.
    fn settle(&mut self, headers: &mut Headers, options: &Options) -> Result<(), H1Error> {
        if self.chunked && self.length.is_some() {
            if !options.allow_chunked_length {
                return Err(H1Error::TWO_LENGTHS);
            }
            self.length = None;
            headers.remove(&names::CONTENT_LENGTH);
        }
        Ok(())
    }
}

/// Digits alone, without sign or list.
fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 20 {
        return None;
    }
    value.iter().try_fold(0u64, |n, b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        n.checked_mul(10)?.checked_add(digit)
    })
}

/// A field's value without the white space around it, sharing the head's bytes.
fn value_of(head: &Bytes, at: Range<usize>) -> Bytes {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let raw = &head[at.clone()];
    let front = raw.iter().take_while(|b| blank(b)).count();
    let back = raw[front..].iter().rev().take_while(|b| blank(b)).count();
    head.slice(at.start + front..at.end - back)
}

fn field(head: &Bytes, (name, value): Field) -> Result<(HeaderName, Bytes), H1Error> {
    let name = HeaderName::from_bytes(&head[name]).map_err(|_| H1Error::CODEC)?;
    Ok((name, value_of(head, value)))
}

fn checked(value: Bytes) -> Result<HeaderValue, H1Error> {
    HeaderValue::from_maybe_shared(value).map_err(|_| H1Error::CHARACTERS)
}

fn build_request(
    bytes: &Bytes,
    layout: Layout,
    options: &Options,
) -> Result<ParsedRequest, H1Error> {
    let method = Method::from_bytes(&bytes[layout.method]).map_err(|_| H1Error::CODEC)?;
    if !options.allow_custom_methods && !is_known(&method) {
        return Err(H1Error::CODEC);
    }
    if layout.minor == 0 && !options.accept_http_10 {
        return Err(H1Error::VERSION);
    }
    let mut head = RequestHead::new(method, Bytes::new());
    head.scheme = options.scheme.clone();
    head.headers = Headers::with_capacity(layout.fields.len() + 8);
    let mut framings = Framings::default();
    for at in layout.fields {
        let (name, value) = field(bytes, at)?;
        if name == names::HOST {
            add_host(&mut head.authority, value);
            continue;
        }
        if options.underscores != UnderscoresAction::Allow && name.as_str().contains('_') {
            match options.underscores {
                UnderscoresAction::RejectRequest => return Err(H1Error::UNDERSCORE),
                UnderscoresAction::DropHeader | UnderscoresAction::Allow => continue,
            }
        }
        framings.note(&name, &value)?;
        head.headers.append(name, checked(value)?);
    }
    framings.settle(&mut head.headers, options)?;
    set_target(&mut head, bytes.slice(layout.target), options)?;
    if layout.minor == 0 && head.authority.is_none() {
        head.authority.clone_from(&options.default_host_for_http_10);
    }
    let framing = request_framing(&mut head, &mut framings, options)?;
    Ok(ParsedRequest {
        head,
        framing,
        protocol: match layout.minor {
            0 => Protocol::Http10,
            _ => Protocol::Http11,
        },
        keep_alive: framings.keeps_alive(layout.minor),
    })
}

/// Two Host lines are joined, as Envoy joins them.
fn add_host(authority: &mut Option<Bytes>, value: Bytes) {
    *authority = Some(match authority.take() {
        None => value,
        Some(first) => [&first[..], b",", &value[..]].concat().into(),
    });
}

/// Reads the request's target into path, authority and scheme.
fn set_target(head: &mut RequestHead, target: Bytes, options: &Options) -> Result<(), H1Error> {
    if !target.is_ascii() {
        return Err(H1Error::CODEC);
    }
    if head.method == Method::CONNECT {
        if target.starts_with(b"/") || &target[..] == b"*" {
            return Err(H1Error::URL);
        }
        head.authority = Some(target);
    } else if target.starts_with(b"/") || !options.allow_absolute_url {
        head.path = target;
    } else if &target[..] == b"*" {
        if head.method != Method::OPTIONS {
            return Err(H1Error::URL);
        }
        head.path = target;
    } else {
        set_absolute(head, &target)?;
    }
    match &head.authority {
        Some(authority) if !is_authority(authority) => Err(H1Error::AUTHORITY),
        _ => Ok(()),
    }
}

fn set_absolute(head: &mut RequestHead, target: &Bytes) -> Result<(), H1Error> {
    let colon = target.windows(3).position(|w| w == b"://");
    let colon = colon.ok_or(H1Error::CODEC)?;
    head.scheme = match Scheme::from_bytes(&target[..colon]) {
        Scheme::Other(_) => return Err(H1Error::SCHEME),
        known => known,
    };
    let rest = target.slice(colon + 3..);
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#'));
    let end = end.unwrap_or(rest.len());
    if end == 0 {
        return Err(H1Error::URL);
    }
    head.authority = Some(rest.slice(..end));
    head.path = match end == rest.len() {
        true => Bytes::from_static(b"/"),
        false => rest.slice(end..),
    };
    Ok(())
}

/// RFC 3986's characters of an authority. An empty one is fine.
fn is_authority(authority: &[u8]) -> bool {
    authority
        .iter()
        .all(|b| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]@%".contains(b))
}

fn request_framing(
    head: &mut RequestHead,
    framings: &mut Framings,
    options: &Options,
) -> Result<Framing, H1Error> {
    if head.method == Method::CONNECT {
        if framings.chunked {
            return Err(H1Error::TRANSFER_ENCODING);
        }
        if framings.length.is_some_and(|n| n != 0) {
            return Err(H1Error::LENGTH);
        }
        head.headers.remove(&names::CONTENT_LENGTH);
        return Ok(Framing::Raw);
    }
    let upgrade = framings.upgrade_to.take().filter(|_| framings.upgrade);
    match upgrade.filter(|_| !options.ignore_upgrade) {
        Some(to) if to.eq_ignore_ascii_case(b"h2c") => drop_h2c(&mut head.headers),
        Some(_) if framings.chunked => return Err(H1Error::CHUNKED),
        Some(_) if framings.length.is_some_and(|n| n != 0) => return Err(H1Error::LENGTH),
        Some(to) => {
            head.protocol = Some(to);
            return Ok(Framing::Raw);
        }
        None => {}
    }
    Ok(match (framings.chunked, framings.length) {
        (true, _) => Framing::Chunked,
        (false, None | Some(0)) => Framing::None,
        (false, Some(length)) => Framing::Length(length),
    })
}

/// An upgrade to h2c is not taken and not passed on.
fn drop_h2c(headers: &mut Headers) {
    headers.remove(&names::UPGRADE);
    headers.remove(&names::HTTP2_SETTINGS);
    for (name, value) in headers.iter_mut() {
        if *name == names::CONNECTION {
            let kept = value
                .as_bytes()
                .split(|b| *b == b',')
                .map(<[u8]>::trim_ascii);
            let kept: Vec<_> = kept
                .filter(|t| {
                    !t.eq_ignore_ascii_case(b"upgrade")
                        && !t.eq_ignore_ascii_case(b"http2-settings")
                })
                .collect();
            if let Ok(kept) = HeaderValue::from_bytes(&kept.join(&b","[..])) {
                *value = kept;
            }
        }
    }
    headers.retain(|name, value| *name != names::CONNECTION || !value.is_empty());
}

/// What of the request decides about the body of its response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) head: bool,
    pub(super) connect: bool,
}

/// Takes a response's head out of `buf`; none if it is not whole yet.
pub(super) fn parse_response(
    buf: &mut BytesMut,
    scan: &mut Scan,
    asked: Asked,
    options: &Options,
) -> Result<Option<ParsedResponse>, H1Error> {
    match take_head(buf, scan, options, layout_response)? {
        Found::Partial => Ok(None),
        Found::Head(bytes, layout) => build_response(&bytes, layout, asked, options).map(Some),
    }
}

fn build_response(
    bytes: &Bytes,
    layout: Layout,
    asked: Asked,
    options: &Options,
) -> Result<ParsedResponse, H1Error> {
    let status = StatusCode::from_u16(layout.status).map_err(|_| H1Error::CODEC)?;
    let mut head = ResponseHead::new(status);
    head.headers = Headers::with_capacity(layout.fields.len() + 4);
    let mut framings = Framings::default();
    for at in layout.fields {
        let (name, value) = field(bytes, at)?;
        framings.note(&name, &value)?;
        head.headers.append(name, checked(value)?);
    }
    framings.settle(&mut head.headers, options)?;
    let keep_alive = framings.keeps_alive(layout.minor);
    let framing = response_framing(&mut head, &framings, asked)?;
    Ok(ParsedResponse {
        head,
        framing,
        keep_alive: keep_alive && !matches!(framing, Framing::UntilClose | Framing::Raw),
    })
}

fn response_framing(
    head: &mut ResponseHead,
    framings: &Framings,
    asked: Asked,
) -> Result<Framing, H1Error> {
    let status = head.status;
    if status == StatusCode::SWITCHING_PROTOCOLS || (asked.connect && status.is_success()) {
        return Ok(Framing::Raw);
    }
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        if framings.chunked {
            return Err(H1Error::CHUNKED);
        }
        if framings.length.is_some_and(|n| n != 0) {
            return Err(H1Error::LENGTH);
        }
        head.headers.remove(&names::CONTENT_LENGTH);
        return Ok(Framing::None);
    }
    if asked.head || status == StatusCode::NOT_MODIFIED {
        return Ok(Framing::None);
    }
    Ok(match (framings.chunked, framings.length) {
        (true, _) => Framing::Chunked,
        (false, Some(0)) => Framing::None,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::UntilClose,
    })
}

/// Takes the trailers of a chunked body out of `buf`, with the empty line that
/// ends them; none if they are not whole yet.
pub(super) fn parse_trailers(
    buf: &mut BytesMut,
    max_bytes: usize,
    max_count: usize,
) -> Result<Option<Headers>, H1Error> {
    for end in [&b"\r\n"[..], b"\n"] {
        if buf.starts_with(end) {
            buf.advance(end.len());
            return Ok(Some(Headers::new()));
        }
    }
    let Some(len) = end_of_head(buf) else {
        return match buf.len() > max_bytes {
            true => Err(H1Error::TOO_LARGE),
            false => Ok(None),
        };
    };
    if len > max_bytes {
        return Err(H1Error::TOO_LARGE);
    }
    let bytes = buf.split_to(len).freeze();
    let mut parsed = vec![httparse::EMPTY_HEADER; max_count];
    let found = match httparse::parse_headers(&bytes, &mut parsed) {
        Ok(httparse::Status::Complete((n, found))) if n == len => fields(&bytes, found),
        Err(httparse::Error::TooManyHeaders) => return Err(H1Error::TOO_MANY),
        _ => return Err(H1Error::CODEC),
    };
    let mut trailers = Headers::with_capacity(found.len());
    for at in found {
        let (name, value) = field(&bytes, at)?;
        trailers.append(name, checked(value)?);
    }
    Ok(Some(trailers))
}
