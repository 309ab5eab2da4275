//! Stats of the managers of clusters and listeners, under Envoy's names.

outrigger_stats::stat_set! {
    /// `cluster_manager.`
    pub struct ClusterManagerStats {
        counters {
            cluster_added,
            cluster_modified,
            cluster_removed,
            cluster_updated,
            cluster_updated_via_merge,
            update_merge_cancelled,
            update_out_of_merge_window,
        }
        gauges {
            active_clusters,
            warming_clusters,
        }
    }
}

outrigger_stats::stat_set! {
    /// `listener_manager.`
    pub struct ListenerManagerStats {
        counters {
            listener_added,
            listener_create_failure,
            listener_create_success,
            listener_in_place_updated,
            listener_modified,
            listener_removed,
            listener_stopped,
        }
        gauges {
            total_filter_chains_draining,
            total_listeners_active,
            total_listeners_draining,
            total_listeners_warming,
            workers_pinned,
            workers_started,
        }
    }
}

outrigger_stats::stat_set! {
    /// What a cluster counts on the main thread (`cluster.<name>.`).
    pub struct ClusterMembershipStats {
        counters {
            assignment_stale,
            assignment_timeout_received,
            assignment_use_cached,
            lb_recalculate_zone_structures,
            lb_subsets_created,
            lb_subsets_fallback,
            lb_subsets_fallback_panic,
            lb_subsets_removed,
            lb_subsets_selected,
            lb_zone_cluster_too_small,
            lb_zone_no_capacity_left,
            lb_zone_routing_all_directly,
            lb_zone_routing_cross_zone,
            lb_zone_routing_sampled,
            lb_local_cluster_not_ok,
            membership_change,
            original_dst_host_invalid,
            update_attempt,
            update_empty,
            update_failure,
            update_no_rebuild,
            update_success,
        }
        gauges {
            lb_subsets_active,
            max_host_weight,
            membership_degraded,
            membership_excluded,
            membership_healthy,
            membership_total,
            version,
            warming_state,
        }
    }
}
