//! Configuration files as Envoy reads them: text to a JSON value.
//!
//! Envoy decides by the file's name (see [`Format::of_path`]). Neither of its parsers is strict, and files in the wild
//! lean on that: JSON may end a list with a comma, quote with apostrophes and leave names bare; YAML guesses what a
//! plain scalar is. What was seen on Envoy 1.40 is what is accepted here.

use serde_json::{Map, Value as Json};
use thiserror::Error;

mod json;
mod yaml;

/// How deeply a file may nest.
const MAX_DEPTH: usize = 100;

/// A syntax error.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("line {line}, column {column}: {reason}")]
pub struct TextError {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong there.
    pub reason: String,
}

/// What a configuration file is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON, leniently.
    Json,
    /// YAML.
    Yaml,
    /// The message as it is on the wire.
    Binary,
    /// Protobuf's text format, which is not supported.
    ProtoText,
}

impl Format {
    /// The format that Envoy takes a file of that name for: `.yaml` and `.yml`, `.pb`, `.pb_text`, and JSON for any
    /// other.
    pub fn of_path(path: &str) -> Self {
        let lower = path.to_ascii_lowercase();
        match lower.rsplit_once('.').map(|(_, extension)| extension) {
            Some("yaml" | "yml") => Self::Yaml,
            Some("pb") => Self::Binary,
            Some("pb_text") => Self::ProtoText,
            _ => Self::Json,
        }
    }
}

/// Reads YAML: the first document of the text.
///
/// # Errors
/// When it is no YAML, or empty.
pub fn parse_yaml(text: &str) -> Result<Json, TextError> {
    yaml::parse(text)
}

/// Reads JSON leniently.
///
/// # Errors
/// When it is no JSON even so.
pub fn parse_json(text: &str) -> Result<Json, TextError> {
    json::parse(text)
}

/// Adds a member. Of two with the same name the last one stands, but lists are joined, as Envoy does.
fn insert(object: &mut Map<String, Json>, name: String, value: Json) {
    match (object.get_mut(&name), value) {
        (Some(Json::Array(known)), Json::Array(more)) => known.extend(more),
        (Some(known), value) => *known = value,
        (None, value) => {
            object.insert(name, value);
        }
    }
}
