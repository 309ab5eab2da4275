//! `google.protobuf.Struct` and `Any` as bytes, fields in the order of their names.

use outrigger_types::MetadataValue;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use crate::convert::structure::structure as value_of;
use crate::pb::google::protobuf as wkt;

/// The bytes of a struct; nothing for another value.
pub(super) fn structure(value: &MetadataValue) -> Vec<u8> {
    let mut out = Vec::new();
    let MetadataValue::Struct(fields) = value else {
        return out;
    };
    for (name, value) in fields {
        let mut entry = Vec::new();
        put(&mut entry, 1, name.as_bytes());
        put(&mut entry, 2, &encoded(value));
        put(&mut out, 1, &entry);
    }
    out
}

/// The bytes of a `Value`.
fn encoded(value: &MetadataValue) -> Vec<u8> {
    let mut out = Vec::new();
    match value {
        MetadataValue::Null => {
            encode_key(1, WireType::Varint, &mut out);
            encode_varint(0, &mut out);
        }
        MetadataValue::Number(number) => {
            encode_key(2, WireType::SixtyFourBit, &mut out);
            out.extend_from_slice(&number.to_le_bytes());
        }
        MetadataValue::String(text) => put(&mut out, 3, text.as_bytes()),
        MetadataValue::Bool(flag) => {
            encode_key(4, WireType::Varint, &mut out);
            encode_varint(u64::from(*flag), &mut out);
        }
        MetadataValue::Struct(_) => put(&mut out, 5, &structure(value)),
        MetadataValue::List(values) => {
            let mut list = Vec::new();
            for value in values {
                put(&mut list, 1, &encoded(value));
            }
            put(&mut out, 6, &list);
        }
    }
    out
}

fn put(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// A struct from its bytes.
pub(super) fn read_structure(bytes: &[u8]) -> Option<MetadataValue> {
    wkt::Struct::decode(bytes).ok().map(value_of)
}

/// The bytes of an `Any` that holds a struct.
pub(super) fn any(type_url: &str, value: &MetadataValue) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, 1, type_url.as_bytes());
    put(&mut out, 2, &structure(value));
    out
}

/// What an `Any` holds.
pub(super) fn of_any(bytes: &[u8]) -> Option<Vec<u8>> {
    wkt::Any::decode(bytes).ok().map(|any| any.value)
}
