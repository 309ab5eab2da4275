//! The layout of the schema table, shared by the generator that writes it and the code that reads it.
//!
//! All numbers are little-endian. After [`MAGIC`] come seven section lengths in bytes (`u32`), then the sections:
//!
//! | section | record |
//! |---|---|
//! | messages, sorted by name | name, first field, first oneof `u32`; fields, oneofs `u16`; flags `u32` |
//! | fields, sorted by number | number, name, JSON name, target, rules, parent `u32`; kind, flags `u8`; oneof `u16` |
//! | oneofs | name, required `u32` |
//! | enums, sorted by name | name, first value, values `u32` |
//! | enum values | number `i32`; name, flags `u32` |
//! | strings | `u16` length, UTF-8 |
//! | rules | `u16` length, message `validate.FieldRules` |

/// First bytes of a table, which change with the layout.
pub const MAGIC: [u8; 8] = *b"xdstbl01";
/// Number of sections.
pub const SECTIONS: usize = 7;
/// Bytes of a message record.
pub const MESSAGE_SIZE: usize = 20;
/// Bytes of a field record.
pub const FIELD_SIZE: usize = 28;
/// Bytes of a oneof record.
pub const ONEOF_SIZE: usize = 8;
/// Bytes of an enum record.
pub const ENUM_SIZE: usize = 12;
/// Bytes of an enum value record.
pub const VALUE_SIZE: usize = 12;
/// An index or offset that leads nowhere.
pub const NONE: u32 = u32::MAX;
/// The oneof of a field that is in none.
pub const NO_ONEOF: u16 = u16::MAX;
/// The message is the entry of a map.
pub const MESSAGE_MAP_ENTRY: u8 = 1;
/// The message's validation rules are switched off.
pub const MESSAGE_RULES_DISABLED: u8 = 2;
/// The message is deprecated.
pub const MESSAGE_DEPRECATED: u8 = 4;
/// The field may occur many times.
pub const FIELD_REPEATED: u8 = 1;
/// The field is a map.
pub const FIELD_MAP: u8 = 2;
/// The field knows whether it was set although it is a scalar.
pub const FIELD_OPTIONAL: u8 = 4;
/// The field is deprecated.
pub const FIELD_DEPRECATED: u8 = 8;
/// The field holds a secret, which dumps redact.
pub const FIELD_SENSITIVE: u8 = 16;
/// Envoy refuses the field unless runtime allows it.
pub const FIELD_DISALLOWED: u8 = 32;
/// The field is packed when written.
pub const FIELD_PACKED: u8 = 64;
/// The field carries a security annotation.
pub const FIELD_SECURITY: u8 = 128;
/// The enum value is deprecated.
pub const VALUE_DEPRECATED: u32 = 1;
/// Envoy refuses the enum value unless runtime allows it.
pub const VALUE_DISALLOWED: u32 = 2;
