//! The format of a case.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::admin::Admin;
use super::template::Config;
use super::validate::Verdict;
use super::xds;
use crate::client::{self, Request};
use crate::dns;
use crate::upstream;
use crate::values::Span;

/// A case, as its file says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows, in a sentence.
    pub about: String,
    /// The bootstrap.
    #[serde(default)]
    pub config: Config,
    /// Upstreams by name; a cluster of the same name stands in front of each.
    #[serde(default)]
    pub upstreams: BTreeMap<String, upstream::Script>,
    /// What the name server on `{{upstream.dns}}` says of names.
    #[serde(default)]
    pub dns: dns::Script,
    /// What the client does, in order.
    #[serde(default)]
    pub requests: Vec<Entry>,
    /// Stats to compare beside the usual ones: names with `*`.
    #[serde(default)]
    pub stats: Vec<String>,
    /// Stats left out of the comparison, with `*`: those that depend on timing alone.
    #[serde(default)]
    pub unsteady_stats: Vec<String>,
    /// Stats of which it is compared only whether they are zero, with `*`: those that
    /// say how bytes were cut and packed.
    #[serde(default)]
    pub moved_stats: Vec<String>,
    /// Compare also stats that are zero on both sides, that is, the names.
    #[serde(default)]
    pub stat_names: bool,
    /// Compare only how often each answer came, within this share of the total.
    #[serde(default)]
    pub tally: Option<f64>,
    /// The order in which requests reach upstreams and the log is left to chance.
    #[serde(default)]
    pub unordered: bool,
    /// Worker threads, one when unset.
    #[serde(default)]
    pub concurrency: Option<u32>,
    /// More command-line arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Where Outrigger differs on purpose: a section of the report (with `*`) and the reason.
    #[serde(default)]
    pub differs: BTreeMap<String, String>,
    /// What Outrigger does not have yet, and so does not agree on: the case must fail,
    /// until it is taken out.
    #[serde(default)]
    pub not_yet: Option<String>,
    /// Bootstraps of which only the verdict of `--mode validate` is compared.
    #[serde(default)]
    pub validate: Vec<Verdict>,
}

/// One thing that the client does.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A request over HTTP/1: fields, or the text of it.
    H1(#[serde(deserialize_with = "client::request_or_text")] Box<Request>),
    /// A request over HTTP/2.
    H2(Box<Request>),
    /// Bytes (`body`, then `steps`), answered by bytes.
    Raw(Box<Request>),
    /// Entries at the same time.
    Parallel(Vec<Entry>),
    /// Entries several times over.
    Repeat {
        /// How often.
        times: usize,
        /// What.
        of: Vec<Entry>,
    },
    /// A pause.
    Wait(Span),
    /// Stats as they are now, names with `*`.
    Snapshot(Vec<String>),
    /// A request to the admin address.
    Admin(Admin),
    /// Stops an upstream: its port closes, its connections end.
    Stop(String),
    /// A step of the control plane.
    Xds(xds::Step),
    /// Makes a stopped or refusing upstream listen.
    Start(String),
}

/// Reads a case.
///
/// # Errors
/// A text that names the file and what is wrong with it.
pub fn load(file: &Path) -> Result<Case, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let value: Value =
        serde_yaml_ng::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))?;
    serde_json::from_value(value).map_err(|e| format!("{}: {e}", file.display()))
}

/// Every case file below `root`, with its name `family/name`, sorted.
///
/// # Errors
/// When a folder cannot be read.
pub fn find(root: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let list = |dir: &Path| -> Result<Vec<PathBuf>, String> {
        let entries = std::fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        Ok(entries.flatten().map(|e| e.path()).collect())
    };
    let mut cases = Vec::new();
    for family in list(root)? {
        if !family.is_dir() || family.ends_with("base") {
            continue;
        }
        for file in list(&family)? {
            if file.extension().is_some_and(|e| e == "yaml") {
                let stem = |p: &Path| {
                    p.file_stem()
                        .unwrap_or_default()
                        .to_string_lossy()
                        .into_owned()
                };
                cases.push((format!("{}/{}", stem(&family), stem(&file)), file));
            }
        }
    }
    cases.sort();
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_loads_and_says_what_it_is_about() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("parity");
        let cases = find(&root).expect("a folder of cases");
        assert!(cases.len() > 60);
        for (name, file) in cases {
            let case = load(&file).unwrap_or_else(|e| panic!("{e}"));
            assert!(case.about.ends_with('.'), "{name}: a sentence");
            assert!(
                !case.requests.is_empty() || !case.validate.is_empty(),
                "{name} does nothing"
            );
        }
    }

    #[test]
    fn a_misspelt_field_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("case.yaml");
        std::fs::write(&file, "about: x.\nrequest: []\n").expect("written");
        let error = load(&file).expect_err("a misspelt field");
        assert!(
            error.contains("case.yaml") && error.contains("request"),
            "{error}"
        );
    }
}
