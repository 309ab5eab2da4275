//! The store: all scopes and families of a process.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use ahash::AHashSet;
use parking_lot::Mutex;

use crate::config::{ConfigError, StatsConfig};
use crate::family::{Family, FamilyCore, FamilyOptions};
use crate::histogram::{DEFAULT_BUCKETS, Unit};
use crate::prometheus::labels_of;
use crate::query::{PrometheusQuery, Rendered, StatsQuery};
use crate::scope::{Named, NamedKind, Overflow, Scope, ScopeCore, ScopeState, SetState};
use crate::snapshot::{HistogramRow, Row, RowValue, Snapshot};
use crate::tags::{Extracted, TagProducer, Tagged};

/// All stats of a process. A clone is the same store.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<StoreInner>,
}

#[derive(Debug)]
struct StoreInner {
    config: StatsConfig,
    tags: TagProducer,
    default_bounds: Arc<[f64]>,
    bounds: Vec<Arc<[f64]>>,
    scopes: Mutex<BTreeMap<Box<str>, Weak<ScopeCore>>>,
    families: Mutex<Vec<Weak<FamilyCore>>>,
    /// Names and labels for Prometheus, of which many stats have the same.
    interned: Mutex<AHashSet<Arc<str>>>,
    overflow: Overflow,
}

/// A counter as a sink is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatchedCounter {
    /// Its full name.
    pub name: String,
    /// What it has counted since the last time.
    pub delta: u64,
    /// Its value.
    pub value: u64,
}

impl Default for Store {
    fn default() -> Self {
        // The default names no regex but our own, which a test compiles.
        Self::new(StatsConfig::default()).expect("the default configuration is valid")
    }
}

impl Store {
    /// A store without stats.
    ///
    /// # Errors
    /// A tag's regex is malformed or has no group, a tag names no default, or the bounds
    /// of buckets do not ascend.
    pub fn new(config: StatsConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        let inner = StoreInner {
            tags: TagProducer::new(&config)?,
            default_bounds: DEFAULT_BUCKETS.into(),
            bounds: config
                .histogram_buckets
                .iter()
                .map(|b| b.bounds.clone().into())
                .collect(),
            config,
            scopes: Mutex::default(),
            families: Mutex::default(),
            interned: Mutex::default(),
            overflow: Overflow::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The scope of a prefix such as `cluster.backend.`: the living one, if there is one.
    pub fn scope(&self, prefix: &str) -> Scope {
        self.scope_of(ScopeCore::new(prefix, true))
    }

    /// A scope whose stats have no tags, not even those of fixed values: Envoy makes some
    /// before it knows any. To be called before [`Store::scope`] has made it.
    pub fn untagged_scope(&self, prefix: &str) -> Scope {
        self.scope_of(ScopeCore::new(prefix, false))
    }

    fn scope_of(&self, core: ScopeCore) -> Scope {
        let mut scopes = self.inner.scopes.lock();
        let living = scopes.get(&core.prefix).and_then(Weak::upgrade);
        let core = living.unwrap_or_else(|| {
            let core = Arc::new(core);
            scopes.insert(core.prefix.clone(), Arc::downgrade(&core));
            core
        });
        drop(scopes);
        Scope::new(core, self.clone())
    }

    /// The family of a name: the living one, if there is one.
    pub fn family(&self, options: FamilyOptions) -> Family {
        let mut families = self.inner.families.lock();
        families.retain(|family| family.strong_count() > 0);
        let mut living = families.iter().filter_map(Weak::upgrade);
        let core = living.find(|family| family.options.name == options.name);
        let core = core.unwrap_or_else(|| {
            let core = Arc::new(FamilyCore::new(options, self.inner.config.max_label_sets));
            families.push(Arc::downgrade(&core));
            core
        });
        Family::new(core)
    }

    /// Merges the histograms, and takes in what slabs that are gone have counted. To be
    /// called at every `stats_flush_interval`: the time since the last call is the
    /// interval of the histograms.
    pub fn flush(&self) {
        for core in self.cores() {
            let mut state = core.state.lock();
            state.sets.iter_mut().for_each(SetState::flush);
            for named in state.named.values_mut() {
                named.flush();
            }
        }
        self.families().iter().for_each(|family| family.flush());
        self.inner
            .scopes
            .lock()
            .retain(|_, scope| scope.strong_count() > 0);
        self.inner
            .interned
            .lock()
            .retain(|text| Arc::strong_count(text) > 1);
    }

    /// What every counter has counted since the last call, for sinks.
    pub fn latch_counters(&self) -> Vec<LatchedCounter> {
        let mut latched = Vec::new();
        for core in self.cores() {
            let mut state = core.state.lock();
            for set in &mut state.sets {
                self.accept(&core.prefix, set);
                for (index, name) in set.meta.counters.iter().enumerate() {
                    let total = set.counter(index);
                    let delta = set.counters[index].latch(total);
                    if set.is_accepted(index) {
                        let value = set.counters[index].value(total);
                        latched.push(latched_counter(&core.prefix, name, delta, value));
                    }
                }
            }
            for (name, named) in &mut state.named {
                if let NamedKind::Counter(entry) = &mut named.kind {
                    let total = entry.total();
                    let delta = entry.total.latch(total);
                    let value = entry.total.value(total);
                    latched.push(latched_counter(&core.prefix, name, delta, value));
                }
            }
        }
        latched.sort_by(|a, b| a.name.cmp(&b.name));
        latched
    }

    /// Sets every counter to zero (`/reset_counters`). Our own families, which Prometheus
    /// takes to be monotonic, go on.
    pub fn reset_counters(&self) {
        for core in self.cores() {
            let mut state = core.state.lock();
            for set in &mut state.sets {
                for index in 0..set.counters.len() {
                    set.counters[index].base = set.counter(index);
                }
            }
            for named in state.named.values_mut() {
                if let NamedKind::Counter(entry) = &mut named.kind {
                    entry.total.base = entry.total();
                }
            }
        }
    }

    /// The value of the counter of this full name, for tests and for the admin's health.
    pub fn counter_value(&self, name: &str) -> Option<u64> {
        let mut rows = self.snapshot(&|row| row == name, false).plain.into_iter();
        rows.find_map(|row| match row.value {
            RowValue::Counter(value) => Some(value),
            _ => None,
        })
    }

    /// The value of the gauge of this full name.
    pub fn gauge_value(&self, name: &str) -> Option<u64> {
        let mut rows = self.snapshot(&|row| row == name, false).plain.into_iter();
        rows.find_map(|row| match row.value {
            RowValue::Gauge(value) => Some(value),
            _ => None,
        })
    }

    /// All stats in the text form of `/stats`.
    pub fn text(&self) -> String {
        self.render(&StatsQuery::default()).body
    }

    /// Answers `/stats`.
    pub fn render(&self, query: &StatsQuery) -> Rendered {
        query.render(self, &Vec::new)
    }

    /// The same, with stats that are kept elsewhere.
    pub fn render_with(&self, query: &StatsQuery, outside: &dyn Fn() -> Vec<Row>) -> Rendered {
        query.render(self, outside)
    }

    /// Answers `/stats/prometheus`.
    pub fn render_prometheus(&self, query: &PrometheusQuery) -> Rendered {
        query.render(self, &Vec::new)
    }

    /// The same, with stats that are kept elsewhere.
    pub fn render_prometheus_with(
        &self,
        query: &PrometheusQuery,
        outside: &dyn Fn() -> Vec<Row>,
    ) -> Rendered {
        query.render(self, outside)
    }

    /// Our own families as OpenMetrics text, for `/metrics`.
    pub fn open_metrics(&self) -> Rendered {
        crate::open_metrics::render(&self.families())
    }

    /// The stats whose full name `wanted` accepts, sorted by name. With `tags` they carry
    /// what Prometheus needs, which costs time once for every stat.
    pub fn snapshot(&self, wanted: &dyn Fn(&str) -> bool, tags: bool) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let overflow = self.inner.overflow.value();
        if overflow > 0 && wanted("stats.overflow") {
            let extracted = tags.then(|| self.extract("stats.overflow", true));
            let value = RowValue::Counter(overflow);
            snapshot.push(Row {
                name: "stats.overflow".into(),
                used: true,
                value,
                extracted,
            });
        }
        for core in self.cores() {
            let mut state = core.state.lock();
            self.scope_rows(&core, &mut state, wanted, tags, &mut snapshot);
        }
        snapshot.finish();
        snapshot
    }

    fn scope_rows(
        &self,
        core: &ScopeCore,
        state: &mut ScopeState,
        wanted: &dyn Fn(&str) -> bool,
        tags: bool,
        snapshot: &mut Snapshot,
    ) {
        let ScopeCore { prefix, tagged, .. } = core;
        for set in &mut state.sets {
            set.fold();
            self.accept(prefix, set);
            if tags && set.extracted.is_none() {
                let names = set.names();
                let all = names.map(|name| self.extract(&format!("{prefix}{name}"), *tagged));
                set.extracted = Some(all.collect());
            }
            for (at, name) in set.names().enumerate() {
                let name = format!("{prefix}{name}");
                if !set.is_accepted(at) || !wanted(&name) {
                    continue;
                }
                let Some((value, used)) = self.set_value(set, at, &name) else {
                    continue;
                };
                let extracted = set.extracted.as_ref().map(|all| all[at].clone());
                snapshot.push(Row {
                    name,
                    used,
                    value,
                    extracted,
                });
            }
        }
        for (name, named) in &mut state.named {
            let name = format!("{prefix}{name}");
            if !wanted(&name) {
                continue;
            }
            let Some((value, used)) = self.named_value(named, &name) else {
                continue;
            };
            if tags && named.extracted.is_none() {
                named.extracted = Some(self.extract(&name, *tagged));
            }
            snapshot.push(Row {
                name,
                used,
                value,
                extracted: named.extracted.clone(),
            });
        }
    }

    /// The value of the stat at `at` of a set, counted over all kinds.
    fn set_value(&self, set: &SetState, at: usize, name: &str) -> Option<(RowValue, bool)> {
        let (counters, gauges) = (set.meta.counters.len(), set.meta.gauges.len());
        if at < counters {
            let total = set.counter(at);
            let used = total > 0 || set.is_marked(at);
            return Some((RowValue::Counter(set.counters[at].value(total)), used));
        }
        let at = at - counters;
        if at < gauges {
            let (value, used) = set.gauge(at);
            return Some((RowValue::Gauge(value), used));
        }
        let at = at - gauges;
        if let Some((_, unit)) = set.meta.histograms.get(at) {
            let total = &set.histograms[at];
            return Some(self.histogram_value(total, *unit, name));
        }
        let text = set.text(at - set.meta.histograms.len());
        Some((
            RowValue::Text(text.clone().unwrap_or_default()),
            text.is_some(),
        ))
    }

    fn named_value(&self, named: &mut Named, name: &str) -> Option<(RowValue, bool)> {
        Some(match &mut named.kind {
            NamedKind::Counter(entry) => {
                let total = entry.total();
                (RowValue::Counter(entry.total.value(total)), total > 0)
            }
            NamedKind::Gauge(entry) => (RowValue::Gauge(entry.value()), entry.touched()),
            NamedKind::Histogram(entry, unit) => self.histogram_value(&entry.total, *unit, name),
            NamedKind::Text(text) => {
                let text = text.lock().clone();
                (
                    RowValue::Text(text.clone().unwrap_or_default()),
                    text.is_some(),
                )
            }
        })
    }

    fn histogram_value(
        &self,
        total: &crate::entry::HistogramTotal,
        unit: Unit,
        name: &str,
    ) -> (RowValue, bool) {
        let row = HistogramRow {
            unit,
            cumulative: total.cumulative.clone(),
            interval: total.interval.clone(),
            bounds: self.bounds(name),
        };
        (
            RowValue::Histogram(Box::new(row)),
            !total.cumulative.is_empty(),
        )
    }

    /// The bounds of the buckets of a histogram.
    fn bounds(&self, name: &str) -> Arc<[f64]> {
        let settings = self.inner.config.histogram_buckets.iter();
        let mut both = settings.zip(&self.inner.bounds);
        let found = both.find(|(setting, _)| setting.matcher.matches(name));
        Arc::clone(found.map_or(&self.inner.default_bounds, |(_, bounds)| bounds))
    }

    /// Finds out once which stats of a set exist.
    fn accept(&self, prefix: &str, set: &mut SetState) {
        if set.accepted.is_none() {
            let names = set
                .names()
                .map(|name| self.accepts(&format!("{prefix}{name}")));
            set.accepted = Some(names.collect());
        }
    }

    /// Whether the stats matcher lets a stat exist.
    pub(crate) fn accepts(&self, name: &str) -> bool {
        self.inner.config.matcher.accepts(name)
    }

    pub(crate) fn max_dynamic_names(&self) -> usize {
        self.inner.config.max_dynamic_names
    }

    pub(crate) fn count_overflow(&self) {
        self.inner.overflow.count();
    }

    fn extract(&self, name: &str, tagged: bool) -> Extracted {
        let tagged = match tagged {
            true => self.inner.tags.produce(name),
            false => Tagged {
                name: name.to_owned(),
                tags: Vec::new(),
            },
        };
        Extracted {
            name: self.intern(tagged.name),
            labels: self.intern(labels_of(&tagged.tags)),
        }
    }

    fn intern(&self, text: String) -> Arc<str> {
        let mut interned = self.inner.interned.lock();
        if let Some(known) = interned.get(text.as_str()) {
            return Arc::clone(known);
        }
        let text: Arc<str> = text.into();
        interned.insert(Arc::clone(&text));
        text
    }

    fn cores(&self) -> Vec<Arc<ScopeCore>> {
        self.inner
            .scopes
            .lock()
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }

    pub(crate) fn families(&self) -> Vec<Arc<FamilyCore>> {
        let mut families: Vec<_> = self
            .inner
            .families
            .lock()
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        families.sort_by_key(|family| family.options.name);
        families
    }
}

fn latched_counter(prefix: &str, name: &str, delta: u64, value: u64) -> LatchedCounter {
    LatchedCounter {
        name: format!("{prefix}{name}"),
        delta,
        value,
    }
}

impl SetState {
    /// Whether the stat at `at` exists.
    fn is_accepted(&self, at: usize) -> bool {
        self.accepted.as_ref().is_none_or(|accepted| accepted[at])
    }
}

impl Named {
    fn flush(&mut self) {
        match &mut self.kind {
            NamedKind::Counter(entry) => entry.fold(),
            NamedKind::Gauge(entry) => entry.fold(),
            NamedKind::Histogram(entry, _) => entry.flush(),
            NamedKind::Text(_) => {}
        }
    }
}
