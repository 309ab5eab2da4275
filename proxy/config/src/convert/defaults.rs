//! The values of fields that are not set, as Envoy 1.40 has them.
//!
//! Those that its documentation leaves open were read from Envoy's admin pages
//! or seen in its behaviour.

use std::time::Duration;

/// `Listener.per_connection_buffer_limit_bytes` and
/// `Cluster.per_connection_buffer_limit_bytes`: 1 MiB.
pub const PER_CONNECTION_BUFFER_LIMIT: u32 = 1 << 20;
/// `Listener.tcp_backlog_size`: `net.core.somaxconn` where it can be read, else
/// this.
pub const TCP_BACKLOG: u32 = 128;

/// `HttpConnectionManager.server_name`.
pub const SERVER_NAME: &str = "envoy";
/// `HttpConnectionManager.max_request_headers_kb`.
pub const MAX_REQUEST_HEADERS_KB: u32 = 60;
/// `HttpProtocolOptions.max_headers_count`, of requests and of responses.
pub const MAX_HEADERS_COUNT: u32 = 100;
/// `HttpConnectionManager.stream_idle_timeout`: 5 min.
pub const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// `HttpProtocolOptions.idle_timeout`: 1 h, downstream and upstream.
pub const CONNECTION_IDLE_TIMEOUT: Duration = Duration::from_secs(3_600);
/// `HttpConnectionManager.drain_timeout`: 5 s.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// `HttpConnectionManager.delayed_close_timeout`: 1 s.
pub const DELAYED_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// `Http2ProtocolOptions.hpack_table_size`: 4 KiB.
pub const HPACK_TABLE_SIZE: u32 = 4_096;
/// `Http2ProtocolOptions.max_concurrent_streams`: 1,024. (Documentation of
/// older versions says 2,147,483,647.)
pub const MAX_CONCURRENT_STREAMS: u32 = 1_024;
/// `Http2ProtocolOptions.initial_stream_window_size`: 16 MiB.
pub const INITIAL_STREAM_WINDOW: u32 = 16 << 20;
/// `Http2ProtocolOptions.initial_connection_window_size`: 24 MiB.
pub const INITIAL_CONNECTION_WINDOW: u32 = 24 << 20;
/// `Http2ProtocolOptions.max_outbound_frames`.
pub const MAX_OUTBOUND_FRAMES: u32 = 10_000;
/// `Http2ProtocolOptions.max_outbound_control_frames`.
pub const MAX_OUTBOUND_CONTROL_FRAMES: u32 = 1_000;
/// `Http2ProtocolOptions.max_consecutive_inbound_frames_with_empty_payload`.
pub const MAX_CONSECUTIVE_EMPTY_FRAMES: u32 = 1;
/// `Http2ProtocolOptions.max_inbound_priority_frames_per_stream`.
pub const MAX_PRIORITY_FRAMES_PER_STREAM: u32 = 100;
/// `Http2ProtocolOptions.max_inbound_window_update_frames_per_data_frame_sent`.
pub const MAX_WINDOW_UPDATES_PER_DATA_FRAME: u32 = 10;
/// `KeepaliveSettings.interval_jitter`, per cent of the interval.
pub const KEEPALIVE_JITTER_PERCENT: f64 = 15.0;

/// `RouteAction.timeout`: 15 s.
pub const ROUTE_TIMEOUT: Duration = Duration::from_secs(15);
/// `RouteConfiguration.max_direct_response_body_size_bytes`: 4 KiB.
pub const MAX_DIRECT_RESPONSE_BODY: u32 = 4_096;

/// `RetryPolicy.num_retries`.
pub const NUM_RETRIES: u32 = 1;
/// `RetryPolicy.host_selection_retry_max_attempts`.
pub const HOST_SELECTION_ATTEMPTS: u32 = 1;
/// `RetryBackOff.base_interval` of a policy without back-off: 25 ms.
pub const RETRY_BASE_INTERVAL: Duration = Duration::from_millis(25);
/// `RetryBackOff.max_interval`: so many times the base.
pub const RETRY_MAX_INTERVAL_FACTOR: u32 = 10;
/// `RateLimitedRetryBackOff.max_interval`: 5 min.
pub const RATE_LIMITED_MAX_INTERVAL: Duration = Duration::from_secs(300);

/// `Cluster.connect_timeout`: 5 s.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// `Cluster.dns_refresh_rate`: 5 s.
pub const DNS_REFRESH_RATE: Duration = Duration::from_secs(5);
/// `Cluster.cleanup_interval`: 5 s.
pub const CLEANUP_INTERVAL: Duration = Duration::from_secs(5);
/// `CircuitBreakers.Thresholds`: connections, pending requests and requests.
pub const BREAKER_LIMIT: u32 = 1_024;
/// `CircuitBreakers.Thresholds.max_retries`.
pub const BREAKER_RETRIES: u32 = 3;
/// `RetryBudget.budget_percent`.
pub const RETRY_BUDGET_PERCENT: f64 = 20.0;
/// `RetryBudget.min_retry_concurrency`.
pub const MIN_RETRY_CONCURRENCY: u32 = 3;
/// `CommonLbConfig.healthy_panic_threshold`, per cent.
pub const HEALTHY_PANIC_THRESHOLD: f64 = 50.0;
/// `LeastRequestLbConfig.choice_count`.
pub const LEAST_REQUEST_CHOICES: u32 = 2;
/// `LeastRequestLbConfig.active_request_bias`.
pub const ACTIVE_REQUEST_BIAS: f64 = 1.0;
/// `SlowStartConfig.aggression`.
pub const SLOW_START_AGGRESSION: f64 = 1.0;
/// `SlowStartConfig.min_weight_percent`.
pub const SLOW_START_MIN_WEIGHT: f64 = 10.0;
/// `ClusterLoadAssignment.Policy.overprovisioning_factor`, per cent.
pub const OVERPROVISIONING_FACTOR: u32 = 140;

/// `ConfigSource.initial_fetch_timeout`: 15 s.
pub const INITIAL_FETCH_TIMEOUT: Duration = Duration::from_secs(15);
/// Back-off of xDS streams, first interval.
pub const XDS_RETRY_BASE: Duration = Duration::from_millis(500);
/// Back-off of xDS streams, longest interval.
pub const XDS_RETRY_MAX: Duration = Duration::from_secs(30);
/// `Bootstrap.stats_flush_interval`: 5 s.
pub const STATS_FLUSH_INTERVAL: Duration = Duration::from_secs(5);
/// `TcpProxy.idle_timeout`
pub const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(3_600);

/// `Listener.listener_filters_timeout`: 15 s.
pub const LISTENER_FILTERS_TIMEOUT: Duration = Duration::from_secs(15);

/// `TlsInspector.max_client_hello_size`: 16 KiB.
pub const MAX_CLIENT_HELLO: u32 = 16 << 10;
