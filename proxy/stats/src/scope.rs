//! Scopes: the stats under one prefix.

use std::any::TypeId;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ahash::AHashMap;
use parking_lot::Mutex;

use crate::cell::{SetMeta, Slab, SlabCells, StatSet};
use crate::entry::{
    CounterEntry, CounterTotal, GaugeEntry, GaugeSum, HistogramEntry, HistogramTotal, TextEntry,
    fold_unowned,
};
use crate::handle::{Counter, Gauge, Histogram, Text};
use crate::histogram::Unit;
use crate::name::{sanitize, sanitize_prefix};
use crate::store::Store;
use crate::tags::Extracted;

/// The stats under one prefix. A clone is the same scope.
#[derive(Clone, Debug)]
pub struct Scope {
    core: Arc<ScopeCore>,
    store: Store,
}

/// What handles keep alive.
#[derive(Debug)]
pub(crate) struct ScopeCore {
    pub(crate) prefix: Box<str>,
    /// Whether tags are taken out of its names.
    pub(crate) tagged: bool,
    pub(crate) state: Mutex<ScopeState>,
}

/// All the cells of a scope.
#[derive(Debug, Default)]
pub(crate) struct ScopeState {
    pub(crate) sets: Vec<SetState>,
    pub(crate) named: AHashMap<Box<str>, Named>,
}

/// A stat whose name was made at run time.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) kind: NamedKind,
    pub(crate) extracted: Option<Extracted>,
}

/// Its cells.
#[derive(Debug)]
pub(crate) enum NamedKind {
    Counter(CounterEntry),
    Gauge(GaugeEntry),
    Histogram(HistogramEntry, Unit),
    Text(TextEntry),
}

/// The slabs of one set in one scope.
#[derive(Debug)]
pub(crate) struct SetState {
    id: TypeId,
    pub(crate) meta: &'static SetMeta,
    pub(crate) slabs: Vec<Arc<SlabCells>>,
    pub(crate) counters: Box<[CounterTotal]>,
    used: u64,
    gauges: Box<[i64]>,
    touched: u64,
    pub(crate) histograms: Box<[HistogramTotal]>,
    texts: Box<[Option<Arc<str>>]>,
    /// Which of the set's stats exist, in the order counters, gauges, histograms, text.
    pub(crate) accepted: Option<Box<[bool]>>,
    /// Their names and tags for Prometheus, in the same order.
    pub(crate) extracted: Option<Box<[Extracted]>>,
}

impl SetState {
    fn new<S: StatSet>() -> Self {
        let meta = S::META;
        Self {
            id: TypeId::of::<S>(),
            meta,
            slabs: Vec::new(),
            counters: meta
                .counters
                .iter()
                .map(|_| CounterTotal::default())
                .collect(),
            used: 0,
            gauges: meta.gauges.iter().map(|_| 0).collect(),
            touched: 0,
            histograms: meta
                .histograms
                .iter()
                .map(|_| HistogramTotal::default())
                .collect(),
            texts: meta.texts.iter().map(|_| None).collect(),
            accepted: None,
            extracted: None,
        }
    }

    /// All names, in the order of `accepted`.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        let meta = self.meta;
        let histograms = meta.histograms.iter().map(|(name, _)| name);
        let names = meta.counters.iter().chain(meta.gauges).chain(histograms);
        names.chain(meta.texts).copied()
    }

    /// Takes over the counts of slabs that nobody writes any more.
    pub(crate) fn fold(&mut self) {
        let Self {
            slabs,
            counters,
            used,
            gauges,
            touched,
            histograms,
            texts,
            ..
        } = self;
        fold_unowned(slabs, |slab| {
            for (total, cell) in counters.iter_mut().zip(&mut slab.counters) {
                total.retained = total.retained.wrapping_add(*cell.get_mut());
            }
            let set = *slab.set.get_mut();
            for (index, (total, cell)) in gauges.iter_mut().zip(&mut slab.gauges).enumerate() {
                if set & (1 << index) == 0 {
                    *total = total.wrapping_add(*cell.get_mut());
                }
            }
            *used |= *slab.used.get_mut();
            *touched |= *slab.touched.get_mut();
            for (total, cells) in histograms.iter_mut().zip(&slab.histograms) {
                cells.add_to(&mut total.retained);
            }
            for (total, cell) in texts.iter_mut().zip(&mut slab.texts) {
                if let Some(text) = cell.get_mut().take() {
                    *total = Some(text);
                }
            }
        });
    }

    pub(crate) fn flush(&mut self) {
        self.fold();
        for (index, total) in self.histograms.iter_mut().enumerate() {
            total.flush(self.slabs.iter().map(|slab| &slab.histograms[index]));
        }
    }

    /// All that counter `index` ever counted.
    pub(crate) fn counter(&self, index: usize) -> u64 {
        let cells = self
            .slabs
            .iter()
            .map(|slab| slab.counters[index].load(Relaxed));
        cells.fold(self.counters[index].retained, u64::wrapping_add)
    }

    /// Whether counter `index` counts as used whatever its value.
    pub(crate) fn is_marked(&self, index: usize) -> bool {
        let masks = self.slabs.iter().map(|slab| slab.used.load(Relaxed));
        let used = masks.fold(self.used, |all, mask| all | mask);
        index < 64 && used & (1 << index) != 0
    }

    /// The value of gauge `index`, and whether it was ever written.
    pub(crate) fn gauge(&self, index: usize) -> (u64, bool) {
        let kept = GaugeSum::of_added(self.gauges[index]);
        let sum = self.slabs.iter().fold(kept, |sum, slab| {
            let was_set = slab.set.load(Relaxed) & (1 << index) != 0;
            sum.with(slab.gauges[index].load(Relaxed), was_set)
        });
        let masks = self.slabs.iter().map(|slab| slab.touched.load(Relaxed));
        let touched = masks.fold(self.touched, |all, mask| all | mask);
        (sum.shown(), touched & (1 << index) != 0)
    }

    /// Text `index`: the one of the latest slab that has one.
    pub(crate) fn text(&self, index: usize) -> Option<Arc<str>> {
        let latest = self
            .slabs
            .iter()
            .rev()
            .find_map(|slab| slab.texts[index].lock().clone());
        latest.or_else(|| self.texts[index].clone())
    }
}

impl Scope {
    pub(crate) fn new(core: Arc<ScopeCore>, store: Store) -> Self {
        Self { core, store }
    }

    /// The prefix, with its dot at the end.
    pub fn prefix(&self) -> &str {
        &self.core.prefix
    }

    /// The scope below this one: `prefix` is put after this scope's.
    pub fn scope(&self, prefix: &str) -> Self {
        self.store.scope(&format!("{}{prefix}", self.core.prefix))
    }

    /// The store of the scope.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// New cells for the set `S`, for one writer.
    pub fn slab<S: StatSet>(&self) -> Slab<S> {
        let cells = Arc::new(SlabCells::new(S::META));
        let mut state = self.core.state.lock();
        let at = state
            .sets
            .iter()
            .position(|set| set.id == TypeId::of::<S>());
        let at = at.unwrap_or_else(|| {
            state.sets.push(SetState::new::<S>());
            state.sets.len() - 1
        });
        state.sets[at].slabs.push(Arc::clone(&cells));
        drop(state);
        Slab::new(cells, Arc::clone(&self.core))
    }

    /// A counter of a name made at run time; each call gives a cell of its own. When the
    /// name is refused (by the stats matcher, by the cap, or because another kind has
    /// it), what it counts is not shown.
    pub fn counter(&self, name: &str) -> Counter {
        let fresh = || NamedKind::Counter(CounterEntry::default());
        let cell = self.join(name, fresh, |kind| match kind {
            NamedKind::Counter(entry) => Some(entry.join()),
            _ => None,
        });
        Counter::new(cell, self.core.clone())
    }

    /// A gauge of a name made at run time, like [`Scope::counter`].
    pub fn gauge(&self, name: &str) -> Gauge {
        let fresh = || NamedKind::Gauge(GaugeEntry::default());
        let cell = self.join(name, fresh, |kind| match kind {
            NamedKind::Gauge(entry) => Some(entry.join()),
            _ => None,
        });
        Gauge::new(cell, self.core.clone())
    }

    /// A histogram of a name made at run time, like [`Scope::counter`]. The unit of the
    /// first call holds.
    pub fn histogram(&self, name: &str, unit: Unit) -> Histogram {
        let fresh = || NamedKind::Histogram(HistogramEntry::default(), unit);
        let cell = self.join(name, fresh, |kind| match kind {
            NamedKind::Histogram(entry, _) => Some(entry.join()),
            _ => None,
        });
        Histogram::new(cell, self.core.clone())
    }

    /// A text readout of a name made at run time, like [`Scope::counter`], but for all
    /// its handles being one text.
    pub fn text(&self, name: &str) -> Text {
        let fresh = || NamedKind::Text(TextEntry::default());
        let cell = self.join(name, fresh, |kind| match kind {
            NamedKind::Text(entry) => Some(Arc::clone(entry)),
            _ => None,
        });
        Text::new(cell, self.core.clone())
    }

    /// The cell that `join` takes from the entry of `name`, or one that is not shown.
    fn join<T: Default>(
        &self,
        name: &str,
        fresh: impl FnOnce() -> NamedKind,
        join: impl FnOnce(&mut NamedKind) -> Option<Arc<T>>,
    ) -> Arc<T> {
        let mut state = self.core.state.lock();
        let name = sanitize(name);
        if !state.named.contains_key(name.as_str()) {
            if !self.store.accepts(&format!("{}{name}", self.core.prefix)) {
                return Arc::default();
            }
            if state.named.len() >= self.store.max_dynamic_names() {
                self.store.count_overflow();
                return Arc::default();
            }
        }
        let entry = state
            .named
            .entry(name.into_boxed_str())
            .or_insert_with(|| Named {
                kind: fresh(),
                extracted: None,
            });
        join(&mut entry.kind).unwrap_or_default()
    }
}

impl ScopeCore {
    pub(crate) fn new(prefix: &str, tagged: bool) -> Self {
        Self {
            prefix: sanitize_prefix(prefix).into_boxed_str(),
            tagged,
            state: Mutex::default(),
        }
    }
}

/// Counts names refused by the cap.
#[derive(Debug, Default)]
pub(crate) struct Overflow(AtomicU64);

impl Overflow {
    /// Counts one; any thread may.
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
