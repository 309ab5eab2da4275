//! Where a mesh uses what: every field path of the captured configurations, with its verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::Value as Json;
use xds_api::json;
use xds_api::verdict::{self, Found};

use crate::error::Error;
use crate::matrix::describe;
use crate::sources::workspace_dir;

/// The dumps: what istiod showed that it sends, and what a stock Envoy showed that it took.
const DUMPS: [&str; 5] = [
    "client",
    "server",
    "gateway",
    "stock-client",
    "stock-server",
];
/// The bootstrap that pilot-agent wrote.
const BOOTSTRAP: &str = "bootstrap-client";

/// Full names of the kinds of resources.
const KINDS: [&str; 5] = [
    "envoy.config.bootstrap.v3.Bootstrap",
    "envoy.config.cluster.v3.Cluster",
    "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "envoy.config.listener.v3.Listener",
    "envoy.config.route.v3.RouteConfiguration",
];

/// What stands above the sections.
const HEAD: &str = "
## As sent by Istio

Every field path in the configurations under `tests/fixtures/istio`, and in which of them it stands: what istiod sends
to a `client`, a `server` and a `gateway`, what a stock Envoy takes of it (`stock-client`, `stock-server`), and the
bootstrap that pilot-agent writes. `[]` stands for any index or key, `<Message>` for the message in an `Any`, ` = ` for
a value that has a verdict of its own. What stands inside of something ignored or rejected is not looked at.
";

/// The paths of one kind of resource, and the captures that hold each.
pub type Paths = BTreeMap<Found, BTreeSet<&'static str>>;

/// The paths of every kind of resource, by the short name of the kind.
///
/// # Errors
/// When a capture cannot be read.
pub fn census() -> Result<BTreeMap<&'static str, Paths>, Error> {
    let mut kinds = BTreeMap::new();
    for name in DUMPS {
        let mut resources = Vec::new();
        let dump = read(name)?;
        find(&dump, &mut resources);
        for (kind, value) in resources {
            take(name, kind, value, &mut kinds)?;
        }
    }
    take(BOOTSTRAP, KINDS[0], &read(BOOTSTRAP)?, &mut kinds)?;
    Ok(kinds)
}

fn read(name: &str) -> Result<Json, Error> {
    let path: PathBuf = workspace_dir()
        .join("tests/fixtures/istio")
        .join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).map_err(|source| Error::Io {
        path: path.display().to_string(),
        source,
    })?;
    serde_json::from_str(&text).map_err(|e| Error::Table(format!("{name}: {e}")))
}

/// Every object of a dump that is a resource.
fn find<'a>(value: &'a Json, found: &mut Vec<(&'static str, &'a Json)>) {
    match value {
        Json::Array(items) => items.iter().for_each(|item| find(item, found)),
        Json::Object(members) => {
            let url = members.get("@type").and_then(Json::as_str).unwrap_or("");
            match KINDS.iter().find(|kind| url.ends_with(*kind)) {
                Some(kind) => found.push((kind, value)),
                None => members.values().for_each(|member| find(member, found)),
            }
        }
        _ => {}
    }
}

/// Adds the paths of one resource.
fn take(
    capture: &'static str,
    kind: &'static str,
    value: &Json,
    kinds: &mut BTreeMap<&'static str, Paths>,
) -> Result<(), Error> {
    let unusable =
        |reason: &dyn std::fmt::Display| Error::Table(format!("{capture}: {kind}: {reason}"));
    let mut value = value.clone();
    if let Json::Object(members) = &mut value {
        members.remove("@type");
    }
    let parsed = json::from_json(kind, &value).map_err(|e| unusable(&e))?;
    let found = verdict::census(kind, &parsed.bytes).map_err(|e| unusable(&e))?;
    let paths = kinds.entry(short(kind)).or_default();
    for found in found {
        paths.entry(found).or_default().insert(capture);
    }
    Ok(())
}

/// The last part of a full name.
fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// A path whose messages in `<>` have their short names.
fn readable(path: &str) -> String {
    let mut text = String::new();
    for (at, part) in path.split('<').enumerate() {
        match part.split_once('>') {
            Some((name, rest)) if at > 0 => {
                let _ = write!(text, "<{}>{rest}", short(name));
            }
            _ => text.push_str(part),
        }
    }
    text
}

/// Writes a section for each kind.
pub(crate) fn render(kinds: &BTreeMap<&'static str, Paths>, out: &mut String) {
    out.push_str(HEAD);
    for (kind, paths) in kinds {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for found in paths.keys() {
            *counts.entry(found.verdict.word()).or_default() += 1;
        }
        let counts: Vec<String> = counts
            .iter()
            .map(|(word, n)| format!("{n} {word}"))
            .collect();
        let _ = write!(
            out,
            "\n### {kind}\n\n{} paths: {}.\n\n| path | verdict | why | in |\n|---|---|---|---|\n",
            paths.len(),
            counts.join(", ")
        );
        for (found, captures) in paths {
            let (word, reason) = describe(Some(found.verdict));
            let why = match &found.within {
                Some(outer) => format!("as `{}`", readable(outer)),
                None => reason.replace('|', "\\|"),
            };
            let captures: Vec<&str> = captures.iter().copied().collect();
            let path = readable(&found.path);
            let captures = captures.join(", ");
            let _ = writeln!(out, "| `{path}` | {word} | {why} | {captures} |");
        }
    }
}
