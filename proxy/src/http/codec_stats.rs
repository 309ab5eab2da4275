//! Where an HTTP/2 codec counts: the stats of its side, under Envoy's names.

use outrigger_stats::{CounterId, GaugeId, Slab};

use super::codec::h2::Flood;
use crate::upstream::stats::Http2CodecStats;

/// The cells that all HTTP/2 connections of a side share on one worker: those of the
/// listeners (`http2.`), or those of a cluster (`cluster.<name>.http2.`).
#[derive(Clone, Debug)]
pub struct CodecStats(Slab<Http2CodecStats>);

impl From<&Slab<Http2CodecStats>> for CodecStats {
    fn from(slab: &Slab<Http2CodecStats>) -> Self {
        Self(slab.clone())
    }
}

impl CodecStats {
    /// Counts one.
    pub fn inc(&self, id: CounterId<Http2CodecStats>) {
        self.0.inc(id);
    }

    /// Counts some.
    pub fn add(&self, id: CounterId<Http2CodecStats>, n: u64) {
        self.0.add(id, n);
    }

    /// Moves a gauge.
    pub fn gauge(&self, id: GaugeId<Http2CodecStats>, change: i64) {
        self.0.gauge_add(id, change);
    }

    /// Counts the limit that a peer passed. The bound on unread frames is ours and has
    /// no name in Envoy.
    pub fn count_flood(&self, flood: Flood) {
        self.inc(match flood {
            Flood::EmptyFrames { .. } => Http2CodecStats::inbound_empty_frames_flood,
            Flood::Priority => Http2CodecStats::inbound_priority_frames_flood,
            Flood::WindowUpdate => Http2CodecStats::inbound_window_update_frames_flood,
            Flood::Control => Http2CodecStats::outbound_control_flood,
            Flood::Outbound => Http2CodecStats::outbound_flood,
            Flood::UnreadFrames => return,
        });
    }
}
