//! Slabs: the single-writer cells of one set of stats, for one owner.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::histogram::{Cells, Unit};
use crate::scope::ScopeCore;

/// The names of a set, in the order of its handles.
#[derive(Debug)]
pub struct SetMeta {
    /// Names of the counters.
    pub counters: &'static [&'static str],
    /// Names of the gauges.
    pub gauges: &'static [&'static str],
    /// Names and units of the histograms.
    pub histograms: &'static [(&'static str, Unit)],
    /// Names of the text readouts.
    pub texts: &'static [&'static str],
}

/// A set of stats, declared by [`stat_set!`](crate::stat_set).
pub trait StatSet: 'static {
    /// Its names.
    const META: &'static SetMeta;
}

macro_rules! id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        pub struct $name<S> {
            index: u16,
            set: PhantomData<fn() -> S>,
        }

        impl<S> $name<S> {
            /// The handle of the stat at `index`; [`stat_set!`](crate::stat_set) calls it.
            #[doc(hidden)]
            pub const fn at(index: u16) -> Self {
                Self { index, set: PhantomData }
            }
        }

        impl<S> Clone for $name<S> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<S> Copy for $name<S> {}

        impl<S> PartialEq for $name<S> {
            fn eq(&self, other: &Self) -> bool {
                self.index == other.index
            }
        }

        impl<S> Eq for $name<S> {}

        impl<S> fmt::Debug for $name<S> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.index)
            }
        }
    };
}

id!(
    /// Handle of a counter of the set `S`.
    CounterId
);
id!(
    /// Handle of a gauge of the set `S`.
    GaugeId
);
id!(
    /// Handle of a histogram of the set `S`.
    HistogramId
);
id!(
    /// Handle of a text readout of the set `S`.
    TextId
);

/// Adds to a cell that has one writer.
#[inline]
pub(crate) fn bump(cell: &AtomicU64, n: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
}

/// The cells themselves.
#[derive(Debug)]
pub(crate) struct SlabCells {
    pub(crate) counters: Box<[AtomicU64]>,
    pub(crate) gauges: Box<[AtomicI64]>,
    pub(crate) histograms: Box<[Cells]>,
    pub(crate) texts: Box<[Mutex<Option<Arc<str>>>]>,
    /// Counters that count as used though they are zero.
    pub(crate) used: AtomicU64,
    /// Gauges written at all, which `usedonly` shows even at zero.
    pub(crate) touched: AtomicU64,
    /// Gauges whose value was set: it ends with the slab, where what was added stays.
    pub(crate) set: AtomicU64,
}

impl SlabCells {
    pub(crate) fn new(meta: &SetMeta) -> Self {
        Self {
            counters: meta.counters.iter().map(|_| AtomicU64::new(0)).collect(),
            gauges: meta.gauges.iter().map(|_| AtomicI64::new(0)).collect(),
            histograms: meta.histograms.iter().map(|_| Cells::default()).collect(),
            texts: meta.texts.iter().map(|_| Mutex::new(None)).collect(),
            used: AtomicU64::new(0),
            touched: AtomicU64::new(0),
            set: AtomicU64::new(0),
        }
    }
}

/// Marks bit `index` in a mask that has one writer.
#[inline]
fn mark(mask: &AtomicU64, index: u16) {
    let old = mask.load(Relaxed);
    let bit = 1u64 << (index & 63);
    if old & bit == 0 {
        mask.store(old | bit, Relaxed);
    }
}

/// The cells of one set in one scope, for one writer. A clone shares the cells; see the
/// [rules](crate#rules).
pub struct Slab<S> {
    cells: Arc<SlabCells>,
    /// Keeps the scope in the output.
    scope: Arc<ScopeCore>,
    set: PhantomData<fn() -> S>,
}

impl<S: StatSet> Slab<S> {
    pub(crate) fn new(cells: Arc<SlabCells>, scope: Arc<ScopeCore>) -> Self {
        Self {
            cells,
            scope,
            set: PhantomData,
        }
    }

    /// Adds one to a counter.
    #[inline]
    pub fn inc(&self, id: CounterId<S>) {
        self.add(id, 1);
    }

    /// Adds `n` to a counter.
    #[inline]
    pub fn add(&self, id: CounterId<S>, n: u64) {
        bump(&self.cells.counters[usize::from(id.index)], n);
    }

    /// Has `usedonly` show a counter even at zero, as Envoy's does once anything was added
    /// to it, were it nothing. Only for the first 64 counters of a set.
    pub fn mark_used(&self, id: CounterId<S>) {
        debug_assert!(id.index < 64, "there are 64 marks");
        mark(&self.cells.used, id.index);
    }

    /// What this slab has counted, for tests and for owners that decide by it.
    #[inline]
    pub fn value(&self, id: CounterId<S>) -> u64 {
        self.cells.counters[usize::from(id.index)].load(Relaxed)
    }

    /// Adds one to a gauge.
    #[inline]
    pub fn gauge_inc(&self, id: GaugeId<S>) {
        self.gauge_add(id, 1);
    }

    /// Takes one from a gauge.
    #[inline]
    pub fn gauge_dec(&self, id: GaugeId<S>) {
        self.gauge_add(id, -1);
    }

    /// Adds `n`, which may be negative, to a gauge.
    #[inline]
    pub fn gauge_add(&self, id: GaugeId<S>, n: i64) {
        let cell = &self.cells.gauges[usize::from(id.index)];
        cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
        mark(&self.cells.touched, id.index);
    }

    /// Takes `n` from a gauge.
    #[inline]
    pub fn gauge_sub(&self, id: GaugeId<S>, n: i64) {
        self.gauge_add(id, n.wrapping_neg());
    }

    /// Sets this slab's part of a gauge, whose bits are shown as an unsigned number. For
    /// gauges with one owner: the parts of living slabs add up, and a part that was set
    /// ends with its slab. A gauge that is set is not added to.
    #[inline]
    pub fn gauge_set(&self, id: GaugeId<S>, value: i64) {
        self.cells.gauges[usize::from(id.index)].store(value, Relaxed);
        mark(&self.cells.touched, id.index);
        mark(&self.cells.set, id.index);
    }

    /// This slab's part of a gauge.
    #[inline]
    pub fn gauge_value(&self, id: GaugeId<S>) -> i64 {
        self.cells.gauges[usize::from(id.index)].load(Relaxed)
    }

    /// Records one sample, in the histogram's unit.
    #[inline]
    pub fn record(&self, id: HistogramId<S>, value: u64) {
        self.cells.histograms[usize::from(id.index)].record(value);
    }

    /// Sets a text readout. Takes a lock; not for the hot path.
    pub fn set_text(&self, id: TextId<S>, value: &str) {
        *self.cells.texts[usize::from(id.index)].lock() = Some(value.into());
    }

    /// The prefix of the slab's scope.
    pub fn prefix(&self) -> &str {
        &self.scope.prefix
    }
}

impl<S> Clone for Slab<S> {
    fn clone(&self) -> Self {
        Self {
            cells: Arc::clone(&self.cells),
            scope: Arc::clone(&self.scope),
            set: PhantomData,
        }
    }
}

impl<S> fmt::Debug for Slab<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slab")
            .field("prefix", &self.scope.prefix)
            .finish_non_exhaustive()
    }
}
