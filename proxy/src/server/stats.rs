//! Stats of the process (`server.`), under Envoy's names. Hot restart, watchdogs
//! and certificates do not exist here: their stats stay at what Envoy shows when
//! there are none.

use std::time::Instant;

use outrigger_stats::{Slab, Store};

use crate::admin::ServerState;
use crate::admin::resident_bytes;

outrigger_stats::stat_set! {
    /// `server.`
    pub struct ServerStats {
        counters {
            debug_assertion_failures,
            dropped_stat_flushes,
            dynamic_unknown_fields,
            envoy_bug_failures,
            envoy_notifications,
            static_unknown_fields,
            wip_protos,
        }
        gauges {
            concurrency,
            days_until_first_cert_expiring,
            fips_mode = "compilation_settings.fips_mode",
            hot_restart_epoch,
            hot_restart_generation,
            live,
            memory_allocated,
            memory_heap_size,
            memory_physical_size,
            parent_connections,
            seconds_until_first_ocsp_response_expiring,
            state,
            stats_recent_lookups,
            total_connections,
            uptime,
            version,
        }
        histograms {
            initialization_time_ms: ms,
        }
    }
}

/// What `days_until_first_cert_expiring` says without certificates.
const NO_CERTIFICATE: i64 = u32::MAX as i64;

/// Publishes the stats of the process.
pub struct ServerObserver {
    stats: Slab<ServerStats>,
    initialized: bool,
}

impl ServerObserver {
    /// What does not change: workers, and the unknown fields of the bootstrap.
    pub fn new(store: &Store, concurrency: usize, unknown_fields: usize) -> Self {
        let stats: Slab<ServerStats> = store.scope("server.").slab();
        stats.gauge_set(ServerStats::concurrency, signed(concurrency));
        stats.gauge_set(ServerStats::days_until_first_cert_expiring, NO_CERTIFICATE);
        stats.gauge_set(ServerStats::hot_restart_generation, 1);
        stats.add(ServerStats::static_unknown_fields, unknown_fields as u64);
        Self {
            stats,
            initialized: false,
        }
    }

    /// What changes: state, uptime, memory, connections.
    pub fn observe(&mut self, state: &ServerState, connections: u64) {
        let stats = &self.stats;
        let (live, number) = match (state.initialized, state.health_failed) {
            (false, _) => (0, 3),
            (true, true) => (0, 1),
            (true, false) => (1, 0),
        };
        stats.gauge_set(ServerStats::live, live);
        stats.gauge_set(ServerStats::state, number);
        let uptime = state.started.elapsed();
        stats.gauge_set(ServerStats::uptime, signed(uptime.as_secs()));
        let resident = signed(resident_bytes());
        stats.gauge_set(ServerStats::memory_allocated, resident);
        stats.gauge_set(ServerStats::memory_heap_size, resident);
        stats.gauge_set(ServerStats::memory_physical_size, resident);
        stats.gauge_set(ServerStats::total_connections, signed(connections));
        if state.initialized && !self.initialized {
            self.initialized = true;
            let took = Instant::now().duration_since(state.started);
            let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            stats.record(ServerStats::initialization_time_ms, millis);
        }
    }
}

fn signed(n: impl TryInto<i64>) -> i64 {
    n.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_state_the_process_is_in() {
        let store = Store::default();
        let mut observer = ServerObserver::new(&store, 2, 1);
        let mut state = ServerState {
            started: Instant::now(),
            initialized: false,
            health_failed: false,
            draining: false,
            quit: false,
            stop_after_drain: None,
        };
        let gauge = |name| store.gauge_value(name);
        observer.observe(&state, 5);
        assert_eq!(
            (gauge("server.live"), gauge("server.state")),
            (Some(0), Some(3))
        );
        state.initialized = true;
        observer.observe(&state, 5);
        assert_eq!(
            (gauge("server.live"), gauge("server.state")),
            (Some(1), Some(0))
        );
        assert_eq!(gauge("server.concurrency"), Some(2));
        assert_eq!(gauge("server.total_connections"), Some(5));
        assert_eq!(store.counter_value("server.static_unknown_fields"), Some(1));
        assert!(gauge("server.memory_allocated") > Some(0));
    }
}
