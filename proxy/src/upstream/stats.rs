//! Stats of a cluster, under Envoy's names.

outrigger_stats::stat_set! {
    /// What a cluster counts on one worker (`cluster.<name>.`).
    pub struct ClusterStats {
        counters {
            upstream_cx_total,
            upstream_cx_http1_total,
            upstream_cx_http2_total,
            upstream_cx_http3_total,
            bind_errors,
            upstream_cx_connect_fail,
            upstream_cx_connect_timeout,
            upstream_cx_connect_with_0_rtt,
            upstream_cx_connect_attempts_exceeded,
            upstream_cx_idle_timeout,
            upstream_cx_max_duration_reached,
            upstream_cx_overflow,
            upstream_cx_pool_overflow,
            upstream_cx_preconnect_skipped,
            upstream_cx_close_notify,
            upstream_cx_destroy,
            upstream_cx_destroy_local,
            upstream_cx_destroy_remote,
            upstream_cx_destroy_with_active_rq,
            upstream_cx_destroy_local_with_active_rq,
            upstream_cx_destroy_remote_with_active_rq,
            upstream_cx_max_requests,
            upstream_cx_none_healthy,
            upstream_cx_protocol_error,
            upstream_cx_rx_bytes_total,
            upstream_cx_tx_bytes_total,
            upstream_flow_control_backed_up_total,
            upstream_flow_control_drained_total,
            upstream_flow_control_paused_reading_total,
            upstream_flow_control_resumed_reading_total,
            upstream_http3_broken,
            upstream_internal_redirect_failed_total,
            upstream_internal_redirect_succeeded_total,
            upstream_rq_active_overflow,
            upstream_rq_cancelled,
            upstream_rq_completed,
            upstream_rq_maintenance_mode,
            upstream_rq_max_duration_reached,
            upstream_rq_per_try_idle_timeout,
            upstream_rq_per_try_timeout,
            upstream_rq_pending_failure_eject,
            upstream_rq_pending_overflow,
            upstream_rq_pending_total,
            upstream_rq_0rtt,
            upstream_rq_retry,
            upstream_rq_retry_backoff_exponential,
            upstream_rq_retry_backoff_ratelimited,
            upstream_rq_retry_limit_exceeded,
            upstream_rq_retry_overflow,
            upstream_rq_retry_success,
            upstream_rq_rx_reset,
            upstream_rq_rx_reset_no_error,
            upstream_rq_timeout,
            upstream_rq_total,
            upstream_rq_tx_reset,
            retry_or_shadow_abandoned,
            lb_healthy_panic,
        }
        gauges {
            upstream_cx_active,
            upstream_cx_rx_bytes_buffered,
            upstream_cx_tx_bytes_buffered,
            upstream_queue_overloaded,
            upstream_rq_active,
            upstream_rq_pending_active,
        }
        histograms {
            upstream_cx_connect_ms: ms,
            upstream_cx_length_ms: ms,
            upstream_rq_per_cx: none,
        }
    }
}

outrigger_stats::stat_set! {
    /// What the HTTP/2 codec counts for a cluster (`cluster.<name>.http2.`); there from
    /// the first connection of HTTP/2 on. Connections count under the library that Envoy
    /// uses when it is not told which; the histograms stay empty, as Envoy's do unless a
    /// runtime flag asks for them.
    pub struct Http2CodecStats {
        counters {
            cookies_total_bytes_too_large,
            dropped_headers_with_underscores,
            goaway_sent,
            header_list_size_too_large,
            header_overflow,
            headers_cb_no_stream,
            inbound_empty_frames_flood,
            inbound_priority_frames_flood,
            inbound_window_update_frames_flood,
            keepalive_timeout,
            metadata_empty_frames,
            nghttp2_downstream_connections,
            nghttp2_upstream_connections,
            oghttp2_downstream_connections,
            oghttp2_upstream_connections,
            outbound_control_flood,
            outbound_flood,
            requests_rejected_with_underscores_in_headers,
            rx_messaging_error,
            rx_reset,
            stream_refused_errors,
            trailers,
            tx_flush_timeout,
            tx_reset,
        }
        gauges {
            deferred_stream_close,
            outbound_control_frames_active,
            outbound_frames_active,
            pending_send_bytes,
            streams_active,
        }
        histograms {
            cookie_count: none,
            cookie_size: none,
            header_count: none,
            header_list_size: none,
        }
    }
}

outrigger_stats::stat_set! {
    /// What the HTTP/1 codec counts: towards downstream (`http1.`) from the start, for a
    /// cluster (`cluster.<name>.http1.`) from the first connection of HTTP/1 on.
    pub struct Http1CodecStats {
        counters {
            dropped_headers_with_underscores,
            metadata_not_supported_error,
            requests_rejected_with_underscores_in_headers,
            response_flood,
        }
        gauges {}
        histograms {}
    }
}

outrigger_stats::stat_set! {
    /// How large requests and responses are (`TrackClusterStats.request_response_sizes`),
    /// by attempt.
    pub struct SizeStats {
        counters {}
        gauges {}
        histograms {
            upstream_rq_headers_size: bytes,
            upstream_rq_headers_count: none,
            upstream_rq_body_size: bytes,
            upstream_rs_headers_size: bytes,
            upstream_rs_headers_count: none,
            upstream_rs_body_size: bytes,
        }
    }
}

outrigger_stats::stat_set! {
    /// What share of the timeouts was used (`TrackClusterStats.timeout_budgets`).
    pub struct BudgetStats {
        counters {}
        gauges {}
        histograms {
            upstream_rq_timeout_budget_percent_used: none,
            upstream_rq_timeout_budget_per_try_percent_used: none,
        }
    }
}
