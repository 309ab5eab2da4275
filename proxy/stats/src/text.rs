//! The text form of `/stats`.

use crate::format::{general, percentile, shortest};
use crate::histogram::{HistogramData, QUANTILES};
use crate::query::BucketMode;
use crate::snapshot::{HistogramRow, Row, RowValue, Snapshot};

/// One line a stat; of a histogram several, if it is detailed.
pub(crate) fn render(snapshot: &Snapshot, mode: BucketMode) -> String {
    let mut out = String::new();
    let plain = snapshot.plain.iter().chain(&snapshot.outside);
    for row in plain.chain(&snapshot.histograms) {
        line(&mut out, row, mode);
        out.push('\n');
    }
    out
}

fn line(out: &mut String, row: &Row, mode: BucketMode) {
    out.push_str(&row.name);
    out.push(':');
    match &row.value {
        RowValue::Counter(value) | RowValue::Gauge(value) => *out += &format!(" {value}"),
        RowValue::Text(text) => *out += &format!(" \"{}\"", escape_html(text)),
        RowValue::Histogram(histogram) if histogram.cumulative.is_empty() => {
            out.push_str(" No recorded values");
        }
        RowValue::Histogram(histogram) => *out += &histogram_text(histogram, mode),
    }
}

fn histogram_text(row: &HistogramRow, mode: BucketMode) -> String {
    match mode {
        BucketMode::Summary => format!(" {}", summary(row)),
        BucketMode::Cumulative | BucketMode::Disjoint => format!(" {}", buckets(row, mode)),
        BucketMode::Detailed => format!(
            "\n  totals={}\n  intervals={}\n  summary={}",
            bins(row, &row.cumulative),
            bins(row, &row.interval),
            summary(row)
        ),
    }
}

/// Every percentile of the interval and of all samples.
fn summary(row: &HistogramRow) -> String {
    let interval = row.interval.quantiles(row.unit, &QUANTILES);
    let all = row.cumulative.quantiles(row.unit, &QUANTILES);
    let both =
        QUANTILES
            .iter()
            .zip(interval.iter().zip(&all))
            .map(|(quantile, (interval, all))| {
                format!(
                    "P{}({},{})",
                    percentile(*quantile),
                    shortest(*interval),
                    shortest(*all)
                )
            });
    both.collect::<Vec<_>>().join(" ")
}

/// The counts of a row's buckets: of the interval and of all samples.
pub(crate) fn bucket_counts(row: &HistogramRow, mode: BucketMode) -> Vec<(f64, u64, u64)> {
    let interval = row.interval.cumulative(row.unit, &row.bounds);
    let all = row.cumulative.cumulative(row.unit, &row.bounds);
    let mut below = (0, 0);
    let count = |(bound, (interval, all)): (&f64, (u64, u64))| {
        let taken = if mode == BucketMode::Disjoint {
            below
        } else {
            (0, 0)
        };
        below = (interval, all);
        (*bound, interval - taken.0, all - taken.1)
    };
    row.bounds
        .iter()
        .zip(interval.into_iter().zip(all))
        .map(count)
        .collect()
}

fn buckets(row: &HistogramRow, mode: BucketMode) -> String {
    let counts = bucket_counts(row, mode).into_iter();
    let texts =
        counts.map(|(bound, interval, all)| format!("B{}({interval},{all})", general(bound, 6)));
    texts.collect::<Vec<_>>().join(" ")
}

fn bins(row: &HistogramRow, data: &HistogramData) -> String {
    let texts = data.bins(row.unit).map(|bin| {
        format!(
            "{},{}:{}",
            general(bin.lower, 15),
            general(bin.width, 15),
            bin.count
        )
    });
    texts.collect::<Vec<_>>().join(", ")
}

fn escape_html(text: &str) -> String {
    let text = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    text.replace('"', "&quot;").replace('\'', "&#39;")
}

/// A page that shows `text`.
pub(crate) fn html(text: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html>\n<head><title>Stats</title></head>\n<body><pre>\n{}</pre></body>\n</html>\n",
        escape_html(text)
    )
}
