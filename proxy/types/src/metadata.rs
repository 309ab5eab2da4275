//! Dynamic and static metadata: filter name -> structured value.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A value of `google.protobuf.Value`, with a fixed order of keys so that what
/// is derived from it is deterministic.
#[derive(Clone, Debug, PartialEq)]
pub enum MetadataValue {
    /// null
    Null,
    /// A number.
    Number(f64),
    /// A string.
    String(Arc<str>),
    /// A boolean.
    Bool(bool),
    /// A struct.
    Struct(BTreeMap<Arc<str>, MetadataValue>),
    /// A list.
    List(Vec<MetadataValue>),
}

impl MetadataValue {
    /// The value at a path of keys below this one.
    pub fn at<'a>(&'a self, path: impl IntoIterator<Item = &'a str>) -> Option<&'a Self> {
        path.into_iter().try_fold(self, |value, key| match value {
            Self::Struct(fields) => fields.get(key),
            _ => None,
        })
    }
}

/// Metadata by namespace (the name of the filter that owns it).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    namespaces: BTreeMap<Arc<str>, MetadataValue>,
}

impl Metadata {
    /// The struct of a namespace.
    pub fn get(&self, namespace: &str) -> Option<&MetadataValue> {
        self.namespaces.get(namespace)
    }

    /// Sets the whole struct of a namespace.
    pub fn set(&mut self, namespace: impl Into<Arc<str>>, value: MetadataValue) {
        self.namespaces.insert(namespace.into(), value);
    }

    /// Every namespace in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &MetadataValue)> {
        self.namespaces.iter().map(|(n, v)| (&**n, v))
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
    }
}
