//! Tells from the first bytes of a connection whether HTTP/1 begins.

use outrigger_types::Protocol;

use super::options::Options;
use super::request_line::{RequestLine, is_token};

/// What the bytes so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sniffed {
    /// More of them are needed to tell.
    More,
    /// No request line.
    Other,
    /// The request line of this version; what is not HTTP/1.1 counts as HTTP/1.0.
    Http1(Protocol),
}

/// Reads the first line of what a client has said so far. Any method will do, and a line
/// without a version, too.
pub fn sniff(bytes: &[u8]) -> Sniffed {
    if bytes.first().is_some_and(|first| !is_token(*first)) {
        return Sniffed::Other;
    }
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return Sniffed::More;
    };
    let options = Options {
        allow_custom_methods: true,
        accept_http_10: true,
        ..Options::default()
    };
    match RequestLine::read(&bytes[..end], &options) {
        Ok(line) => Sniffed::Http1(line.protocol()),
        Err(_) => Sniffed::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_line_tells_the_version() {
        let of = |text: &str| sniff(text.as_bytes());
        for text in ["", "GET", "GET / HTTP/1.1", "GET / HTTP/1.1\r", "hello"] {
            assert_eq!(of(text), Sniffed::More, "{text}");
        }
        for text in [
            "GET / HTTP/1.1\r\n",
            "foo /\t HTTP/1.1 \n",
            "CONNECT a:1 HTTP/1.1\n",
        ] {
            assert_eq!(of(text), Sniffed::Http1(Protocol::Http11), "{text}");
        }
        for text in ["GET / HTTP/1.0\r\n", "GET / HTTP/9.9\r\n", "GET /\r\n"] {
            assert_eq!(of(text), Sniffed::Http1(Protocol::Http10), "{text}");
        }
        for text in [
            "\r\nGET / HTTP/1.1\r\n",
            "\0",
            "hello\r\n",
            "GET / http/1.1\r\n",
        ] {
            assert_eq!(of(text), Sniffed::Other, "{text}");
        }
    }
}
