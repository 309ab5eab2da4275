//! prost-reflect, which has descriptors and the whole of ProtoJSON, as the oracle of our table-driven conversions.

use std::path::Path;
use std::sync::OnceLock;

use proptest::prelude::*;
use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::Value as Json;
use xds_api::schema::{self, Field, Kind, Message, WellKnown};
use xds_api::{json, scan, wire};
use xds_api_generator::sources;

/// Messages that between them hold nearly everything.
const TYPES: [&str; 6] = [
    "envoy.config.bootstrap.v3.Bootstrap",
    "envoy.config.listener.v3.Listener",
    "envoy.config.route.v3.RouteConfiguration",
    "envoy.config.cluster.v3.Cluster",
    "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
];

fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| sources::compile().expect("the sources compile").pool)
}

fn decode(type_name: &str, bytes: &[u8]) -> DynamicMessage {
    let descriptor = pool().get_message_by_name(type_name).expect(type_name);
    DynamicMessage::decode(descriptor, bytes).expect("it decodes")
}

/// Numbers in one spelling.
fn normal(value: &Json) -> Json {
    match value {
        Json::Object(object) => {
            let mut members: Vec<(String, Json)> = object
                .iter()
                .map(|(name, value)| (name.clone(), normal(value)))
                .collect();
            members.sort_by(|one, two| one.0.cmp(&two.0));
            Json::Object(members.into_iter().collect())
        }
        Json::Array(items) => Json::Array(items.iter().map(normal).collect()),
        Json::Number(number) => number
            .as_f64()
            .and_then(serde_json::Number::from_f64)
            .map_or(value.clone(), Json::Number),
        other => other.clone(),
    }
}

/// The oracle's JSON, as Envoy spells it.
fn oracle_json(message: &DynamicMessage) -> Json {
    let options = SerializeOptions::new().use_proto_field_name(true);
    message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .expect("it serializes")
}

/// Finds the first place where two values differ.
fn same(path: &str, ours: &Json, oracle: &Json) {
    match (ours, oracle) {
        (Json::Object(left), Json::Object(right)) => {
            assert!(
                left.keys().eq(right.keys()),
                "{path}: {:?} {:?}",
                left.keys(),
                right.keys()
            );
            left.iter()
                .for_each(|(name, value)| same(&format!("{path}/{name}"), value, &right[name]));
        }
        (Json::Array(left), Json::Array(right)) if left.len() == right.len() => {
            left.iter()
                .zip(right)
                .for_each(|(left, right)| same(&format!("{path}[]"), left, right));
        }
        _ => assert_eq!(ours, oracle, "{path}"),
    }
}

#[test]
fn agrees_with_the_oracle_on_what_istiod_sends() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/fixtures/istio");
    for name in [
        "client",
        "server",
        "gateway",
        "stock-client",
        "stock-server",
    ] {
        let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).expect(name);
        let value: Json = serde_json::from_str(&text).expect(name);
        let type_name = "envoy.admin.v3.ConfigDump";
        let descriptor = pool().get_message_by_name(type_name).expect(type_name);
        let oracle = DynamicMessage::deserialize(descriptor, value.clone()).expect(name);
        let ours = json::from_json(type_name, &value).expect(name);
        // As JSON, for the bytes inside an `Any` may hold maps in another order.
        let decoded = decode(type_name, &ours.bytes);
        same(
            name,
            &normal(&oracle_json(&decoded)),
            &normal(&oracle_json(&oracle)),
        );
        let back = json::to_json(type_name, &oracle.encode_to_vec()).expect(name);
        same(name, &normal(&back), &normal(&oracle_json(&oracle)));
    }
}

#[test]
fn the_table_holds_what_the_descriptors_hold() {
    for message in schema::messages() {
        let descriptor = pool()
            .get_message_by_name(message.name())
            .expect("the oracle knows the message");
        assert_eq!(
            message.fields().len(),
            descriptor.fields().len(),
            "{message:?}"
        );
        for field in message.fields() {
            let oracle = descriptor
                .get_field(field.number())
                .expect("the oracle knows the field");
            assert_eq!(field.name(), oracle.name());
            assert_eq!(field.json_name(), oracle.json_name());
            assert_eq!(
                field.is_repeated(),
                oracle.is_list() || oracle.is_map(),
                "{field:?}"
            );
            assert_eq!(field.is_map(), oracle.is_map(), "{field:?}");
            let presence = oracle.supports_presence() && !oracle.is_list() && !oracle.is_map();
            assert_eq!(field.has_presence(), presence, "{field:?}");
            assert_eq!(message.field_by_number(field.number()), Some(field));
            assert_eq!(message.field_by_name(field.name()), Some(field));
        }
    }
}

fn is_any(message: Message) -> bool {
    message.well_known() == Some(WellKnown::Any)
}

/// A plain generator of numbers: the property tests shrink its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)) % below.max(1)
    }

    fn text(&mut self) -> String {
        let letters = ["a", "B", "7", "é", "\"", "\\", "\n", " ", "/"];
        (0..self.roll(5))
            .map(|_| letters[self.roll(letters.len() as u64) as usize])
            .collect()
    }

    fn scalar(&mut self, kind: Kind, out: &mut Vec<u8>, number: u32) {
        let wild = [
            0,
            1,
            127,
            128,
            u64::from(u32::MAX),
            i64::MAX as u64,
            u64::MAX,
        ];
        let any = wild[self.roll(wild.len() as u64) as usize];
        match kind {
            Kind::Double => {
                wire::put_tag(out, number, 1);
                out.extend_from_slice(&(self.roll(1 << 20) as f64 / 8.0 - 100.0).to_le_bytes());
            }
            Kind::Float => {
                wire::put_tag(out, number, 5);
                out.extend_from_slice(&(self.roll(1 << 10) as f32 / 3.0 - 100.0).to_le_bytes());
            }
            Kind::Fixed64 | Kind::Sfixed64 => {
                wire::put_tag(out, number, 1);
                out.extend_from_slice(&any.to_le_bytes());
            }
            Kind::Fixed32 | Kind::Sfixed32 => {
                wire::put_tag(out, number, 5);
                out.extend_from_slice(&(any as u32).to_le_bytes());
            }
            Kind::String | Kind::Bytes => wire::put_bytes(out, number, self.text().as_bytes()),
            Kind::Bool => wire::put_varint_field(out, number, self.roll(2)),
            Kind::Int32 => wire::put_varint_field(out, number, any as i32 as i64 as u64),
            Kind::Uint32 | Kind::Sint32 => {
                wire::put_varint_field(out, number, u64::from(any as u32))
            }
            Kind::Enum(kind) => {
                let index = self.roll(kind.values().len() as u64) as usize;
                let value = kind.values().nth(index).expect("a value").number();
                wire::put_varint_field(out, number, i64::from(value) as u64);
            }
            Kind::Int64 | Kind::Uint64 | Kind::Sint64 => wire::put_varint_field(out, number, any),
            Kind::Message(_) => {}
        }
    }

    fn field(&mut self, field: Field, depth: u32, out: &mut Vec<u8>) {
        match field.kind() {
            // The oracle has no JSON for an `Any` of no type.
            Kind::Message(message) if is_any(message) => {}
            Kind::Message(message) => {
                let bytes = self.message(message, depth + 1);
                wire::put_bytes(out, field.number(), &bytes);
            }
            kind => self.scalar(kind, out, field.number()),
        }
    }

    /// A message of that type that has a JSON form.
    fn message(&mut self, message: Message, depth: u32) -> Vec<u8> {
        let mut out = Vec::new();
        match message.well_known() {
            Some(WellKnown::TypedStruct) => return out,
            Some(WellKnown::Duration | WellKnown::Timestamp) => {
                wire::put_varint_field(&mut out, 1, self.roll(1 << 32));
                wire::put_varint_field(&mut out, 2, self.roll(1_000_000_000));
                return out;
            }
            Some(WellKnown::Value) => {
                wire::put_bytes(&mut out, 3, self.text().as_bytes());
                return out;
            }
            Some(WellKnown::FieldMask) => {
                wire::put_bytes(&mut out, 1, b"some_name.other");
                return out;
            }
            _ => {}
        }
        let likely = if depth < 3 { 3 } else { 12 };
        let mut oneofs = Vec::new();
        for field in message.fields() {
            let wanted = message.is_map_entry() || (depth < 7 && self.roll(likely) == 0);
            if !wanted || field.oneof().is_some_and(|oneof| oneofs.contains(&oneof)) {
                continue;
            }
            oneofs.extend(field.oneof());
            let holds_any = |message: Message| {
                message.is_map_entry()
                    && message
                        .fields()
                        .any(|part| part.message().is_some_and(is_any))
            };
            if field.message().is_some_and(holds_any) {
                continue;
            }
            let times = if field.is_repeated() && !field.is_map() {
                1 + self.roll(2)
            } else {
                1
            };
            (0..times).for_each(|_| self.field(field, depth, &mut out));
        }
        out
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn wire_to_json_and_back_keeps_the_message(seed: u64, which in 0..TYPES.len()) {
        let type_name = TYPES[which];
        let bytes = Dice(seed).message(schema::message(type_name).expect(type_name), 0);
        let value = json::to_json(type_name, &bytes).expect("to JSON");
        let back = json::from_json(type_name, &value).expect("from JSON");
        prop_assert_eq!(&back.unknown, &vec![]);
        let oracle = normal(&oracle_json(&decode(type_name, &bytes)));
        prop_assert_eq!(normal(&value), oracle.clone());
        prop_assert_eq!(normal(&oracle_json(&decode(type_name, &back.bytes))), oracle);
    }

    #[test]
    fn what_decodes_scans_and_what_does_not_is_refused(seed: u64, cut in 0..400usize, flip: u8) {
        let type_name = TYPES[(seed % 6) as usize];
        let message = schema::message(type_name).expect(type_name);
        let mut bytes = Dice(seed).message(message, 0);
        if let Some(byte) = bytes.get_mut(cut) {
            *byte ^= flip;
        }
        let descriptor = pool().get_message_by_name(type_name).expect(type_name);
        let decodes = DynamicMessage::decode(descriptor, bytes.as_slice()).is_ok();
        let scans = scan::scan(message, &bytes, &mut Everything).is_ok();
        // The scan is the stricter one: it refuses what other decoders take for an unknown field.
        prop_assert!(decodes || !scans);
    }
}

struct Everything;

impl scan::Visitor for Everything {
    fn field(&mut self, _: &scan::Trail<'_>, _: Field, _: wire::Value<'_>) -> scan::Descend {
        scan::Descend::Into
    }
    fn unknown_field(&mut self, _: &scan::Trail<'_>, _: Message, _: u32, _: u8) {}
    fn unknown_name(&mut self, _: &scan::Trail<'_>, _: Message, _: &xds_api::FieldPath) {}
    fn any(&mut self, _: &scan::Trail<'_>, _: Message) -> scan::Descend {
        scan::Descend::Into
    }
    fn unknown_any(&mut self, _: &scan::Trail<'_>, _: &str) {}
}
