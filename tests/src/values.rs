//! The small values that scripts are written in: text, header lists, payloads, durations.
//!
//! A script is YAML read by a person, so a value may be written in the shortest
//! form that is clear: a number where a header value is meant, a map where the
//! order of the headers matters little, `{size: 1000000}` for a big body.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer};
use serde_json::Value;

/// An ordered header list, names as written. Accepted as a map (a list value
/// repeats the name) or as a list of `[name, value]` pairs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(String, String)>);

impl Fields {
    /// The first value of `name`, compared without case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }

    /// Appends a field.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }

    /// Appends `name: value` unless the name is already present.
    pub fn push_default(&mut self, name: &str, value: &str) {
        if self.get(name).is_none() {
            self.push(name, value);
        }
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        fields(&Value::deserialize(d)?).map_err(de::Error::custom)
    }
}

fn fields(value: &Value) -> Result<Fields, String> {
    let mut out = Fields::default();
    match value {
        Value::Null => {}
        Value::Object(map) => {
            for (name, value) in map {
                match value {
                    Value::Array(values) => {
                        for v in values {
                            out.push(name, scalar(v)?);
                        }
                    }
                    Value::Object(_) => out.push(name, repeated(value)?),
                    v => out.push(name, scalar(v)?),
                }
            }
        }
        Value::Array(pairs) => {
            for pair in pairs {
                match pair.as_array().map(Vec::as_slice) {
                    Some([n, v]) => out.push(scalar(n)?, scalar(v)?),
                    _ => return Err(format!("not a [name, value] pair: {pair}")),
                }
            }
        }
        other => return Err(format!("not a header list: {other}")),
    }
    Ok(out)
}

/// A long header value, written `{size: 70000}`.
fn repeated(value: &Value) -> Result<String, String> {
    let bytes = payload(value)?.0;
    String::from_utf8(bytes).map_err(|e| e.to_string())
}

fn scalar(value: &Value) -> Result<String, String> {
    match value {
        Value::String(s) => Ok(s.clone()),
        Value::Number(n) => Ok(n.to_string()),
        Value::Bool(b) => Ok(b.to_string()),
        Value::Null => Ok(String::new()),
        other => Err(format!("not a plain value: {other}")),
    }
}

/// Bytes to send. Written as text, as `{size: N}` (N bytes of `x`),
/// as `{hex: "00ff"}`, as `{grpc: [payload, ...]}` (length-prefixed messages), or as
/// `{times: [N, payload, ...]}` (the payloads in turn, N times over).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Payload(pub Vec<u8>);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show_bytes(&self.0))
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        payload(&Value::deserialize(d)?).map_err(de::Error::custom)
    }
}

fn payload(value: &Value) -> Result<Payload, String> {
    let Value::Object(map) = value else {
        return scalar(value).map(|s| Payload(s.into_bytes()));
    };
    let (key, inner) = match map.iter().next() {
        Some(entry) if map.len() == 1 => entry,
        _ => return Err(format!("a payload has exactly one key: {value}")),
    };
    match (key.as_str(), inner) {
        ("size", Value::Number(n)) => {
            let size = n.as_u64().ok_or("size must be a count")?;
            Ok(Payload(vec![
                b'x';
                usize::try_from(size)
                    .map_err(|e| e.to_string())?
            ]))
        }
        ("hex", Value::String(s)) => unhex(s).map(Payload),
        ("grpc", Value::Array(messages)) => {
            let mut out = Vec::new();
            for message in messages {
                out.extend(grpc_frame(&payload(message)?.0));
            }
            Ok(Payload(out))
        }
        ("times", Value::Array(parts)) => {
            let (times, parts) = parts.split_first().ok_or("times wants a count")?;
            let times = times.as_u64().ok_or("times wants a count first")?;
            let mut once = Vec::new();
            for part in parts {
                once.extend(payload(part)?.0);
            }
            Ok(Payload(once.repeat(
                usize::try_from(times).map_err(|e| e.to_string())?,
            )))
        }
        _ => Err(format!("unknown payload form: {value}")),
    }
}

fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| {
            let s = std::str::from_utf8(pair).map_err(|e| e.to_string())?;
            u8::from_str_radix(s, 16).map_err(|e| format!("{s}: {e}"))
        })
        .collect()
}

/// One uncompressed gRPC message with its five-byte prefix.
///
/// # Panics
/// If the message is 4 GiB or longer.
#[must_use]
pub fn grpc_frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a message under 4 GiB");
    let mut out = Vec::with_capacity(message.len() + 5);
    out.push(0);
    out.extend(length.to_be_bytes());
    out.extend(message);
    out
}

/// A duration written `50ms`, `1.5s` or `2m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        span(&text).ok_or_else(|| de::Error::custom(format!("not a duration: {text:?}")))
    }
}

fn span(text: &str) -> Option<Span> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    let number: f64 = digits.parse().ok()?;
    Duration::try_from_secs_f64(number * unit).ok().map(Span)
}

/// Bytes for a person: escaped text when short, length and a hash when long.
#[must_use]
pub fn show_bytes(bytes: &[u8]) -> String {
    const SHORT: usize = 600;
    if bytes.len() <= SHORT {
        return bytes.escape_ascii().to_string();
    }
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{} bytes, hash {hash:016x}", bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: for<'de> Deserialize<'de>>(yaml: &str) -> T {
        let value: Value = serde_yaml_ng::from_str(yaml).expect("yaml");
        serde_json::from_value(value).expect("value")
    }

    #[test]
    fn a_list_value_repeats_the_name_in_place() {
        let got: Fields = read("{a: 1, b: [x, y], c: true}");
        let want = [("a", "1"), ("b", "x"), ("b", "y"), ("c", "true")];
        assert_eq!(got.0, want.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn payload_forms_give_the_bytes_they_say() {
        assert_eq!(read::<Payload>("abc").0, b"abc");
        assert_eq!(read::<Payload>("{size: 3}").0, b"xxx");
        assert_eq!(read::<Payload>("{hex: '00 ff'}").0, [0, 255]);
        assert_eq!(read::<Payload>("{grpc: [hi]}").0, b"\0\0\0\0\x02hi");
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(read::<Span>("1.5s").0, Duration::from_millis(1500));
        assert_eq!(span("5"), None);
    }
}
