//! Walks the raw bytes of a message against the schema, before anything is decoded.
//!
//! Decoding drops what the structs do not know; "never silently dropped" therefore rests on this walk. It recurses
//! through nested messages, maps, `google.protobuf.Any` and both `TypedStruct`s, and tells a [`Visitor`] what it meets.

use std::borrow::Cow;

use thiserror::Error;

use crate::json;
use crate::path::{FieldPath, Step};
use crate::schema::{self, Field, Kind, Message, WellKnown};
use crate::wire::{Reader, Value, WireError};

/// How deeply messages may nest, which is what decoding allows.
const MAX_DEPTH: usize = 100;

/// What a visitor wants to see next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descend {
    /// The inside of what it was shown.
    Into,
    /// What follows it.
    Over,
}

/// One step of the walk, cheap to keep.
#[derive(Clone, Debug)]
enum Trace<'a> {
    Field(Field),
    Index(usize),
    Key(Cow<'a, str>),
}

/// Where the walk stands. Becomes a [`FieldPath`] only when something is to be reported.
#[derive(Debug, Default)]
pub struct Trail<'a> {
    steps: Vec<Trace<'a>>,
    /// Steps of the messages around a `TypedStruct`, whose bytes are made on the way.
    outer: Vec<Step>,
}

impl Trail<'_> {
    /// The path from `root` to where the walk stands.
    pub fn to_path(&self, root: &str) -> FieldPath {
        FieldPath::from_steps(root, self.to_steps())
    }

    /// Whether the walk stands in this field of this message, or below it.
    pub fn is_within(&self, message: &str, name: &str) -> bool {
        self.steps.iter().any(|step| match step {
            Trace::Field(field) => field.name() == name && field.parent().name() == message,
            Trace::Index(_) | Trace::Key(_) => false,
        })
    }

    fn to_steps(&self) -> Vec<Step> {
        let inner = self.steps.iter().map(|step| match step {
            Trace::Field(field) => Step::Field(Cow::Borrowed(field.name())),
            Trace::Index(index) => Step::Index(*index),
            Trace::Key(key) => Step::Key(key.clone().into_owned()),
        });
        self.outer.iter().cloned().chain(inner).collect()
    }
}

/// Told what a walk meets. The trail ends at the thing that is told.
pub trait Visitor {
    /// A field that the schema knows.
    fn field(&mut self, trail: &Trail<'_>, field: Field, value: Value<'_>) -> Descend;

    /// A field that the schema does not know: `number` of `message`, whose path the trail is.
    fn unknown_field(&mut self, trail: &Trail<'_>, message: Message, number: u32, wire_type: u8);

    /// A name inside a `TypedStruct` that the message does not know; `path` is below the trail.
    fn unknown_name(&mut self, trail: &Trail<'_>, message: Message, path: &FieldPath);

    /// A message inside an `Any` or a `TypedStruct`.
    fn any(&mut self, trail: &Trail<'_>, message: Message) -> Descend;

    /// An `Any` or a `TypedStruct` of a type that the schema does not know.
    fn unknown_any(&mut self, trail: &Trail<'_>, type_url: &str);
}

/// Bytes that are no message of their type.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{path}: {reason}")]
pub struct ScanError {
    /// Where, from the message that was scanned.
    pub path: FieldPath,
    /// Why.
    pub reason: String,
}

/// Walks `bytes` as a message of type `message`.
///
/// # Errors
/// When the bytes are no such message, or nest more than 100 deep.
pub fn scan(message: Message, bytes: &[u8], visitor: &mut dyn Visitor) -> Result<(), ScanError> {
    let mut walk = Walk {
        trail: Trail::default(),
        visitor,
        depth: 0,
        counts: Vec::new(),
    };
    walk.message(message, bytes)
}

struct Walk<'a, 'v> {
    trail: Trail<'a>,
    visitor: &'v mut dyn Visitor,
    depth: usize,
    /// Occurrences of repeated fields in the messages being walked: field number and count.
    counts: Vec<(u32, usize)>,
}

impl<'a> Walk<'a, '_> {
    fn error(&self, reason: impl ToString) -> ScanError {
        ScanError {
            path: self.trail.to_path(""),
            reason: reason.to_string(),
        }
    }

    fn wire<T>(&self, result: Result<T, WireError>) -> Result<T, ScanError> {
        result.map_err(|error| self.error(error))
    }

    fn message(&mut self, message: Message, bytes: &'a [u8]) -> Result<(), ScanError> {
        if self.depth >= MAX_DEPTH {
            return Err(self.error(WireError::Depth));
        }
        self.depth += 1;
        let mark = self.counts.len();
        let mut reader = Reader::new(bytes);
        while let Some((number, value)) = self.wire(reader.field())? {
            match message.field_by_number(number) {
                Some(field) => self.field(field, value, mark)?,
                None => self
                    .visitor
                    .unknown_field(&self.trail, message, number, value.wire_type()),
            }
        }
        self.counts.truncate(mark);
        self.depth -= 1;
        Ok(())
    }

    /// How many times the field was met before in the message whose counts begin at `mark`.
    fn occurrence(&mut self, number: u32, mark: usize) -> usize {
        let counts = self.counts.get_mut(mark..).unwrap_or_default();
        match counts.iter_mut().find(|(known, _)| *known == number) {
            Some((_, count)) => {
                *count += 1;
                *count
            }
            None => {
                self.counts.push((number, 0));
                0
            }
        }
    }

    fn field(&mut self, field: Field, value: Value<'a>, mark: usize) -> Result<(), ScanError> {
        let depth = self.trail.steps.len();
        self.trail.steps.push(Trace::Field(field));
        if field.is_map() {
            let key = self.map_key(field, value)?;
            self.trail.steps.push(Trace::Key(key));
        } else if field.is_repeated() {
            let index = self.occurrence(field.number(), mark);
            self.trail.steps.push(Trace::Index(index));
        }
        let result = self.inside(field, value);
        self.trail.steps.truncate(depth);
        result
    }

    fn inside(&mut self, field: Field, value: Value<'a>) -> Result<(), ScanError> {
        self.wire(check_kind(field, value))?;
        if self.visitor.field(&self.trail, field, value) == Descend::Over {
            return Ok(());
        }
        let Kind::Message(message) = field.kind() else {
            return Ok(());
        };
        let bytes = self.wire(value.bytes())?;
        match message.well_known() {
            Some(WellKnown::Any) => self.any(bytes),
            Some(WellKnown::TypedStruct) => self.typed_struct(bytes),
            _ if field.is_map() => self.map_value(message, bytes),
            _ => self.message(message, bytes),
        }
    }

    fn map_key(&self, field: Field, value: Value<'a>) -> Result<Cow<'a, str>, ScanError> {
        let entry = self.wire(value.bytes())?;
        let mut key = Cow::Borrowed("");
        let mut reader = Reader::new(entry);
        while let Some((number, value)) = self.wire(reader.field())? {
            key = match (number, value) {
                (1, Value::Bytes(_)) => Cow::Borrowed(self.wire(value.text())?),
                (1, Value::Varint(number)) => Cow::Owned(number.to_string()),
                (1, _) => return Err(self.error(format!("{} has no such key", field.name()))),
                _ => continue,
            };
        }
        Ok(key)
    }

    /// The value of a map entry, which has the entry's path.
    fn map_value(&mut self, entry: Message, bytes: &'a [u8]) -> Result<(), ScanError> {
        let Some(field) = entry.field_by_number(2) else {
            return Ok(());
        };
        let mut reader = Reader::new(bytes);
        while let Some((number, value)) = self.wire(reader.field())? {
            match number {
                1 => {}
                2 => self.entry_value(field, value)?,
                _ => self
                    .visitor
                    .unknown_field(&self.trail, entry, number, value.wire_type()),
            }
        }
        Ok(())
    }

    fn entry_value(&mut self, field: Field, value: Value<'a>) -> Result<(), ScanError> {
        self.wire(check_kind(field, value))?;
        let Kind::Message(message) = field.kind() else {
            return Ok(());
        };
        let bytes = self.wire(value.bytes())?;
        match message.well_known() {
            Some(WellKnown::Any) => self.any(bytes),
            Some(WellKnown::TypedStruct) => self.typed_struct(bytes),
            _ => self.message(message, bytes),
        }
    }

    fn any(&mut self, bytes: &'a [u8]) -> Result<(), ScanError> {
        let (type_url, value) = self.wire(any_parts(bytes))?;
        let Some(message) = schema::message_by_url(type_url) else {
            self.visitor.unknown_any(&self.trail, type_url);
            return Ok(());
        };
        match message.well_known() {
            Some(WellKnown::TypedStruct) => self.typed_struct(value),
            _ if self.visitor.any(&self.trail, message) == Descend::Into => {
                self.message(message, value)
            }
            _ => Ok(()),
        }
    }

    /// A message that came as JSON: made into bytes of its own and walked as such.
    fn typed_struct(&mut self, bytes: &'a [u8]) -> Result<(), ScanError> {
        let (type_url, value) = self.wire(any_parts(bytes))?;
        let Some(message) = schema::message_by_url(type_url) else {
            self.visitor.unknown_any(&self.trail, type_url);
            return Ok(());
        };
        if self.visitor.any(&self.trail, message) == Descend::Over {
            return Ok(());
        }
        let parsed = json::from_struct(message, value).map_err(|error| ScanError {
            path: error.path.below(&self.trail.to_path("")),
            reason: error.reason,
        })?;
        for unknown in &parsed.unknown {
            self.visitor
                .unknown_name(&self.trail, message, &unknown.path);
        }
        let trail = Trail {
            steps: Vec::new(),
            outer: self.trail.to_steps(),
        };
        let mut walk = Walk {
            trail,
            visitor: &mut *self.visitor,
            depth: self.depth,
            counts: Vec::new(),
        };
        walk.message(message, &parsed.bytes)
    }
}

/// The type URL and the value of an `Any` or a `TypedStruct`, which number them alike.
///
/// # Errors
/// When the bytes are neither.
pub fn any_parts(bytes: &[u8]) -> Result<(&str, &[u8]), WireError> {
    let mut parts: (&str, &[u8]) = ("", &[]);
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        match number {
            1 => parts.0 = value.text()?,
            2 => parts.1 = value.bytes()?,
            _ => {}
        }
    }
    Ok(parts)
}

/// Whether a value can be one of that field; a packed run counts for a repeated scalar.
fn check_kind(field: Field, value: Value<'_>) -> Result<(), WireError> {
    let fits = match field.kind() {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => matches!(value, Value::Fixed64(_)),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => matches!(value, Value::Fixed32(_)),
        Kind::String => value.text().map(|_| true)?,
        Kind::Bytes | Kind::Message(_) => matches!(value, Value::Bytes(_)),
        _ => matches!(value, Value::Varint(_)),
    };
    if fits {
        return Ok(());
    }
    match value {
        Value::Bytes(run) if field.is_repeated() => check_packed(field.kind(), run),
        _ => Err(WireError::Mismatch),
    }
}

/// Whether a packed run splits into whole values.
fn check_packed(kind: Kind, run: &[u8]) -> Result<(), WireError> {
    let whole = match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => run.len().is_multiple_of(8),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => run.len().is_multiple_of(4),
        _ => {
            let mut reader = Reader::new(run);
            while !reader.rest().is_empty() {
                reader.varint()?;
            }
            true
        }
    };
    if whole {
        Ok(())
    } else {
        Err(WireError::Truncated)
    }
}
