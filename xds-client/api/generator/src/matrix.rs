//! The support matrix, written from the verdict tables.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use xds_api::schema;
use xds_api::verdict::{Entry, Verdict, entries};

use crate::captured;
use crate::error::Error;
use crate::sources::workspace_dir;

/// What stands above the tables.
const HEAD: &str = "\
# Support matrix

Every field of Envoy's v3 API has one of three verdicts:

* **supported**: it takes effect as in Envoy;
* **ignored**: it has no effect on traffic here, and is listed by `--mode validate`;
* **rejected**: it would change matching, security or routing, so the resource that holds it is refused, by name.

A field that is not listed is rejected, and so is a message inside an `Any` that is not listed. `*` stands for the
fields of a message that have no line of their own. Fields that the schema of Envoy 1.40 does not know are reported, and
refused inside the messages listed under *strict*.

What stands in the tables below is said of each message; the sections *As sent by Istio* list where in its resources a
mesh really uses what, and what becomes of it there.

Generated from `xds-client/api/verdicts` and `tests/fixtures/istio` by `cargo run -p xds-api-generator -- matrix`.
";

/// Where the matrix is checked in.
pub fn path() -> PathBuf {
    workspace_dir().join("docs/support-matrix.md")
}

/// The README, which holds the summary.
pub fn readme_path() -> PathBuf {
    workspace_dir().join("README.md")
}

/// Between these lines of the README stands the summary.
const MARKS: [&str; 2] = [
    "<!-- support: generated, see docs/support-matrix.md -->\n",
    "<!-- support: end -->\n",
];

/// The README with its summary brought up to date.
///
/// # Errors
/// When it cannot be read or has no marks.
pub fn readme() -> Result<String, Error> {
    let path = readme_path();
    let text = std::fs::read_to_string(&path).map_err(|source| Error::Io {
        path: path.display().to_string(),
        source,
    })?;
    let part = text
        .split_once(MARKS[0])
        .and_then(|(before, rest)| Some((before, rest.split_once(MARKS[1])?.1)));
    let (before, after) =
        part.ok_or_else(|| Error::Table(format!("{} has no marks", path.display())))?;
    Ok(format!(
        "{before}{}{}{}{after}",
        MARKS[0],
        summary(),
        MARKS[1]
    ))
}

/// How many fields of each topic have which verdict.
fn summary() -> String {
    let mut out =
        "| fields of | supported | without effect on traffic | refused by name |\n|---|---:|---:|---:|\n"
            .to_owned();
    let mut topics: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for entry in entries() {
        let column = match entry.verdict {
            None => continue,
            Some(Verdict::Supported) => 0,
            Some(Verdict::Ignored(_)) => 1,
            Some(Verdict::Rejected(_)) => 2,
        };
        topics.entry(entry.topic).or_default()[column] += 1;
    }
    for (topic, [supported, ignored, rejected]) in topics {
        let _ = writeln!(
            out,
            "| {} | {supported} | {ignored} | {rejected} |",
            topic.replace('_', " ")
        );
    }
    out
}

/// The part of a key that is a message (or an enum), and the part that is a field (or a value).
fn split(key: &str) -> (&str, &str) {
    match key.strip_prefix("type:") {
        Some(message) => (message, "(as an extension)"),
        None => key.rsplit_once('.').unwrap_or((key, "")),
    }
}

/// A verdict as a word, and its reason.
pub(crate) fn describe(verdict: Option<Verdict>) -> (&'static str, &'static str) {
    match verdict {
        None => ("strict", ""),
        Some(Verdict::Supported) => ("supported", ""),
        Some(Verdict::Ignored(reason)) => ("ignored", reason),
        Some(Verdict::Rejected(reason)) => ("rejected", reason),
    }
}

/// How many lines have each verdict.
fn counts(lines: &[Entry]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for line in lines {
        *counts.entry(describe(line.verdict).0).or_default() += 1;
    }
    let parts: Vec<String> = counts
        .iter()
        .map(|(word, count)| format!("{count} {word}"))
        .collect();
    parts.join(", ")
}

/// The matrix as Markdown.
///
/// # Errors
/// When the captured configurations cannot be read.
pub fn render() -> Result<String, Error> {
    let mut topics: BTreeMap<&str, Vec<Entry>> = BTreeMap::new();
    for entry in entries() {
        topics.entry(entry.topic).or_default().push(entry);
    }
    let mut out = HEAD.to_owned();
    for (topic, lines) in topics {
        let _ = write!(
            out,
            "\n## {}\n\n{}.\n",
            topic.replace('_', " "),
            counts(&lines)
        );
        let mut message = "";
        for line in lines {
            let (mine, field) = split(line.key);
            if mine != message {
                message = mine;
                let _ = write!(
                    out,
                    "\n### `{message}`\n\n| field | verdict | why |\n|---|---|---|\n"
                );
            }
            let (word, reason) = describe(line.verdict);
            let _ = writeln!(
                out,
                "| `{field}` | {word} | {} |",
                reason.replace('|', "\\|")
            );
        }
    }
    captured::render(&captured::census()?, &mut out);
    Ok(out)
}

/// Keys of the verdict tables that mean nothing in the schema.
pub fn unknown_keys() -> Vec<&'static str> {
    entries()
        .into_iter()
        .map(|entry| entry.key)
        .filter(|key| !is_known(key))
        .collect()
}

fn is_known(key: &str) -> bool {
    if let Some(message) = key.strip_prefix("type:") {
        return schema::message(message).is_some();
    }
    if schema::message(key).is_some() {
        return true;
    }
    let key = key.strip_suffix("=true").unwrap_or(key);
    let (owner, part) = key.rsplit_once('.').unwrap_or_default();
    if part == "*" {
        return schema::messages().any(|message| message.name().starts_with(owner));
    }
    schema::message(owner).is_some_and(|message| message.field_by_name(part).is_some())
        || schema::enumeration(owner).is_some_and(|kind| kind.value_by_name(part).is_some())
}
