//! Heads out of what [`locate`](super::locate) found, by Envoy's rules. Sans-IO.

use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method};
use outrigger_types::{
    HeadKind, Headers, Protocol, RequestHead, ResponseHead, Scheme, StatusCode, names,
};
use smallvec::SmallVec;

use super::body::Framing;
use super::locate::{Field, Kind, Layout, Scan, end_of_head, fields, take_head};
use super::options::{H1Error, Options};
use super::request_line::{host_and_port, is_known, is_target};
use super::{mend, nominated};
use crate::http::codec::UnderscoresAction;

/// A request's head, and what follows it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ParsedRequest {
    pub(super) head: RequestHead,
    pub(super) framing: Framing,
    pub(super) protocol: Protocol,
    pub(super) keep_alive: bool,
    /// Fields that were dropped for the underscore in their name.
    pub(super) dropped: u32,
    /// See [`Layout::field_bytes`].
    pub(super) field_bytes: u64,
}

/// A response's head, and what follows it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ParsedResponse {
    pub(super) head: ResponseHead,
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
    /// The head says that the connection is closed after the response.
    pub(super) close: bool,
    /// See [`Layout::field_bytes`].
    pub(super) field_bytes: u64,
}

/// Takes a request's head out of `buf`; none if it is not whole yet.
pub(super) fn parse_request(
    buf: &mut BytesMut,
    scan: &mut Scan,
    options: &Options,
) -> Result<Option<ParsedRequest>, H1Error> {
    if !scan.is_waiting() {
        let empty = buf.iter().take_while(|b| matches!(b, b'\r' | b'\n'));
        buf.advance(empty.count());
    }
    if buf.is_empty() {
        return Ok(None);
    }
    match take_head(buf, scan, options, Kind::Request)? {
        None => Ok(None),
        Some((bytes, layout)) => build_request(&bytes, layout, options).map(Some),
    }
}

/// What the fields say about the framing and the connection.
#[derive(Default)]
struct Framings {
    length: Option<u64>,
    chunked: bool,
    /// A transfer coding other than one `chunked`.
    odd_coding: bool,
    close: bool,
    /// It was `proxy-connection` that said so.
    proxy_close: bool,
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
            self.odd_coding |= self.chunked || !value.eq_ignore_ascii_case(b"chunked");
            self.chunked = true;
        } else if *name == names::CONNECTION || *name == names::PROXY_CONNECTION {
            let connection = *name == names::CONNECTION;
            for token in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                if token.eq_ignore_ascii_case(b"close") {
                    self.close = true;
                    self.proxy_close |= !connection;
                }
                self.keep_alive |= connection && token.eq_ignore_ascii_case(b"keep-alive");
                self.upgrade |= token.eq_ignore_ascii_case(b"upgrade");
            }
        } else if *name == names::UPGRADE {
            self.upgrade_to = Some(value.clone());
        }
        Ok(())
    }

    /// With HTTP/1.0 `keep-alive` outweighs `close`, as in Envoy.
    fn keeps_alive(&self, minor: u8) -> bool {
        match minor {
            1 => !self.close,
            _ => self.keep_alive && !self.proxy_close,
        }
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
        if self.odd_coding {
            return Err(H1Error::TRANSFER_ENCODING);
        }
        Ok(())
    }
}

/// Digits alone, without sign or list.
fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
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
    let field_bytes = layout.field_bytes();
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
    let mut dropped = 0;
    let count = layout.fields.len();
    for at in layout.fields {
        let (name, value) = field(bytes, at)?;
        if name == names::HOST {
            add_host(&mut head.authority, value);
            continue;
        }
        if options.underscores != UnderscoresAction::Allow && name.as_str().contains('_') {
            match options.underscores {
                UnderscoresAction::RejectRequest => return Err(H1Error::UNDERSCORE),
                UnderscoresAction::DropHeader | UnderscoresAction::Allow => dropped += 1,
            }
            continue;
        }
        framings.note(&name, &value)?;
        head.headers.append(name, checked(value)?);
    }
    head.headers.join_singles(HeadKind::Request);
    if count - dropped as usize > options.max_headers_count {
        return Err(H1Error::TOO_MANY);
    }
    framings.settle(&mut head.headers, options)?;
    set_target(&mut head, bytes.slice(layout.target), options)?;
    if layout.minor == 0 && head.authority.is_none() {
        head.authority.clone_from(&options.default_host_for_http_10);
    }
    let framing = request_framing(&mut head, &mut framings, options)?;
    if head.protocol.is_none() {
        nominated::remove(&mut head)?;
    }
    Ok(ParsedRequest {
        field_bytes,
        head,
        framing,
        protocol: match layout.minor {
            0 => Protocol::Http10,
            _ => Protocol::Http11,
        },
        keep_alive: framings.keeps_alive(layout.minor),
        dropped,
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
    let connect = head.method == Method::CONNECT;
    if !is_target(&target, connect) {
        return Err(H1Error::CODEC);
    }
    if connect {
        host_and_port(&target, connect).ok_or(H1Error::URL)?;
        head.authority = Some(target);
    } else if target.starts_with(b"/") || !options.allow_absolute_url {
        head.path = target;
    } else if target.starts_with(b"*") {
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
    let rest = target.slice(colon + 3..);
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?'));
    let end = end.unwrap_or(rest.len());
    let host = host_and_port(&rest[..end], false).ok_or(H1Error::URL)?;
    head.scheme = match Scheme::from_bytes(&target[..colon]) {
        Scheme::Other(_) => return Err(H1Error::SCHEME),
        known => known,
    };
    head.authority = Some(rest.slice(host));
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
            return Err(H1Error::BODY);
        }
        head.headers.remove(&names::CONTENT_LENGTH);
        return Ok(Framing::Raw);
    }
    let upgrade = framings.upgrade_to.take().filter(|_| framings.upgrade);
    match upgrade.filter(|_| !options.ignore_upgrade) {
        Some(to) if to.eq_ignore_ascii_case(b"h2c") => drop_h2c(&mut head.headers),
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
    pub(super) upgrade: bool,
}

impl Asked {
    /// What this request asks for.
    pub(super) fn by(head: &RequestHead) -> Self {
        Self {
            head: head.method == Method::HEAD,
            connect: head.method == Method::CONNECT,
            upgrade: head.protocol.is_some(),
        }
    }

    /// Whether a response of this status ends the messages of the connection. An upgrade
    /// that nobody asked for does not.
    pub(super) fn is_tunnel(self, status: StatusCode) -> bool {
        match status {
            StatusCode::SWITCHING_PROTOCOLS => self.upgrade,
            _ => self.connect && status.is_success(),
        }
    }
}

/// Takes a response's head out of `buf`; none if it is not whole yet.
pub(super) fn parse_response(
    buf: &mut BytesMut,
    scan: &mut Scan,
    asked: Asked,
    options: &Options,
) -> Result<Option<ParsedResponse>, H1Error> {
    match take_head(buf, scan, options, Kind::Response)? {
        None => Ok(None),
        Some((bytes, layout)) => build_response(&bytes, layout, asked, options).map(Some),
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
    let field_bytes = layout.field_bytes();
    let mut framings = Framings::default();
    for at in layout.fields {
        let (name, value) = field(bytes, at)?;
        framings.note(&name, &value)?;
        head.headers.append(name, checked(value)?);
    }
    head.headers.join_singles(HeadKind::Response);
    framings.settle(&mut head.headers, options)?;
    let keep_alive = framings.keeps_alive(layout.minor);
    let framing = response_framing(&mut head, &framings, asked)?;
    Ok(ParsedResponse {
        field_bytes,
        head,
        framing,
        keep_alive: keep_alive && !matches!(framing, Framing::UntilClose | Framing::Raw),
        close: !keep_alive,
    })
}

fn response_framing(
    head: &mut ResponseHead,
    framings: &Framings,
    asked: Asked,
) -> Result<Framing, H1Error> {
    let status = head.status;
    if asked.is_tunnel(status) {
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
    let mut bytes = buf.split_to(len).freeze();
    mend::check_characters(&bytes)?;
    let mut found = locate_trailers(&bytes, max_count);
    if found.is_err() {
        let mut mended = Vec::with_capacity(len);
        mend::fields(&mut mended, &bytes)?;
        bytes = mended.into();
        found = locate_trailers(&bytes, max_count);
    }
    let found = found?;
    let mut trailers = Headers::with_capacity(found.len());
    for at in found {
        let (name, value) = field(&bytes, at)?;
        trailers.append(name, checked(value)?);
    }
    Ok(Some(trailers))
}

fn locate_trailers(bytes: &[u8], max_count: usize) -> Result<SmallVec<[Field; 32]>, H1Error> {
    let mut parsed = vec![httparse::EMPTY_HEADER; max_count];
    match httparse::parse_headers(bytes, &mut parsed) {
        Ok(httparse::Status::Complete((n, found))) if n == bytes.len() => Ok(fields(bytes, found)),
        Err(httparse::Error::TooManyHeaders) => Err(H1Error::TOO_MANY),
        _ => Err(H1Error::CODEC),
    }
}
