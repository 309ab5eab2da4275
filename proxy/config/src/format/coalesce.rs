//! `%COALESCE({"operators": [...]})%`: the first operator with a value.

use serde_json::Value as Json;

use super::operator::{Call, Operator};
use super::value::Value;
use super::{FormatContext, FormatOptions};

/// Operators in the order in which they are tried.
#[derive(Debug)]
pub(super) struct Coalesce(Vec<Operator>);

impl Coalesce {
    /// Reads the parameter.
    pub(super) fn parse(params: &str, options: &FormatOptions) -> Result<Self, String> {
        let config: Json = serde_json::from_str(params)
            .map_err(|error| format!("COALESCE: failed to parse JSON configuration: {error}"))?;
        let operators = config
            .get("operators")
            .and_then(Json::as_array)
            .ok_or("COALESCE: JSON configuration must contain 'operators' array")?;
        if operators.is_empty() {
            return Err("COALESCE: 'operators' array must not be empty".into());
        }
        operators
            .iter()
            .enumerate()
            .map(|(index, entry)| {
                operator(entry, options).map_err(|error| {
                    format!("COALESCE: failed to parse operator at index {index}: {error}")
                })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The first value that is not empty.
    pub(super) fn read<'a>(&'a self, context: &FormatContext<'a>) -> Value<'a> {
        self.0
            .iter()
            .map(|operator| operator.evaluate(context).truncate(operator.max_length()))
            .find(|value| !value.is_empty())
            .unwrap_or(Value::Missing)
    }
}

fn operator(entry: &Json, options: &FormatOptions) -> Result<Operator, String> {
    let call = match entry {
        Json::String(name) => Call {
            name,
            params: "",
            max_length: None,
        },
        Json::Object(fields) => Call {
            name: fields
                .get("command")
                .and_then(Json::as_str)
                .ok_or("operator object must have 'command' field")?,
            params: match fields.get("param") {
                None => "",
                Some(param) => param.as_str().ok_or("'param' field must be a string")?,
            },
            max_length: match fields.get("max_length") {
                None => None,
                Some(length) => Some(positive(length)?),
            },
        },
        _ => {
            return Err(
                "operator entry must be either a string (command name) or an object \
                        with 'command' field"
                    .into(),
            );
        }
    };
    Operator::build(&call, options).map_err(|error| {
        match error.strip_prefix("Not supported field in StreamInfo: ") {
            Some(name) => format!("unknown command: '{name}'"),
            None => error,
        }
    })
}

fn positive(length: &Json) -> Result<usize, String> {
    length
        .as_u64()
        .filter(|length| *length > 0)
        .and_then(|length| usize::try_from(length).ok())
        .ok_or_else(|| "'max_length' must be a positive integer".into())
}
