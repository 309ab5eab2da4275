//! Stats of the process (`server.`), under Envoy's names. Hot restart and
//! certificates do not exist here: their stats stay at what Envoy shows when there
//! are none.

use std::time::Instant;

use outrigger_stats::{Slab, Store};

use crate::admin::{MemoryUse, ServerState, server_state};
use crate::version;
use crate::xds::InitState;

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

outrigger_stats::stat_set! {
    /// The overload manager, at the root of names: nothing ends streams to save memory, and there
    /// is no monitor that would have to be asked again and again.
    pub struct OverloadStats {
        counters {
            streams_reset = "envoy.overload_actions.reset_high_memory_stream.count",
        }
        histograms {
            refresh_interval_delay = "overload.refresh_interval_delay": ms,
        }
    }
}

/// What `days_until_first_cert_expiring` says without certificates.
const NO_CERTIFICATE: i64 = u32::MAX as i64;

/// Publishes the stats of the process.
pub struct ServerObserver {
    stats: Slab<ServerStats>,
    _overload: Slab<OverloadStats>,
    initialized: bool,
}

impl ServerObserver {
    /// What does not change: workers, and the unknown fields of the bootstrap.
    pub fn new(store: &Store, concurrency: usize, unknown_fields: usize) -> Self {
        let stats: Slab<ServerStats> = store.scope("server.").slab();
        stats.gauge_set(ServerStats::concurrency, signed(concurrency));
        stats.gauge_set(ServerStats::days_until_first_cert_expiring, NO_CERTIFICATE);
        stats.add(ServerStats::static_unknown_fields, unknown_fields as u64);
        stats.gauge_set(ServerStats::version, version::gauge());
        stats.gauge_set(ServerStats::fips_mode, 0);
        stats.gauge_set(ServerStats::stats_recent_lookups, 0);
        for counter in [
            ServerStats::dynamic_unknown_fields,
            ServerStats::static_unknown_fields,
            ServerStats::wip_protos,
        ] {
            stats.mark_used(counter);
        }
        Self {
            stats,
            _overload: store.scope("").slab(),
            initialized: false,
        }
    }

    /// What changes: state, uptime, memory, connections.
    pub fn observe(&mut self, state: &ServerState, connections: u64) {
        let stats = &self.stats;
        let live = i64::from(!state.health_failed);
        stats.gauge_set(ServerStats::live, live);
        stats.gauge_set(ServerStats::state, server_state(state) as i64);
        let uptime = state.started.elapsed();
        stats.gauge_set(ServerStats::uptime, signed(uptime.as_secs()));
        let memory = MemoryUse::now();
        stats.gauge_set(ServerStats::memory_allocated, signed(memory.allocated));
        stats.gauge_set(ServerStats::memory_heap_size, signed(memory.heap));
        stats.gauge_set(ServerStats::memory_physical_size, signed(memory.physical));
        stats.gauge_set(ServerStats::total_connections, signed(connections));
        if state.init == InitState::Initialized && !self.initialized {
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
        let mut state = ServerState::starting();
        let gauge = |name| store.gauge_value(name);
        let mut seen = |state: &ServerState| {
            observer.observe(state, 5);
            (gauge("server.live"), gauge("server.state"))
        };
        assert_eq!(seen(&state), (Some(1), Some(2)));
        state.init = InitState::Listeners;
        assert_eq!(seen(&state), (Some(1), Some(3)));
        state.init = InitState::Initialized;
        assert_eq!(seen(&state), (Some(1), Some(0)));
        state.health_failed = true;
        assert_eq!(seen(&state), (Some(0), Some(1)));
        assert_eq!(gauge("server.concurrency"), Some(2));
        assert_eq!(gauge("server.total_connections"), Some(5));
        assert_eq!(store.counter_value("server.static_unknown_fields"), Some(1));
        assert!(gauge("server.memory_physical_size") > Some(0));
    }
}
