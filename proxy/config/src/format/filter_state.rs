//! `%FILTER_STATE(KEY:F)%`, `%UPSTREAM_FILTER_STATE(KEY:F)%`: what filters left with the
//! stream, and with the upstream connection.

use outrigger_types::{FilterStateObject, StreamInfo};

use super::value::Value;

/// How an object is written.
#[derive(Clone, Debug)]
enum Form {
    Plain,
    Typed,
    /// By this field of its own.
    Field(Box<str>),
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
            (Some("FIELD"), Some(name)) => Form::Field(name.into()),
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

    /// The value of what was left with the stream or its connection.
    pub(super) fn read<'a>(&'a self, info: &'a StreamInfo) -> Value<'a> {
        self.of(info.filter_state_object(&self.key))
    }

    /// The value of what was left with the upstream connection.
    pub(super) fn read_upstream<'a>(&'a self, info: &'a StreamInfo) -> Value<'a> {
        let state = info.upstream.filter_state.as_ref();
        self.of(state.and_then(|state| state.get()?.get(&self.key)))
    }

    /// The object's value, if it is there and has the form.
    fn of<'a>(&'a self, object: Option<&'a FilterStateObject>) -> Value<'a> {
        let Some(object) = object else {
            return Value::Missing;
        };
        let text = match &self.form {
            Form::Typed => return Value::Metadata(&object.typed),
            Form::Plain => object.plain.as_deref(),
            Form::Field(name) => object.fields.get(name).map(|text| &**text),
        };
        text.map_or(Value::Missing, Value::text)
    }
}
