//! `/runtime` and `/runtime_modify`.

use std::collections::BTreeSet;

use outrigger_types::StatusCode;
use serde_json::{Map, json};

use super::Page;
use super::pages::AdminContext;
use super::query::Query;
use crate::runtime::Values;

/// All keys, with the value in every layer and the one that holds.
pub fn page(cx: &AdminContext<'_>) -> Page {
    let layers = cx.runtime.layers();
    let mut entries = Map::new();
    let keys: BTreeSet<_> = layers
        .iter()
        .flat_map(|(_, values)| values.keys())
        .collect();
    for key in keys {
        let of = |values: &Values| values.get(key).map_or("", |v| &**v).to_owned();
        let values: Vec<String> = layers.iter().map(|(_, v)| of(v)).collect();
        let last = values.iter().rev().find(|v| !v.is_empty());
        entries.insert(
            key.to_string(),
            json!({ "final_value": last.cloned().unwrap_or_default(), "layer_values": values }),
        );
    }
    let names: Vec<&str> = layers.iter().map(|(name, _)| &**name).collect();
    Page::json(&json!({ "entries": entries, "layers": names }))
}

/// Sets values; what a form says is added to what the query says.
pub fn modify(cx: &mut AdminContext<'_>, query: &Query) -> Page {
    if query.pairs().is_empty() {
        return Page::error(
            StatusCode::BAD_REQUEST,
            "usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN\n       \
             or send the parameters as form values\nuse an empty value to remove a previously added override",
        );
    }
    if let Err(error) = cx.runtime.modify(query.pairs()) {
        return Page::error(StatusCode::SERVICE_UNAVAILABLE, error);
    }
    let snapshot = cx.runtime.snapshot();
    crate::runtime::apply_to_process(&snapshot);
    cx.access_logs.set_runtime(snapshot.clone());
    cx.snapshot.set_runtime(snapshot);
    cx.snapshot.publish();
    Page::text("OK\n")
}
