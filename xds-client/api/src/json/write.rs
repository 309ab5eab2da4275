//! The wire to JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::{JsonError, MAX_DEPTH, scalar, well_known};
use crate::path::{FieldPath, Step};
use crate::scan::any_parts;
use crate::schema::{self, Field, Kind, Message, WellKnown};
use crate::wire::{Reader, Value, WireError};

/// Converts one message.
pub(super) fn message(message: Message, bytes: &[u8]) -> Result<Json, JsonError> {
    let mut writer = Writer {
        steps: Vec::new(),
        depth: 0,
    };
    writer.message(message, bytes).map_err(|error| JsonError {
        path: FieldPath::from_steps("", writer.steps.clone()),
        reason: error.to_string(),
    })
}

/// A `google.protobuf.Struct` as an object.
pub(super) fn structure(bytes: &[u8]) -> Result<Json, WireError> {
    struct_json(bytes, 0)
}

/// Occurrences of the fields of one message, by number.
type Grouped<'a> = BTreeMap<u32, (Field, Vec<Value<'a>>)>;

struct Writer {
    /// Where an error happened: not unwound after one.
    steps: Vec<Step>,
    depth: usize,
}

impl Writer {
    fn at<T>(
        &mut self,
        step: Step,
        inside: impl FnOnce(&mut Self) -> Result<T, WireError>,
    ) -> Result<T, WireError> {
        self.steps.push(step);
        let result = inside(self)?;
        self.steps.pop();
        Ok(result)
    }

    fn message(&mut self, message: Message, bytes: &[u8]) -> Result<Json, WireError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(WireError::Depth);
        }
        let json = match message.well_known() {
            Some(WellKnown::Any) => self.any(bytes),
            Some(WellKnown::Struct) => struct_json(bytes, self.depth),
            Some(WellKnown::Value) => value_json(bytes, self.depth),
            Some(WellKnown::ListValue) => list_json(bytes, self.depth),
            Some(WellKnown::Duration) => {
                moment(bytes).map(|(s, n)| well_known::write_duration(s, n).into())
            }
            Some(WellKnown::Timestamp) => {
                moment(bytes).map(|(s, n)| well_known::write_timestamp(s, n).into())
            }
            Some(WellKnown::FieldMask) => field_mask(bytes),
            Some(WellKnown::Wrapper) => wrapper(message, bytes),
            Some(WellKnown::Empty | WellKnown::TypedStruct) | None => {
                let mut object = Map::new();
                self.fields(message, bytes, &mut object)?;
                Ok(Json::Object(object))
            }
        }?;
        self.depth -= 1;
        Ok(json)
    }

    fn fields(
        &mut self,
        message: Message,
        bytes: &[u8],
        object: &mut Map<String, Json>,
    ) -> Result<(), WireError> {
        for (field, values) in group(message, bytes)?.into_values() {
            let json = self.at(Step::Field(Cow::Borrowed(field.name())), |writer| {
                writer.field(field, &values)
            })?;
            if let Some(json) = json {
                object.insert(field.name().to_owned(), json);
            }
        }
        Ok(())
    }

    fn field(&mut self, field: Field, values: &[Value<'_>]) -> Result<Option<Json>, WireError> {
        if field.is_map() {
            return self.map(field, values).map(Some);
        }
        if field.is_repeated() {
            let items = self.repeated(field, values)?;
            return Ok((!items.is_empty()).then_some(Json::Array(items)));
        }
        let Some(message) = field.message() else {
            let last = *values.last().ok_or(WireError::Truncated)?;
            let json = scalar::write(field.kind(), last)?;
            let shown = field.has_presence() || json != scalar::default(field.kind());
            return Ok(shown.then_some(json));
        };
        let bytes = merged(values)?;
        self.message(message, &bytes).map(Some)
    }

    fn repeated(&mut self, field: Field, values: &[Value<'_>]) -> Result<Vec<Json>, WireError> {
        let mut items = Vec::new();
        for value in values {
            match (field.message(), value) {
                (Some(message), value) => {
                    let bytes = value.bytes()?;
                    let index = items.len();
                    items.push(
                        self.at(Step::Index(index), |writer| writer.message(message, bytes))?,
                    );
                }
                (None, Value::Bytes(run))
                    if !matches!(field.kind(), Kind::String | Kind::Bytes) =>
                {
                    unpack(field.kind(), run, &mut items)?;
                }
                (None, value) => items.push(scalar::write(field.kind(), *value)?),
            }
        }
        Ok(items)
    }

    /// Entries by key; a key that comes twice keeps its last value.
    fn map(&mut self, field: Field, values: &[Value<'_>]) -> Result<Json, WireError> {
        let entry = field.message().ok_or(WireError::Mismatch)?;
        let (Some(key), Some(item)) = (entry.field_by_number(1), entry.field_by_number(2)) else {
            return Err(WireError::Mismatch);
        };
        let mut entries = BTreeMap::new();
        for value in values {
            let mut fields = group(entry, value.bytes()?)?;
            let name = match fields
                .remove(&1)
                .and_then(|(_, values)| values.last().copied())
            {
                Some(value) => key_text(&scalar::write(key.kind(), value)?),
                None => key_text(&scalar::default(key.kind())),
            };
            let values = fields
                .remove(&2)
                .map(|(_, values)| values)
                .unwrap_or_default();
            let json = self.at(Step::Key(name.clone()), |writer| {
                writer.map_value(item, &values)
            })?;
            entries.insert(name, json);
        }
        Ok(Json::Object(entries.into_iter().collect()))
    }

    fn map_value(&mut self, field: Field, values: &[Value<'_>]) -> Result<Json, WireError> {
        match (field.message(), values.last()) {
            (Some(message), _) => {
                let bytes = merged(values)?;
                self.message(message, &bytes)
            }
            (None, Some(value)) => scalar::write(field.kind(), *value),
            (None, None) => Ok(scalar::default(field.kind())),
        }
    }

    fn any(&mut self, bytes: &[u8]) -> Result<Json, WireError> {
        let (type_url, value) = any_parts(bytes)?;
        let mut object = Map::new();
        if type_url.is_empty() && value.is_empty() {
            return Ok(Json::Object(object));
        }
        object.insert("@type".to_owned(), type_url.into());
        match schema::message_by_url(type_url) {
            Some(message)
                if matches!(message.well_known(), None | Some(WellKnown::TypedStruct)) =>
            {
                self.fields(message, value, &mut object)?;
            }
            Some(message) => {
                object.insert("value".to_owned(), self.message(message, value)?);
            }
            None => {
                object.insert(
                    "value".to_owned(),
                    scalar::write(Kind::Bytes, Value::Bytes(value))?,
                );
            }
        }
        Ok(Json::Object(object))
    }
}

/// The known fields of a message; of a oneof, only the one that came last.
fn group(message: Message, bytes: &[u8]) -> Result<Grouped<'_>, WireError> {
    let mut grouped = Grouped::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        let Some(field) = message.field_by_number(number) else {
            continue;
        };
        if let Some(oneof) = field.oneof() {
            grouped.retain(|known, (other, _)| *known == number || other.oneof() != Some(oneof));
        }
        grouped
            .entry(number)
            .or_insert_with(|| (field, Vec::new()))
            .1
            .push(value);
    }
    Ok(grouped)
}

/// A message that comes in parts: bytes one behind the other are the message merged.
fn merged<'a>(values: &[Value<'a>]) -> Result<Cow<'a, [u8]>, WireError> {
    match values {
        [one] => one.bytes().map(Cow::Borrowed),
        many => {
            let mut all = Vec::new();
            for part in many {
                all.extend_from_slice(part.bytes()?);
            }
            Ok(Cow::Owned(all))
        }
    }
}

fn unpack(kind: Kind, run: &[u8], items: &mut Vec<Json>) -> Result<(), WireError> {
    let mut reader = Reader::new(run);
    while !reader.rest().is_empty() {
        let value = match kind {
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Value::Fixed64(reader.fixed64()?),
            Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => Value::Fixed32(reader.fixed32()?),
            _ => Value::Varint(reader.varint()?),
        };
        items.push(scalar::write(kind, value)?);
    }
    Ok(())
}

fn key_text(key: &Json) -> String {
    match key {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Seconds and nanoseconds of a duration or a timestamp.
fn moment(bytes: &[u8]) -> Result<(i64, i32), WireError> {
    let mut parts = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        match (number, value) {
            (1, Value::Varint(seconds)) => parts.0 = seconds as i64,
            (2, Value::Varint(nanos)) => parts.1 = nanos as i32,
            (1 | 2, _) => return Err(WireError::Mismatch),
            _ => {}
        }
    }
    Ok(parts)
}

fn field_mask(bytes: &[u8]) -> Result<Json, WireError> {
    let mut paths = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        if number == 1 {
            paths.push(well_known::write_field_mask_path(value.text()?));
        }
    }
    Ok(paths.join(",").into())
}

fn wrapper(message: Message, bytes: &[u8]) -> Result<Json, WireError> {
    let kind = message
        .field_by_number(1)
        .ok_or(WireError::Mismatch)?
        .kind();
    match group(message, bytes)?
        .remove(&1)
        .and_then(|(_, values)| values.last().copied())
    {
        Some(value) => scalar::write(kind, value),
        None => Ok(scalar::default(kind)),
    }
}

fn struct_json(bytes: &[u8], depth: usize) -> Result<Json, WireError> {
    let mut entries = BTreeMap::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        if number != 1 {
            continue;
        }
        let mut entry = Reader::new(value.bytes()?);
        let (mut key, mut item) = ("", Json::Null);
        while let Some((number, value)) = entry.field()? {
            match number {
                1 => key = value.text()?,
                2 => item = value_json(value.bytes()?, depth + 1)?,
                _ => {}
            }
        }
        entries.insert(key.to_owned(), item);
    }
    Ok(Json::Object(entries.into_iter().collect()))
}

fn value_json(bytes: &[u8], depth: usize) -> Result<Json, WireError> {
    if depth > MAX_DEPTH {
        return Err(WireError::Depth);
    }
    let mut json = Json::Null;
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        json = match (number, value) {
            (1, Value::Varint(_)) => Json::Null,
            (2, Value::Fixed64(bits)) => scalar::float_json(f64::from_bits(bits)),
            (3, value) => value.text()?.into(),
            (4, Value::Varint(flag)) => Json::Bool(flag != 0),
            (5, value) => struct_json(value.bytes()?, depth + 1)?,
            (6, value) => list_json(value.bytes()?, depth + 1)?,
            (1..=4, _) => return Err(WireError::Mismatch),
            _ => continue,
        };
    }
    Ok(json)
}

fn list_json(bytes: &[u8], depth: usize) -> Result<Json, WireError> {
    let mut items = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        if number == 1 {
            items.push(value_json(value.bytes()?, depth + 1)?);
        }
    }
    Ok(Json::Array(items))
}
