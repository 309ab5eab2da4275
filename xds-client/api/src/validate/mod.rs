//! The validation rules that the protos carry (`validate.rules`), enforced as Envoy enforces them.
//!
//! Envoy checks a message when it uses it: the bootstrap as a whole, and every extension's configuration, `Any` or
//! `TypedStruct`, when the extension is made. So the walk here goes into those too, but not into typed metadata, which
//! nobody makes anything of. The first violation is reported, in the order of field numbers.

use std::borrow::Cow;

use thiserror::Error;

use crate::json;
use crate::path::{FieldPath, Step};
use crate::scan::any_parts;
use crate::schema::{self, Field, Kind, Message, WellKnown};
use crate::wire::{Reader, Value, WireError};

mod number;
mod rules;

use rules::FieldRules;

/// How deeply messages may nest.
const MAX_DEPTH: usize = 100;

/// A rule that a message breaks.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{path}: {rule}")]
pub struct Violation {
    /// The field, from the message that was checked.
    pub path: FieldPath,
    /// The rule, in the words of Envoy's own check.
    pub rule: String,
}

/// Checks the message `type_name` (full name or type URL).
///
/// # Errors
/// The first rule that is broken; also when the type is unknown or the bytes are no such message.
pub fn validate(type_name: &str, bytes: &[u8]) -> Result<(), Violation> {
    let message = schema::message_by_url(type_name).ok_or_else(|| Violation {
        path: FieldPath::default(),
        rule: format!("unknown message type {type_name:?}"),
    })?;
    Walk {
        steps: Vec::new(),
        depth: 0,
    }
    .message(message, bytes)
}

struct Walk {
    steps: Vec<Step>,
    depth: usize,
}

/// Values of one field.
type Values<'s, 'a> = &'s [(Field, Value<'a>)];

impl Walk {
    fn broken<T>(&self, rule: impl ToString) -> Result<T, Violation> {
        Err(Violation {
            path: FieldPath::from_steps("", self.steps.clone()),
            rule: rule.to_string(),
        })
    }

    fn wire<T>(&self, result: Result<T, WireError>) -> Result<T, Violation> {
        result.or_else(|error| self.broken(error))
    }

    fn at(
        &mut self,
        step: Step,
        inside: impl FnOnce(&mut Self) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        self.steps.push(step);
        inside(self)?;
        self.steps.pop();
        Ok(())
    }

    fn message(&mut self, message: Message, bytes: &[u8]) -> Result<(), Violation> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.broken(WireError::Depth);
        }
        let present = self.wire(present(message, bytes))?;
        if !message.rules_disabled() {
            let mut rest: Values<'_, '_> = &present;
            for field in message.fields() {
                let count = rest.iter().take_while(|(other, _)| *other == field).count();
                let (values, after) = rest.split_at(count);
                rest = after;
                if !values.is_empty() || field.rules().is_some() {
                    self.at(Step::Field(Cow::Borrowed(field.name())), |walk| {
                        walk.field(field, values)
                    })?;
                }
            }
            self.oneofs(message, &present)?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn oneofs(&self, message: Message, present: Values<'_, '_>) -> Result<(), Violation> {
        for oneof in message.oneofs().filter(|oneof| oneof.is_required()) {
            if !present
                .iter()
                .any(|(field, _)| field.oneof() == Some(oneof))
            {
                let mut path = self.steps.clone();
                path.push(Step::Field(Cow::Borrowed(oneof.name())));
                let rule = "is required".to_owned();
                return Err(Violation {
                    path: FieldPath::from_steps("", path),
                    rule,
                });
            }
        }
        Ok(())
    }

    fn field(&mut self, field: Field, values: Values<'_, '_>) -> Result<(), Violation> {
        let rules = self.wire(FieldRules::read(field.rules().unwrap_or_default()))?;
        if field.is_map() {
            return self.map(field, &rules, values);
        }
        if field.is_repeated() {
            return self.repeated(field, &rules, values);
        }
        let value = self.wire(merged(values))?;
        match &value {
            Some(value) => self.value(field, &rules, value.as_value()),
            // A rule on a member of a oneof speaks of it only when it is the one.
            None if rules.is_required() && field.oneof().is_none() => {
                self.broken("value is required")
            }
            None if field.has_presence() => Ok(()),
            None => self.rule(rules.check(field, number::default(field.kind()))),
        }
    }

    fn rule(&self, result: Result<(), String>) -> Result<(), Violation> {
        result.or_else(|rule| self.broken(rule))
    }

    /// One value that is there: its rules, and what is inside it.
    fn value(
        &mut self,
        field: Field,
        rules: &FieldRules<'_>,
        value: Value<'_>,
    ) -> Result<(), Violation> {
        self.rule(rules.check(field, value))?;
        let Kind::Message(message) = field.kind() else {
            return Ok(());
        };
        if rules.skips() {
            return Ok(());
        }
        let bytes = self.wire(value.bytes())?;
        match message.well_known() {
            Some(WellKnown::Any) => self.any(bytes),
            Some(WellKnown::TypedStruct) => self.typed_struct(bytes),
            Some(_) => Ok(()),
            None => self.message(message, bytes),
        }
    }

    fn repeated(
        &mut self,
        field: Field,
        rules: &FieldRules<'_>,
        values: Values<'_, '_>,
    ) -> Result<(), Violation> {
        let items = self.wire(items(field, values))?;
        self.rule(rules.check_items(&items))?;
        let inner = self.wire(rules.items())?;
        for (index, item) in items.into_iter().enumerate() {
            self.at(Step::Index(index), |walk| walk.value(field, &inner, item))?;
        }
        Ok(())
    }

    fn map(
        &mut self,
        field: Field,
        rules: &FieldRules<'_>,
        values: Values<'_, '_>,
    ) -> Result<(), Violation> {
        self.rule(rules.check_pairs(values.len()))?;
        let Kind::Message(entry) = field.kind() else {
            return Ok(());
        };
        let (Some(key), Some(item)) = (entry.field_by_number(1), entry.field_by_number(2)) else {
            return Ok(());
        };
        let (key_rules, item_rules) = (self.wire(rules.keys())?, self.wire(rules.values())?);
        for (_, value) in values {
            let parts = self.wire(value.bytes().and_then(|bytes| present(entry, bytes)))?;
            let find = |wanted: Field| {
                let last = parts
                    .iter()
                    .rev()
                    .find(|(field, _)| *field == wanted)
                    .map(|(_, value)| *value);
                last.unwrap_or_else(|| number::default(wanted.kind()))
            };
            self.at(Step::Key(number::key_text(find(key))), |walk| {
                walk.rule(key_rules.check(key, find(key)))?;
                if is_inert(field) {
                    Ok(())
                } else {
                    walk.value(item, &item_rules, find(item))
                }
            })?;
        }
        Ok(())
    }

    fn any(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let (type_url, value) = self.wire(any_parts(bytes))?;
        match schema::message_by_url(type_url) {
            Some(message) if message.well_known() == Some(WellKnown::TypedStruct) => {
                self.typed_struct(value)
            }
            Some(message) if message.well_known().is_none() => self.message(message, value),
            _ => Ok(()),
        }
    }

    fn typed_struct(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let (type_url, value) = self.wire(any_parts(bytes))?;
        let Some(message) = schema::message_by_url(type_url) else {
            return Ok(());
        };
        match json::from_struct(message, value) {
            Ok(parsed) => self.message(message, &parsed.bytes),
            Err(error) => {
                let path = error
                    .path
                    .below(&FieldPath::from_steps("", self.steps.clone()));
                Err(Violation {
                    path,
                    rule: error.reason,
                })
            }
        }
    }
}

/// Whether nothing is ever made of what the field holds.
fn is_inert(field: Field) -> bool {
    field.name() == "typed_filter_metadata"
        && field.parent().name() == "envoy.config.core.v3.Metadata"
}

/// The known fields of a message, by number; of a oneof, only the one that came last.
fn present(message: Message, bytes: &[u8]) -> Result<Vec<(Field, Value<'_>)>, WireError> {
    let mut present: Vec<(Field, Value<'_>)> = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        let Some(field) = message.field_by_number(number) else {
            continue;
        };
        if let Some(oneof) = field.oneof() {
            present.retain(|(other, _)| *other == field || other.oneof() != Some(oneof));
        }
        present.push((field, value));
    }
    present.sort_by_key(|(field, _)| field.number());
    Ok(present)
}

/// A singular value, which may have come in parts.
enum Merged<'a> {
    One(Value<'a>),
    Parts(Vec<u8>),
}

impl Merged<'_> {
    fn as_value(&self) -> Value<'_> {
        match self {
            Self::One(value) => *value,
            Self::Parts(bytes) => Value::Bytes(bytes),
        }
    }
}

fn merged<'a>(values: Values<'_, 'a>) -> Result<Option<Merged<'a>>, WireError> {
    match values {
        [.., (field, _)] if values.len() > 1 && field.message().is_some() => {
            let parts: Result<Vec<&[u8]>, WireError> =
                values.iter().map(|(_, value)| value.bytes()).collect();
            Ok(Some(Merged::Parts(parts?.concat())))
        }
        values => Ok(values.last().map(|(_, value)| Merged::One(*value))),
    }
}

/// The items of a repeated field, packed or not.
fn items<'a>(field: Field, values: Values<'_, 'a>) -> Result<Vec<Value<'a>>, WireError> {
    let mut items = Vec::with_capacity(values.len());
    for (_, value) in values {
        match (field.kind(), value) {
            (Kind::String | Kind::Bytes | Kind::Message(_), value) => items.push(*value),
            (kind, Value::Bytes(run)) => number::unpack(kind, run, &mut items)?,
            (_, value) => items.push(*value),
        }
    }
    Ok(items)
}
