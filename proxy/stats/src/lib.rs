//! Counters, gauges and histograms: single-writer cells, names, tags and their text forms.
//!
//! # How to count
//!
//! Declare the stats of a thing once, under Envoy's names:
//!
//! ```
//! outrigger_stats::stat_set! {
//!     /// What a cluster counts on one worker.
//!     pub struct ClusterStats {
//!         counters { upstream_rq_total, upstream_rq_retry }
//!         gauges { upstream_rq_active }
//!         histograms { upstream_rq_time: ms }
//!         text { note }
//!     }
//! }
//! use outrigger_stats::Store;
//!
//! let store = Store::default();
//! let scope = store.scope("cluster.backend."); // the prefix ends with a dot
//! let stats = scope.slab::<ClusterStats>(); // one per worker, made on first use
//! stats.inc(ClusterStats::upstream_rq_total);
//! stats.add(ClusterStats::upstream_rq_retry, 2);
//! stats.gauge_inc(ClusterStats::upstream_rq_active);
//! stats.record(ClusterStats::upstream_rq_time, 12);
//! stats.set_text(ClusterStats::note, "fresh");
//!
//! // Names that are not known in advance: look the handle up once, keep it.
//! let ok = scope.counter("upstream_rq_200");
//! ok.inc();
//!
//! store.flush(); // every `stats_flush_interval`: histograms are merged here
//! assert!(store.text().contains("cluster.backend.upstream_rq_total: 1\n"));
//! ```
//!
//! # Rules
//!
//! - **One writer.** A [`Slab`], and a [`Counter`], [`Gauge`] or [`Histogram`], is
//!   written by one thread at a time: a write is a relaxed load and store, no
//!   read-modify-write. Clones share their cells, so keep clones on that thread; every
//!   call of [`Scope::slab`] or [`Scope::counter`] gives cells of its own, and all
//!   cells of a name are added up when they are read. Two writers of one cell lose
//!   increments; nothing worse happens.
//! - **Scopes.** [`Store::scope`] gives the living scope of that prefix if there is
//!   one: a cluster that is updated keeps its counters as long as any handle of the old
//!   one lives until the new one has its own. When a slab is gone its counts stay with
//!   its scope; when every handle of a scope is gone, so are its stats.
//! - **Gauges** add up over workers. [`Slab::gauge_set`] is for gauges of one owner.
//! - **Bounded.** A scope takes [`StatsConfig::max_dynamic_names`] names made at run
//!   time; the rest count nowhere but in `stats.overflow`.
//! - **Labels.** [`Store::family`] is for our own families with labels, read at
//!   `/metrics` ([`Store::open_metrics`]) and in `/stats/prometheus`.
//! - **Reading.** [`StatsQuery::parse`] and [`Store::render`] answer `/stats`, and
//!   [`PrometheusQuery::parse`] and [`Store::render_prometheus`] `/stats/prometheus`.

mod cell;
mod config;
mod entry;
mod family;
mod format;
mod handle;
mod histogram;
mod json;
mod macros;
mod name;
mod open_metrics;
mod prometheus;
mod query;
mod scope;
mod snapshot;
mod store;
mod tags;
mod text;

pub use cell::{CounterId, GaugeId, HistogramId, SetMeta, Slab, StatSet, TextId};
pub use config::{
    BucketSettings, ConfigError, NameMatcher, NamePattern, StatsConfig, StatsMatcher, TagSpecifier,
};
pub use family::{Family, FamilyKind, FamilyOptions, OVERFLOW};
pub use handle::{Counter, Gauge, Histogram, Text};
pub use histogram::{Bin, DEFAULT_BUCKETS, HistogramData, QUANTILES, Unit};
pub use name::sanitize;
pub use query::{
    BucketMode, Format, PrometheusQuery, QueryError, Rendered, StatsQuery, TypeFilter,
};
pub use scope::Scope;
pub use snapshot::{HistogramRow, Row, RowValue, Snapshot};
pub use store::{LatchedCounter, Store};
