//! All stats at one moment, merged over their cells.

use std::sync::Arc;

use crate::histogram::{HistogramData, Unit};
use crate::prometheus::labels_of;
use crate::query::TypeFilter;
use crate::tags::Extracted;

/// One stat.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its full name.
    pub name: String,
    /// Whether it was ever written.
    pub used: bool,
    /// Its value.
    pub value: RowValue,
    pub(crate) extracted: Option<Extracted>,
}

/// The value of a stat.
#[derive(Clone, Debug)]
pub enum RowValue {
    /// A counter's.
    Counter(u64),
    /// A gauge's.
    Gauge(u64),
    /// A text readout's.
    Text(Arc<str>),
    /// A histogram's.
    Histogram(Box<HistogramRow>),
}

/// A histogram as of the last flush.
#[derive(Clone, Debug)]
pub struct HistogramRow {
    /// What its samples are.
    pub unit: Unit,
    /// All samples.
    pub cumulative: HistogramData,
    /// Those of the last interval between flushes.
    pub interval: HistogramData,
    /// Upper bounds of the buckets it is shown with.
    pub bounds: Arc<[f64]>,
}

/// All stats, sorted by name.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Counters, gauges and text readouts.
    pub plain: Vec<Row>,
    /// Counters and gauges that are kept elsewhere, in the order in which they came.
    pub outside: Vec<Row>,
    /// Histograms.
    pub histograms: Vec<Row>,
}

impl Snapshot {
    pub(crate) fn push(&mut self, row: Row) {
        match row.value {
            RowValue::Histogram(_) => self.histograms.push(row),
            _ => self.plain.push(row),
        }
    }

    /// Keeps the kinds wanted, and what was ever written if only that is wanted.
    pub(crate) fn retain(&mut self, types: TypeFilter, used_only: bool) {
        let wanted = |row: &Row| {
            let kind = match row.value {
                RowValue::Counter(_) => TypeFilter::Counters,
                RowValue::Gauge(_) => TypeFilter::Gauges,
                RowValue::Text(_) => TypeFilter::TextReadouts,
                RowValue::Histogram(_) => TypeFilter::Histograms,
            };
            (types == TypeFilter::All || types == kind) && (row.used || !used_only)
        };
        self.plain.retain(wanted);
        self.outside.retain(wanted);
        self.histograms.retain(wanted);
    }

    /// Sorts by name, and joins the rows of one name, which two scopes may make.
    pub(crate) fn finish(&mut self) {
        for rows in [&mut self.plain, &mut self.histograms] {
            rows.sort_by(|a, b| a.name.cmp(&b.name));
            rows.dedup_by(|later, first| later.name == first.name && first.join(later));
        }
    }
}

impl Row {
    /// A stat that is kept elsewhere: its whole name, its name without tags, and its tags.
    pub fn outside(
        name: String,
        bare: &str,
        tags: &[(Arc<str>, String)],
        value: RowValue,
        used: bool,
    ) -> Self {
        Self {
            extracted: Some(Extracted {
                name: bare.into(),
                labels: labels_of(tags).into(),
            }),
            name,
            used,
            value,
        }
    }

    /// Adds another row of the same name, if it is of the same kind.
    fn join(&mut self, other: &Self) -> bool {
        match (&mut self.value, &other.value) {
            (RowValue::Counter(a), RowValue::Counter(b))
            | (RowValue::Gauge(a), RowValue::Gauge(b)) => *a = a.wrapping_add(*b),
            (RowValue::Histogram(a), RowValue::Histogram(b)) => {
                a.cumulative.merge(&b.cumulative);
                a.interval.merge(&b.interval);
            }
            (RowValue::Text(_), RowValue::Text(_)) => {}
            _ => return false,
        }
        self.used |= other.used;
        true
    }
}
