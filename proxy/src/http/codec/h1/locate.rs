//! Finding a head in the bytes of a connection: where it ends, and where its parts are.

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use smallvec::SmallVec;

use super::mend;
use super::options::{H1Error, Options};
use super::request_line::{RequestLine, has_version, is_token, write_status_line};
use crate::http::codec::UnderscoresAction;

/// Fields that are parsed without an allocation.
const FIELDS: usize = 128;

/// How far the look-out for the end of a head got, so that a head that comes
/// byte by byte is not parsed anew for each byte.
#[derive(Debug, Default)]
pub(super) struct Scan {
    at: usize,
    waiting: bool,
    /// The first line was looked at.
    line_is_fine: bool,
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
        let from = self.at.saturating_sub(3).min(buf.len());
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

/// Where the first line ends.
fn first_line(buf: &[u8]) -> Option<usize> {
    buf.iter().position(|b| *b == b'\n')
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

/// A whole head and where its parts are; none if it is not whole yet.
pub(super) type Found = Option<(Bytes, Layout)>;

/// Which kind of message a head begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A request.
    Request,
    /// A response.
    Response,
}

impl Kind {
    fn begins_with(self, first: u8) -> bool {
        match self {
            Self::Request => is_token(first),
            Self::Response => first == b'H',
        }
    }

    fn locate(self, buf: &[u8], limit: usize) -> Result<Option<Layout>, httparse::Error> {
        match self {
            Self::Request => layout_request(buf, limit),
            Self::Response => layout_response(buf, limit),
        }
    }
}

/// Fields that a head may have where those that are dropped do not count.
const WITH_DROPPED: usize = 10_000;

fn locate(buf: &[u8], options: &Options, kind: Kind) -> Result<Option<Layout>, httparse::Error> {
    match kind.locate(buf, options.max_headers_count) {
        Err(httparse::Error::TooManyHeaders)
            if options.underscores == UnderscoresAction::DropHeader =>
        {
            kind.locate(buf, WITH_DROPPED)
        }
        found => found,
    }
}

/// Takes a whole head out of `buf`, if there is one. What `httparse` refuses is read
/// again by Envoy's rules, once it is whole.
pub(super) fn take_head(
    buf: &mut BytesMut,
    scan: &mut Scan,
    options: &Options,
    kind: Kind,
) -> Result<Found, H1Error> {
    if buf.first().is_some_and(|first| !kind.begins_with(*first)) {
        return Err(H1Error::CODEC);
    }
    if !scan.worth_parsing(buf) {
        return wait(buf, scan, options, kind);
    }
    match locate(buf, options, kind) {
        Ok(Some(layout)) if layout.len > options.max_headers_bytes => Err(H1Error::TOO_LARGE),
        Ok(Some(layout)) => {
            *scan = Scan::default();
            Ok(Some((buf.split_to(layout.len).freeze(), layout)))
        }
        Ok(None) => wait(buf, scan, options, kind),
        Err(_) => take_odd(buf, scan, options, kind),
    }
}

/// Waits for more of a head. The first line is looked at as soon as it is whole; one
/// without a version is all there is.
fn wait(
    buf: &mut BytesMut,
    scan: &mut Scan,
    options: &Options,
    kind: Kind,
) -> Result<Found, H1Error> {
    if kind == Kind::Request
        && !scan.line_is_fine
        && let Some(lf) = first_line(buf).filter(|lf| *lf < options.max_headers_bytes)
    {
        let line = RequestLine::read(&buf[..lf], options)?;
        scan.line_is_fine = true;
        if line.is_whole() {
            let mut mended = Vec::with_capacity(lf + 12);
            line.write(&mut mended);
            mended.extend_from_slice(b"\r\n");
            buf.advance(lf + 1);
            *scan = Scan::default();
            return found(mended, options, kind);
        }
    }
    if buf.len() > options.max_headers_bytes {
        return Err(H1Error::TOO_LARGE);
    }
    scan.wait(buf);
    Ok(None)
}

/// Takes a head that `httparse` refuses.
fn take_odd(
    buf: &mut BytesMut,
    scan: &mut Scan,
    options: &Options,
    kind: Kind,
) -> Result<Found, H1Error> {
    // Of a line without a version nothing that came with it is a part.
    let line = first_line(buf).filter(|_| kind == Kind::Request);
    let lone = line.is_some_and(|lf| !has_version(&buf[..lf]));
    let Some(len) = end_of_head(buf).filter(|_| !lone) else {
        return wait(buf, scan, options, kind);
    };
    if len > options.max_headers_bytes {
        return Err(H1Error::TOO_LARGE);
    }
    *scan = Scan::default();
    let head = buf.split_to(len);
    mend::check_characters(&head)?;
    let first = first_line(&head).map_or(0, |lf| lf + 1);
    let (line, fields) = head.split_at(first);
    let mut mended = Vec::with_capacity(len);
    match kind {
        Kind::Response => write_status_line(line, &mut mended)?,
        Kind::Request => RequestLine::read(line, options)?.write(&mut mended),
    }
    mend::fields(&mut mended, fields)?;
    found(mended, options, kind)
}

/// A head that was written anew.
fn found(mended: Vec<u8>, options: &Options, kind: Kind) -> Result<Found, H1Error> {
    let mended = Bytes::from(mended);
    match locate(&mended, options, kind) {
        Ok(Some(layout)) if layout.len == mended.len() => Ok(Some((mended, layout))),
        Err(httparse::Error::TooManyHeaders) => Err(H1Error::TOO_MANY),
        _ => Err(H1Error::CODEC),
    }
}
