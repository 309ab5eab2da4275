//! Handles of stats whose names are made at run time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::cell::bump;
use crate::histogram::Cells;

/// What keeps the stats of a handle in the output: its scope or its family.
pub(crate) type Owner = Arc<dyn Send + Sync>;

/// The cells of a gauge with a name of its own.
#[derive(Debug, Default)]
pub(crate) struct GaugeCell {
    pub(crate) value: AtomicI64,
    /// The value was set: it ends with the cell.
    pub(crate) set: AtomicBool,
    pub(crate) touched: AtomicBool,
}

macro_rules! handle {
    ($(#[$meta:meta])* $name:ident, $cell:ty) => {
        $(#[$meta])*
        #[derive(Clone)]
        pub struct $name {
            cell: Arc<$cell>,
            owner: Owner,
        }

        impl $name {
            pub(crate) fn new(cell: Arc<$cell>, owner: Owner) -> Self {
                Self { cell, owner }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("owners", &Arc::strong_count(&self.owner))
                    .finish_non_exhaustive()
            }
        }
    };
}

handle!(
    /// A counter with one writer; a clone shares its cell.
    Counter,
    AtomicU64
);
handle!(
    /// A gauge with one writer; a clone shares its cell. The gauges of one name add up.
    Gauge,
    GaugeCell
);
handle!(
    /// A histogram with one writer; a clone shares its cells.
    Histogram,
    Cells
);
handle!(
    /// A text readout.
    Text,
    Mutex<Option<Arc<str>>>
);

impl Counter {
    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        bump(&self.cell, 1);
    }

    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        bump(&self.cell, n);
    }

    /// What this handle and its clones have counted.
    #[inline]
    pub fn value(&self) -> u64 {
        self.cell.load(Relaxed)
    }
}

impl Gauge {
    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Takes one.
    #[inline]
    pub fn dec(&self) {
        self.add(-1);
    }

    /// Adds `n`, which may be negative.
    #[inline]
    pub fn add(&self, n: i64) {
        let cell = &self.cell.value;
        cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
        self.cell.touched.store(true, Relaxed);
    }

    /// Takes `n`.
    #[inline]
    pub fn sub(&self, n: i64) {
        self.add(n.wrapping_neg());
    }

    /// Sets this handle's part of the gauge, which ends with the handle; its bits are
    /// shown as an unsigned number. A gauge that is set is not added to.
    #[inline]
    pub fn set(&self, value: i64) {
        self.cell.value.store(value, Relaxed);
        self.cell.touched.store(true, Relaxed);
        self.cell.set.store(true, Relaxed);
    }

    /// This handle's part of the gauge.
    #[inline]
    pub fn value(&self) -> i64 {
        self.cell.value.load(Relaxed)
    }
}

impl Histogram {
    /// Records one sample, in the histogram's unit.
    #[inline]
    pub fn record(&self, value: u64) {
        self.cell.record(value);
    }
}

impl Text {
    /// Sets the text. Takes a lock; not for the hot path.
    pub fn set(&self, value: &str) {
        *self.cell.lock() = Some(value.into());
    }
}
