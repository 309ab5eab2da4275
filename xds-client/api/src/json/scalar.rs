//! Scalars between JSON and the wire.

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Number, Value as Json};

use crate::schema::{Enum, EnumValue, Kind};
use crate::wire::{Value, WireError, put_tag, put_varint};

/// A scalar, ready to be written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(Vec<u8>),
}

impl Scalar {
    /// Number of the wire type.
    pub(super) fn wire_type(&self) -> u8 {
        match self {
            Self::Varint(_) => 0,
            Self::Fixed64(_) => 1,
            Self::Bytes(_) => 2,
            Self::Fixed32(_) => 5,
        }
    }

    /// Whether a field without presence leaves it out.
    pub(super) fn is_default(&self) -> bool {
        match self {
            Self::Varint(value) | Self::Fixed64(value) => *value == 0,
            Self::Fixed32(value) => *value == 0,
            Self::Bytes(value) => value.is_empty(),
        }
    }

    /// Appends the value without its tag.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Varint(value) => put_varint(out, *value),
            Self::Fixed64(value) => out.extend_from_slice(&value.to_le_bytes()),
            Self::Fixed32(value) => out.extend_from_slice(&value.to_le_bytes()),
            Self::Bytes(value) => {
                put_varint(out, value.len() as u64);
                out.extend_from_slice(value);
            }
        }
    }

    /// Appends the value as the field `number`.
    pub(super) fn put_field(&self, out: &mut Vec<u8>, number: u32) {
        put_tag(out, number, self.wire_type());
        self.put(out);
    }
}

/// Base64 of either alphabet, padded or not.
fn base64_engine(url_safe: bool) -> GeneralPurpose {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    GeneralPurpose::new(if url_safe { &URL_SAFE } else { &STANDARD }, config)
}

/// What a JSON value is called in a message.
pub(super) fn describe(value: &Json) -> String {
    match value {
        Json::Null => "null".to_owned(),
        Json::Array(_) => "a list".to_owned(),
        Json::Object(_) => "an object".to_owned(),
        other => {
            let text = other.to_string();
            match text.char_indices().nth(60) {
                Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
                None => text,
            }
        }
    }
}

fn expected(what: &str, value: &Json) -> String {
    format!("expected {what}, not {}", describe(value))
}

/// Why a scalar was not read.
#[derive(Debug)]
pub(super) enum Refusal {
    /// An enum has no value of that name: not an error if unknown fields are allowed.
    UnknownName(String),
    /// The value does not fit.
    Wrong(String),
}

/// Reads a scalar of that kind.
pub(super) fn read(kind: Kind, value: &Json) -> Result<Scalar, Refusal> {
    match kind {
        Kind::Enum(kind) => {
            enum_value(kind, value).map(|number| Scalar::Varint(i64::from(number) as u64))
        }
        other => plain(other, value).map_err(Refusal::Wrong),
    }
}

fn plain(kind: Kind, value: &Json) -> Result<Scalar, String> {
    match kind {
        Kind::Double => float(value).map(|number| Scalar::Fixed64(number.to_bits())),
        Kind::Float => single(value).map(|number| Scalar::Fixed32(number.to_bits())),
        Kind::Int64 => {
            signed(value, i64::MIN, i64::MAX).map(|number| Scalar::Varint(number as u64))
        }
        Kind::Int32 => small(value).map(|number| Scalar::Varint(i64::from(number) as u64)),
        Kind::Uint64 => unsigned(value, u64::MAX).map(Scalar::Varint),
        Kind::Uint32 => unsigned(value, u64::from(u32::MAX)).map(Scalar::Varint),
        Kind::Fixed64 => unsigned(value, u64::MAX).map(Scalar::Fixed64),
        Kind::Fixed32 => {
            unsigned(value, u64::from(u32::MAX)).map(|number| Scalar::Fixed32(number as u32))
        }
        Kind::Sfixed64 => {
            signed(value, i64::MIN, i64::MAX).map(|number| Scalar::Fixed64(number as u64))
        }
        Kind::Sfixed32 => small(value).map(|number| Scalar::Fixed32(number as u32)),
        Kind::Sint64 => {
            signed(value, i64::MIN, i64::MAX).map(|number| Scalar::Varint(zigzag(number)))
        }
        Kind::Sint32 => small(value).map(|number| Scalar::Varint(zigzag(i64::from(number)))),
        Kind::Bool => boolean(value).map(|flag| Scalar::Varint(u64::from(flag))),
        Kind::String => {
            let text = value.as_str().ok_or_else(|| expected("a string", value))?;
            Ok(Scalar::Bytes(text.as_bytes().to_vec()))
        }
        Kind::Bytes => bytes(value).map(Scalar::Bytes),
        Kind::Enum(_) | Kind::Message(_) => Err(expected("another kind of value", value)),
    }
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// A whole number, however JSON spells it.
fn integer(value: &Json) -> Result<i128, String> {
    let wrong = || expected("a whole number", value);
    let number = match value {
        Json::Number(number) => number.clone(),
        Json::String(text) if text.trim() == text => {
            serde_json::from_str::<Number>(text).map_err(|_| wrong())?
        }
        _ => return Err(wrong()),
    };
    if let Some(number) = number.as_i64() {
        return Ok(i128::from(number));
    }
    if let Some(number) = number.as_u64() {
        return Ok(i128::from(number));
    }
    let float = number.as_f64().unwrap_or(f64::NAN);
    if float.fract() == 0.0 && float.abs() < 1e30 {
        Ok(float as i128)
    } else {
        Err(wrong())
    }
}

fn signed(value: &Json, low: i64, high: i64) -> Result<i64, String> {
    let number = integer(value)?;
    i64::try_from(number)
        .ok()
        .filter(|number| (low..=high).contains(number))
        .ok_or_else(|| format!("{number} is out of range"))
}

fn small(value: &Json) -> Result<i32, String> {
    signed(value, i64::from(i32::MIN), i64::from(i32::MAX)).map(|number| number as i32)
}

fn unsigned(value: &Json, high: u64) -> Result<u64, String> {
    let number = integer(value)?;
    u64::try_from(number)
        .ok()
        .filter(|number| *number <= high)
        .ok_or_else(|| format!("{number} is out of range"))
}

fn float(value: &Json) -> Result<f64, String> {
    let wrong = || expected("a number", value);
    match value {
        Json::Number(number) => number.as_f64().ok_or_else(wrong),
        Json::String(text) => match text.as_str() {
            "NaN" => Ok(f64::NAN),
            "Infinity" => Ok(f64::INFINITY),
            "-Infinity" => Ok(f64::NEG_INFINITY),
            other => serde_json::from_str::<Number>(other)
                .ok()
                .and_then(|number| number.as_f64())
                .ok_or_else(wrong),
        },
        _ => Err(wrong()),
    }
}

fn single(value: &Json) -> Result<f32, String> {
    let number = float(value)?;
    let narrow = number as f32;
    if narrow.is_infinite() && number.is_finite() {
        return Err(format!("{number} is out of range"));
    }
    Ok(narrow)
}

fn bytes(value: &Json) -> Result<Vec<u8>, String> {
    let text = value.as_str().ok_or_else(|| expected("base64", value))?;
    let url_safe = text.contains(['-', '_']);
    base64_engine(url_safe)
        .decode(text)
        .map_err(|error| format!("not base64: {error}"))
}

/// A boolean, or the texts that Envoy's parser takes for one.
fn boolean(value: &Json) -> Result<bool, String> {
    let wrong = || expected("true or false", value);
    match value {
        Json::Bool(flag) => Ok(*flag),
        Json::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "1" => Ok(true),
            "false" | "f" | "no" | "n" | "0" => Ok(false),
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

/// An enum's value by name (in any case, as Envoy's parser takes it) or by number.
fn enum_value(kind: Enum, value: &Json) -> Result<i32, Refusal> {
    match value {
        Json::String(name) => kind
            .value_by_name(name)
            .or_else(|| kind.value_by_name(&name.to_ascii_uppercase()))
            .map(EnumValue::number)
            .or_else(|| small(value).ok())
            .ok_or_else(|| {
                Refusal::UnknownName(format!("unknown value {name:?} of enum {}", kind.name()))
            }),
        Json::Null if kind.name() == "google.protobuf.NullValue" => Ok(0),
        other => small(other).map_err(|_| {
            Refusal::Wrong(expected(&format!("a value of enum {}", kind.name()), value))
        }),
    }
}

/// The number that a scalar has on the wire, for the kinds that have one.
fn raw(value: Value<'_>) -> Result<u64, WireError> {
    match value {
        Value::Varint(number) | Value::Fixed64(number) => Ok(number),
        Value::Fixed32(number) => Ok(u64::from(number)),
        Value::Bytes(_) | Value::Group(_) => Err(WireError::Mismatch),
    }
}

/// Writes a scalar of that kind.
pub(super) fn write(kind: Kind, value: Value<'_>) -> Result<Json, WireError> {
    Ok(match kind {
        Kind::Double => float_json(f64::from_bits(raw(value)?)),
        Kind::Float => single_json(f32::from_bits(raw(value)? as u32)),
        Kind::Int64 | Kind::Sfixed64 => Json::String((raw(value)? as i64).to_string()),
        Kind::Sint64 => Json::String(unzigzag(raw(value)?).to_string()),
        Kind::Uint64 | Kind::Fixed64 => Json::String(raw(value)?.to_string()),
        Kind::Int32 | Kind::Sfixed32 => Json::from(raw(value)? as i32),
        Kind::Sint32 => Json::from(unzigzag(raw(value)?) as i32),
        Kind::Uint32 | Kind::Fixed32 => Json::from(raw(value)? as u32),
        Kind::Bool => Json::Bool(raw(value)? != 0),
        Kind::String => Json::String(value.text()?.to_owned()),
        Kind::Bytes => {
            Json::String(base64::engine::general_purpose::STANDARD.encode(value.bytes()?))
        }
        Kind::Enum(kind) => enum_json(kind, raw(value)? as i32),
        Kind::Message(_) => return Err(WireError::Mismatch),
    })
}

fn enum_json(kind: Enum, number: i32) -> Json {
    if kind.name() == "google.protobuf.NullValue" {
        return Json::Null;
    }
    kind.value_by_number(number)
        .map_or(Json::from(number), |value| {
            Json::String(value.name().to_owned())
        })
}

/// A double; whole numbers are written without a fraction, as Envoy does.
pub(super) fn float_json(number: f64) -> Json {
    if number.is_nan() {
        return Json::String("NaN".to_owned());
    }
    if number.is_infinite() {
        return Json::String(
            if number > 0.0 {
                "Infinity"
            } else {
                "-Infinity"
            }
            .to_owned(),
        );
    }
    if number.fract() == 0.0
        && number.abs() < 9_007_199_254_740_992.0
        && !(number == 0.0 && number.is_sign_negative())
    {
        return Json::from(number as i64);
    }
    Number::from_f64(number).map_or(Json::Null, Json::Number)
}

/// A float, with the fewest digits that give it back.
fn single_json(number: f32) -> Json {
    if number.is_finite() {
        return number
            .to_string()
            .parse::<f64>()
            .map_or(Json::Null, float_json);
    }
    float_json(f64::from(number))
}

/// The default of a kind, for map entries that leave the value out.
pub(super) fn default(kind: Kind) -> Json {
    match kind {
        Kind::Bool => Json::Bool(false),
        Kind::String | Kind::Bytes => Json::String(String::new()),
        Kind::Int64 | Kind::Uint64 | Kind::Sint64 | Kind::Fixed64 | Kind::Sfixed64 => {
            Json::String("0".to_owned())
        }
        Kind::Enum(kind) => enum_json(kind, 0),
        _ => Json::from(0),
    }
}
