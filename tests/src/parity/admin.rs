//! Requests to the admin address, and what of the answer is compared.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;
use serde::Deserialize;
use serde_json::{Value, json};

use super::normalise::Normaliser;
use super::observe::{Section, matches};
use crate::proxy::{self, AdminAnswer};

/// A request to the admin address.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Method, GET when unset.
    #[serde(default)]
    pub method: Option<String>,
    /// Path.
    pub path: String,
    /// A form to send.
    #[serde(default)]
    pub form: Option<String>,
    /// What is compared beside the status.
    #[serde(default)]
    pub compare: Compare,
    /// Lines that are left out on both sides, with `*`, and why.
    #[serde(default)]
    pub without: BTreeMap<String, String>,
}

/// What of an answer is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compare {
    /// Nothing but the status.
    #[default]
    Status,
    /// The content type and the whole text.
    Text,
    /// The content type and the lines, sorted.
    Lines,
    /// The content type and the first line.
    First,
    /// The content type and the JSON, whatever the order of its members.
    Json,
    /// The content type and the JSON with each value replaced by its kind.
    Shape,
    /// Of lines `name: value` the names, sorted.
    Names,
    /// Of a Prometheus exposition types, names and labels, sorted.
    Exposition,
    /// Of `/help` the pages and their parameters; what Envoy has not is left out.
    Pages,
}

impl Admin {
    /// Asks, and says what is compared.
    pub async fn ask(&self, port: u16, title: String, normaliser: &Normaliser) -> Section {
        let method = self.method.as_deref().unwrap_or("GET");
        let lines = match proxy::ask(port, method, &self.path, self.form.as_deref()).await {
            Ok(answer) => self.lines(&answer, normaliser),
            Err(error) => vec![error.to_string()],
        };
        Section::new(title, lines)
    }

    fn lines(&self, answer: &AdminAnswer, normaliser: &Normaliser) -> Vec<String> {
        let mut lines = vec![answer.status.to_string()];
        if self.compare == Compare::Status {
            return lines;
        }
        // What has no body has no type here.
        if !answer.body.trim().is_empty() {
            lines.push(answer.content_type.clone());
        }
        let kept = |line: &String| !self.without.keys().any(|pattern| matches(pattern, line));
        let body = normaliser.text(&without_dates(&answer.body));
        lines.extend(self.compare.lines(&body).into_iter().filter(kept));
        lines
    }
}

impl Compare {
    fn lines(self, body: &str) -> Vec<String> {
        let all = || body.lines().map(str::to_owned);
        match self {
            Self::Status => Vec::new(),
            Self::Text => all().collect(),
            Self::Lines => sorted(all()),
            Self::First => all().take(1).collect(),
            Self::Json => json_lines(body, &|value| value),
            Self::Shape => json_lines(body, &shape),
            Self::Names => sorted(all().map(|line| match line.split_once(": ") {
                Some((name, _)) => name.to_owned(),
                None => line,
            })),
            Self::Exposition => sorted(all().filter_map(|line| series(&line))),
            Self::Pages => pages(body),
        }
    }
}

static MADE_UP: LazyLock<Option<[(Regex, &str); 2]>> = LazyLock::new(|| {
    let date = Regex::new(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z").ok()?;
    let dir = Regex::new(r#""/[^"]*/(envoy|ours)/"#).ok()?;
    Some([(date, "{time}"), (dir, "\"{dir}/")])
});

/// A text without dates, and without the folder of one side.
fn without_dates(text: &str) -> String {
    let mut text = text.to_owned();
    for (made_up, mark) in MADE_UP.iter().flatten() {
        text = made_up.replace_all(&text, *mark).into_owned();
    }
    text
}

fn sorted(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    lines.dedup();
    lines
}

fn json_lines(body: &str, map: &dyn Fn(Value) -> Value) -> Vec<String> {
    match serde_json::from_str::<Value>(body) {
        Ok(value) => {
            let value = in_order(map(without_extensions(value)));
            let text = serde_json::to_string_pretty(&value).unwrap_or_default();
            text.lines().map(str::to_owned).collect()
        }
        Err(error) => vec![format!("no JSON: {error}")],
    }
}

fn in_order(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members: BTreeMap<_, _> =
                members.into_iter().map(|(k, v)| (k, in_order(v))).collect();
            Value::Object(members.into_iter().collect())
        }
        Value::Array(list) => list.into_iter().map(in_order).collect(),
        other => other,
    }
}

/// The node without the extensions that are linked in: they are those of each program.
fn without_extensions(mut value: Value) -> Value {
    if let Value::Object(members) = &mut value {
        if members.contains_key("user_agent_name") {
            members.remove("extensions");
        }
        for member in members.values_mut() {
            *member = without_extensions(member.take());
        }
    } else if let Value::Array(list) = &mut value {
        for item in list {
            *item = without_extensions(item.take());
        }
    }
    value
}

/// Values by their kinds; of a list only the first.
fn shape(value: Value) -> Value {
    match value {
        Value::Object(members) => members.into_iter().map(|(k, v)| (k, shape(v))).collect(),
        Value::Array(list) => list.into_iter().take(1).map(shape).collect(),
        Value::String(_) => json!("text"),
        Value::Number(_) => json!("number"),
        Value::Bool(_) => json!("bool"),
        Value::Null => Value::Null,
    }
}

/// A line of an exposition without its value; of a histogram's buckets only that there are
/// some.
fn series(line: &str) -> Option<String> {
    if line.starts_with("# TYPE ") {
        return Some(line.to_owned());
    }
    let (name, _) = line.rsplit_once(' ').filter(|_| !line.starts_with('#'))?;
    let bucket = name
        .find("le=\"")
        .filter(|_| name.contains("_bucket{"))
        .map(|at| format!("{}le}}", &name[..at]));
    Some(bucket.unwrap_or_else(|| name.to_owned()))
}

/// Pages with the names of their parameters, each line on its own.
fn pages(body: &str) -> Vec<String> {
    let mut page = String::new();
    let mut lines = Vec::new();
    for line in body.lines().skip(1) {
        let name = line.trim().split_once(": ").map_or("", |(name, _)| name);
        if line.starts_with("      ") {
            lines.push(format!("{page} ? {name}"));
        } else {
            page = name.to_owned();
            lines.push(page.clone());
        }
    }
    lines.sort();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exposition_is_its_names_types_and_labels() {
        let body = "# TYPE a counter\na{x=\"1\"} 3\n# HELP a b\nh_bucket{le=\"1\"} 0\nh_bucket{le=\"+Inf\"} 2\n";
        assert_eq!(
            Compare::Exposition.lines(body),
            ["# TYPE a counter", "a{x=\"1\"}", "h_bucket{le}"]
        );
    }

    #[test]
    fn a_page_of_help_has_its_parameters() {
        let body = "admin commands are:\n  /a (POST): does a\n      p: a parameter\n  /b: shows\n";
        assert_eq!(
            Compare::Pages.lines(body),
            ["/a (POST)", "/a (POST) ? p", "/b"]
        );
    }

    #[test]
    fn json_has_no_order_and_dates_do_not_count() {
        let a = Compare::Json.lines(&without_dates(
            r#"{"a": "2026-01-02T03:04:05.678Z", "b": 1}"#,
        ));
        let b = Compare::Json.lines(&without_dates(r#"{"b": 1, "a": "2027-01-02T03:04:05Z"}"#));
        assert_eq!(a, b);
        assert_eq!(Compare::Shape.lines("[1, 2]"), ["[", "  \"number\"", "]"]);
    }
}
