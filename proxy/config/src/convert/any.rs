//! Extensions: `Any`, and the `TypedStruct` that may be within.

use filter_api::ConfigError;
use prost::Message;
use xds_api::json::from_struct;
use xds_api::scan::any_parts;
use xds_api::schema::message_by_url;

use super::Result;
use crate::pb::envoy::config::core::v3 as core;
use crate::pb::google::protobuf as wkt;

/// An extension's message, still serialised.
pub(super) struct Typed {
    /// Full name of the message.
    pub(super) name: String,
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
}

const PREFIX: &str = "type.googleapis.com/";
/// Both have the type URL as field 1 and a `Struct` as field 2: the layout of
/// `Any`.
const TYPED_STRUCTS: [&str; 2] = ["udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"];

impl Typed {
    /// Reads an `Any`; a `TypedStruct`, of `udpa` or of `xds`, becomes the
    /// message that it names.
    pub(super) fn unpack(any: wkt::Any) -> Result<Self> {
        let wkt::Any { type_url, value } = any;
        let name = message_name(&type_url)?;
        if TYPED_STRUCTS.contains(&name) {
            return Self::from_typed_struct(&value);
        }
        Ok(Self {
            name: name.to_owned(),
            bytes: value,
        })
    }

    fn from_typed_struct(bytes: &[u8]) -> Result<Self> {
        let (type_url, value) =
            any_parts(bytes).map_err(|error| ConfigError::new(error.to_string()))?;
        let name = bare(type_url);
        let Some(message) = message_by_url(type_url) else {
            return Err(ConfigError::new(format!("unknown type \"{type_url}\"")));
        };
        let parsed = from_struct(message, value)
            .map_err(|error| ConfigError::field(error.path.to_string(), error.reason))?;
        Ok(Self {
            name: name.to_owned(),
            bytes: parsed.bytes,
        })
    }

    /// The name of the message in an `Any` or within its `TypedStruct`, whether or not
    /// anybody knows such a message.
    pub(super) fn name_of(any: &wkt::Any) -> Result<&str> {
        let name = message_name(&any.type_url)?;
        if !TYPED_STRUCTS.contains(&name) {
            return Ok(name);
        }
        let (type_url, _) =
            any_parts(&any.value).map_err(|error| ConfigError::new(error.to_string()))?;
        Ok(bare(type_url))
    }

    /// The canonical type URL.
    pub(super) fn type_url(&self) -> String {
        format!("{PREFIX}{}", self.name)
    }

    /// Decodes the message.
    pub(super) fn decode<M: Message + Default>(&self) -> Result<M> {
        M::decode(&*self.bytes).map_err(|error| ConfigError::new(error.to_string()))
    }

    /// The error for a type that is not supported here.
    pub(super) fn unsupported<T>(&self, what: &str) -> Result<T> {
        Err(ConfigError::new(format!(
            "{what} {} is not supported",
            self.name
        )))
    }
}

/// The name in a type URL of a `TypedStruct`, where it may stand alone.
fn bare(type_url: &str) -> &str {
    type_url.rsplit_once('/').map_or(type_url, |(_, name)| name)
}

fn message_name(type_url: &str) -> Result<&str> {
    match type_url.rsplit_once('/') {
        Some((_, name)) if !name.is_empty() => Ok(name),
        _ => Err(ConfigError::new(format!("\"{type_url}\" is no type URL"))),
    }
}

/// The message of a `TypedExtensionConfig`; its name only serves people.
pub(super) fn extension(config: core::TypedExtensionConfig) -> Result<Typed> {
    let core::TypedExtensionConfig {
        name: _,
        typed_config,
    } = config;
    Typed::unpack(typed_config.unwrap_or_default())
}
