//! What a message may contain: look-ups in the static schema table.
//!
//! [`Message`], [`Field`], [`Enum`] and [`Oneof`] are indexes into read-only data: copied freely, compared by number,
//! never allocated. The table holds Envoy 1.40's configuration messages (every extension included), the xDS
//! requests and responses, the admin dumps, and Istio's own messages.

use std::fmt;

use table::Section;

pub mod layout;
mod table;

/// A message of the schema.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Message(u32);

/// A field of a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Field(u32);

/// An enum of the schema.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Enum(u32);

/// A value of an enum.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EnumValue(u32);

/// A oneof of a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Oneof(u32);

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 64-bit float.
    Double,
    /// 32-bit float.
    Float,
    /// Signed, varint.
    Int64,
    /// Unsigned, varint.
    Uint64,
    /// Signed, varint of up to 64 bits on the wire.
    Int32,
    /// Unsigned, eight bytes.
    Fixed64,
    /// Unsigned, four bytes.
    Fixed32,
    /// Varint.
    Bool,
    /// UTF-8.
    String,
    /// A nested message.
    Message(Message),
    /// Any bytes.
    Bytes,
    /// Unsigned, varint.
    Uint32,
    /// A number with names.
    Enum(Enum),
    /// Signed, four bytes.
    Sfixed32,
    /// Signed, eight bytes.
    Sfixed64,
    /// Signed, zig-zag.
    Sint32,
    /// Signed, zig-zag.
    Sint64,
}

/// Messages that JSON writes in a form of their own, or that hold other messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WellKnown {
    /// `google.protobuf.Any`.
    Any,
    /// `google.protobuf.Struct`.
    Struct,
    /// `google.protobuf.Value`.
    Value,
    /// `google.protobuf.ListValue`.
    ListValue,
    /// `google.protobuf.Duration`.
    Duration,
    /// `google.protobuf.Timestamp`.
    Timestamp,
    /// `google.protobuf.FieldMask`.
    FieldMask,
    /// `google.protobuf.Empty`.
    Empty,
    /// The wrappers `google.protobuf.*Value`.
    Wrapper,
    /// `udpa.type.v1.TypedStruct` and `xds.type.v3.TypedStruct`.
    TypedStruct,
}

/// The message of that full name, for example `envoy.config.cluster.v3.Cluster`.
pub fn message(name: &str) -> Option<Message> {
    table::find(Section::Messages, name).map(Message)
}

/// The message that a type URL names: what follows its last slash.
pub fn message_by_url(type_url: &str) -> Option<Message> {
    message(type_url.rsplit('/').next().unwrap_or_default())
}

/// The enum of that full name.
pub fn enumeration(name: &str) -> Option<Enum> {
    table::find(Section::Enums, name).map(Enum)
}

/// Every message, by name.
pub fn messages() -> impl Iterator<Item = Message> {
    (0..table::count(Section::Messages)).map(Message)
}

/// Every enum, by name.
pub fn enums() -> impl Iterator<Item = Enum> {
    (0..table::count(Section::Enums)).map(Enum)
}

impl Message {
    /// Full name, for example `envoy.config.cluster.v3.Cluster`.
    pub fn name(self) -> &'static str {
        table::text(table::number(Section::Messages, self.0, 0))
    }

    /// Fields, by number.
    pub fn fields(self) -> impl ExactSizeIterator<Item = Field> {
        let first = self.first_field();
        (first..first + self.field_count()).map(Field)
    }

    /// Oneofs, in their order in the source; those that only stand for `optional` are left out.
    pub fn oneofs(self) -> impl ExactSizeIterator<Item = Oneof> {
        let first = table::number(Section::Messages, self.0, 8);
        (first..first + u32::from(table::half(Section::Messages, self.0, 14))).map(Oneof)
    }

    /// The field of that number.
    pub fn field_by_number(self, number: u32) -> Option<Field> {
        let first = self.first_field();
        let (mut low, mut high) = (0, self.field_count());
        while low < high {
            let middle = low + (high - low) / 2;
            match Field(first + middle).number().cmp(&number) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(Field(first + middle)),
            }
        }
        None
    }

    /// The field of that name, as the proto spells it or in lowerCamelCase.
    pub fn field_by_name(self, name: &str) -> Option<Field> {
        self.fields()
            .find(|field| field.name() == name || field.json_name() == name)
    }

    /// Whether the message is the entry of a map field.
    pub fn is_map_entry(self) -> bool {
        self.flag(layout::MESSAGE_MAP_ENTRY)
    }

    /// Whether the message's own validation rules are switched off.
    pub fn rules_disabled(self) -> bool {
        self.flag(layout::MESSAGE_RULES_DISABLED)
    }

    /// Whether the message is deprecated.
    pub fn is_deprecated(self) -> bool {
        self.flag(layout::MESSAGE_DEPRECATED)
    }

    /// The special treatment the message needs, if any.
    pub fn well_known(self) -> Option<WellKnown> {
        let name = self.name();
        if matches!(name, "udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct") {
            return Some(WellKnown::TypedStruct);
        }
        match name.strip_prefix("google.protobuf.")? {
            "Any" => Some(WellKnown::Any),
            "Struct" => Some(WellKnown::Struct),
            "Value" => Some(WellKnown::Value),
            "ListValue" => Some(WellKnown::ListValue),
            "Duration" => Some(WellKnown::Duration),
            "Timestamp" => Some(WellKnown::Timestamp),
            "FieldMask" => Some(WellKnown::FieldMask),
            "Empty" => Some(WellKnown::Empty),
            other => other.ends_with("Value").then_some(WellKnown::Wrapper),
        }
    }

    fn first_field(self) -> u32 {
        table::number(Section::Messages, self.0, 4)
    }

    fn field_count(self) -> u32 {
        u32::from(table::half(Section::Messages, self.0, 12))
    }

    fn flag(self, flag: u8) -> bool {
        table::number(Section::Messages, self.0, 16) & u32::from(flag) != 0
    }
}

impl Field {
    /// Number on the wire.
    pub fn number(self) -> u32 {
        table::number(Section::Fields, self.0, 0)
    }

    /// Name in the proto source.
    pub fn name(self) -> &'static str {
        table::text(table::number(Section::Fields, self.0, 4))
    }

    /// Name in lowerCamelCase.
    pub fn json_name(self) -> &'static str {
        table::text(table::number(Section::Fields, self.0, 8))
    }

    /// The message that holds the field.
    pub fn parent(self) -> Message {
        Message(table::number(Section::Fields, self.0, 20))
    }

    /// What the field holds; for a map, its entry message.
    pub fn kind(self) -> Kind {
        let target = table::number(Section::Fields, self.0, 12);
        match table::byte(Section::Fields, self.0, 24) {
            1 => Kind::Double,
            2 => Kind::Float,
            3 => Kind::Int64,
            4 => Kind::Uint64,
            5 => Kind::Int32,
            6 => Kind::Fixed64,
            7 => Kind::Fixed32,
            8 => Kind::Bool,
            9 => Kind::String,
            11 => Kind::Message(Message(target)),
            13 => Kind::Uint32,
            14 => Kind::Enum(Enum(target)),
            15 => Kind::Sfixed32,
            16 => Kind::Sfixed64,
            17 => Kind::Sint32,
            18 => Kind::Sint64,
            _ => Kind::Bytes,
        }
    }

    /// The nested message, if the field holds messages.
    pub fn message(self) -> Option<Message> {
        match self.kind() {
            Kind::Message(message) => Some(message),
            _ => None,
        }
    }

    /// Whether the field may occur many times (maps included).
    pub fn is_repeated(self) -> bool {
        self.flag(layout::FIELD_REPEATED)
    }

    /// Whether the field is a map.
    pub fn is_map(self) -> bool {
        self.flag(layout::FIELD_MAP)
    }

    /// Whether many values are written packed.
    pub fn is_packed(self) -> bool {
        self.flag(layout::FIELD_PACKED)
    }

    /// Whether the field is deprecated.
    pub fn is_deprecated(self) -> bool {
        self.flag(layout::FIELD_DEPRECATED)
    }

    /// Whether the field holds a secret, which dumps redact.
    pub fn is_sensitive(self) -> bool {
        self.flag(layout::FIELD_SENSITIVE)
    }

    /// Whether Envoy refuses the field unless runtime allows it.
    pub fn is_disallowed_by_default(self) -> bool {
        self.flag(layout::FIELD_DISALLOWED)
    }

    /// Whether the field carries a security annotation.
    pub fn has_security_annotation(self) -> bool {
        self.flag(layout::FIELD_SECURITY)
    }

    /// Whether "unset" differs from "set to the default".
    pub fn has_presence(self) -> bool {
        !self.is_repeated()
            && (self.flag(layout::FIELD_OPTIONAL)
                || self.oneof().is_some()
                || matches!(self.kind(), Kind::Message(_)))
    }

    /// The oneof that the field belongs to.
    pub fn oneof(self) -> Option<Oneof> {
        let index = table::half(Section::Fields, self.0, 26);
        let first = table::number(Section::Messages, self.parent().0, 8);
        (index != layout::NO_ONEOF).then(|| Oneof(first + u32::from(index)))
    }

    /// The validation rules, as an encoded message `validate.FieldRules`.
    pub fn rules(self) -> Option<&'static [u8]> {
        let offset = table::number(Section::Fields, self.0, 16);
        (offset != layout::NONE).then(|| table::blob(Section::Rules, offset))
    }

    fn flag(self, flag: u8) -> bool {
        table::byte(Section::Fields, self.0, 25) & flag != 0
    }
}

impl Oneof {
    /// Name in the proto source.
    pub fn name(self) -> &'static str {
        table::text(table::number(Section::Oneofs, self.0, 0))
    }

    /// Whether one of its fields must be set.
    pub fn is_required(self) -> bool {
        table::number(Section::Oneofs, self.0, 4) != 0
    }
}

impl Enum {
    /// Full name.
    pub fn name(self) -> &'static str {
        table::text(table::number(Section::Enums, self.0, 0))
    }

    /// Values, in their order in the source.
    pub fn values(self) -> impl ExactSizeIterator<Item = EnumValue> {
        let first = table::number(Section::Enums, self.0, 4);
        (first..first + table::number(Section::Enums, self.0, 8)).map(EnumValue)
    }

    /// The first value of that number.
    pub fn value_by_number(self, number: i32) -> Option<EnumValue> {
        self.values().find(|value| value.number() == number)
    }

    /// The value of that name.
    pub fn value_by_name(self, name: &str) -> Option<EnumValue> {
        self.values().find(|value| value.name() == name)
    }
}

impl EnumValue {
    /// Name in the proto source.
    pub fn name(self) -> &'static str {
        table::text(table::number(Section::Values, self.0, 4))
    }

    /// Number on the wire.
    pub fn number(self) -> i32 {
        table::number(Section::Values, self.0, 0) as i32
    }

    /// Whether the value is deprecated.
    pub fn is_deprecated(self) -> bool {
        table::number(Section::Values, self.0, 8) & layout::VALUE_DEPRECATED != 0
    }

    /// Whether Envoy refuses the value unless runtime allows it.
    pub fn is_disallowed_by_default(self) -> bool {
        table::number(Section::Values, self.0, 8) & layout::VALUE_DISALLOWED != 0
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.parent().name(), self.name())
    }
}

impl fmt::Debug for Enum {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl fmt::Debug for EnumValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl fmt::Debug for Oneof {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
