//! Lays the compiled schema out as one flat, sorted, read-only table.
//!
//! The layout is described where it is read: `xds_api::schema::table`. Nothing in it needs relocation or parsing at
//! start, so a process that never looks at a message never pays for its pages.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use prost_reflect::prost::Message as _;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, EnumDescriptor, ExtensionDescriptor,
    FieldDescriptor, Kind, MessageDescriptor, Value,
};
use xds_api::schema::layout;

use crate::Error;
use crate::sources::api_dir;

/// Packages whose every message is in the table; what those reach follows.
const ROOT_PACKAGES: [&str; 13] = [
    "envoy.config.",
    "envoy.extensions.",
    "envoy.admin.v3",
    "envoy.service.discovery.v3",
    "envoy.service.runtime.v3",
    "envoy.data.",
    "envoy.type.",
    "envoy.tcp.",
    "udpa.type.",
    "xds.",
    "stats",
    "io.istio.",
    "istio.",
];

/// Where the table is checked in.
pub fn path() -> PathBuf {
    api_dir().join("src/schema/schema.bin")
}

/// Extensions of descriptor options that the table keeps.
struct Options {
    rules: ExtensionDescriptor,
    oneof_required: ExtensionDescriptor,
    disabled: ExtensionDescriptor,
    sensitive: ExtensionDescriptor,
    security: ExtensionDescriptor,
    disallowed: ExtensionDescriptor,
    disallowed_enum: ExtensionDescriptor,
}

impl Options {
    fn find(pool: &DescriptorPool) -> Result<Self, Error> {
        let find = |name: &str| {
            pool.get_extension_by_name(name)
                .ok_or_else(|| Error::Table(format!("no option {name}")))
        };
        Ok(Self {
            rules: find("validate.rules")?,
            oneof_required: find("validate.required")?,
            disabled: find("validate.disabled")?,
            sensitive: find("udpa.annotations.sensitive")?,
            security: find("udpa.annotations.security")?,
            disallowed: find("envoy.annotations.disallowed_by_default")?,
            disallowed_enum: find("envoy.annotations.disallowed_by_default_enum")?,
        })
    }
}

/// Whether a boolean option is set.
fn is_set(options: &DynamicMessage, extension: &ExtensionDescriptor) -> bool {
    options.has_extension(extension) && options.get_extension(extension).as_bool().unwrap_or(false)
}

/// Whether the plain option `deprecated` is set.
fn is_deprecated(options: &DynamicMessage) -> bool {
    options
        .get_field_by_name("deprecated")
        .and_then(|value| value.as_bool())
        .unwrap_or(false)
}

/// Length-prefixed byte strings, each kept once.
#[derive(Default)]
struct Blobs {
    bytes: Vec<u8>,
    known: HashMap<Vec<u8>, u32>,
}

impl Blobs {
    fn put(&mut self, text: &[u8]) -> Result<u32, Error> {
        if let Some(offset) = self.known.get(text) {
            return Ok(*offset);
        }
        let offset = to_u32(self.bytes.len())?;
        let length =
            u16::try_from(text.len()).map_err(|_| Error::Table("text too long".to_owned()))?;
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(text);
        self.known.insert(text.to_vec(), offset);
        Ok(offset)
    }
}

fn to_u32(value: usize) -> Result<u32, Error> {
    u32::try_from(value).map_err(|_| Error::Table("too large".to_owned()))
}

fn to_u16(value: usize) -> Result<u16, Error> {
    u16::try_from(value).map_err(|_| Error::Table("too large".to_owned()))
}

/// Messages and enums reachable from the root packages, by full name.
fn reachable(
    pool: &DescriptorPool,
) -> (
    BTreeMap<String, MessageDescriptor>,
    BTreeMap<String, EnumDescriptor>,
) {
    let mut messages = BTreeMap::new();
    let mut enums = BTreeMap::new();
    let mut pending: Vec<MessageDescriptor> = pool
        .all_messages()
        .filter(|message| {
            ROOT_PACKAGES
                .iter()
                .any(|root| message.package_name().starts_with(root))
        })
        .filter(|message| !message.package_name().contains("annotations"))
        .collect();
    while let Some(message) = pending.pop() {
        if messages
            .insert(message.full_name().to_owned(), message.clone())
            .is_some()
        {
            continue;
        }
        for field in message.fields() {
            match field.kind() {
                Kind::Message(next) => pending.push(next),
                Kind::Enum(next) => {
                    enums.insert(next.full_name().to_owned(), next);
                }
                _ => {}
            }
        }
    }
    (messages, enums)
}

/// Protobuf's number for the kind of a field.
fn kind_number(kind: &Kind) -> u8 {
    match kind {
        Kind::Double => 1,
        Kind::Float => 2,
        Kind::Int64 => 3,
        Kind::Uint64 => 4,
        Kind::Int32 => 5,
        Kind::Fixed64 => 6,
        Kind::Fixed32 => 7,
        Kind::Bool => 8,
        Kind::String => 9,
        Kind::Message(_) => 11,
        Kind::Bytes => 12,
        Kind::Uint32 => 13,
        Kind::Enum(_) => 14,
        Kind::Sfixed32 => 15,
        Kind::Sfixed64 => 16,
        Kind::Sint32 => 17,
        Kind::Sint64 => 18,
    }
}

/// The table under construction.
struct Builder {
    options: Options,
    message_index: HashMap<String, u32>,
    enum_index: HashMap<String, u32>,
    messages: Vec<u8>,
    fields: Vec<u8>,
    oneofs: Vec<u8>,
    enums: Vec<u8>,
    values: Vec<u8>,
    strings: Blobs,
    rules: Blobs,
}

fn count(section: &[u8], record: usize) -> Result<u32, Error> {
    to_u32(section.len() / record)
}

impl Builder {
    fn message(&mut self, index: u32, message: &MessageDescriptor) -> Result<(), Error> {
        let first_field = count(&self.fields, layout::FIELD_SIZE)?;
        let first_oneof = count(&self.oneofs, layout::ONEOF_SIZE)?;
        let mut fields: Vec<FieldDescriptor> = message.fields().collect();
        fields.sort_by_key(FieldDescriptor::number);
        let oneofs: Vec<_> = message
            .oneofs()
            .filter(|oneof| !oneof.is_synthetic())
            .collect();
        for oneof in &oneofs {
            let name = self.strings.put(oneof.name().as_bytes())?;
            let required = is_set(&oneof.options(), &self.options.oneof_required);
            self.oneofs.extend_from_slice(&name.to_le_bytes());
            self.oneofs
                .extend_from_slice(&u32::from(required).to_le_bytes());
        }
        for field in &fields {
            let oneof = field
                .containing_oneof()
                .and_then(|mine| oneofs.iter().position(|oneof| oneof.name() == mine.name()));
            self.field(index, field, oneof)?;
        }
        let options = message.options();
        let mut flags = 0;
        if message.is_map_entry() {
            flags |= layout::MESSAGE_MAP_ENTRY;
        }
        if is_set(&options, &self.options.disabled) {
            flags |= layout::MESSAGE_RULES_DISABLED;
        }
        if is_deprecated(&options) {
            flags |= layout::MESSAGE_DEPRECATED;
        }
        let name = self.strings.put(message.full_name().as_bytes())?;
        self.messages.extend_from_slice(&name.to_le_bytes());
        self.messages.extend_from_slice(&first_field.to_le_bytes());
        self.messages.extend_from_slice(&first_oneof.to_le_bytes());
        self.messages
            .extend_from_slice(&to_u16(fields.len())?.to_le_bytes());
        self.messages
            .extend_from_slice(&to_u16(oneofs.len())?.to_le_bytes());
        self.messages
            .extend_from_slice(&u32::from(flags).to_le_bytes());
        Ok(())
    }

    fn field(
        &mut self,
        parent: u32,
        field: &FieldDescriptor,
        oneof: Option<usize>,
    ) -> Result<(), Error> {
        let kind = field.kind();
        let target = match &kind {
            Kind::Message(message) => self.message_index.get(message.full_name()).copied(),
            Kind::Enum(target) => self.enum_index.get(target.full_name()).copied(),
            _ => Some(layout::NONE),
        };
        let target =
            target.ok_or_else(|| Error::Table(format!("{} leads nowhere", field.full_name())))?;
        let options = field.options();
        let rules = self.rules_of(&options)?;
        let name = self.strings.put(field.name().as_bytes())?;
        let json = self.strings.put(field.json_name().as_bytes())?;
        let oneof = oneof.map_or(Ok(layout::NO_ONEOF), to_u16)?;
        for number in [field.number(), name, json, target, rules, parent] {
            self.fields.extend_from_slice(&number.to_le_bytes());
        }
        self.fields
            .extend_from_slice(&[kind_number(&kind), self.field_flags(field, &options)]);
        self.fields.extend_from_slice(&oneof.to_le_bytes());
        Ok(())
    }

    fn field_flags(&self, field: &FieldDescriptor, options: &DynamicMessage) -> u8 {
        let optional = field.field_descriptor_proto().proto3_optional() || {
            field.parent_message().parent_file().syntax() == prost_reflect::Syntax::Proto2
                && field.cardinality() == Cardinality::Optional
        };
        [
            (field.is_list() || field.is_map(), layout::FIELD_REPEATED),
            (field.is_map(), layout::FIELD_MAP),
            (optional, layout::FIELD_OPTIONAL),
            (is_deprecated(options), layout::FIELD_DEPRECATED),
            (
                is_set(options, &self.options.sensitive),
                layout::FIELD_SENSITIVE,
            ),
            (
                is_set(options, &self.options.disallowed),
                layout::FIELD_DISALLOWED,
            ),
            (field.is_packed(), layout::FIELD_PACKED),
            (
                options.has_extension(&self.options.security),
                layout::FIELD_SECURITY,
            ),
        ]
        .into_iter()
        .filter(|(set, _)| *set)
        .fold(0, |flags, (_, flag)| flags | flag)
    }

    /// Where the field's validation rules lie, as the message `validate.FieldRules`.
    fn rules_of(&mut self, options: &DynamicMessage) -> Result<u32, Error> {
        if !options.has_extension(&self.options.rules) {
            return Ok(layout::NONE);
        }
        match options.get_extension(&self.options.rules).as_ref() {
            Value::Message(rules) => self.rules.put(&rules.encode_to_vec()),
            _ => Err(Error::Table("validate.rules is no message".to_owned())),
        }
    }

    fn enumeration(&mut self, descriptor: &EnumDescriptor) -> Result<(), Error> {
        let first = count(&self.values, layout::VALUE_SIZE)?;
        let mut total = 0;
        for value in descriptor.values() {
            let options = value.options();
            let mut flags = 0u32;
            if is_deprecated(&options) {
                flags |= layout::VALUE_DEPRECATED;
            }
            if is_set(&options, &self.options.disallowed_enum) {
                flags |= layout::VALUE_DISALLOWED;
            }
            let name = self.strings.put(value.name().as_bytes())?;
            self.values.extend_from_slice(&value.number().to_le_bytes());
            self.values.extend_from_slice(&name.to_le_bytes());
            self.values.extend_from_slice(&flags.to_le_bytes());
            total += 1;
        }
        let name = self.strings.put(descriptor.full_name().as_bytes())?;
        for number in [name, first, total] {
            self.enums.extend_from_slice(&number.to_le_bytes());
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<u8>, Error> {
        let sections = [
            self.messages,
            self.fields,
            self.oneofs,
            self.enums,
            self.values,
            self.strings.bytes,
            self.rules.bytes,
        ];
        let mut bytes = layout::MAGIC.to_vec();
        for section in &sections {
            bytes.extend_from_slice(&to_u32(section.len())?.to_le_bytes());
        }
        for section in sections {
            bytes.extend_from_slice(&section);
        }
        Ok(bytes)
    }
}

/// Numbers names in their order.
fn numbered<T>(by_name: &BTreeMap<String, T>) -> HashMap<String, u32> {
    by_name.keys().cloned().zip(0..).collect()
}

/// The whole table.
///
/// # Errors
/// When an annotation is missing from the sources or a count does not fit.
pub fn build(pool: &DescriptorPool) -> Result<Vec<u8>, Error> {
    let (messages, enums) = reachable(pool);
    let mut builder = Builder {
        options: Options::find(pool)?,
        message_index: numbered(&messages),
        enum_index: numbered(&enums),
        messages: Vec::new(),
        fields: Vec::new(),
        oneofs: Vec::new(),
        enums: Vec::new(),
        values: Vec::new(),
        strings: Blobs::default(),
        rules: Blobs::default(),
    };
    for (message, index) in messages.values().zip(0..) {
        builder.message(index, message)?;
    }
    for descriptor in enums.values() {
        builder.enumeration(descriptor)?;
    }
    builder.finish()
}
