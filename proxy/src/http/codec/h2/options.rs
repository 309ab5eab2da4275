//! What may be configured.

use std::time::Duration;

use crate::http::codec::UnderscoresAction;

/// PING keep-alive (`KeepaliveSettings`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Time between PINGs; none for none but the idle ones.
    pub interval: Option<Duration>,
    /// Longest random addition to the interval.
    pub jitter: Duration,
    /// How long an answer may take before the connection is ended.
    pub timeout: Duration,
    /// Send one before a stream if nothing came for so long (upstream).
    pub idle_interval: Option<Duration>,
}

/// `Http2ProtocolOptions`, and the limits that stand elsewhere in Envoy's
/// configuration. [`Default`] is Envoy's default.
#[derive(Clone, Debug)]
pub struct Options {
    /// HPACK dynamic table, bytes. Default 4,096.
    pub hpack_table_size: u32,
    /// Streams that the peer may have open. Default 1,024.
    pub max_concurrent_streams: u32,
    /// Window of a stream, bytes. Default 16 MiB.
    pub initial_stream_window_size: u32,
    /// Window of the connection, bytes. Default 24 MiB.
    pub initial_connection_window_size: u32,
    /// Take extended CONNECT (RFC 8441). Default false.
    pub allow_connect: bool,
    /// Heads and ends of messages that may wait to be written. Default 10,000.
    pub max_outbound_frames: u32,
    /// Answers to PING and SETTINGS that may wait. Default 1,000.
    pub max_outbound_control_frames: u32,
    /// Empty DATA, HEADERS and CONTINUATION frames in a row. Default 1.
    pub max_consecutive_inbound_frames_with_empty_payload: u32,
    /// PRIORITY frames a stream. Default 100.
    pub max_inbound_priority_frames_per_stream: u32,
    /// WINDOW_UPDATE frames a DATA frame sent. Default 10.
    pub max_inbound_window_update_frames_per_data_frame_sent: u32,
    /// Small DATA frames that may wait unread on all streams of a connection:
    /// a bound of ours, for the windows bound bytes alone. Default 262,144.
    pub max_unread_small_frames: u32,
    /// Bytes a stream may have waiting to be written. Default 256 KiB.
    pub max_send_buffer_size: usize,
    /// Largest head, bytes. Default 60 KiB.
    pub max_headers_bytes: usize,
    /// Most fields of a head. Default 100.
    pub max_headers_count: usize,
    /// Names with underscores, in requests.
    pub underscores: UnderscoresAction,
    /// PING keep-alive; none for no PINGs, the default.
    pub keepalive: Option<Keepalive>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hpack_table_size: 4096,
            max_concurrent_streams: 1024,
            initial_stream_window_size: 16 << 20,
            initial_connection_window_size: 24 << 20,
            allow_connect: false,
            max_outbound_frames: 10_000,
            max_outbound_control_frames: 1000,
            max_consecutive_inbound_frames_with_empty_payload: 1,
            max_inbound_priority_frames_per_stream: 100,
            max_inbound_window_update_frames_per_data_frame_sent: 10,
            max_unread_small_frames: 256 * 1024,
            max_send_buffer_size: 256 * 1024,
            max_headers_bytes: 60 * 1024,
            max_headers_count: 100,
            underscores: UnderscoresAction::Allow,
            keepalive: None,
        }
    }
}

impl Options {
    /// The limit that `h2` itself holds, which it answers with 431. Ours is
    /// lower and resets the stream, as Envoy does; this one bounds memory.
    pub(super) fn hard_header_list_size(&self) -> u32 {
        let overhead = 32usize.saturating_mul(self.max_headers_count);
        let twice = self.max_headers_bytes.saturating_mul(2);
        u32::try_from(twice.saturating_add(overhead)).unwrap_or(u32::MAX)
    }
}
