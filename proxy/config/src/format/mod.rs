//! Command operators: `%NAME(arguments):length%` in access logs, local replies
//! and added headers, compiled once and evaluated per stream.
//!
//! See "Substitution Formatter" in Envoy's configuration reference.

mod coalesce;
mod context;
mod duration;
mod filter_state;
mod header;
mod json;
mod metadata;
mod operator;
mod parse;
mod plain;
mod time;
mod tls;
mod value;

use std::fmt;
use std::sync::Arc;

pub use context::{AccessLogType, FormatContext};
pub use json::JsonFormat;
pub use tls::{encoded_pem, hex};

use operator::Operator;

/// How a format is compiled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FormatOptions {
    /// An absent value is an empty string instead of `-` in text, and is left
    /// out of JSON (`omit_empty_values`). Added headers always have it so.
    pub omit_empty_values: bool,
    /// `%REQ_WITHOUT_QUERY%` is known: the extension
    /// `envoy.formatter.req_without_query` is among the formatters.
    pub req_without_query: bool,
}

/// A compiled format string. Cloning is cheap.
#[derive(Clone)]
pub struct Format {
    inner: Arc<Inner>,
}

struct Inner {
    source: Box<str>,
    tokens: Box<[Token]>,
    /// The text, if there is no operator.
    literal: Option<Box<str>>,
    absent: &'static [u8],
}

/// One piece of a format.
#[derive(Debug)]
enum Token {
    Literal(Box<str>),
    Operator(Operator),
}

impl Format {
    /// Compiles a format string.
    ///
    /// # Errors
    /// An operator that is unknown or malformed, in Envoy's words.
    pub fn parse(text: &str, options: &FormatOptions) -> Result<Self, String> {
        let tokens = parse::tokens(text, options)?;
        let literal = match &*tokens {
            [] => Some("".into()),
            [Token::Literal(literal)] => Some(literal.clone()),
            _ => None,
        };
        Ok(Self {
            inner: Arc::new(Inner {
                source: text.into(),
                tokens: tokens.into(),
                literal,
                absent: if options.omit_empty_values { b"" } else { b"-" },
            }),
        })
    }

    /// A format that is `text` as it stands; `%` means nothing in it.
    pub fn literal(text: &str) -> Self {
        Self {
            inner: Arc::new(Inner {
                source: text.into(),
                tokens: Box::new([Token::Literal(text.into())]),
                literal: Some(text.into()),
                absent: b"",
            }),
        }
    }

    /// The text if the format has no operator: it is the same for every stream.
    pub fn as_literal(&self) -> Option<&str> {
        self.inner.literal.as_deref()
    }

    /// The format as it was written.
    pub fn as_str(&self) -> &str {
        &self.inner.source
    }

    /// Appends the text for a stream.
    pub fn append_to(&self, out: &mut Vec<u8>, context: &FormatContext<'_>) {
        for token in &*self.inner.tokens {
            match token {
                Token::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Token::Operator(operator) => {
                    let value = operator.evaluate(context);
                    if !value.append_text(out, operator.max_length()) {
                        let end = operator.max_length().unwrap_or(1);
                        let absent = self.inner.absent;
                        out.extend_from_slice(&absent[..end.min(absent.len())]);
                    }
                }
            }
        }
    }
}

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Format").field(&self.as_str()).finish()
    }
}

impl PartialEq for Format {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str() && self.inner.absent == other.inner.absent
    }
}

/// Envoy's own format of an access log, newline included.
pub fn default_access_log_format() -> &'static str {
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
     %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
     %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
     \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n"
}

#[cfg(test)]
mod tests;
