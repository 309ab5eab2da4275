//! The first line of a message, by the rules of Envoy: what divides its words, which
//! methods there are, and what may be a target.

use http::Method;
use outrigger_types::Protocol;

use super::options::{H1Error, Options};

/// A request line that could be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RequestLine<'a> {
    method: &'a [u8],
    target: &'a [u8],
    version: &'a [u8],
}

impl<'a> RequestLine<'a> {
    /// Reads a line. Every byte up to the blank divides words, and those at its end do
    /// not count.
    ///
    /// # Errors
    /// How Envoy answers a line that is none, or that is of HTTP/0.9.
    pub(super) fn read(line: &'a [u8], options: &Options) -> Result<Self, H1Error> {
        let (method, rest) = word(line);
        let (target, rest) = word(rest);
        let end = rest.iter().rposition(|b| *b > b' ').map_or(0, |at| at + 1);
        let version = &rest[..end];
        let name = Method::from_bytes(method).map_err(|_| H1Error::CODEC)?;
        if !options.allow_custom_methods && !is_known(&name) {
            return Err(H1Error::CODEC);
        }
        if !is_target(target, name == Method::CONNECT) {
            return Err(H1Error::CODEC);
        }
        match version {
            [] if !options.accept_http_10 => Err(H1Error::VERSION),
            other if !other.is_empty() && !is_version(other) => Err(H1Error::CODEC),
            version => Ok(Self {
                method,
                target,
                version,
            }),
        }
    }

    /// Whether it has no version, so that no fields follow.
    pub(super) fn is_whole(&self) -> bool {
        self.version.is_empty()
    }

    /// The version; what is not HTTP/1.1 counts as HTTP/1.0.
    pub(super) fn protocol(&self) -> Protocol {
        match self.version {
            b"HTTP/1.1" => Protocol::Http11,
            _ => Protocol::Http10,
        }
    }

    /// Writes the line as it should be. What is not HTTP/1.1 counts as HTTP/1.0.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let version: &[u8] = match self.version {
            b"HTTP/1.1" => b"HTTP/1.1",
            _ => b"HTTP/1.0",
        };
        for word in [self.method, b" ", self.target, b" ", version, b"\r\n"] {
            out.extend_from_slice(word);
        }
    }
}

/// Whether a third word stands in the line of a request.
pub(super) fn has_version(line: &[u8]) -> bool {
    let (_, rest) = word(line);
    let (_, rest) = word(rest);
    !rest.is_empty()
}

/// Writes the first line of a response as it should be, without its reason.
pub(super) fn write_status_line(line: &[u8], out: &mut Vec<u8>) -> Result<(), H1Error> {
    let (version, rest) = word(line);
    let (status, _) = word(rest);
    if !is_version(version) || status.len() != 3 || !status.iter().all(u8::is_ascii_digit) {
        return Err(H1Error::CODEC);
    }
    let version: &[u8] = match version {
        b"HTTP/1.1" => b"HTTP/1.1 ",
        _ => b"HTTP/1.0 ",
    };
    for word in [version, status, b" \r\n"] {
        out.extend_from_slice(word);
    }
    Ok(())
}

fn is_version(word: &[u8]) -> bool {
    matches!(word, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// The first word, and what follows the blanks after it.
fn word(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line.iter().position(|b| *b <= b' ').unwrap_or(line.len());
    let (word, rest) = line.split_at(end);
    let blanks = rest.iter().take_while(|b| **b <= b' ').count();
    (word, &rest[blanks..])
}

/// Whether a byte may be in a method or in the name of a field.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether this may be the target of a request: a path, `*`, or a URL, which for CONNECT
/// has no scheme.
pub(super) fn is_target(target: &[u8], connect: bool) -> bool {
    let visible = |part: &[u8]| part.iter().all(u8::is_ascii_graphic);
    match target {
        [] => false,
        [b'/' | b'*', rest @ ..] => visible(rest),
        _ => {
            let Some(rest) = (match connect {
                true => Some(target),
                false => after_scheme(target),
            }) else {
                return false;
            };
            let path = rest.iter().position(|b| matches!(b, b'/' | b'?'));
            let (host, path) = rest.split_at(path.unwrap_or(rest.len()));
            let in_host = |b: &u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@[]%".contains(b);
            host.iter().all(in_host) && !host.windows(2).any(|w| w == b"@@") && visible(path)
        }
    }
}

/// What follows `scheme://`.
fn after_scheme(url: &[u8]) -> Option<&[u8]> {
    let end = url.iter().position(|b| *b == b':')?;
    let (scheme, rest) = url.split_at(end);
    let rest = rest.strip_prefix(b"://")?;
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    let first = scheme.first()?;
    (first.is_ascii_alphabetic() && scheme.iter().all(inner)).then_some(rest)
}

/// Host and port of a URL's authority, without what names a user; none if it is no
/// authority that Envoy takes. With CONNECT there is a port and no user.
pub(super) fn host_and_port(authority: &[u8], connect: bool) -> Option<std::ops::Range<usize>> {
    let start = match authority.iter().position(|b| *b == b'@') {
        Some(_) if connect => return None,
        Some(at) if authority[..at].iter().all(|b| is_in_user(*b)) => at + 1,
        Some(_) => return None,
        None => 0,
    };
    let rest = &authority[start..];
    let host = match rest {
        [b'[', inner @ ..] => {
            let end = inner.iter().position(|b| *b == b']')?;
            let digit = |b: &u8| b.is_ascii_hexdigit() || matches!(b, b':' | b'.');
            if end == 0 || !inner[..end].iter().all(digit) {
                return None;
            }
            end + 2
        }
        _ => {
            let inner = |b: &&u8| b.is_ascii_alphanumeric() || matches!(**b, b'.' | b'-');
            rest.iter().take_while(inner).count()
        }
    };
    let fits = match &rest[host..] {
        [] => !connect,
        [b':', port @ ..] => is_port(port),
        _ => false,
    };
    (host > 0 && fits).then_some(start..authority.len())
}

fn is_in_user(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.!~*'()%;:&=+$,".contains(&byte)
}

fn is_port(port: &[u8]) -> bool {
    let digits = port.iter().all(u8::is_ascii_digit);
    let number = port.iter().try_fold(0u16, |n, b| {
        n.checked_mul(10)?
            .checked_add(u16::from(b.wrapping_sub(b'0')))
    });
    !port.is_empty() && digits && number.is_some()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<String, H1Error> {
        let mut out = Vec::new();
        RequestLine::read(line.as_bytes(), &Options::default())?.write(&mut out);
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    #[test]
    fn words_are_divided_by_any_blank_or_control_character() {
        for line in [
            "GET / HTTP/1.1",
            "GET  /  HTTP/1.1",
            "GET\t/\tHTTP/1.1",
            "GET\x0b/ HTTP/1.1 \t\r\n",
        ] {
            assert_eq!(read(line).as_deref(), Ok("GET / HTTP/1.1\r\n"), "{line:?}");
        }
    }

    #[test]
    fn what_is_no_request_line_is_refused() {
        for line in [
            "",
            "GET",
            "GET ",
            "get / HTTP/1.1",
            "FOO / HTTP/1.1",
            "GET a HTTP/1.1",
            "GET HTTP/1.1",
            "GET /a b HTTP/1.1",
            "GET / http/1.1",
            "GET / HTTP/1,1",
            "GET / HTTP/11.1",
            "GET http://a#b HTTP/1.1",
            "GET ://a HTTP/1.1",
            "GET 1h://a HTTP/1.1",
            "GET http://u@@a/ HTTP/1.1",
            "GET /\u{e9} HTTP/1.1",
        ] {
            assert_eq!(read(line), Err(H1Error::CODEC), "{line:?}");
        }
        assert_eq!(read("GET /"), Err(H1Error::VERSION));
    }

    #[test]
    fn what_is_not_http_1_1_counts_as_http_1_0() {
        for line in ["GET / HTTP/1.0", "GET / HTTP/2.0", "GET / HTTP/0.9"] {
            assert_eq!(read(line).as_deref(), Ok("GET / HTTP/1.0\r\n"), "{line:?}");
        }
        let options = Options {
            accept_http_10: true,
            ..Options::default()
        };
        let simple = RequestLine::read(b"GET /\r\n", &options);
        assert!(simple.is_ok_and(|line| line.is_whole()));
    }

    #[test]
    fn a_status_line_is_written_anew() {
        let written = |line: &str| {
            let mut out = Vec::new();
            write_status_line(line.as_bytes(), &mut out).ok()?;
            String::from_utf8(out).ok()
        };
        let table = [
            ("HTTP/1.1  200  OK\r\r\n", Some("HTTP/1.1 200 \r\n")),
            ("HTTP/2.0 204 x\r\n", Some("HTTP/1.0 204 \r\n")),
            ("HTTP/1.1 2000 OK\r\n", None),
            ("HTTP/1.1 -20 OK\r\n", None),
            ("http/1.1 200 OK\r\n", None),
            ("HTTP/1.1\r\n", None),
        ];
        for (line, expected) in table {
            assert_eq!(written(line).as_deref(), expected, "{line:?}");
        }
    }

    #[test]
    fn a_user_is_cut_from_an_authority_and_ports_are_checked() {
        let table: &[(&str, Option<&str>)] = &[
            ("a", Some("a")),
            ("a.b-c:080", Some("a.b-c:080")),
            ("user:pw@a:1", Some("a:1")),
            ("@a", Some("a")),
            ("[::1]:80", Some("[::1]:80")),
            ("", None),
            ("u@", None),
            ("u@v@a", None),
            ("u[@a", None),
            ("a:", None),
            ("a:x", None),
            ("a:65536", None),
            ("a_b", None),
            ("%00", None),
            ("[::1", None),
            ("[]", None),
            ("[zz]", None),
            ("[::1]x", None),
        ];
        for (authority, expected) in table {
            let found = host_and_port(authority.as_bytes(), false).map(|at| &authority[at]);
            assert_eq!(found, *expected, "{authority}");
        }
        assert_eq!(host_and_port(b"a:1", true), Some(0..3));
        assert_eq!(host_and_port(b"a", true), None);
        assert_eq!(host_and_port(b"u@a:1", true), None);
    }
}
