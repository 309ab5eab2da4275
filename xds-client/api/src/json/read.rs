//! JSON to the wire.

use std::borrow::Cow;

use serde_json::{Map, Value as Json};

use super::scalar::{self, Refusal, Scalar, describe};
use super::{JsonError, MAX_DEPTH, Parsed, well_known};
use crate::path::{FieldPath, Step};
use crate::schema::{self, Field, Kind, Message, WellKnown};
use crate::wire::{put_bytes, put_tag, put_varint_field};

/// Converts one message.
pub(super) fn message(message: Message, value: &Json) -> Result<Parsed, JsonError> {
    let mut reader = Reader {
        steps: Vec::new(),
        unknown: Vec::new(),
        depth: 0,
    };
    let bytes = reader.any_message(message, value)?;
    Ok(Parsed {
        bytes,
        unknown: reader.unknown,
    })
}

struct Reader {
    steps: Vec<Step>,
    unknown: Vec<JsonError>,
    depth: usize,
}

impl Reader {
    fn path(&self) -> FieldPath {
        FieldPath::from_steps("", self.steps.clone())
    }

    fn error<T>(&self, reason: impl Into<String>) -> Result<T, JsonError> {
        Err(JsonError {
            path: self.path(),
            reason: reason.into(),
        })
    }

    fn at<T>(
        &mut self,
        step: Step,
        inside: impl FnOnce(&mut Self) -> Result<T, JsonError>,
    ) -> Result<T, JsonError> {
        self.steps.push(step);
        let result = inside(self);
        if result.is_ok() {
            self.steps.pop();
        }
        result
    }

    /// A message in its own JSON form.
    fn any_message(&mut self, message: Message, value: &Json) -> Result<Vec<u8>, JsonError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.error("nested too deeply");
        }
        let bytes = match message.well_known() {
            Some(WellKnown::Any) => self.any(value),
            Some(WellKnown::Struct) => self.structure(value),
            Some(WellKnown::Value) => self.value(value),
            Some(WellKnown::ListValue) => self.list(value),
            // Envoy's parser also takes the plain form of these messages.
            Some(
                WellKnown::Duration
                | WellKnown::Timestamp
                | WellKnown::Wrapper
                | WellKnown::FieldMask,
            ) if value.is_object() => self.object(message, value),
            Some(WellKnown::Duration) => self.moment(
                value,
                "a duration such as \"1.5s\"",
                well_known::read_duration,
            ),
            Some(WellKnown::Timestamp) => {
                self.moment(value, "an RFC 3339 time", well_known::read_timestamp)
            }
            Some(WellKnown::FieldMask) => self.field_mask(value),
            Some(WellKnown::Wrapper) => self.wrapper(message, value),
            Some(WellKnown::Empty | WellKnown::TypedStruct) | None => self.object(message, value),
        }?;
        self.depth -= 1;
        Ok(bytes)
    }

    fn object(&mut self, message: Message, value: &Json) -> Result<Vec<u8>, JsonError> {
        match value {
            Json::Object(object) => self.fields(message, object, None),
            other => self.error(format!("expected an object, not {}", describe(other))),
        }
    }

    /// The fields of an object, by number; `skip` is a name that is none.
    fn fields(
        &mut self,
        message: Message,
        object: &Map<String, Json>,
        skip: Option<&str>,
    ) -> Result<Vec<u8>, JsonError> {
        let mut found: Vec<(Field, &Json)> = Vec::with_capacity(object.len());
        for (name, value) in object
            .iter()
            .filter(|(name, _)| Some(name.as_str()) != skip)
        {
            let Some(field) = message.field_by_name(name) else {
                let path = self.path().field(name.clone());
                let reason = format!("no such field in {}", message.name());
                self.unknown.push(JsonError { path, reason });
                continue;
            };
            if !value.is_null() || takes_null(field) {
                // Given in both spellings the later counts, but lists and messages grow together.
                let grows = field.is_repeated() || field.message().is_some_and(is_plain);
                found.retain(|(known, _)| grows || *known != field);
                found.push((field, value));
            }
        }
        self.check_oneofs(&found)?;
        found.sort_by_key(|(field, _)| field.number());
        let mut out = Vec::new();
        for (field, value) in found {
            self.at(Step::Field(Cow::Borrowed(field.name())), |reader| {
                reader.field(field, value, &mut out)
            })?;
        }
        Ok(out)
    }

    fn check_oneofs(&self, found: &[(Field, &Json)]) -> Result<(), JsonError> {
        for (index, (field, _)) in found.iter().enumerate() {
            let Some(oneof) = field.oneof() else { continue };
            let other = found
                .iter()
                .take(index)
                .find(|(other, _)| other != field && other.oneof() == Some(oneof));
            if let Some((other, _)) = other {
                let (first, second) = (other.name(), field.name());
                return self.error(format!(
                    "{first} and {second} exclude each other (oneof {})",
                    oneof.name()
                ));
            }
        }
        Ok(())
    }

    fn field(&mut self, field: Field, value: &Json, out: &mut Vec<u8>) -> Result<(), JsonError> {
        if field.is_map() {
            return self.map(field, value, out);
        }
        if field.is_repeated() {
            return self.repeated(field, value, out);
        }
        if let Some(message) = field.message() {
            let bytes = self.any_message(message, value)?;
            put_bytes(out, field.number(), &bytes);
            return Ok(());
        }
        let scalar = self.scalar(field, value)?;
        if let Some(scalar) = scalar.filter(|scalar| field.has_presence() || !scalar.is_default()) {
            scalar.put_field(out, field.number());
        }
        Ok(())
    }

    /// A scalar; none if it is an enum's value that the schema does not know.
    fn scalar(&mut self, field: Field, value: &Json) -> Result<Option<Scalar>, JsonError> {
        match scalar::read(field.kind(), value) {
            Ok(scalar) => Ok(Some(scalar)),
            Err(Refusal::UnknownName(reason)) => {
                self.unknown.push(JsonError {
                    path: self.path(),
                    reason,
                });
                Ok(None)
            }
            Err(Refusal::Wrong(reason)) => self.error(reason),
        }
    }

    /// A list; what is no list counts as its only item, and null as an item with nothing set.
    fn repeated(&mut self, field: Field, value: &Json, out: &mut Vec<u8>) -> Result<(), JsonError> {
        let items = match value {
            Json::Array(items) => items.as_slice(),
            other => std::slice::from_ref(other),
        };
        let mut packed = Vec::new();
        for (index, item) in items.iter().enumerate() {
            self.at(Step::Index(index), |reader| {
                reader.item(field, item, out, &mut packed)
            })?;
        }
        if !packed.is_empty() {
            put_bytes(out, field.number(), &packed);
        }
        Ok(())
    }

    fn item(
        &mut self,
        field: Field,
        item: &Json,
        out: &mut Vec<u8>,
        packed: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        let unset = item.is_null() && !takes_null(field);
        if let Some(message) = field.message() {
            let bytes = if unset {
                Vec::new()
            } else {
                self.any_message(message, item)?
            };
            put_bytes(out, field.number(), &bytes);
            return Ok(());
        }
        let scalar = match unset {
            true => self.scalar(field, &scalar::default(field.kind()))?,
            false => self.scalar(field, item)?,
        };
        match scalar {
            Some(scalar) if field.is_packed() => scalar.put(packed),
            Some(scalar) => scalar.put_field(out, field.number()),
            None => {}
        }
        Ok(())
    }

    /// Entries by key, so that equal maps have equal bytes.
    fn map(&mut self, field: Field, value: &Json, out: &mut Vec<u8>) -> Result<(), JsonError> {
        let Json::Object(object) = value else {
            return self.error(format!("expected an object, not {}", describe(value)));
        };
        let entry = field.message();
        let parts =
            entry.and_then(|entry| Some((entry.field_by_number(1)?, entry.field_by_number(2)?)));
        let Some((key_field, value_field)) = parts else {
            return self.error("no map");
        };
        let mut entries: Vec<(&String, &Json)> = object.iter().collect();
        entries.sort_by_key(|(key, _)| *key);
        for (key, value) in entries {
            self.at(Step::Key(key.clone()), |reader| {
                let mut bytes = Vec::new();
                let key = match key_field.kind() {
                    Kind::Bool => key.parse().map_or(Json::String(key.clone()), Json::Bool),
                    _ => Json::String(key.clone()),
                };
                if let Some(key) = reader
                    .scalar(key_field, &key)?
                    .filter(|key| !key.is_default())
                {
                    key.put_field(&mut bytes, 1);
                }
                reader.map_value(value_field, value, &mut bytes)?;
                put_bytes(out, field.number(), &bytes);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn map_value(
        &mut self,
        field: Field,
        value: &Json,
        out: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        if value.is_null() && !takes_null(field) {
            return self.error("a map's value cannot be null");
        }
        match field.message() {
            Some(message) => {
                let bytes = self.any_message(message, value)?;
                put_bytes(out, 2, &bytes);
            }
            None => {
                if let Some(scalar) = self
                    .scalar(field, value)?
                    .filter(|scalar| !scalar.is_default())
                {
                    scalar.put_field(out, 2);
                }
            }
        }
        Ok(())
    }

    fn any(&mut self, value: &Json) -> Result<Vec<u8>, JsonError> {
        let Json::Object(object) = value else {
            return self.error(format!(
                "expected an object with \"@type\", not {}",
                describe(value)
            ));
        };
        if object.is_empty() {
            return Ok(Vec::new());
        }
        let Some(type_url) = object.get("@type").and_then(Json::as_str) else {
            return self.error("\"@type\" is missing");
        };
        let known = type_url
            .contains('/')
            .then(|| schema::message_by_url(type_url))
            .flatten();
        let Some(message) = known else {
            return self.error(format!("unknown type {type_url:?}"));
        };
        let own_form = message
            .well_known()
            .is_some_and(|kind| kind != WellKnown::TypedStruct);
        let bytes = if own_form {
            match object.get("value") {
                Some(value) => self.any_message(message, value)?,
                None if message.well_known() == Some(WellKnown::Empty) => Vec::new(),
                None => return self.error("\"value\" is missing"),
            }
        } else {
            self.fields(message, object, Some("@type"))?
        };
        let mut out = Vec::new();
        put_bytes(&mut out, 1, type_url.as_bytes());
        if !bytes.is_empty() {
            put_bytes(&mut out, 2, &bytes);
        }
        Ok(out)
    }

    fn structure(&mut self, value: &Json) -> Result<Vec<u8>, JsonError> {
        let Json::Object(object) = value else {
            return self.error(format!("expected an object, not {}", describe(value)));
        };
        let mut entries: Vec<(&String, &Json)> = object.iter().collect();
        entries.sort_by_key(|(key, _)| *key);
        let mut out = Vec::new();
        for (key, value) in entries {
            let mut entry = Vec::new();
            if !key.is_empty() {
                put_bytes(&mut entry, 1, key.as_bytes());
            }
            let bytes = self.nested_value(value)?;
            put_bytes(&mut entry, 2, &bytes);
            put_bytes(&mut out, 1, &entry);
        }
        Ok(out)
    }

    fn nested_value(&mut self, value: &Json) -> Result<Vec<u8>, JsonError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.error("nested too deeply");
        }
        let bytes = self.value(value);
        self.depth -= 1;
        bytes
    }

    fn value(&mut self, value: &Json) -> Result<Vec<u8>, JsonError> {
        let mut out = Vec::new();
        match value {
            Json::Null => put_varint_field(&mut out, 1, 0),
            Json::Number(number) => {
                put_tag(&mut out, 2, 1);
                out.extend_from_slice(&number.as_f64().unwrap_or_default().to_le_bytes());
            }
            Json::String(text) => put_bytes(&mut out, 3, text.as_bytes()),
            Json::Bool(flag) => put_varint_field(&mut out, 4, u64::from(*flag)),
            Json::Object(_) => put_bytes(&mut out, 5, &self.structure(value)?),
            Json::Array(_) => put_bytes(&mut out, 6, &self.list(value)?),
        }
        Ok(out)
    }

    fn list(&mut self, value: &Json) -> Result<Vec<u8>, JsonError> {
        let Json::Array(items) = value else {
            return self.error(format!("expected a list, not {}", describe(value)));
        };
        let mut out = Vec::new();
        for item in items {
            let bytes = self.nested_value(item)?;
            put_bytes(&mut out, 1, &bytes);
        }
        Ok(out)
    }

    /// A duration or a timestamp, which number their parts alike.
    fn moment(
        &self,
        value: &Json,
        what: &str,
        read: fn(&str) -> Option<(i64, i32)>,
    ) -> Result<Vec<u8>, JsonError> {
        let Some((seconds, nanos)) = value.as_str().and_then(read) else {
            return self.error(format!("expected {what}, not {}", describe(value)));
        };
        let mut out = Vec::new();
        if seconds != 0 {
            put_varint_field(&mut out, 1, seconds as u64);
        }
        if nanos != 0 {
            put_varint_field(&mut out, 2, i64::from(nanos) as u64);
        }
        Ok(out)
    }

    fn field_mask(&self, value: &Json) -> Result<Vec<u8>, JsonError> {
        let Some(text) = value.as_str() else {
            return self.error(format!("expected a field mask, not {}", describe(value)));
        };
        let mut out = Vec::new();
        for path in well_known::read_field_mask(text) {
            put_bytes(&mut out, 1, path.as_bytes());
        }
        Ok(out)
    }

    fn wrapper(&mut self, message: Message, value: &Json) -> Result<Vec<u8>, JsonError> {
        let mut out = Vec::new();
        let Some(field) = message.field_by_number(1) else {
            return Ok(out);
        };
        if let Some(scalar) = self
            .scalar(field, value)?
            .filter(|scalar| !scalar.is_default())
        {
            scalar.put_field(&mut out, 1);
        }
        Ok(out)
    }
}

/// A message whose JSON form is an object of its fields.
fn is_plain(message: Message) -> bool {
    message.well_known().is_none()
}

/// Whether JSON's null is a value of the field rather than its absence.
fn takes_null(field: Field) -> bool {
    match field.kind() {
        Kind::Message(message) => message.well_known() == Some(WellKnown::Value),
        Kind::Enum(kind) => kind.name() == "google.protobuf.NullValue",
        _ => false,
    }
}
