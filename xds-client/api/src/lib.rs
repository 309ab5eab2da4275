//! Envoy's v3 API: the messages, and the boundary that can say no.
//!
//! * [`pb`]: the messages as Rust structs.
//! * [`schema`]: one static table of every message, field, enum value and validation rule of Envoy 1.40.
//! * [`scan`]: a walk over raw bytes against the schema, before anything is decoded.
//! * [`verdict`]: supported, ignored or rejected, per field; unknown fields by path.
//! * [`json`]: ProtoJSON in and out.
//! * [`text`]: configuration files, YAML and JSON, as Envoy reads them.
//! * [`validate`]: the protos' own validation rules.
//! * [`bootstrap`]: from a bootstrap file to a message.
//! * [`wire`], [`path`]: what the others stand on.

pub mod bootstrap;
pub mod json;
pub mod path;
pub mod pb;
pub mod scan;
pub mod schema;
pub mod text;
pub mod validate;
pub mod verdict;
pub mod wire;

pub use path::{FieldPath, Step};
