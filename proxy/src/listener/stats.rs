//! Stats of a listener, under Envoy's names.

outrigger_stats::stat_set! {
    /// What a listener counts on one worker (`listener.<address>.`).
    pub struct ListenerStats {
        counters {
            downstream_cx_destroy,
            downstream_cx_overflow,
            downstream_cx_overload_reject,
            downstream_cx_total,
            downstream_cx_transport_socket_connect_timeout,
            downstream_global_cx_overflow,
            downstream_listener_filter_error,
            downstream_listener_filter_remote_close,
            downstream_pre_cx_timeout,
            no_filter_chain_match,
        }
        gauges {
            downstream_cx_active,
            downstream_pre_cx_active,
        }
        histograms {
            connections_accepted_per_socket_event: none,
            downstream_cx_length_ms: ms,
        }
    }
}

outrigger_stats::stat_set! {
    /// What only a listener of traffic counts (`listener.<address>.`): filters that
    /// a discovery service has not sent, of which there are none.
    pub struct DiscoveredFilterStats {
        counters {
            extension_config_missing,
            network_extension_config_missing,
        }
    }
}

outrigger_stats::stat_set! {
    /// What one worker's part of a listener counts
    /// (`listener.<address>.worker_N.`; the admin's is on `main_thread`).
    pub struct WorkerListenerStats {
        counters {
            downstream_cx_total,
        }
        gauges {
            downstream_cx_active,
        }
    }
}
