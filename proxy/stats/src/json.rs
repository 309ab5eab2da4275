//! The JSON form of `/stats`.

use crate::format::{json_number, json_string};
use crate::histogram::{HistogramData, QUANTILES};
use crate::query::BucketMode;
use crate::snapshot::{HistogramRow, Row, RowValue, Snapshot};
use crate::text::bucket_counts;

/// `{"stats":[...]}`: plain stats, then one object with all histograms, if there are any.
pub(crate) fn render(snapshot: &Snapshot, mode: BucketMode) -> String {
    let mut items: Vec<String> = snapshot
        .plain
        .iter()
        .chain(&snapshot.outside)
        .map(plain)
        .collect();
    let rows: Vec<_> = snapshot.histograms.iter().filter_map(histogram).collect();
    if !rows.is_empty() {
        items.push(format!("{{\"histograms\":{}}}", histograms(&rows, mode)));
    }
    format!("{{\"stats\":[{}]}}", items.join(","))
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    json_string(&mut out, text);
    out
}

fn plain(row: &Row) -> String {
    let value = match &row.value {
        RowValue::Counter(value) | RowValue::Gauge(value) => value.to_string(),
        RowValue::Text(text) => quoted(text),
        RowValue::Histogram(_) => "null".into(),
    };
    format!("{{\"name\":{},\"value\":{value}}}", quoted(&row.name))
}

fn histogram(row: &Row) -> Option<(&str, &HistogramRow)> {
    match &row.value {
        RowValue::Histogram(histogram) => Some((&row.name, histogram)),
        _ => None,
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

fn histograms(rows: &[(&str, &HistogramRow)], mode: BucketMode) -> String {
    let percentiles = list(
        QUANTILES
            .iter()
            .map(|quantile| crate::format::percentile(*quantile)),
    );
    match mode {
        BucketMode::Summary => {
            let values = list(rows.iter().map(|(name, row)| {
                format!(
                    "{{\"name\":{},\"values\":{}}}",
                    quoted(name),
                    quantiles(row)
                )
            }));
            format!("{{\"supported_quantiles\":{percentiles},\"computed_quantiles\":{values}}}")
        }
        BucketMode::Detailed => {
            let details = list(rows.iter().map(|(name, row)| detail(name, row)));
            format!("{{\"supported_percentiles\":{percentiles},\"details\":{details}}}")
        }
        BucketMode::Cumulative | BucketMode::Disjoint => {
            list(rows.iter().map(|(name, row)| buckets(name, row, mode)))
        }
    }
}

fn quantiles(row: &HistogramRow) -> String {
    let interval = row.interval.quantiles(row.unit, &QUANTILES);
    let all = row.cumulative.quantiles(row.unit, &QUANTILES);
    list(all.iter().zip(&interval).map(|(all, interval)| {
        format!(
            "{{\"cumulative\":{},\"interval\":{}}}",
            json_number(*all),
            json_number(*interval)
        )
    }))
}

fn buckets(name: &str, row: &HistogramRow, mode: BucketMode) -> String {
    let counts = bucket_counts(row, mode).into_iter();
    let items = list(counts.map(|(bound, interval, all)| {
        let bound = json_number(bound);
        format!("{{\"upper_bound\":{bound},\"interval\":{interval},\"cumulative\":{all}}}")
    }));
    format!("{{\"name\":{},\"buckets\":{items}}}", quoted(name))
}

fn detail(name: &str, row: &HistogramRow) -> String {
    format!(
        "{{\"name\":{},\"totals\":{},\"intervals\":{},\"percentiles\":{}}}",
        quoted(name),
        bins(row, &row.cumulative),
        bins(row, &row.interval),
        quantiles(row)
    )
}

fn bins(row: &HistogramRow, data: &HistogramData) -> String {
    list(data.bins(row.unit).map(|bin| {
        let (lower, width) = (json_number(bin.lower), json_number(bin.width));
        format!(
            "{{\"lower_bound\":{lower},\"width\":{width},\"count\":{}}}",
            bin.count
        )
    }))
}
