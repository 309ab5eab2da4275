//! Listeners that were taken away and whose connections drain. Their stats are
//! shown until the drain time has passed, as in Envoy.

use std::collections::HashSet;
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

/// A listener, or filter chains of one that serves on.
struct DrainingListener {
    until: Instant,
    /// How many chains; none for the whole listener.
    chains: Option<usize>,
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
        self.begin(entry, None);
    }

    /// Drains the chains of a listener that its next version has no more.
    pub(super) fn begin_chain_drain(&mut self, old: &ListenerEntry, new: &ListenerEntry) {
        let kept: HashSet<u64> = new.chains().map(|chain| chain.fingerprint).collect();
        let gone = old.chains().filter(|c| !kept.contains(&c.fingerprint));
        let gone = gone.count();
        if gone > 0 {
            self.begin(old, Some(gone));
        }
    }

    fn begin(&mut self, entry: &ListenerEntry, chains: Option<usize>) {
        // A drain time past the clock's range is no drain time worth keeping.
        let Some(until) = Instant::now().checked_add(self.draining.time) else {
            return;
        };
        let _scopes = self.scopes(entry);
        self.draining.listeners.push(DrainingListener {
            until,
            chains,
            _scopes,
        });
        self.end_drained();
    }

    fn scopes(&self, entry: &ListenerEntry) -> Vec<Scope> {
        let listener = format!("listener.{}.", entry.spec.stat_name);
        let mut prefixes: Vec<String> = (0..self.workers.len())
            .map(|n| format!("{listener}worker_{n}."))
            .collect();
        for chain in entry.chains() {
            match &chain.terminal {
                NetworkTerminal::Http(hcm) => {
                    let prefix = &hcm.stat_prefix;
                    prefixes.push(format!("http.{prefix}."));
                    prefixes.push(format!("{listener}http.{prefix}."));
                }
                NetworkTerminal::Tcp(tcp) => prefixes.push(format!("tcp.{}.", tcp.stat_prefix)),
                NetworkTerminal::None => {}
            }
        }
        prefixes.push(listener);
        prefixes.iter().map(|p| self.store.scope(p)).collect()
    }

    fn count_draining(&self) {
        let listeners = &self.draining.listeners;
        let whole = listeners.iter().filter(|l| l.chains.is_none()).count();
        let chains = listeners.iter().filter_map(|l| l.chains).sum();
        let set = |id, n: usize| {
            let n = i64::try_from(n).unwrap_or(i64::MAX);
            if self.listener_stats.gauge_value(id) != n {
                self.listener_stats.gauge_set(id, n);
            }
        };
        set(ListenerManagerStats::total_listeners_draining, whole);
        set(ListenerManagerStats::total_filter_chains_draining, chains);
    }
}
