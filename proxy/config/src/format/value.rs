//! What an operator evaluates to, and how it is written as text and as JSON.

use std::borrow::Cow;

use outrigger_types::MetadataValue;

/// The value of one operator.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    /// There is none: `-` in text, `null` in JSON.
    Missing,
    /// Bytes, which JSON writes as a string.
    Bytes(Cow<'a, [u8]>),
    /// A number.
    Number(u64),
    /// A structured value.
    Metadata(&'a MetadataValue),
}

impl<'a> Value<'a> {
    /// Borrowed text; empty text is missing.
    pub(super) fn text(text: &'a str) -> Self {
        if text.is_empty() {
            Self::Missing
        } else {
            Self::bytes(text.as_bytes())
        }
    }

    /// Borrowed bytes, empty ones included.
    pub(super) fn bytes(bytes: &'a [u8]) -> Self {
        Self::Bytes(Cow::Borrowed(bytes))
    }

    /// Text made for this evaluation.
    pub(super) fn owned(text: impl Into<Vec<u8>>) -> Self {
        Self::Bytes(Cow::Owned(text.into()))
    }

    /// A number that may be absent.
    pub(super) fn number(number: Option<impl Into<u64>>) -> Self {
        number.map_or(Self::Missing, |n| Self::Number(n.into()))
    }

    /// Text that may be absent; an empty one counts as absent.
    pub(super) fn opt(text: Option<&'a str>) -> Self {
        text.map_or(Self::Missing, Self::text)
    }

    /// Whether there is no value at all; empty text is one.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Missing | Self::Metadata(MetadataValue::Null))
    }

    /// Whether there is neither a value nor text in it.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            absent if absent.is_absent() => true,
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Metadata(MetadataValue::String(text)) => text.is_empty(),
            _ => false,
        }
    }

    /// Cuts strings to `max` bytes.
    pub(super) fn truncate(self, max: Option<usize>) -> Self {
        let Some(max) = max else { return self };
        match self {
            Self::Bytes(Cow::Borrowed(bytes)) => Self::bytes(&bytes[..bytes.len().min(max)]),
            Self::Bytes(Cow::Owned(mut bytes)) => {
                bytes.truncate(max);
                Self::owned(bytes)
            }
            Self::Metadata(MetadataValue::String(text)) => {
                Self::bytes(&text.as_bytes()[..text.len().min(max)])
            }
            other => other,
        }
    }

    /// Appends the text; false if there is no value.
    pub(super) fn append_text(&self, out: &mut Vec<u8>, max: Option<usize>) -> bool {
        let start = out.len();
        match self {
            absent if absent.is_absent() => return false,
            Self::Missing => return false,
            Self::Bytes(bytes) => out.extend_from_slice(bytes),
            Self::Number(number) => append_number(out, *number),
            Self::Metadata(MetadataValue::String(text)) => out.extend_from_slice(text.as_bytes()),
            Self::Metadata(value) => append_metadata(out, value),
        }
        if let Some(max) = max {
            out.truncate(start.saturating_add(max).min(out.len()));
        }
        true
    }

    /// Appends the value as JSON.
    pub(super) fn append_json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Missing => out.extend_from_slice(b"null"),
            Self::Bytes(bytes) => append_json_string(out, bytes),
            Self::Number(number) => append_number(out, *number),
            Self::Metadata(value) => append_metadata(out, value),
        }
    }
}

/// Appends a decimal number.
pub(super) fn append_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends a decimal number of at least `width` digits.
pub(super) fn append_padded(out: &mut Vec<u8>, number: u64, width: usize) {
    let digits = number.checked_ilog10().unwrap_or(0) as usize + 1;
    out.extend(std::iter::repeat_n(b'0', width.saturating_sub(digits)));
    append_number(out, number);
}

/// Appends a structured value as JSON, keys in order, without spaces.
fn append_metadata(out: &mut Vec<u8>, value: &MetadataValue) {
    match value {
        MetadataValue::Null => out.extend_from_slice(b"null"),
        MetadataValue::Bool(true) => out.extend_from_slice(b"true"),
        MetadataValue::Bool(false) => out.extend_from_slice(b"false"),
        MetadataValue::Number(number) => append_float(out, *number),
        MetadataValue::String(text) => append_json_string(out, text.as_bytes()),
        MetadataValue::List(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                append_metadata(out, item);
            }
            out.push(b']');
        }
        MetadataValue::Struct(fields) => {
            out.push(b'{');
            for (i, (key, field)) in fields.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                append_json_string(out, key.as_bytes());
                out.push(b':');
                append_metadata(out, field);
            }
            out.push(b'}');
        }
    }
}

/// Appends a number of `google.protobuf.Value`: a whole one without a fraction,
/// and what JSON has no number for as a string.
pub(super) fn append_float(out: &mut Vec<u8>, number: f64) {
    const WHOLE: f64 = 1e15;
    if number.fract() == 0.0 && number.abs() < WHOLE {
        out.extend_from_slice((number as i64).to_string().as_bytes());
    } else if let Some(finite) = serde_json::Number::from_f64(number) {
        out.extend_from_slice(finite.to_string().as_bytes());
    } else {
        let name = match (number.is_nan(), number > 0.0) {
            (true, _) => "\"NaN\"",
            (false, true) => "\"Infinity\"",
            (false, false) => "\"-Infinity\"",
        };
        out.extend_from_slice(name.as_bytes());
    }
}

/// Appends a JSON string with its quotes.
pub(super) fn append_json_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    append_json_escaped(out, bytes);
    out.push(b'"');
}

/// Appends the inside of a JSON string. Bytes that are no UTF-8 have every byte
/// that is not printable ASCII written as `\u00XX`, as Envoy does.
pub(super) fn append_json_escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    let valid = std::str::from_utf8(bytes).is_ok();
    for &byte in bytes {
        let short = match byte {
            b'"' | b'\\' => Some(byte),
            0x08 => Some(b'b'),
            0x0c => Some(b'f'),
            b'\n' => Some(b'n'),
            b'\r' => Some(b'r'),
            b'\t' => Some(b't'),
            _ => None,
        };
        match short {
            Some(letter) if valid => out.extend_from_slice(&[b'\\', letter]),
            None if byte >= 0x20 && (valid || byte < 0x80) => out.push(byte),
            _ => append_unicode_escape(out, byte),
        }
    }
}

fn append_unicode_escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\u00");
    out.push(HEX[usize::from(byte >> 4)]);
    out.push(HEX[usize::from(byte & 15)]);
}
