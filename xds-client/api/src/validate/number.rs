//! Numbers as the rules compare them.

use std::cmp::Ordering;
use std::fmt;

use crate::schema::Kind;
use crate::wire::{Reader, Value, WireError};

/// A number of any kind.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    /// A whole number.
    Whole(i128),
    /// A fraction.
    Float(f64),
    /// A duration in nanoseconds.
    Nanoseconds(i128),
}

impl Number {
    /// Order, which not-a-number has none of.
    pub(super) fn order(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Whole(one), Self::Whole(two))
            | (Self::Nanoseconds(one), Self::Nanoseconds(two)) => Some(one.cmp(&two)),
            (Self::Float(one), Self::Float(two)) => one.partial_cmp(&two),
            _ => None,
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(number) => number.fmt(formatter),
            Self::Float(number) => number.fmt(formatter),
            Self::Nanoseconds(number) => write!(formatter, "{}s", *number as f64 / 1e9),
        }
    }
}

/// The kind of a number in `validate.FieldRules`, by the field that holds its rules.
pub(super) fn kind_of_rules(number: u32) -> Option<Kind> {
    Some(match number {
        1 => Kind::Float,
        2 => Kind::Double,
        3 => Kind::Int32,
        4 => Kind::Int64,
        5 => Kind::Uint32,
        6 => Kind::Uint64,
        7 => Kind::Sint32,
        8 => Kind::Sint64,
        9 => Kind::Fixed32,
        10 => Kind::Fixed64,
        11 => Kind::Sfixed32,
        12 => Kind::Sfixed64,
        _ => return None,
    })
}

/// Reads a number of that kind.
pub(super) fn read(kind: Kind, value: Value<'_>) -> Result<Number, WireError> {
    let zigzag = |number: u64| (number >> 1) as i64 ^ -((number & 1) as i64);
    Ok(match (kind, value) {
        (Kind::Double, Value::Fixed64(bits)) => Number::Float(f64::from_bits(bits)),
        (Kind::Float, Value::Fixed32(bits)) => Number::Float(f64::from(f32::from_bits(bits))),
        (Kind::Uint32 | Kind::Uint64 | Kind::Bool, Value::Varint(number)) => {
            Number::Whole(i128::from(number))
        }
        (Kind::Sint32 | Kind::Sint64, Value::Varint(number)) => {
            Number::Whole(i128::from(zigzag(number)))
        }
        (_, Value::Varint(number)) => Number::Whole(i128::from(number as i64)),
        (Kind::Sfixed64, Value::Fixed64(number)) => Number::Whole(i128::from(number as i64)),
        (_, Value::Fixed64(number)) => Number::Whole(i128::from(number)),
        (Kind::Sfixed32, Value::Fixed32(number)) => Number::Whole(i128::from(number as i32)),
        (_, Value::Fixed32(number)) => Number::Whole(i128::from(number)),
        _ => return Err(WireError::Mismatch),
    })
}

/// Reads an encoded `google.protobuf.Duration`.
pub(super) fn duration(bytes: &[u8]) -> Result<Number, WireError> {
    let (mut seconds, mut nanos) = (0i64, 0i32);
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        match (number, value) {
            (1, Value::Varint(number)) => seconds = number as i64,
            (2, Value::Varint(number)) => nanos = number as i32,
            _ => {}
        }
    }
    Ok(Number::Nanoseconds(
        i128::from(seconds) * 1_000_000_000 + i128::from(nanos),
    ))
}

/// What an unset field holds.
pub(super) fn default(kind: Kind) -> Value<'static> {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Value::Fixed64(0),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => Value::Fixed32(0),
        Kind::String | Kind::Bytes | Kind::Message(_) => Value::Bytes(&[]),
        _ => Value::Varint(0),
    }
}

/// Splits a packed run.
pub(super) fn unpack<'a>(
    kind: Kind,
    run: &'a [u8],
    items: &mut Vec<Value<'a>>,
) -> Result<(), WireError> {
    let mut reader = Reader::new(run);
    while !reader.rest().is_empty() {
        items.push(match default(kind) {
            Value::Fixed64(_) => Value::Fixed64(reader.fixed64()?),
            Value::Fixed32(_) => Value::Fixed32(reader.fixed32()?),
            _ => Value::Varint(reader.varint()?),
        });
    }
    Ok(())
}

/// A map's key as text.
pub(super) fn key_text(key: Value<'_>) -> String {
    match key {
        Value::Bytes(text) => String::from_utf8_lossy(text).into_owned(),
        Value::Varint(number) | Value::Fixed64(number) => number.to_string(),
        Value::Fixed32(number) => number.to_string(),
        Value::Group(_) => String::new(),
    }
}
