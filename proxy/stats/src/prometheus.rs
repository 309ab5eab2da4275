//! Prometheus's text form, 0.0.4, as Envoy writes it.

use std::sync::Arc;

use crate::format::{escape_label, general};
use crate::histogram::QUANTILES;
use crate::query::PrometheusQuery;
use crate::snapshot::{HistogramRow, Row, RowValue, Snapshot};

/// Digits of a number in this form.
const DIGITS: usize = 32;

/// All stats: counters, gauges, text readouts if asked for, then histograms, and what is
/// kept elsewhere; in each the families sorted by name, and in a family the stats.
pub(crate) fn render(snapshot: &Snapshot, query: &PrometheusQuery) -> String {
    let mut out = String::new();
    let plain = &snapshot.plain;
    let of = |kind: fn(&RowValue) -> bool| plain.iter().filter(move |row| kind(&row.value));
    families(
        &mut out,
        of(|value| matches!(value, RowValue::Counter(_))),
        "counter",
        sample,
    );
    families(
        &mut out,
        of(|value| matches!(value, RowValue::Gauge(_))),
        "gauge",
        sample,
    );
    if query.text_readouts {
        families(
            &mut out,
            of(|value| matches!(value, RowValue::Text(_))),
            "gauge",
            sample,
        );
    }
    let (kind, write): (_, fn(&mut String, &str, &str, &RowValue)) = match query.summary {
        true => ("summary", summary),
        false => ("histogram", histogram),
    };
    families(&mut out, snapshot.histograms.iter(), kind, write);
    let outside = &snapshot.outside;
    let of = |kind: fn(&RowValue) -> bool| outside.iter().filter(move |row| kind(&row.value));
    let counters = of(|value| matches!(value, RowValue::Counter(_)));
    families(&mut out, counters, "counter", sample);
    let gauges = of(|value| matches!(value, RowValue::Gauge(_)));
    families(&mut out, gauges, "gauge", sample);
    out
}

/// Writes rows by family; `write` gets the family's name, the labels and the value.
fn families<'a>(
    out: &mut String,
    rows: impl Iterator<Item = &'a Row>,
    kind: &str,
    write: fn(&mut String, &str, &str, &RowValue),
) {
    let tagged = rows.filter_map(|row| Some((row.extracted.as_ref()?, row)));
    let mut rows: Vec<_> = tagged.collect();
    // Rows of one family are already in the order of their full names.
    rows.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    let mut last: Option<(&str, String)> = None;
    for (extracted, row) in rows {
        let name = match last {
            Some((raw, name)) if raw == &*extracted.name => name,
            _ => {
                let name = name_of(&extracted.name);
                *out += &format!("# TYPE {name} {kind}\n");
                name
            }
        };
        write(out, &name, &extracted.labels, &row.value);
        last = Some((&extracted.name, name));
    }
}

/// `envoy_` and the name, what is no letter, digit or underscore as an underscore.
fn name_of(name: &str) -> String {
    format!("envoy_{}", identifier(name))
}

fn identifier(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect()
}

/// `tag="value"` pairs, in the order of the tags.
pub(crate) fn labels_of(tags: &[(Arc<str>, String)]) -> String {
    let mut out = String::new();
    for (name, value) in tags {
        if !out.is_empty() {
            out.push(',');
        }
        out += &identifier(name);
        out.push_str("=\"");
        escape_label(&mut out, value);
        out.push('"');
    }
    out
}

fn sample(out: &mut String, name: &str, labels: &str, value: &RowValue) {
    *out += &match value {
        RowValue::Counter(value) | RowValue::Gauge(value) => {
            format!("{name}{{{labels}}} {value}\n")
        }
        RowValue::Text(text) => {
            let mut labels = labels.to_owned();
            push_label(&mut labels, "text_value", text);
            format!("{name}{{{labels}}} 0\n")
        }
        RowValue::Histogram(_) => String::new(),
    };
}

/// Appends a label to labels that may be none yet.
pub(crate) fn push_label(labels: &mut String, name: &str, value: &str) {
    if !labels.is_empty() {
        labels.push(',');
    }
    *labels += &format!("{name}=\"");
    escape_label(labels, value);
    labels.push('"');
}

fn histogram(out: &mut String, name: &str, labels: &str, value: &RowValue) {
    let RowValue::Histogram(row) = value else {
        return;
    };
    buckets(out, name, labels, row, |value| general(value, DIGITS));
}

/// The lines of a histogram: one a bucket, then the sum and the count.
/// `number` writes the bounds and the sum.
pub(crate) fn buckets(
    out: &mut String,
    name: &str,
    labels: &str,
    row: &HistogramRow,
    number: fn(f64) -> String,
) {
    let comma = if labels.is_empty() { "" } else { "," };
    let counts = row.cumulative.cumulative(row.unit, &row.bounds);
    for (bound, count) in row.bounds.iter().zip(counts) {
        let bound = number(*bound);
        *out += &format!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}\n");
    }
    let count = row.cumulative.count();
    let sum = number(row.cumulative.sum(row.unit));
    *out += &format!("{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}\n");
    *out += &format!("{name}_sum{{{labels}}} {sum}\n");
    *out += &format!("{name}_count{{{labels}}} {count}\n");
}

/// A summary of the last interval.
fn summary(out: &mut String, name: &str, labels: &str, value: &RowValue) {
    let RowValue::Histogram(row) = value else {
        return;
    };
    let comma = if labels.is_empty() { "" } else { "," };
    let values = row.interval.quantiles(row.unit, &QUANTILES);
    for (quantile, value) in QUANTILES.iter().zip(values) {
        let value = general(value, DIGITS);
        *out += &format!("{name}{{{labels}{comma}quantile=\"{quantile}\"}} {value}\n");
    }
    let sum = general(row.interval.sum(row.unit), DIGITS);
    *out += &format!("{name}_sum{{{labels}}} {sum}\n");
    *out += &format!("{name}_count{{{labels}}} {}\n", row.interval.count());
}
