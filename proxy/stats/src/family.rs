//! Families of our own: one name, many label sets.

use std::sync::Arc;

use ahash::{AHashMap, AHashSet};
use parking_lot::Mutex;

use crate::entry::{CounterEntry, GaugeEntry, HistogramEntry};
use crate::format::{escape_label, shortest};
use crate::handle::{Counter, Gauge, Histogram};
use crate::histogram::Unit;
use crate::prometheus::{buckets, push_label};
use crate::snapshot::HistogramRow;

/// Value of the labels of what is over the cap.
pub const OVERFLOW: &str = "_overflow";

/// How many times the cap all label sets of a family may be, whatever their labels.
const SETS_PER_CAPPED: usize = 32;

/// What a family counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FamilyKind {
    /// Counters; the name ends with `_total`.
    Counter,
    /// Gauges.
    Gauge,
    /// Histograms, with the unit they are recorded in and their upper bounds.
    Histogram(Unit, &'static [f64]),
}

/// What a family is.
#[derive(Clone, Debug, PartialEq)]
pub struct FamilyOptions {
    /// Its name, a Prometheus identifier.
    pub name: &'static str,
    /// One sentence about it.
    pub help: &'static str,
    /// What it counts.
    pub kind: FamilyKind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// Those of the labels whose values a peer can make up, such as `method`. The cap is
    /// of their combinations; beyond it they read `_overflow`.
    pub capped: &'static [&'static str],
    /// Most combinations of the capped labels; without it the store's.
    pub max_label_sets: Option<usize>,
}

/// A family. A clone is the same family; while one lives, so do its stats.
#[derive(Clone, Debug)]
pub struct Family {
    core: Arc<FamilyCore>,
}

#[derive(Debug)]
pub(crate) struct FamilyCore {
    pub(crate) options: FamilyOptions,
    max: usize,
    state: Mutex<FamilyState>,
}

type Labels = Box<[Box<str>]>;

#[derive(Debug, Default)]
struct FamilyState {
    entries: AHashMap<Labels, Entry>,
    /// Combinations of the capped labels that were let in.
    admitted: AHashSet<Labels>,
}

#[derive(Debug)]
enum Entry {
    Counter(CounterEntry),
    Gauge(GaugeEntry),
    Histogram(HistogramEntry),
}

impl Family {
    pub(crate) fn new(core: Arc<FamilyCore>) -> Self {
        Self { core }
    }

    /// A counter with these labels, in the order of the family's; each call gives a cell
    /// of its own, so keep it. A missing label is empty.
    pub fn counter(&self, labels: &[&str]) -> Counter {
        let cell = self.core.join(labels, |entry| match entry {
            Entry::Counter(entry) => Some(entry.join()),
            _ => None,
        });
        Counter::new(cell, self.core.clone())
    }

    /// A gauge with these labels, like [`Family::counter`].
    pub fn gauge(&self, labels: &[&str]) -> Gauge {
        let cell = self.core.join(labels, |entry| match entry {
            Entry::Gauge(entry) => Some(entry.join()),
            _ => None,
        });
        Gauge::new(cell, self.core.clone())
    }

    /// A histogram with these labels, like [`Family::counter`].
    pub fn histogram(&self, labels: &[&str]) -> Histogram {
        let cell = self.core.join(labels, |entry| match entry {
            Entry::Histogram(entry) => Some(entry.join()),
            _ => None,
        });
        Histogram::new(cell, self.core.clone())
    }

    /// Whether a combination of the capped labels counts as itself: it is let in while there
    /// is room. For families that are to have the same combinations.
    pub fn admit(&self, capped: &[&str]) -> bool {
        self.core.admit(capped)
    }

    /// What was counted beyond the cap; of histograms, how often.
    pub fn overflowed(&self) -> u64 {
        self.core.overflowed()
    }
}

impl FamilyCore {
    pub(crate) fn new(options: FamilyOptions, max: usize) -> Self {
        let max = options.max_label_sets.unwrap_or(max);
        Self {
            options,
            max,
            state: Mutex::default(),
        }
    }

    fn admit(&self, capped: &[&str]) -> bool {
        let key: Labels = capped.iter().map(|value| Box::from(*value)).collect();
        let mut state = self.state.lock();
        let admitted = state.admitted.len() < self.max || state.admitted.contains(&key);
        if admitted {
            state.admitted.insert(key);
        }
        admitted
    }

    pub(crate) fn overflowed(&self) -> u64 {
        let names = self.options.labels;
        let capped = |at: usize| self.options.capped.contains(&names[at]);
        let is_over = |labels: &Labels| {
            let mut values = labels.iter().enumerate();
            values.any(|(at, value)| capped(at) && **value == *OVERFLOW)
        };
        let state = self.state.lock();
        let over = state.entries.iter().filter(|(labels, _)| is_over(labels));
        over.map(|(_, entry)| match entry {
            Entry::Counter(entry) => entry.total(),
            Entry::Histogram(entry) => entry.now().count(),
            Entry::Gauge(_) => 0,
        })
        .sum()
    }

    fn fresh(&self) -> Entry {
        match self.options.kind {
            FamilyKind::Counter => Entry::Counter(CounterEntry::default()),
            FamilyKind::Gauge => Entry::Gauge(GaugeEntry::default()),
            FamilyKind::Histogram(..) => Entry::Histogram(HistogramEntry::default()),
        }
    }

    fn join<T: Default>(
        &self,
        labels: &[&str],
        join: impl FnOnce(&mut Entry) -> Option<Arc<T>>,
    ) -> Arc<T> {
        let mut state = self.state.lock();
        let labels = self.labels_of(&mut state, labels);
        let entry = state.entries.entry(labels).or_insert_with(|| self.fresh());
        join(entry).unwrap_or_default()
    }

    /// The labels under which to count: the given ones, or those of the overflow.
    fn labels_of(&self, state: &mut FamilyState, values: &[&str]) -> Labels {
        let names = self.options.labels;
        let value = |at: usize| Box::from(values.get(at).copied().unwrap_or(""));
        let labels: Labels = (0..names.len()).map(value).collect();
        if state.entries.contains_key(&labels) {
            return labels;
        }
        let capped = |at: &usize| self.options.capped.contains(&names[*at]);
        let key: Labels = (0..names.len())
            .filter(capped)
            .map(|at| labels[at].clone())
            .collect();
        let room = state.entries.len() < self.max.saturating_mul(SETS_PER_CAPPED);
        if room && (state.admitted.contains(&key) || state.admitted.len() < self.max) {
            state.admitted.insert(key);
            return labels;
        }
        // Without room at all, labels the peer has no hand in are given up too.
        let over = |at: usize| match room && !capped(&at) {
            true => labels[at].clone(),
            false => OVERFLOW.into(),
        };
        (0..names.len()).map(over).collect()
    }

    pub(crate) fn flush(&self) {
        for entry in self.state.lock().entries.values_mut() {
            match entry {
                Entry::Counter(entry) => entry.fold(),
                Entry::Gauge(entry) => entry.fold(),
                Entry::Histogram(entry) => entry.flush(),
            }
        }
    }

    /// Writes the family: as OpenMetrics, or as Prometheus's older text.
    pub(crate) fn render(&self, out: &mut String, open_metrics: bool) {
        let FamilyOptions {
            name, help, kind, ..
        } = self.options;
        let base = match (open_metrics, kind) {
            (true, FamilyKind::Counter) => name.strip_suffix("_total").unwrap_or(name),
            _ => name,
        };
        let word = match kind {
            FamilyKind::Counter => "counter",
            FamilyKind::Gauge => "gauge",
            FamilyKind::Histogram(..) => "histogram",
        };
        if open_metrics {
            let mut text = String::new();
            escape_label(&mut text, help);
            *out += &format!("# HELP {base} {text}\n");
        }
        *out += &format!("# TYPE {base} {word}\n");
        let sample = match (open_metrics, kind) {
            (true, FamilyKind::Counter) => format!("{base}_total"),
            _ => name.to_owned(),
        };
        let state = self.state.lock();
        let mut entries: Vec<_> = state.entries.iter().collect();
        entries.sort_by_key(|(labels, _)| *labels);
        for (values, entry) in entries {
            let mut labels = String::new();
            for (label, value) in self.options.labels.iter().zip(values) {
                push_label(&mut labels, label, value);
            }
            self.entry(out, &sample, &labels, entry);
        }
    }

    fn entry(&self, out: &mut String, name: &str, labels: &str, entry: &Entry) {
        match (entry, self.options.kind) {
            (Entry::Counter(entry), _) => {
                *out += &format!("{name}{{{labels}}} {}\n", entry.total())
            }
            (Entry::Gauge(entry), _) => *out += &format!("{name}{{{labels}}} {}\n", entry.value()),
            (Entry::Histogram(entry), FamilyKind::Histogram(unit, bounds)) => {
                let row = HistogramRow {
                    unit,
                    cumulative: entry.now(),
                    interval: Default::default(),
                    bounds: bounds.into(),
                };
                buckets(out, name, labels, &row, shortest);
            }
            (Entry::Histogram(_), _) => {}
        }
    }
}
