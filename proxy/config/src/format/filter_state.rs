//! `%FILTER_STATE(KEY:F)%`: what filters left with the stream.

use outrigger_types::StreamInfo;

use super::value::Value;

/// How an object is written.
#[derive(Clone, Copy, Debug)]
enum Form {
    Plain,
    Typed,
    /// By a field of its own, which no object here has.
    Field,
}

/// A key, and the form of its object.
#[derive(Debug)]
pub(super) struct Key {
    key: Box<str>,
    form: Form,
}

impl Key {
    /// Reads `KEY`, `KEY:PLAIN`, `KEY:TYPED` or `KEY:FIELD:NAME`.
    pub(super) fn parse(params: &str) -> Result<Self, String> {
        let mut parts = params.split(':');
        let key = parts.next().unwrap_or_default();
        if key.is_empty() {
            return Err("Invalid filter state configuration, key cannot be empty.".into());
        }
        let form = match (parts.next(), parts.next()) {
            (None | Some("TYPED"), None) => Form::Typed,
            (Some("PLAIN"), None) => Form::Plain,
            (Some("FIELD"), Some(_)) => Form::Field,
            (Some("FIELD" | "PLAIN" | "TYPED"), _) => {
                return Err("Invalid filter state serialize type, FIELD should be used with the field name.".into());
            }
            _ => {
                return Err(
                    "Invalid filter state serialize type, only support PLAIN/TYPED/FIELD.".into(),
                );
            }
        };
        Ok(Self {
            key: key.into(),
            form,
        })
    }

    /// The object's value, if it is there and has the form.
    pub(super) fn read<'a>(&'a self, info: &'a StreamInfo) -> Value<'a> {
        let state = info.filter_state.as_deref();
        let Some(object) = state.and_then(|state| state.get(&self.key)) else {
            return Value::Missing;
        };
        match self.form {
            Form::Typed => Value::Metadata(&object.typed),
            Form::Plain => object.plain.as_deref().map_or(Value::Missing, Value::text),
            Form::Field => Value::Missing,
        }
    }
}
