//! What is not set takes Envoy's value.

use std::time::Duration;

use outrigger_config::convert;
use outrigger_config::ir::*;
use serde_json::{Value, json};

use crate::support::{bytes, cluster, context, hcm, listener_with, names, routes_with};

fn listener() -> ListenerConfig {
    let bytes = bytes(names::LISTENER, &listener_with(hcm(json!({}))));
    convert::listener(&bytes, &context()).unwrap().value
}

fn hcm_of(fields: Value) -> HcmConfig {
    let bytes = bytes(names::LISTENER, &listener_with(hcm(fields)));
    let listener = convert::listener(&bytes, &context()).unwrap().value;
    match &listener.filter_chains[0].terminal {
        NetworkTerminal::Http(config) => HcmConfig::clone(config),
        NetworkTerminal::Tcp(_) | NetworkTerminal::None => panic!("no HCM"),
    }
}

fn cluster_of(fields: Value) -> ClusterConfig {
    let bytes = bytes(names::CLUSTER, &cluster(fields));
    convert::cluster(&bytes, &context()).unwrap().value
}

fn forward(action: Value) -> ForwardConfig {
    let table = routes_with(json!({ "match": { "prefix": "/" }, "route": action }));
    let table = convert::route_table(&bytes(names::ROUTES, &table), &context())
        .unwrap()
        .value;
    let host = std::sync::Arc::into_inner(table.virtual_hosts.into_iter().next().unwrap()).unwrap();
    let route = std::sync::Arc::into_inner(host.routes.into_iter().next().unwrap()).unwrap();
    match route.action {
        RouteActionConfig::Forward(config) => *config,
        other => panic!("{other:?} is no route"),
    }
}

const fn seconds(n: u64) -> Option<Duration> {
    Some(Duration::from_secs(n))
}

#[test]
fn of_a_listener() {
    let config = listener();
    assert!(config.bind_to_port && config.enable_reuse_port);
    assert!(!config.ipv4_compat && !config.drain_modify_only && !config.ignore_global_conn_limit);
    assert_eq!(config.per_connection_buffer_limit, 1024 * 1024);
    assert_eq!(config.max_connections_per_event, None);
    assert_eq!(config.traffic_direction, TrafficDirection::Unspecified);
    assert!(config.tcp_backlog >= 1);
    let chain = &config.filter_chains[0];
    assert_eq!(chain.matches, FilterChainMatchConfig::default());
    assert_eq!(chain.transport_socket_connect_timeout, None);
}

#[test]
fn of_an_hcm() {
    let config = hcm_of(json!({}));
    assert_eq!(config.codec, CodecType::Auto);
    assert_eq!(&*config.server_name, "envoy");
    assert_eq!(config.server_header, ServerHeaderTransformation::Overwrite);
    assert_eq!(config.max_request_headers_kb, 60);
    assert!(config.generate_request_id);
    assert!(!config.preserve_external_request_id && !config.always_set_request_id_in_response);
    assert!(!config.use_remote_address && !config.skip_xff_append && !config.normalize_path);
    assert!(config.internal_addresses.is_empty() && !config.internal_unix_sockets);
    assert_eq!(config.forward_client_cert, ForwardClientCert::Sanitize);
    assert_eq!(config.escaped_slashes, EscapedSlashesAction::KeepUnchanged);
    assert_eq!(config.strip_port, StripPort::None);
    assert!(config.router.dynamic_stats && !config.router.suppress_envoy_headers);
}

#[test]
fn of_the_timeouts_of_an_hcm() {
    let config = hcm_of(json!({}));
    assert_eq!(config.stream_idle_timeout, seconds(300));
    assert_eq!(config.stream_flush_timeout, seconds(300));
    assert_eq!(config.request_timeout, None);
    assert_eq!(config.request_headers_timeout, None);
    assert_eq!(config.drain_timeout, Duration::from_secs(5));
    assert_eq!(config.delayed_close_timeout, Duration::from_secs(1));
    assert_eq!(config.common_http.idle_timeout, seconds(3_600));
    assert_eq!(config.common_http.max_connection_duration, None);
    assert_eq!(config.common_http.max_stream_duration, None);
}

#[test]
fn a_timeout_of_zero_is_none() {
    let config = hcm_of(json!({
        "stream_idle_timeout": "0s",
        "common_http_protocol_options": { "idle_timeout": "0s" }
    }));
    assert_eq!(config.stream_idle_timeout, None);
    assert_eq!(config.common_http.idle_timeout, None);
    assert_eq!(
        forward(json!({ "cluster": "c", "timeout": "0s" })).timeout,
        None
    );
}

#[test]
fn of_http_options() {
    let config = hcm_of(json!({}));
    assert_eq!(config.common_http.max_headers_count, 100);
    assert_eq!(
        config.common_http.headers_with_underscores_action,
        UnderscoresAction::Allow
    );
    assert_eq!(config.common_http.max_requests_per_connection, None);
    let http1 = config.http1;
    assert!(http1.allow_absolute_url && !http1.accept_http_10 && !http1.enable_trailers);
    assert!(!http1.allow_chunked_length && !http1.allow_custom_methods);
    assert_eq!(http1.header_key_format, HeaderKeyFormat::Lower);
    let http2 = config.http2;
    assert_eq!(http2.hpack_table_size, 4_096);
    assert_eq!(http2.max_concurrent_streams, 1_024);
    assert_eq!(http2.initial_stream_window_size, 16 * 1024 * 1024);
    assert_eq!(http2.initial_connection_window_size, 24 * 1024 * 1024);
    assert_eq!(http2.max_outbound_frames, 10_000);
    assert_eq!(http2.max_outbound_control_frames, 1_000);
    assert_eq!(http2.max_consecutive_inbound_frames_with_empty_payload, 1);
    assert_eq!(http2.max_inbound_priority_frames_per_stream, 100);
    assert_eq!(
        http2.max_inbound_window_update_frames_per_data_frame_sent,
        10
    );
    assert_eq!(http2.keepalive, None);
}

#[test]
fn of_a_keepalive() {
    let config = hcm_of(json!({ "http2_protocol_options": {
        "connection_keepalive": { "interval": "10s", "timeout": "2s" }
    } }));
    let keepalive = config.http2.keepalive.unwrap();
    assert_eq!(keepalive.interval_jitter, Duration::from_millis(1_500));
    assert_eq!(keepalive.connection_idle_interval, None);
}

#[test]
fn of_a_route() {
    let config = forward(json!({ "cluster": "c" }));
    assert_eq!(config.timeout, seconds(15));
    assert_eq!(config.idle_timeout, None);
    assert_eq!(config.cluster_not_found.as_u16(), 503);
    assert_eq!(config.priority, RoutingPriority::Default);
    assert!(config.retry_policy.is_none() && config.max_grpc_timeout.is_none());
    assert!(matches!(config.host_rewrite, HostRewrite::None));
}

#[test]
fn of_a_retry_policy() {
    let config = forward(json!({ "cluster": "c", "retry_policy": { "retry_on": "5xx,whatever" } }));
    let policy = config.retry_policy.unwrap();
    assert_eq!(policy.retry_on, RetryOn::FIVE_XX);
    assert_eq!(policy.num_retries, 1);
    assert_eq!(policy.per_try_timeout, None);
    assert_eq!(policy.back_off.base, Duration::from_millis(25));
    assert_eq!(policy.back_off.max, Duration::from_millis(250));
    assert_eq!(policy.host_selection_retry_max_attempts, 1);
    assert!(!policy.avoid_previous_hosts);
}

#[test]
fn of_a_back_off() {
    let config = forward(json!({ "cluster": "c", "retry_policy": {
        "retry_back_off": { "base_interval": "0.0005s" },
        "rate_limited_retry_back_off": { "reset_headers": [{ "name": "Retry-After" }] }
    } }));
    let policy = config.retry_policy.unwrap();
    assert_eq!(policy.back_off.base, Duration::from_millis(1));
    assert_eq!(policy.back_off.max, Duration::from_millis(10));
    let limited = policy.rate_limited_back_off.as_ref().unwrap();
    assert_eq!(limited.max_interval, Duration::from_secs(300));
    assert_eq!(limited.reset_headers[0].1, ResetHeaderFormat::Seconds);
}

#[test]
fn of_a_table() {
    let table = routes_with(json!({ "match": { "prefix": "/" }, "route": { "cluster": "c" } }));
    let rds = convert::route_table(&bytes(names::ROUTES, &table), &context())
        .unwrap()
        .value;
    assert!(!rds.validate_clusters);
    assert!(!rds.most_specific_header_mutations_wins && !rds.ignore_port_in_host_matching);
    let RouteSource::Inline(inline) = hcm_of(json!({ "route_config": table })).routes else {
        panic!("not inline");
    };
    assert!(inline.validate_clusters);
    assert!(inline.virtual_hosts[0].routes[0].matches.case_sensitive);
}

#[test]
fn of_a_redirect() {
    let table = routes_with(json!({ "match": { "path": "/" }, "redirect": {} }));
    let table = convert::route_table(&bytes(names::ROUTES, &table), &context())
        .unwrap()
        .value;
    let RouteActionConfig::Redirect(redirect) = &table.virtual_hosts[0].routes[0].action else {
        panic!("no redirect");
    };
    assert_eq!(redirect.status.as_u16(), 301);
    assert!(matches!(redirect.path, PathRedirect::Keep) && redirect.port.is_none());
}

#[test]
fn of_a_cluster() {
    let config = cluster_of(json!({}));
    assert_eq!(config.connect_timeout, Duration::from_secs(5));
    assert_eq!(config.per_connection_buffer_limit, 1024 * 1024);
    assert_eq!(config.protocol, UpstreamProtocolConfig::Http1);
    assert_eq!(config.common_http.idle_timeout, seconds(3_600));
    assert!(matches!(config.lb, LbPolicyConfig::RoundRobin(slow) if slow.window.is_zero()));
    assert_eq!(config.lb_common.healthy_panic_threshold, 50.0);
    assert!(!config.lb_common.locality_weighted && !config.lb_common.fail_traffic_on_panic);
}

#[test]
fn of_circuit_breakers() {
    let config = cluster_of(json!({ "circuit_breakers": { "thresholds": [
        { "priority": "HIGH", "max_requests": 7, "retry_budget": {} }
    ] } }));
    let default = config.breakers_default;
    assert_eq!(default.max_connections, 1_024);
    assert_eq!(default.max_pending_requests, 1_024);
    assert_eq!(default.max_requests, 1_024);
    assert_eq!(default.max_retries, 3);
    assert_eq!(default.retry_budget, None);
    assert_eq!(default.max_connection_pools, u32::MAX);
    assert_eq!(default.max_connections_per_host, u32::MAX);
    assert!(!default.track_remaining);
    assert_eq!(config.breakers_high.max_requests, 7);
    let budget = config.breakers_high.retry_budget.unwrap();
    assert_eq!(
        (budget.budget_percent, budget.min_retry_concurrency),
        (20.0, 3)
    );
}

#[test]
fn of_load_balancers() {
    let least = LbPolicyConfig::LeastRequest {
        choice_count: 2,
        full_scan: false,
        active_request_bias: 1.0,
        slow_start: SlowStart {
            window: Duration::ZERO,
            aggression: 1.0,
            min_weight_percent: 10.0,
        },
    };
    assert_eq!(
        cluster_of(json!({ "lb_policy": "LEAST_REQUEST" })).lb,
        least
    );
    let typed = cluster_of(json!({ "load_balancing_policy": { "policies": [
        { "typed_extension_config": { "name": "least", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest"
        } } }
    ] } }));
    assert_eq!(typed.lb, least);
}

#[test]
fn of_dns() {
    let config = cluster_of(json!({ "type": "STRICT_DNS" }));
    let DiscoveryConfig::StrictDns(hosts, dns) = config.discovery else {
        panic!("not STRICT_DNS");
    };
    assert_eq!(dns.refresh_rate, Duration::from_secs(5));
    assert_eq!(
        (dns.family, dns.respect_ttl),
        (DnsLookupFamily::Auto, false)
    );
    assert_eq!(dns.failure_refresh_rate, None);
    assert_eq!(&*hosts.localities[0].endpoints[0].hostname, "127.0.0.1");
}

#[test]
fn of_endpoints() {
    let DiscoveryConfig::Static(hosts) = cluster_of(json!({})).discovery else {
        panic!("not STATIC");
    };
    assert_eq!(hosts.overprovisioning_factor, 140);
    assert_eq!(hosts.endpoint_stale_after, None);
    let locality = &hosts.localities[0];
    assert_eq!((locality.priority, locality.weight), (0, None));
    assert_eq!(locality.endpoints[0].weight, 1);
    assert_eq!(locality.endpoints[0].health, HealthStatus::Unknown);
}

#[test]
fn of_eds() {
    let config = cluster_of(json!({
        "type": "EDS",
        "load_assignment": null,
        "eds_cluster_config": { "eds_config": { "ads": {}, "resource_api_version": "V3" } }
    }));
    let DiscoveryConfig::Eds {
        source,
        service_name,
    } = config.discovery
    else {
        panic!("not EDS");
    };
    assert_eq!(&*service_name, "c");
    assert_eq!(source.source, ConfigSourceKind::Ads);
    assert_eq!(source.initial_fetch_timeout, seconds(15));
}

#[test]
fn of_a_bootstrap() {
    let bytes = bytes(names::BOOTSTRAP, &json!({}));
    let config = convert::bootstrap(&bytes, &context()).unwrap().value;
    assert_eq!(config.stats_flush_interval, Some(Duration::from_secs(5)));
    assert!(config.stats.use_all_default_tags);
    assert!(matches!(config.stats.matcher, StatsMatcherConfig::All));
    assert!(config.admin.is_none() && config.ads.is_none());
    assert!(config.runtime_layers.is_empty() && config.max_downstream_connections.is_none());
}

#[test]
fn of_the_modes_of_http_options() {
    let with = |mode: Value| {
        let mut options = json!({
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        });
        crate::support::merge(&mut options, mode);
        cluster_of(json!({
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options
            }
        }))
        .protocol
    };
    let explicit = |version: &str| with(json!({ "explicit_http_config": { version: {} } }));
    assert_eq!(
        explicit("http_protocol_options"),
        UpstreamProtocolConfig::Http1
    );
    assert_eq!(
        explicit("http2_protocol_options"),
        UpstreamProtocolConfig::Http2
    );
    assert_eq!(
        with(json!({ "use_downstream_protocol_config": { "http2_protocol_options": {} } })),
        UpstreamProtocolConfig::Downstream
    );
    let old = cluster_of(json!({ "http2_protocol_options": {}, "max_requests_per_connection": 1 }));
    assert_eq!(old.protocol, UpstreamProtocolConfig::Http2);
    assert_eq!(old.common_http.max_requests_per_connection, Some(1));
}

#[test]
fn a_typed_struct_becomes_the_message_that_it_names() {
    for wrapper in ["udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"] {
        let config = hcm_of(
            json!({ "http_filters": [{ "name": "router", "typed_config": {
            "@type": format!("type.googleapis.com/{wrapper}"),
            "type_url": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
            "value": { "suppress_envoy_headers": true, "dynamic_stats": false }
        } }] }),
        );
        assert!(
            config.router.suppress_envoy_headers && !config.router.dynamic_stats,
            "{wrapper}"
        );
    }
}

#[test]
fn overrides_of_a_route_are_kept_by_name() {
    let buffer = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute";
    let table = routes_with(json!({
        "match": { "prefix": "/" },
        "route": { "cluster": "c" },
        "typed_per_filter_config": {
            "a": { "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true },
            "b": { "@type": buffer, "disabled": true },
            "c": {
                "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
                "config": { "@type": buffer, "disabled": true }
            }
        }
    }));
    let table = convert::route_table(&bytes(names::ROUTES, &table), &context())
        .unwrap()
        .value;
    let overrides = &table.virtual_hosts[0].routes[0].filter_overrides;
    let seen: Vec<_> = overrides
        .iter()
        .map(|(name, of)| (&**name, of.disabled, of.config.is_some()))
        .collect();
    assert_eq!(
        seen,
        [("a", true, false), ("b", false, true), ("c", false, true)]
    );
}
