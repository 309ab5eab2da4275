//! Finding a head in the bytes of a connection: where it ends, where its parts
//! are, and what is mended before `httparse` reads it.

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::Method;
use smallvec::SmallVec;

use super::options::{H1Error, Options};

/// Fields that are parsed without an allocation.
const FIELDS: usize = 128;

/// How far the look-out for the end of a head got, so that a head that comes
/// byte by byte is not parsed anew for each byte.
#[derive(Debug, Default)]
pub(super) struct Scan {
    at: usize,
    waiting: bool,
}

impl Scan {
    /// Whether a part of a head was seen already.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// Whether parsing may lead further than it did last time.
    pub(super) fn worth_parsing(&mut self, buf: &[u8]) -> bool {
        if !self.waiting {
            return true;
        }
        let from = self.at.saturating_sub(3);
        self.at = buf.len();
        end_of_head(&buf[from..]).is_some()
    }

    pub(super) fn wait(&mut self, buf: &[u8]) {
        self.waiting = true;
        self.at = buf.len();
    }
}

/// The length of `buf` up to and with the first empty line.
pub(super) fn end_of_head(buf: &[u8]) -> Option<usize> {
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

pub(super) type Field = (Range<usize>, Range<usize>);

/// Where in the bytes of a head its parts are.
pub(super) struct Layout {
    pub(super) len: usize,
    pub(super) method: Range<usize>,
    pub(super) target: Range<usize>,
    pub(super) status: u16,
    pub(super) minor: u8,
    pub(super) fields: SmallVec<[Field; 32]>,
}

impl Layout {
    /// What Envoy counts as bytes of the fields that came: names, values, and three for
    /// the colon and the end of each line. A head without fields counts as one empty line.
    pub(super) fn field_bytes(&self) -> u64 {
        let fields = self.fields.iter();
        let bytes: usize = fields.map(|(name, value)| name.len() + value.len()).sum();
        (bytes + 3 * self.fields.len().max(1)) as u64
    }
}

/// Offsets of `part` in `whole`, of which it is a slice.
fn range(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

pub(super) fn fields(buf: &[u8], parsed: &[httparse::Header<'_>]) -> SmallVec<[Field; 32]> {
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

pub(super) fn layout_request(buf: &[u8], limit: usize) -> Result<Option<Layout>, httparse::Error> {
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

pub(super) fn layout_response(buf: &[u8], limit: usize) -> Result<Option<Layout>, httparse::Error> {
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

/// A whole head and where its parts are; none if it is not whole yet.
pub(super) type Found = Option<(Bytes, Layout)>;

type Locate = fn(&[u8], usize) -> Result<Option<Layout>, httparse::Error>;

/// Takes a whole head out of `buf`, if there is one.
pub(super) fn take_head(
    buf: &mut BytesMut,
    scan: &mut Scan,
    options: &Options,
    locate: Locate,
) -> Result<Found, H1Error> {
    let partial = |buf: &BytesMut| match buf.len() > options.max_headers_bytes {
        true => Err(H1Error::TOO_LARGE),
        false => Ok(None),
    };
    if !scan.worth_parsing(buf) {
        return partial(buf);
    }
    match locate(buf, options.max_headers_count) {
        Ok(Some(layout)) if layout.len > options.max_headers_bytes => Err(H1Error::TOO_LARGE),
        Ok(Some(layout)) => {
            *scan = Scan::default();
            Ok(Some((buf.split_to(layout.len).freeze(), layout)))
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
                Ok(Some(layout)) if layout.len == mended.len() => Ok(Some((mended, layout))),
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
pub(super) fn is_known(method: &Method) -> bool {
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
