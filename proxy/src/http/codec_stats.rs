//! From what an HTTP/2 codec has counted to the stats of its side.

use outrigger_stats::Slab;

use super::codec::h2;
use crate::upstream::stats::Http2CodecStats;

/// What of a connection's counters is in the stats already.
#[derive(Debug, Default)]
pub struct Published(h2::Counters);

impl Published {
    /// Adds what was counted since the last time.
    pub fn publish(&mut self, now: h2::Counters, stats: &Slab<Http2CodecStats>) {
        if now == self.0 {
            return;
        }
        let before = std::mem::replace(&mut self.0, now);
        stats.add(Http2CodecStats::rx_reset, now.rx_reset - before.rx_reset);
        stats.add(Http2CodecStats::tx_reset, now.tx_reset - before.tx_reset);
        stats.add(
            Http2CodecStats::header_overflow,
            now.header_list_size_too_large - before.header_list_size_too_large,
        );
        stats.add(
            Http2CodecStats::dropped_headers_with_underscores,
            now.dropped_headers_with_underscores - before.dropped_headers_with_underscores,
        );
        stats.add(
            Http2CodecStats::requests_rejected_with_underscores_in_headers,
            now.requests_rejected_with_underscores - before.requests_rejected_with_underscores,
        );
    }
}

/// Counts the limit that a peer passed. The bound on unread frames is ours and
/// has no name in Envoy.
pub fn count_flood(flood: h2::Flood, stats: &Slab<Http2CodecStats>) {
    match flood {
        h2::Flood::EmptyFrames => stats.inc(Http2CodecStats::inbound_empty_frames_flood),
        h2::Flood::Priority => stats.inc(Http2CodecStats::inbound_priority_frames_flood),
        h2::Flood::WindowUpdate => stats.inc(Http2CodecStats::inbound_window_update_frames_flood),
        h2::Flood::Control => stats.inc(Http2CodecStats::outbound_control_flood),
        h2::Flood::UnreadFrames => {}
    }
}
