//! One name's cells, and what is kept of cells that are gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::handle::GaugeCell;
use crate::histogram::{Cells, HistogramData};

/// Cells of one name beyond which those without a writer are folded at once.
const FOLD_AT: usize = 32;

/// Removes the cells whose handles are gone, after `fold` has read them.
///
/// `Arc::get_mut` succeeds only for the last owner, and sees what the others wrote.
pub(crate) fn fold_unowned<T>(cells: &mut Vec<Arc<T>>, mut fold: impl FnMut(&mut T)) {
    cells.retain_mut(|cell| match Arc::get_mut(cell) {
        Some(cell) => {
            fold(cell);
            false
        }
        None => true,
    });
}

/// Totals of a counter.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CounterTotal {
    /// Counted by cells that are gone.
    pub(crate) retained: u64,
    /// What is taken off since the counters were reset.
    pub(crate) base: u64,
    /// What the sinks were told.
    latched: u64,
}

impl CounterTotal {
    /// The value shown when the cells have counted `total`.
    pub(crate) fn value(&self, total: u64) -> u64 {
        total.wrapping_sub(self.base)
    }

    /// What was counted since the last call.
    pub(crate) fn latch(&mut self, total: u64) -> u64 {
        let delta = total.wrapping_sub(self.latched);
        self.latched = total;
        delta
    }
}

/// A counter of one name.
#[derive(Debug, Default)]
pub(crate) struct CounterEntry {
    cells: Vec<Arc<AtomicU64>>,
    pub(crate) total: CounterTotal,
}

impl CounterEntry {
    pub(crate) fn join(&mut self) -> Arc<AtomicU64> {
        if self.cells.len() >= FOLD_AT {
            self.fold();
        }
        let cell = Arc::default();
        self.cells.push(Arc::clone(&cell));
        cell
    }

    pub(crate) fn fold(&mut self) {
        let retained = &mut self.total.retained;
        fold_unowned(&mut self.cells, |cell| {
            *retained = retained.wrapping_add(*cell.get_mut())
        });
    }

    /// All that was ever counted.
    pub(crate) fn total(&self) -> u64 {
        let add = |sum: u64, cell: &Arc<AtomicU64>| sum.wrapping_add(cell.load(Relaxed));
        self.cells.iter().fold(self.total.retained, add)
    }
}

/// The parts of a gauge. What was set is a plain number of 64 bits, such as the hash of
/// a version; what was added and taken away is signed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GaugeSum {
    set: u64,
    added: i64,
}

impl GaugeSum {
    /// What was only added so far.
    pub(crate) fn of_added(added: i64) -> Self {
        Self { set: 0, added }
    }

    /// With one more part.
    pub(crate) fn with(mut self, value: i64, was_set: bool) -> Self {
        if was_set {
            self.set = self.set.wrapping_add(value.cast_unsigned());
        } else {
            self.added = self.added.wrapping_add(value);
        }
        self
    }

    /// As it is shown: below zero only while the parts of two threads are out of step.
    pub(crate) fn shown(self) -> u64 {
        self.set.saturating_add_signed(self.added)
    }
}

/// A gauge of one name.
#[derive(Debug, Default)]
pub(crate) struct GaugeEntry {
    cells: Vec<Arc<GaugeCell>>,
    retained: i64,
    touched: bool,
}

impl GaugeEntry {
    pub(crate) fn join(&mut self) -> Arc<GaugeCell> {
        if self.cells.len() >= FOLD_AT {
            self.fold();
        }
        let cell = Arc::default();
        self.cells.push(Arc::clone(&cell));
        cell
    }

    pub(crate) fn fold(&mut self) {
        let (retained, touched) = (&mut self.retained, &mut self.touched);
        fold_unowned(&mut self.cells, |cell| {
            *touched |= *cell.touched.get_mut();
            if !*cell.set.get_mut() {
                *retained = retained.wrapping_add(*cell.value.get_mut());
            }
        });
    }

    pub(crate) fn value(&self) -> u64 {
        let add = |sum: GaugeSum, cell: &Arc<GaugeCell>| {
            sum.with(cell.value.load(Relaxed), cell.set.load(Relaxed))
        };
        let kept = GaugeSum::of_added(self.retained);
        self.cells.iter().fold(kept, add).shown()
    }

    pub(crate) fn touched(&self) -> bool {
        self.touched || self.cells.iter().any(|cell| cell.touched.load(Relaxed))
    }
}

/// What is known of a histogram since the last flush.
#[derive(Clone, Debug, Default)]
pub(crate) struct HistogramTotal {
    /// Recorded in cells that are gone.
    pub(crate) retained: HistogramData,
    /// All samples up to the last flush.
    pub(crate) cumulative: HistogramData,
    /// The samples between the last two flushes.
    pub(crate) interval: HistogramData,
}

impl HistogramTotal {
    /// Takes in all samples there are.
    pub(crate) fn flush<'a>(&mut self, cells: impl Iterator<Item = &'a Cells>) {
        let mut now = self.retained.clone();
        cells.for_each(|cell| cell.add_to(&mut now));
        self.interval = now.since(&self.cumulative);
        self.cumulative = now;
    }
}

/// A histogram of one name.
#[derive(Debug, Default)]
pub(crate) struct HistogramEntry {
    cells: Vec<Arc<Cells>>,
    pub(crate) total: HistogramTotal,
}

impl HistogramEntry {
    pub(crate) fn join(&mut self) -> Arc<Cells> {
        if self.cells.len() >= FOLD_AT {
            self.fold();
        }
        let cells = Arc::default();
        self.cells.push(Arc::clone(&cells));
        cells
    }

    pub(crate) fn fold(&mut self) {
        let retained = &mut self.total.retained;
        fold_unowned(&mut self.cells, |cells| cells.add_to(retained));
    }

    pub(crate) fn flush(&mut self) {
        self.fold();
        self.total.flush(self.cells.iter().map(|cells| &**cells));
    }

    /// All samples there are, flushed or not.
    pub(crate) fn now(&self) -> HistogramData {
        let mut now = self.total.retained.clone();
        self.cells.iter().for_each(|cells| cells.add_to(&mut now));
        now
    }
}

/// A text readout of one name: all handles share the text.
pub(crate) type TextEntry = Arc<Mutex<Option<Arc<str>>>>;
