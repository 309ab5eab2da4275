//! The layered runtime of the bootstrap.

use std::collections::BTreeMap;

use super::Result;
use super::path::{Within, each, refuse, required};
use crate::ir::{RuntimeLayerConfig, RuntimeLayerKind};
use crate::pb::envoy::config::bootstrap::v3 as pb;
use crate::pb::google::protobuf as wkt;
use crate::pb::google::protobuf::value::Kind;
use pb::runtime_layer::LayerSpecifier;

/// The layers in order. Without any there is none, as in Envoy; with any, only
/// those listed.
pub(super) fn layers(message: Option<pb::LayeredRuntime>) -> Result<Vec<RuntimeLayerConfig>> {
    let pb::LayeredRuntime { layers } = message.unwrap_or_default();
    let layers = each("layers", layers, layer)?;
    let admin = |layer: &&RuntimeLayerConfig| layer.kind == RuntimeLayerKind::Admin;
    if layers.iter().filter(admin).count() > 1 {
        return refuse("layers", "too many admin layers specified");
    }
    for (i, layer) in layers.iter().enumerate() {
        if layers[..i].iter().any(|before| before.name == layer.name) {
            return refuse("name", format!("duplicate layer name: {}", layer.name)).at("layers", i);
        }
    }
    Ok(layers)
}

fn layer(message: pb::RuntimeLayer) -> Result<RuntimeLayerConfig> {
    let pb::RuntimeLayer {
        name,
        layer_specifier,
    } = message;
    if name.is_empty() {
        return refuse("name", "value length must be at least 1 characters");
    }
    let kind = match required("layer_specifier", layer_specifier)? {
        LayerSpecifier::StaticLayer(message) => {
            let mut values = BTreeMap::new();
            flatten(message, "", &mut values);
            RuntimeLayerKind::Static(values)
        }
        LayerSpecifier::AdminLayer(pb::runtime_layer::AdminLayer {}) => RuntimeLayerKind::Admin,
        LayerSpecifier::DiskLayer(_) => return refuse("disk_layer", "is not supported"),
        LayerSpecifier::RtdsLayer(_) => return refuse("rtds_layer", "is not supported"),
    };
    Ok(RuntimeLayerConfig {
        name: name.into(),
        kind,
    })
}

/// Nested keys are joined by dots, except where a struct is a share
/// (`numerator`, `denominator`): that is one value.
fn flatten(message: wkt::Struct, prefix: &str, into: &mut BTreeMap<Box<str>, Box<str>>) {
    for (key, value) in message.fields {
        let key = match prefix {
            "" => key,
            prefix => format!("{prefix}.{key}"),
        };
        match value.kind {
            Some(Kind::StructValue(inner)) if !is_share(&inner) => flatten(inner, &key, into),
            Some(kind) => {
                into.insert(key.into(), text(kind));
            }
            None => {}
        }
    }
}

fn is_share(message: &wkt::Struct) -> bool {
    message.fields.contains_key("numerator") || message.fields.contains_key("denominator")
}

/// A value as the admin page prints it: a struct as its JSON.
fn text(kind: Kind) -> Box<str> {
    match kind {
        Kind::StringValue(text) => text.into(),
        Kind::BoolValue(flag) => flag.to_string().into(),
        Kind::NumberValue(number) => number.to_string().into(),
        Kind::StructValue(message) => {
            serde_json::Value::Object(super::structure::json_object(message))
                .to_string()
                .into()
        }
        Kind::NullValue(_) | Kind::ListValue(_) => "".into(),
    }
}
