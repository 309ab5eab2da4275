//! Listeners that were taken away and whose connections drain. Their stats are
//! shown until the drain time has passed, as in Envoy.

use std::time::{Duration, Instant};

use outrigger_config::ir::NetworkTerminal;
use outrigger_stats::Scope;

use super::Snapshot;
use super::listeners::ListenerEntry;
use super::stats::ListenerManagerStats;

/// Envoy's `--drain-time-s`.
const DRAIN_TIME: Duration = Duration::from_secs(600);

/// What drains.
pub(super) struct Draining {
    time: Duration,
    listeners: Vec<DrainingListener>,
}

struct DrainingListener {
    until: Instant,
    /// Keeps its stats.
    _scopes: Vec<Scope>,
}

impl Default for Draining {
    fn default() -> Self {
        Self {
            time: DRAIN_TIME,
            listeners: Vec::new(),
        }
    }
}

impl Snapshot {
    /// Sets how long connections of a removed listener may take to end. Default
    /// 600 s.
    pub fn set_drain_time(&mut self, time: Duration) {
        self.draining.time = time;
    }

    /// Lets go of the listeners whose drain time has passed.
    pub fn end_drained(&mut self) {
        let now = Instant::now();
        self.draining.listeners.retain(|l| l.until > now);
        self.count_draining();
    }

    pub(super) fn begin_drain(&mut self, entry: &ListenerEntry) {
        // A drain time past the clock's range is no drain time worth keeping.
        let Some(until) = Instant::now().checked_add(self.draining.time) else {
            return;
        };
        let _scopes = self.scopes(entry);
        self.draining
            .listeners
            .push(DrainingListener { until, _scopes });
        self.end_drained();
    }

    fn scopes(&self, entry: &ListenerEntry) -> Vec<Scope> {
        let config = &entry.spec.config;
        let listener = format!("listener.{}.", entry.spec.stat_name);
        let mut prefixes: Vec<String> = (0..self.workers.len())
            .map(|n| format!("{listener}worker_{n}."))
            .collect();
        let chains = config.filter_chains.iter();
        for chain in chains.chain(&config.default_filter_chain) {
            if let NetworkTerminal::Http(hcm) = &chain.terminal {
                let prefix = &hcm.stat_prefix;
                prefixes.push(format!("http.{prefix}."));
                prefixes.push(format!("{listener}http.{prefix}."));
            }
        }
        prefixes.push(listener);
        prefixes.iter().map(|p| self.store.scope(p)).collect()
    }

    fn count_draining(&self) {
        let n = i64::try_from(self.draining.listeners.len()).unwrap_or(i64::MAX);
        self.listener_stats
            .gauge_set(ListenerManagerStats::total_listeners_draining, n);
    }
}
