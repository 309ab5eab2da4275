//! What one side showed, as titled sections of lines: the form in which sides are compared.

use std::collections::BTreeMap;
use std::io::Read;

use super::normalise::Normaliser;
use crate::client::Answer;
use crate::exchange::{Head, Seen};
use crate::upstream::Upstream;
use crate::values::{Fields, show_bytes};

/// A titled list of lines, such as `request 1 / head`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// What the lines are.
    pub title: String,
    /// The lines.
    pub lines: Vec<String>,
}

impl Section {
    /// A section from its parts.
    #[must_use]
    pub fn new(title: impl Into<String>, lines: Vec<String>) -> Self {
        Self {
            title: title.into(),
            lines,
        }
    }
}

/// Stats that every case compares when they are not zero.
const USUAL: &[&str] = &[
    "http.ingress_http.*",
    "cluster.*.upstream_*",
    "cluster.*.retry*",
    "cluster.*.circuit_breakers.*",
    "cluster.*.lb_*",
    "cluster.*.http1.*",
    "cluster.*.http2.*",
    "cluster.*.grpc.*",
    "listener.127.0.0.1_*.downstream_cx_*",
    "listener.127.0.0.1_*.http.*",
    "tcp.ingress_tcp.*",
    "vhost.*",
    "http1.*",
    "http2.*",
];

/// Stats that say how bytes were cut and packed, not what was said.
const UNSTEADY: &[&str] = &[
    "*_bytes_buffered",
    "*_bytes_active",
    "*pending_send_bytes",
    "*_cx_length_ms",
    "*.config_reload_time_ms",
    "cluster.xds.*",
    "*_flow_control_*",
    "http.admin.*",
    "*downstream_cx_drain_close",
    "*.http2.tx_flush_timeout",
];

/// Stats that say how much it was, of which it is compared only whether there was any.
const MOVED: &[&str] = &["*_bytes_total"];

/// Whether `name` matches `pattern`, in which `*` stands for anything.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let mut last = None;
    for part in parts {
        last = Some(part);
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    match last {
        None => rest.is_empty(),
        Some(part) => name.len() >= first.len() + part.len() && name.ends_with(part),
    }
}

/// Which stats are compared.
#[derive(Debug, Clone, Default)]
pub struct StatChoice {
    /// Patterns beside the usual ones.
    pub more: Vec<String>,
    /// Patterns left out.
    pub unsteady: Vec<String>,
    /// Patterns of which it is compared only whether they are zero.
    pub moved: Vec<String>,
    /// Keep those that are zero.
    pub zeros: bool,
}

impl StatChoice {
    /// The chosen stats as lines, sorted by name.
    #[must_use]
    pub fn lines(&self, stats: &[(String, u64)], normaliser: &Normaliser) -> Vec<String> {
        let any = |patterns: &[String], name: &str| patterns.iter().any(|p| matches(p, name));
        let usual = |name: &str| {
            USUAL.iter().any(|p| matches(p, name)) && !UNSTEADY.iter().any(|p| matches(p, name))
        };
        let moved = |name: &str| MOVED.iter().any(|p| matches(p, name)) || any(&self.moved, name);
        let mut lines: Vec<String> = stats
            .iter()
            .filter(|(_, value)| self.zeros || *value > 0)
            .filter(|(name, _)| usual(name) || any(&self.more, name) || any(&self.moved, name))
            .filter(|(name, _)| !any(&self.unsteady, name))
            .map(|(name, value)| match *value > 0 && moved(name) {
                true => format!("{name}: more than 0"),
                false => format!("{name}: {value}"),
            })
            .map(|line| normaliser.text(&line))
            .collect();
        lines.sort();
        lines
    }
}

/// The fields in wire order. Pseudo headers come sorted: their order among
/// themselves means nothing (RFC 9113, 8.3), and every library has its own.
fn fields(list: &Fields, normaliser: &Normaliser) -> Vec<String> {
    let mut lines: Vec<String> = list.0.iter().map(|(n, v)| normaliser.field(n, v)).collect();
    let pseudo = lines
        .iter()
        .take_while(|line| line.starts_with(':'))
        .count();
    lines[..pseudo].sort();
    lines
}

fn head(head: &Head, normaliser: &Normaliser) -> Vec<String> {
    let line = (!head.line.is_empty()).then(|| normaliser.text(&head.line));
    line.into_iter()
        .chain(fields(&head.fields, normaliser))
        .collect()
}

fn body(bytes: &[u8], normaliser: &Normaliser) -> Vec<String> {
    normaliser
        .text(&show_bytes(bytes))
        .split("\\n")
        .map(str::to_owned)
        .collect()
}

/// What a body is before it was encoded; none if it was not, or not so that it can be read.
fn decoded(head: &Head, body: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let read = match head.fields.get("content-encoding")? {
        "gzip" => flate2::read::MultiGzDecoder::new(body).read_to_end(&mut text),
        "br" => brotli::Decompressor::new(body, 4096).read_to_end(&mut text),
        "zstd" => zstd::stream::read::Decoder::new(body)
            .and_then(|mut decoder| decoder.read_to_end(&mut text)),
        _ => return None,
    };
    read.ok().map(|_| text)
}

fn message(title: &str, seen: &Seen, normaliser: &Normaliser) -> Vec<Section> {
    let mut out = Vec::new();
    for (at, interim) in seen.interim.iter().enumerate() {
        out.push(Section::new(
            format!("{title} / interim {}", at + 1),
            head(interim, normaliser),
        ));
    }
    if let Some(last) = &seen.head {
        out.push(Section::new(
            format!("{title} / head"),
            head(last, normaliser),
        ));
    }
    if !seen.body.is_empty() {
        // Two libraries give other bytes for the same text.
        let text = seen
            .head
            .as_ref()
            .and_then(|head| decoded(head, &seen.body));
        out.push(Section::new(
            format!("{title} / body"),
            body(text.as_deref().unwrap_or(&seen.body), normaliser),
        ));
    }
    if let Some(trailers) = &seen.trailers {
        out.push(Section::new(
            format!("{title} / trailers"),
            fields(trailers, normaliser),
        ));
    }
    out
}

/// An answer as the client saw it.
#[must_use]
pub fn answer(title: &str, answer: &Answer, raw: bool, normaliser: &Normaliser) -> Vec<Section> {
    let mut out = if raw {
        let text = String::from_utf8_lossy(&answer.seen.body).into_owned();
        let line = |line: &str| match line.split_once(": ") {
            Some((name, value)) => normaliser.field(name, value),
            None => normaliser.text(&line.escape_default().to_string()),
        };
        let lines = text.split("\r\n").map(line).collect();
        vec![Section::new(format!("{title} / bytes"), lines)]
    } else {
        message(title, &answer.seen, normaliser)
    };
    out.push(Section::new(
        format!("{title} / fate"),
        vec![answer.fate.clone()],
    ));
    out
}

/// An answer in one line, for tallies.
#[must_use]
pub fn brief(answer: &Answer) -> String {
    let status = answer.seen.head.as_ref().map_or(0, Head::status);
    let body = String::from_utf8_lossy(&answer.seen.body);
    format!("{status} {}", body.chars().take(60).collect::<String>())
}

/// What an upstream saw.
#[must_use]
pub fn upstream(upstream: &Upstream, normaliser: &Normaliser, unordered: bool) -> Vec<Section> {
    let title = format!("upstream {}", upstream.name());
    let mut requests = upstream.requests();
    if unordered {
        requests.sort_by_key(|(_, seen)| format!("{:?}{:?}", seen.head, seen.ended));
    }
    let counts = format!(
        "{} connections, {} requests",
        upstream.connections(),
        requests.len()
    );
    let mut out = vec![Section::new(title.clone(), vec![counts])];
    for (at, bytes) in upstream.bytes().iter().enumerate() {
        let lines = bytes.split_inclusive(|b| *b == b'\n');
        let lines = lines.map(|line| normaliser.text(&show_bytes(line)));
        let title = format!("{title} / connection {} / bytes", at + 1);
        out.push(Section::new(title, lines.collect()));
    }
    for (at, (connection, seen)) in requests.iter().enumerate() {
        let title = format!("{title} / request {}", at + 1);
        out.extend(message(&title, seen, normaliser));
        let end = if seen.ended { "complete" } else { "incomplete" };
        let broken = seen.broken.as_deref();
        // Between requests the proxy may end a connection at any time.
        let broken = broken.filter(|how| how.starts_with("RST") || !seen.ended);
        let broken = broken.map(|how| format!(", {how}")).unwrap_or_default();
        let connection = if unordered {
            String::new()
        } else {
            format!("connection {connection}, ")
        };
        let line = format!("{connection}{end}{broken}");
        out.push(Section::new(format!("{title} / fate"), vec![line]));
    }
    out
}

/// The access log: one section a line, one line a field.
#[must_use]
pub fn log(text: &str, unordered: bool, normaliser: &Normaliser) -> Vec<Section> {
    let mut lines: Vec<String> = text.lines().map(|line| normaliser.text(line)).collect();
    if unordered {
        lines.sort();
    }
    let fields = |line: &String| line.split('\t').map(str::to_owned).collect();
    let section = |(at, line)| Section::new(format!("log {}", at + 1), fields(line));
    let mut out: Vec<Section> = lines.iter().enumerate().map(section).collect();
    out.push(Section::new("log", vec![format!("{} lines", lines.len())]));
    out
}

/// Answers counted by what they said.
#[must_use]
pub fn tally(answers: &[String]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        *counts.entry(answer.clone()).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        assert!(matches(
            "cluster.*.upstream_*",
            "cluster.a.upstream_rq_total"
        ));
        assert!(matches("*_total", "x_total"));
        assert!(matches("abc", "abc"));
        assert!(!matches("abc", "abcd"));
        assert!(!matches("a*c", "abd"));
        assert!(matches("a*", "a"));
    }
}
