//! What workloads of an Istio mesh tell each other of themselves: the peer metadata of
//! Istio's extensions, as it is configured, sent and left to logs.
//!
//! On the wire it is a `google.protobuf.Struct` whose fields are in the order of their
//! names, so that equal workloads send equal bytes.

mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, GeneralPurposeConfig};
use bytes::{BufMut, Bytes, BytesMut};
use filter_api::LocalNode;
use outrigger_types::{FilterState, FilterStateObject, MetadataValue};

/// The header, and the field of the TCP exchange, that holds the metadata.
pub const PEER_METADATA: &str = "x-envoy-peer-metadata";
/// The header, and the field of the TCP exchange, that holds the node's id.
pub const PEER_METADATA_ID: &str = "x-envoy-peer-metadata-id";

/// What a TCP exchange begins with.
pub const MAGIC: u32 = 0x3D23_0467;

const STRUCT_URL: &str = "type.googleapis.com/google.protobuf.Struct";
const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
const QUALIFIED_APP: &str = "app.kubernetes.io/name";
const QUALIFIED_VERSION: &str = "app.kubernetes.io/version";
const OWNER_PREFIX: &str = "kubernetes://apis/apps/v1/namespaces/";
/// Kinds of workloads that are told apart.
const KINDS: [&str; 4] = ["pod", "deployment", "job", "cronjob"];

/// Padding or none, as peers send either.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Labels that are sent and kept beside those that always are.
pub type Labels = BTreeSet<Box<str>>;

/// Which end of a connection or a stream a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerSide {
    /// Who calls.
    Downstream,
    /// Who is called.
    Upstream,
}

impl PeerSide {
    /// The keys of its filter state: the message, and the object with fields.
    const fn keys(self) -> (&'static str, &'static str) {
        match self {
            Self::Downstream => ("downstream_peer", "downstream_peer_obj"),
            Self::Upstream => ("upstream_peer", "upstream_peer_obj"),
        }
    }

    /// The key of what is known of the peer.
    pub const fn key(self) -> &'static str {
        self.keys().0
    }
}

/// A workload; what is not known is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    instance: Box<str>,
    cluster: Box<str>,
    namespace: Box<str>,
    name: Box<str>,
    canonical_name: Box<str>,
    canonical_revision: Box<str>,
    app: Box<str>,
    version: Box<str>,
    kind: Option<&'static str>,
    identity: Box<str>,
    region: Box<str>,
    zone: Box<str>,
    labels: BTreeMap<Box<str>, Box<str>>,
}

/// The text of a field, empty if it is none.
fn text(value: &MetadataValue) -> Box<str> {
    match value {
        MetadataValue::String(text) => (&**text).into(),
        _ => "".into(),
    }
}

impl Workload {
    /// The workload that metadata of a node or of a peer speaks of.
    pub fn from_metadata(metadata: &MetadataValue, labels: &Labels) -> Self {
        let mut found = Self::default();
        let MetadataValue::Struct(fields) = metadata else {
            return found;
        };
        let mut owner = "".into();
        for (name, value) in fields {
            match &**name {
                "NAME" => found.instance = text(value),
                "NAMESPACE" => found.namespace = text(value),
                "OWNER" => owner = text(value),
                "WORKLOAD_NAME" => found.name = text(value),
                "CLUSTER_ID" => found.cluster = text(value),
                "IDENTITY" => found.identity = text(value),
                "REGION" => found.region = text(value),
                "AVAILABILITY_ZONE" => found.zone = text(value),
                "LABELS" => found.take_labels(value, labels),
                _ => {}
            }
        }
        found.kind = kind_of(&owner, &found.name);
        found
    }

    /// The workload that this proxy stands beside, without its place.
    pub fn of_node(node: &LocalNode, labels: &Labels) -> Self {
        Self::from_metadata(&node.metadata, labels)
    }

    /// The workload that this proxy stands beside.
    pub fn placed(node: &LocalNode, labels: &Labels) -> Self {
        let mut found = Self::of_node(node, labels);
        if found.region.is_empty() {
            found.region = (&*node.region).into();
        }
        if found.zone.is_empty() {
            found.zone = (&*node.zone).into();
        }
        found
    }

    fn take_labels(&mut self, value: &MetadataValue, wanted: &Labels) {
        let MetadataValue::Struct(labels) = value else {
            return;
        };
        for (name, value) in labels {
            match &**name {
                CANONICAL_NAME => self.canonical_name = text(value),
                CANONICAL_REVISION => self.canonical_revision = text(value),
                QUALIFIED_APP => self.app = text(value),
                "app" if self.app.is_empty() => self.app = text(value),
                QUALIFIED_VERSION => self.version = text(value),
                "version" if self.version.is_empty() => self.version = text(value),
                other if wanted.contains(other) => {
                    self.labels.insert(other.into(), text(value));
                }
                _ => {}
            }
        }
    }

    fn owner(&self) -> Option<String> {
        let Self {
            namespace, name, ..
        } = self;
        let kind = self.kind?;
        Some(format!("{OWNER_PREFIX}{namespace}/{kind}s/{name}"))
    }

    /// What is sent of it, as a struct.
    fn to_metadata(&self) -> MetadataValue {
        let mut labels = present([
            (CANONICAL_NAME, &self.canonical_name),
            (CANONICAL_REVISION, &self.canonical_revision),
            ("app", &self.app),
            ("version", &self.version),
        ]);
        labels.extend(own_labels(&self.labels));
        let mut fields = present([
            ("NAME", &self.instance),
            ("NAMESPACE", &self.namespace),
            ("WORKLOAD_NAME", &self.name),
            ("CLUSTER_ID", &self.cluster),
            ("IDENTITY", &self.identity),
            ("REGION", &self.region),
            ("AVAILABILITY_ZONE", &self.zone),
        ]);
        fields.insert("LABELS".into(), MetadataValue::Struct(labels));
        if let Some(owner) = self.owner() {
            fields.insert("OWNER".into(), MetadataValue::String(owner.into()));
        }
        MetadataValue::Struct(fields)
    }

    /// The value of the header [`PEER_METADATA`].
    pub fn to_header(&self) -> String {
        BASE64.encode(wire::structure(&self.to_metadata()))
    }

    /// The workload in a header's value. What is no base64 speaks of nobody in
    /// particular, as in Envoy; none if it is another message.
    pub fn from_header(value: &[u8], labels: &Labels) -> Option<Self> {
        let bytes = BASE64.decode(value).unwrap_or_default();
        let metadata = wire::read_structure(&bytes)?;
        Some(Self::from_metadata(&metadata, labels))
    }

    /// What is sent of it before the bytes of a TCP connection.
    pub fn to_preamble(&self, node_id: &str) -> Bytes {
        let mut fields: BTreeMap<Arc<str>, MetadataValue> =
            [(PEER_METADATA.into(), self.to_metadata())].into();
        if !node_id.is_empty() {
            let id = MetadataValue::String(node_id.into());
            fields.insert(PEER_METADATA_ID.into(), id);
        }
        let message = wire::any(STRUCT_URL, &MetadataValue::Struct(fields));
        let mut preamble = BytesMut::with_capacity(8 + message.len());
        preamble.put_u32(MAGIC);
        preamble.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
        preamble.put_slice(&message);
        preamble.freeze()
    }

    /// The workload in the message of a preamble, which is behind its two numbers.
    ///
    /// # Errors
    /// If it is no such message.
    pub fn from_preamble(message: &[u8], labels: &Labels) -> Result<Option<Self>, NoMetadata> {
        let value = wire::of_any(message).ok_or(NoMetadata)?;
        // What is no struct has no field of that name, as in Envoy.
        let fields = wire::read_structure(&value);
        let metadata = fields.as_ref().and_then(|f| f.at([PEER_METADATA]));
        Ok(metadata.map(|metadata| Self::from_metadata(metadata, labels)))
    }

    /// What logs and other filters see of it.
    pub fn to_filter_state(&self) -> PeerObjects {
        let structure = self.to_logged();
        let pairs = self.pairs();
        let any: BTreeMap<Arc<str>, MetadataValue> = [
            ("@type".into(), MetadataValue::String(STRUCT_URL.into())),
            ("value".into(), structure.clone()),
        ]
        .into();
        let plain: Vec<String> = pairs.iter().map(|(n, v)| format!("{n}={v}")).collect();
        PeerObjects {
            message: Arc::new(FilterStateObject {
                plain: String::from_utf8(wire::structure(&structure))
                    .ok()
                    .map(Into::into),
                typed: MetadataValue::Struct(any),
                fields: BTreeMap::new(),
            }),
            object: Arc::new(FilterStateObject {
                typed: structure,
                plain: Some(plain.join(",").into()),
                fields: self.fields(),
            }),
        }
    }

    fn to_logged(&self) -> MetadataValue {
        let kind: Box<str> = self.kind.unwrap_or_default().into();
        let mut fields = present([
            ("type", &kind),
            ("workload", &self.name),
            ("cluster", &self.cluster),
            ("namespace", &self.namespace),
            ("service", &self.canonical_name),
            ("revision", &self.canonical_revision),
            ("app", &self.app),
            ("version", &self.version),
            ("identity", &self.identity),
            ("region", &self.region),
            ("availability_zone", &self.zone),
        ]);
        // As in Envoy it hangs on the cluster whether the name is told.
        if !self.cluster.is_empty() {
            let name = MetadataValue::String((&*self.instance).into());
            fields.insert("name".into(), name);
        }
        if !self.labels.is_empty() {
            let labels = own_labels(&self.labels).collect();
            fields.insert("labels".into(), MetadataValue::Struct(labels));
        }
        MetadataValue::Struct(fields)
    }

    /// Names and values of what is known, in the order of the text form.
    fn pairs(&self) -> Vec<(Box<str>, &str)> {
        let kind = self.kind.unwrap_or_default();
        let known: [(&str, &str); 11] = [
            ("type", kind),
            ("workload", &self.name),
            ("name", &self.instance),
            ("cluster", &self.cluster),
            ("namespace", &self.namespace),
            ("service", &self.canonical_name),
            ("revision", &self.canonical_revision),
            ("app", &self.app),
            ("version", &self.version),
            ("region", &self.region),
            ("availability_zone", &self.zone),
        ];
        let known = known.into_iter().filter(|(_, value)| !value.is_empty());
        let known = known.map(|(name, value)| (name.into(), value));
        let labels = self.labels.iter();
        let labels = labels.map(|(name, value)| (format!("labels[]{name}").into(), &**value));
        known.chain(labels).collect()
    }

    /// What it can be asked for by name.
    fn fields(&self) -> BTreeMap<Box<str>, Box<str>> {
        let known: [(&str, &str); 11] = [
            ("type", self.kind.unwrap_or("unknown")),
            ("workload", &self.name),
            ("name", &self.instance),
            ("cluster", &self.cluster),
            ("namespace", &self.namespace),
            ("service", &self.canonical_name),
            ("revision", &self.canonical_revision),
            ("app", &self.app),
            ("version", &self.version),
            ("region", &self.region),
            ("availability_zone", &self.zone),
        ];
        known
            .map(|(name, value)| (name.into(), value.into()))
            .into()
    }
}

/// Those that are not empty.
fn present<const N: usize>(fields: [(&str, &str); N]) -> BTreeMap<Arc<str>, MetadataValue> {
    let known = fields.into_iter().filter(|(_, value)| !value.is_empty());
    let field = |(name, value): (&str, &str)| (name.into(), MetadataValue::String(value.into()));
    known.map(field).collect()
}

fn own_labels(
    labels: &BTreeMap<Box<str>, Box<str>>,
) -> impl Iterator<Item = (Arc<str>, MetadataValue)> {
    let fields = labels.iter();
    fields.map(|(name, value)| {
        let value = MetadataValue::String((&**value).into());
        ((&**name).into(), value)
    })
}

/// The kind of workload that an owner's name says: `…/deployments/<workload>`.
fn kind_of(owner: &str, workload: &str) -> Option<&'static str> {
    // Its last `s/<workload>` goes, whatever it is.
    let kept = owner
        .len()
        .checked_sub(workload.len() + 2)
        .filter(|n| *n > 0)?;
    let (_, kind) = owner.get(..kept)?.rsplit_once('/')?;
    KINDS.into_iter().find(|known| *known == kind)
}

/// What was received is no peer's metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMetadata;

/// A peer as logs and other filters see it.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerObjects {
    message: Arc<FilterStateObject>,
    object: Arc<FilterStateObject>,
}

impl PeerObjects {
    /// Leaves the peer of an HTTP stream.
    pub fn leave(&self, side: PeerSide, state: &mut FilterState) {
        let (message, object) = side.keys();
        state.set(message, self.message.clone());
        state.set(object, self.object.clone());
    }

    /// The state of a connection with that peer.
    pub fn of_connection(&self, side: PeerSide) -> FilterState {
        let mut state = FilterState::default();
        state.set(side.key(), self.message.clone());
        state
    }
}

/// The state of a connection whose peer does not tell who it is.
pub fn no_peer() -> FilterState {
    let mut state = FilterState::default();
    let object = FilterStateObject {
        typed: MetadataValue::Bool(true),
        plain: Some("true".into()),
        fields: BTreeMap::new(),
    };
    state.set("peer_not_found", object);
    state
}

#[cfg(test)]
mod tests;
