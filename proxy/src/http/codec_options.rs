//! From the configuration to the options of the codecs.

use std::sync::Arc;

use bytes::Bytes;
use outrigger_config::ir::{
    self, ClusterConfig, CommonHttpOptions, HcmConfig, HeaderKeyFormat, Http1Options, Http2Options,
    KeepaliveConfig,
};

use super::codec::{UnderscoresAction, h1, h2};

/// Largest head of a response where nothing is configured, KiB.
const RESPONSE_HEADERS_KB: u32 = 60;
/// The same for HTTP/1.
const H1_RESPONSE_HEADERS_KB: u32 = 80;

/// HTTP/1 towards downstream.
pub fn h1_server(hcm: &HcmConfig, buffer_limit: usize) -> Arc<h1::Options> {
    Arc::new(h1::Options {
        max_headers_bytes: kib(hcm.max_request_headers_kb),
        underscores: underscores(hcm.common_http.headers_with_underscores_action),
        ..h1_options(&hcm.http1, &hcm.common_http, buffer_limit)
    })
}

/// HTTP/2 towards downstream.
pub fn h2_server(hcm: &HcmConfig, buffer_limit: usize) -> Arc<h2::Options> {
    Arc::new(h2::Options {
        max_headers_bytes: kib(hcm.max_request_headers_kb),
        underscores: underscores(hcm.common_http.headers_with_underscores_action),
        ..h2_options(&hcm.http2, &hcm.common_http, buffer_limit)
    })
}

/// HTTP/1 towards upstream.
pub fn h1_client(cluster: &ClusterConfig) -> Arc<h1::Options> {
    let limit = cluster.per_connection_buffer_limit as usize;
    Arc::new(h1_options(&cluster.http1, &cluster.common_http, limit))
}

/// HTTP/2 towards upstream.
pub fn h2_client(cluster: &ClusterConfig) -> Arc<h2::Options> {
    let limit = cluster.per_connection_buffer_limit as usize;
    Arc::new(h2_options(&cluster.http2, &cluster.common_http, limit))
}

fn h1_options(
    http1: &Http1Options,
    common: &CommonHttpOptions,
    buffer_limit: usize,
) -> h1::Options {
    let defaults = h1::Options::default();
    h1::Options {
        allow_absolute_url: http1.allow_absolute_url,
        accept_http_10: http1.accept_http_10,
        default_host_for_http_10: http1
            .default_host_for_http_10
            .as_ref()
            .map(|host| Bytes::copy_from_slice(host.as_bytes())),
        header_case: match http1.header_key_format {
            HeaderKeyFormat::Lower => h1::HeaderCase::Lower,
            HeaderKeyFormat::ProperCase => h1::HeaderCase::Proper,
        },
        enable_trailers: http1.enable_trailers,
        allow_chunked_length: http1.allow_chunked_length,
        allow_custom_methods: http1.allow_custom_methods,
        send_fully_qualified_url: http1.send_fully_qualified_url,
        max_headers_bytes: kib(common
            .max_response_headers_kb
            .unwrap_or(H1_RESPONSE_HEADERS_KB)),
        max_headers_count: common.max_headers_count as usize,
        write_buffer: bounded(buffer_limit, defaults.write_buffer),
        ..defaults
    }
}

fn h2_options(
    http2: &Http2Options,
    common: &CommonHttpOptions,
    buffer_limit: usize,
) -> h2::Options {
    let defaults = h2::Options::default();
    h2::Options {
        hpack_table_size: http2.hpack_table_size,
        max_concurrent_streams: http2.max_concurrent_streams,
        initial_stream_window_size: http2.initial_stream_window_size,
        initial_connection_window_size: http2.initial_connection_window_size,
        allow_connect: http2.allow_connect,
        max_outbound_frames: http2.max_outbound_frames,
        max_outbound_control_frames: http2.max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload: http2
            .max_consecutive_inbound_frames_with_empty_payload,
        max_inbound_priority_frames_per_stream: http2.max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent: http2
            .max_inbound_window_update_frames_per_data_frame_sent,
        max_send_buffer_size: bounded(buffer_limit, defaults.max_send_buffer_size),
        max_headers_bytes: kib(common
            .max_response_headers_kb
            .unwrap_or(RESPONSE_HEADERS_KB)),
        max_headers_count: common.max_headers_count as usize,
        keepalive: http2.keepalive.map(keepalive),
        ..defaults
    }
}

/// No more than the connection may hold; 0 stands for no limit there.
fn bounded(limit: usize, default: usize) -> usize {
    if limit == 0 {
        default
    } else {
        limit.min(default)
    }
}

fn keepalive(config: KeepaliveConfig) -> h2::Keepalive {
    h2::Keepalive {
        interval: config.interval,
        jitter: config.interval_jitter,
        timeout: config.timeout,
        idle_interval: config.connection_idle_interval,
    }
}

fn underscores(action: ir::UnderscoresAction) -> UnderscoresAction {
    match action {
        ir::UnderscoresAction::Allow => UnderscoresAction::Allow,
        ir::UnderscoresAction::RejectRequest => UnderscoresAction::RejectRequest,
        ir::UnderscoresAction::DropHeader => UnderscoresAction::DropHeader,
    }
}

fn kib(n: u32) -> usize {
    n as usize * 1024
}
