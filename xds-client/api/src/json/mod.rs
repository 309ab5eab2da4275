//! ProtoJSON, in and out, driven by the schema: no message is decoded into a struct.
//!
//! Names are read in both spellings and written as the proto spells them, as Envoy's `/config_dump` does. See
//! <https://protobuf.dev/programming-guides/json/> for the rules.

use serde_json::Value as Json;
use thiserror::Error;

use crate::path::FieldPath;
use crate::schema::{self, Message};
use crate::wire::WireError;

mod read;
mod scalar;
mod well_known;
mod write;

/// How deeply JSON may nest.
const MAX_DEPTH: usize = 100;

/// JSON that is no message of its type, or bytes that are none.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{path}: {reason}")]
pub struct JsonError {
    /// Where, from the message that was converted.
    pub path: FieldPath,
    /// Why.
    pub reason: String,
}

/// A message made from JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The message on the wire, fields by number.
    pub bytes: Vec<u8>,
    /// Names of fields and enum values that the schema does not know. They are not in `bytes`.
    pub unknown: Vec<JsonError>,
}

/// The message of that full name or type URL.
fn known(type_name: &str) -> Result<Message, JsonError> {
    schema::message_by_url(type_name).ok_or_else(|| JsonError {
        path: FieldPath::default(),
        reason: format!("unknown message type {type_name:?}"),
    })
}

/// Converts JSON to the message `type_name` (full name or type URL).
///
/// # Errors
/// When a value does not fit its field. Unknown names are no error: they are returned.
pub fn from_json(type_name: &str, value: &Json) -> Result<Parsed, JsonError> {
    read::message(known(type_name)?, value)
}

/// Converts the message `type_name` (full name or type URL) to JSON. Unknown fields are left out.
///
/// # Errors
/// When the bytes are no such message.
pub fn to_json(type_name: &str, bytes: &[u8]) -> Result<Json, JsonError> {
    write::message(known(type_name)?, bytes)
}

/// Converts the `google.protobuf.Struct` of a `TypedStruct` to the message that it stands for.
///
/// # Errors
/// When the bytes are no `Struct`, or a value does not fit its field.
pub fn from_struct(message: Message, value: &[u8]) -> Result<Parsed, JsonError> {
    let value = write::structure(value).map_err(|error: WireError| JsonError {
        path: FieldPath::default().field("value"),
        reason: error.to_string(),
    })?;
    read::message(message, &value)
}
