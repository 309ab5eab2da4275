//! Command operators: `%NAME(arguments):length%` in access logs, local replies
//! and added headers, compiled once and evaluated per stream.

use std::fmt;
use std::sync::Arc;

use outrigger_types::{Headers, RequestHead, ResponseHead, StreamInfo};

/// What made a log entry (`%ACCESS_LOG_TYPE%`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AccessLogType {
    /// Not from an access log.
    #[default]
    NotSet,
    /// The end of an HTTP stream.
    DownstreamEnd,
    /// The end of a TCP connection.
    TcpConnectionEnd,
}

/// What operators read.
#[derive(Clone, Copy, Debug)]
pub struct FormatContext<'a> {
    /// What is known of the stream.
    pub info: &'a StreamInfo,
    /// The head of the request, if it was read.
    pub request: Option<&'a RequestHead>,
    /// The head of the response, if there is one.
    pub response: Option<&'a ResponseHead>,
    /// The response's trailers, if there are any.
    pub trailers: Option<&'a Headers>,
    /// `%LOCAL_REPLY_BODY%`; empty unless a local reply is being made.
    pub local_reply_body: &'a [u8],
    /// `%ACCESS_LOG_TYPE%`
    pub access_log_type: AccessLogType,
}

impl<'a> FormatContext<'a> {
    /// A context with nothing but the stream's facts.
    pub fn new(info: &'a StreamInfo) -> Self {
        Self {
            info,
            request: None,
            response: None,
            trailers: None,
            local_reply_body: b"",
            access_log_type: AccessLogType::NotSet,
        }
    }
}

/// How a format is compiled.
#[derive(Clone, Debug, Default)]
pub struct FormatOptions {
    /// An absent value is an empty string instead of `-`
    /// (`omit_empty_values`, and always so in added headers).
    pub omit_empty_values: bool,
}

/// A compiled format string. Cloning is cheap.
#[derive(Clone)]
pub struct Format {
    source: Arc<str>,
}

impl Format {
    /// Compiles a format string.
    ///
    /// # Errors
    /// An operator that is unknown or malformed, with what is wrong.
    pub fn parse(text: &str, options: &FormatOptions) -> Result<Self, String> {
        let _ = options;
        Ok(Self {
            source: text.into(),
        })
    }

    /// A format that is `text` as it stands; `%` means nothing in it.
    pub fn literal(text: &str) -> Self {
        Self {
            source: text.into(),
        }
    }

    /// The text if the format has no operator.
    pub fn as_literal(&self) -> Option<&str> {
        Some(&self.source)
    }

    /// The format as it was written.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// Appends the text for a stream.
    pub fn append_to(&self, out: &mut Vec<u8>, context: &FormatContext<'_>) {
        let _ = context;
        out.extend_from_slice(self.source.as_bytes());
    }
}

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Format").field(&self.source).finish()
    }
}

impl PartialEq for Format {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// A compiled JSON format: one object for a stream. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct JsonFormat {
    root: Arc<serde_json::Value>,
}

impl JsonFormat {
    /// Compiles an object whose strings are formats.
    ///
    /// # Errors
    /// As [`Format::parse`], with the key.
    pub fn parse(
        object: &serde_json::Map<String, serde_json::Value>,
        options: &FormatOptions,
    ) -> Result<Self, String> {
        let _ = options;
        Ok(Self {
            root: Arc::new(serde_json::Value::Object(object.clone())),
        })
    }

    /// Appends the object for a stream, and a newline.
    pub fn append_to(&self, out: &mut Vec<u8>, context: &FormatContext<'_>) {
        let _ = context;
        out.extend_from_slice(self.root.to_string().as_bytes());
        out.push(b'\n');
    }
}

/// Envoy's own format of an access log, newline included.
pub fn default_access_log_format() -> &'static str {
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
     %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
     %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
     \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n"
}
