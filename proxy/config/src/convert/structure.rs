//! `google.protobuf.Struct` and what is made of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use outrigger_types::{Metadata, MetadataValue};

use crate::pb::envoy::config::core::v3 as core;
use crate::pb::google::protobuf as wkt;
use crate::pb::google::protobuf::value::Kind;

/// How deep a value may be nested. The decoder stops at 100 messages, of which
/// each level takes at least one.
const MAX_DEPTH: usize = 128;

/// Metadata by namespace; none for an empty one. Typed metadata is left out, it
/// has a verdict of its own.
pub fn metadata(message: Option<core::Metadata>) -> Option<Arc<Metadata>> {
    let core::Metadata {
        filter_metadata,
        typed_filter_metadata: _,
    } = message?;
    let mut metadata = Metadata::default();
    for (namespace, fields) in filter_metadata {
        metadata.set(namespace, structure(fields));
    }
    (!metadata.is_empty()).then(|| Arc::new(metadata))
}

/// A struct as a metadata value.
pub(crate) fn structure(message: wkt::Struct) -> MetadataValue {
    fields(message.fields, 0)
}

fn fields(map: HashMap<String, wkt::Value>, depth: usize) -> MetadataValue {
    let sorted: BTreeMap<Arc<str>, MetadataValue> = map
        .into_iter()
        .map(|(key, value)| (key.into(), convert(value, depth + 1)))
        .collect();
    MetadataValue::Struct(sorted)
}

fn convert(value: wkt::Value, depth: usize) -> MetadataValue {
    if depth > MAX_DEPTH {
        return MetadataValue::Null;
    }
    match value.kind {
        None | Some(Kind::NullValue(_)) => MetadataValue::Null,
        Some(Kind::NumberValue(number)) => MetadataValue::Number(number),
        Some(Kind::StringValue(text)) => MetadataValue::String(text.into()),
        Some(Kind::BoolValue(flag)) => MetadataValue::Bool(flag),
        Some(Kind::StructValue(message)) => fields(message.fields, depth),
        Some(Kind::ListValue(list)) => MetadataValue::List(
            list.values
                .into_iter()
                .map(|value| convert(value, depth + 1))
                .collect(),
        ),
    }
}

/// A struct as JSON, its keys in alphabetical order.
pub(super) fn json_object(message: wkt::Struct) -> serde_json::Map<String, serde_json::Value> {
    let sorted: BTreeMap<_, _> = message.fields.into_iter().collect();
    sorted
        .into_iter()
        .map(|(key, value)| (key, json(value)))
        .collect()
}

fn json(value: wkt::Value) -> serde_json::Value {
    use serde_json::Value;
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::NumberValue(number)) => json_number(number),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::BoolValue(flag)) => Value::Bool(flag),
        Some(Kind::StructValue(message)) => Value::Object(json_object(message)),
        Some(Kind::ListValue(list)) => Value::Array(list.values.into_iter().map(json).collect()),
    }
}

/// A number, written without a fraction if it has none.
fn json_number(number: f64) -> serde_json::Value {
    if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 {
        return (number as i64).into();
    }
    serde_json::Number::from_f64(number).map_or(serde_json::Value::Null, Into::into)
}
