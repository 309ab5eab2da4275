//! What compressors count, under Envoy's names.

use outrigger_stats::{Scope, Slab};

outrigger_stats::stat_set! {
    /// How clients and filters agree (`http.<stat_prefix>.compressor.<name>.<library>.`).
    pub(super) struct CompressorStats {
        counters {
            header_compressor_overshadowed,
            header_compressor_used,
            header_identity,
            header_not_valid,
            header_wildcard,
            no_accept_header,
            not_compressed_etag,
        }
    }
}

outrigger_stats::stat_set! {
    /// What becomes of the messages of one direction (below the above, or below its
    /// `request.` and `response.`).
    pub(super) struct DirectionStats {
        counters {
            compressed,
            content_length_too_small,
            not_compressed,
            total_compressed_bytes,
            total_uncompressed_bytes,
        }
    }
}

/// The cells of one filter on one worker.
#[derive(Clone)]
pub(super) struct Stats {
    pub(super) common: Slab<CompressorStats>,
    pub(super) response: Slab<DirectionStats>,
    /// Requests are not compressed, and counted as such.
    pub(super) request: Slab<DirectionStats>,
}

impl Stats {
    pub(super) fn new(scope: &Scope, response_prefix: &str) -> Self {
        Self {
            common: scope.slab(),
            response: match response_prefix {
                "" => scope.slab(),
                prefix => scope.scope(prefix).slab(),
            },
            request: scope.scope("request.").slab(),
        }
    }
}
