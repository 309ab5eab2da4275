//! The fields that a request's `connection` names: they end here (RFC 9110,
//! 7.6.1), unless naming them would hide where the request comes from.

use http::{HeaderName, HeaderValue};
use outrigger_types::{RequestHead, names};

use super::options::H1Error;

/// As many names are refused.
const MAX_NAMES: usize = 10;
/// A `te` of this length that is named is refused.
const MAX_TE: usize = 256;

/// Removes the fields that `connection` names. `te` stays if it takes trailers.
pub(super) fn remove(head: &mut RequestHead) -> Result<(), H1Error> {
    let Some(value) = head.headers.joined(&names::CONNECTION) else {
        return Ok(());
    };
    let tokens = || {
        value
            .split(|b| *b == b',')
            .map(<[u8]>::trim_ascii)
            .filter(|t| !t.is_empty())
    };
    if tokens().count() >= MAX_NAMES {
        return Err(H1Error::CONNECTION);
    }
    let mut removed = Vec::new();
    let mut keeps_te = false;
    for token in tokens().filter(|token| !is_option(token)) {
        if token.contains(&b':') || is_forwarding(token) {
            return Err(H1Error::CONNECTION);
        }
        if token.eq_ignore_ascii_case(b"te") {
            let te = head.headers.get_bytes(&names::TE).unwrap_or_default();
            if te.len() >= MAX_TE {
                return Err(H1Error::CONNECTION);
            }
            keeps_te = te
                .split(|b| *b == b',')
                .any(|t| t.trim_ascii().eq_ignore_ascii_case(b"trailers"));
            if keeps_te {
                continue;
            }
        }
        removed.extend(HeaderName::from_bytes(token));
    }
    drop(value);
    if keeps_te {
        head.headers
            .set(names::TE, HeaderValue::from_static("trailers"));
    }
    if removed.contains(&names::HOST) {
        head.authority = None;
    }
    if !removed.is_empty() {
        head.headers.retain(|name, _| !removed.contains(name));
    }
    Ok(())
}

/// What `connection` says about the connection itself.
fn is_option(token: &[u8]) -> bool {
    [
        &b"close"[..],
        b"keep-alive",
        b"upgrade",
        b"http2-settings",
        b"connection",
    ]
    .iter()
    .any(|option| token.eq_ignore_ascii_case(option))
}

fn is_forwarding(token: &[u8]) -> bool {
    [
        &b"x-forwarded-for"[..],
        b"x-forwarded-host",
        b"x-forwarded-proto",
    ]
    .iter()
    .any(|name| token.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    /// The names that are left of a request whose `connection` is this.
    fn left(connection: &'static str, te: &'static str) -> Option<Vec<String>> {
        let mut head = RequestHead::new(Method::GET, "/");
        head.authority = Some("x".into());
        for (name, value) in [("x-hop", "1"), ("te", te), ("connection", connection)] {
            head.headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        remove(&mut head).ok()?;
        let host = head.authority.map(|_| "host".to_owned());
        let fields = head
            .headers
            .iter()
            .map(|(n, v)| format!("{n}={}", v.to_str().unwrap_or("?")));
        Some(
            host.into_iter()
                .chain(fields.filter(|f| !f.starts_with("connection")))
                .collect(),
        )
    }

    #[test]
    fn named_fields_end_here() {
        let table: &[(&'static str, &[&str])] = &[
            ("close", &["host", "x-hop=1", "te=gzip, trailers"]),
            ("keep-alive, X-Hop", &["host", "te=gzip, trailers"]),
            ("connection, x-hop", &["host", "te=gzip, trailers"]),
            ("te", &["host", "x-hop=1", "te=trailers"]),
            ("host", &["x-hop=1", "te=gzip, trailers"]),
            ("bad name, ,", &["host", "x-hop=1", "te=gzip, trailers"]),
            ("a,b,c,d,e,f,g,h,x-hop", &["host", "te=gzip, trailers"]),
        ];
        for (connection, expected) in table {
            assert_eq!(
                left(connection, "gzip, trailers").unwrap(),
                *expected,
                "{connection}"
            );
        }
        assert_eq!(left("te", "gzip").unwrap(), ["host", "x-hop=1"]);
    }

    #[test]
    fn what_says_where_a_request_comes_from_may_not_be_named() {
        for connection in [
            "x-forwarded-for",
            "X-Forwarded-Host",
            "a, x-forwarded-proto",
            ":path",
            "a,b,c,d,e,f,g,h,i,j",
        ] {
            assert_eq!(left(connection, "trailers"), None, "{connection}");
        }
        let long: &'static str = Box::leak("a".repeat(MAX_TE).into_boxed_str());
        assert_eq!(left("te", long), None);
    }
}
