//! Filter state: what filters leave with a stream or a connection, for logs and for each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::MetadataValue;

/// An object that a filter left.
#[derive(Clone, Debug, PartialEq)]
pub struct FilterStateObject {
    /// Its message, as JSON writes it (`TYPED`).
    pub typed: MetadataValue,
    /// Its own text, if it has one (`PLAIN`).
    pub plain: Option<Box<str>>,
    /// The fields that it can be asked for by name (`FIELD`); empty for most objects.
    pub fields: BTreeMap<Box<str>, Box<str>>,
}

/// Objects by key, which is most often the name of the filter that owns it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FilterState {
    objects: BTreeMap<Arc<str>, Arc<FilterStateObject>>,
}

impl FilterState {
    /// The object of a key.
    pub fn get(&self, key: &str) -> Option<&FilterStateObject> {
        self.objects.get(key).map(|object| &**object)
    }

    /// Sets the object of a key.
    pub fn set(&mut self, key: impl Into<Arc<str>>, object: impl Into<Arc<FilterStateObject>>) {
        self.objects.insert(key.into(), object.into());
    }
}
