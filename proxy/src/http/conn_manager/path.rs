//! The path: fragments, escaped slashes, dot segments and double slashes.
//!
//! Nothing here touches the query.

use bytes::Bytes;
use filter_api::LocalReply;
use outrigger_config::ir::{EscapedSlashesAction, HcmConfig};
use outrigger_types::{HeaderValue, RequestHead, StatusCode, details, names};

/// Normalises the path as configured.
///
/// # Errors
/// 400 for a fragment, for what cannot be normalised and for escaped slashes
/// that are refused; 307 to the path without escaped slashes where that is
/// asked for (400 for gRPC, whose clients follow no redirects).
pub(super) fn normalise(
    head: &mut RequestHead,
    hcm: &HcmConfig,
    is_grpc: bool,
) -> Result<(), LocalReply> {
    if head.path.contains(&b'#') {
        return Err(refused());
    }
    let unescaped = match hcm.escaped_slashes {
        EscapedSlashesAction::KeepUnchanged => None,
        _ => edit(head, unescape_slashes),
    };
    let redirect =
        unescaped.is_some() && hcm.escaped_slashes == EscapedSlashesAction::UnescapeAndRedirect;
    if unescaped.is_some() && hcm.escaped_slashes == EscapedSlashesAction::RejectRequest {
        return Err(refused());
    }
    if hcm.normalize_path {
        canonicalise(head)?;
    }
    if hcm.merge_slashes {
        edit(head, merge_slashes);
    }
    match (redirect, is_grpc) {
        (false, _) => Ok(()),
        (true, true) => Err(refused()),
        (true, false) => Err(redirected(&head.path)),
    }
}

fn refused() -> LocalReply {
    LocalReply::new(
        StatusCode::BAD_REQUEST,
        "",
        details::PATH_NORMALIZATION_FAILED,
    )
}

fn redirected(path: &Bytes) -> LocalReply {
    let mut reply = LocalReply::new(
        StatusCode::TEMPORARY_REDIRECT,
        "",
        details::PATH_NORMALIZATION_FAILED,
    );
    match HeaderValue::from_maybe_shared(path.clone()) {
        Ok(location) => reply.headers.append(names::LOCATION, location),
        Err(_) => return refused(),
    }
    reply
}

/// Replaces the path before the query with what `change` makes of it, if it
/// makes anything of it.
fn edit(head: &mut RequestHead, change: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> Option<()> {
    let end = head
        .path
        .iter()
        .position(|b| *b == b'?')
        .unwrap_or(head.path.len());
    let mut new = change(&head.path[..end])?;
    new.extend_from_slice(&head.path[end..]);
    head.path = new.into();
    Some(())
}

fn unescape_slashes(path: &[u8]) -> Option<Vec<u8>> {
    if !path.contains(&b'%') {
        return None;
    }
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some(first) = rest.first() {
        let slash = match rest {
            [b'%', b'2', b'f' | b'F', ..] => Some(b'/'),
            [b'%', b'5', b'c' | b'C', ..] => Some(b'\\'),
            _ => None,
        };
        out.push(slash.unwrap_or(*first));
        rest = &rest[if slash.is_some() { 3 } else { 1 }..];
    }
    (out.len() != path.len()).then_some(out)
}

fn merge_slashes(path: &[u8]) -> Option<Vec<u8>> {
    if !path.windows(2).any(|w| w == b"//") {
        return None;
    }
    // Envoy leaves two of nothing but slashes.
    if path.iter().all(|b| *b == b'/') {
        return (path.len() > 2).then(|| b"//".to_vec());
    }
    let mut out = Vec::with_capacity(path.len());
    for byte in path {
        if *byte != b'/' || out.last() != Some(&b'/') {
            out.push(*byte);
        }
    }
    Some(out)
}

fn canonicalise(head: &mut RequestHead) -> Result<(), LocalReply> {
    let path = match head.path.iter().position(|b| *b == b'?') {
        Some(end) => &head.path[..end],
        None => &head.path[..],
    };
    if is_canonical(path) {
        return Ok(());
    }
    let mut out = Vec::with_capacity(path.len() + 8);
    let mut rest = path;
    while !rest.is_empty() {
        if !canonical_step(&mut out, &mut rest) {
            return Err(refused());
        }
    }
    edit(head, |_| Some(out));
    Ok(())
}

/// Whether every byte stands for itself and no segment is a dot.
fn is_canonical(path: &[u8]) -> bool {
    path.iter().all(|b| is_plain(*b)) && !path.windows(2).any(|w| w == b"/.")
}

/// Bytes that stand for themselves in a path.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/[]".contains(&byte)
}

/// Bytes that an escape need not stand for.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Takes one byte or escape, and resolves dot segments. False if the path is
/// refused.
fn canonical_step(out: &mut Vec<u8>, rest: &mut &[u8]) -> bool {
    if let Some(len) = dot_at(rest, 0)
        && out.last() == Some(&b'/')
    {
        return resolve_dots(out, rest, len);
    }
    match *rest {
        [b'\\', tail @ ..] => {
            out.push(b'/');
            *rest = tail;
        }
        [b'%', high, low, tail @ ..] => {
            let Some(byte) = hex(*high).zip(hex(*low)).map(|(h, l)| h << 4 | l) else {
                out.push(b'%');
                *rest = &rest[1..];
                return true;
            };
            if byte == 0 {
                return false;
            }
            match is_unreserved(byte) {
                true => out.push(byte),
                false => out.extend_from_slice(&[b'%', *high, *low]),
            }
            *rest = tail;
        }
        [byte, tail @ ..] => {
            match is_plain(*byte) || *byte == b'%' {
                true => out.push(*byte),
                false => push_escaped(out, *byte),
            }
            *rest = tail;
        }
        [] => {}
    }
    true
}

/// Length of a dot, plain or escaped, at `at`.
fn dot_at(path: &[u8], at: usize) -> Option<usize> {
    match path.get(at..)? {
        [b'.', ..] => Some(1),
        [b'%', b'2', b'e' | b'E', ..] => Some(3),
        _ => None,
    }
}

fn ends_segment(path: &[u8], at: usize) -> Option<usize> {
    match path.get(at) {
        None => Some(0),
        Some(b'/' | b'\\') => Some(1),
        Some(_) => None,
    }
}

/// As [`ends_segment`], where dots that are not escaped may have parameters, which go with them:
/// Envoy takes `..;x` for `..`, because servers behind it do.
fn ends_dots(path: &[u8], at: usize, escaped: bool) -> Option<usize> {
    if path.get(at) != Some(&b';') || escaped {
        return ends_segment(path, at);
    }
    let parameters = &path[at..];
    let slash = parameters.iter().position(|b| *b == b'/');
    Some(slash.map_or(parameters.len(), |slash| slash + 1))
}

/// At the beginning of a segment that starts with a dot.
fn resolve_dots(out: &mut Vec<u8>, rest: &mut &[u8], first: usize) -> bool {
    if let Some(slash) = ends_dots(rest, first, first > 1) {
        *rest = &rest[first + slash..];
        return true;
    }
    if let Some(second) = dot_at(rest, first)
        && let Some(slash) = ends_dots(rest, first + second, first + second > 2)
    {
        out.pop();
        while out.last().is_some_and(|b| *b != b'/') {
            out.pop();
        }
        if out.is_empty() {
            out.push(b'/');
        }
        *rest = &rest[first + second + slash..];
        return true;
    }
    out.push(b'.');
    *rest = &rest[first..];
    true
}

fn push_escaped(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[
        b'%',
        DIGITS[usize::from(byte >> 4)],
        DIGITS[usize::from(byte & 15)],
    ]);
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|d| u8::try_from(d).ok())
}
