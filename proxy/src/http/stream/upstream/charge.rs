//! What an attempt is charged to: the cluster's status codes, and its host's successes
//! and errors.

use std::sync::atomic::Ordering;

use outrigger_types::{Headers, ResponseHead, StatusCode, names};

use super::{Attempt, Stream};
use crate::upstream::host::HostStats;

/// Whether a gRPC status stands for success: not those that map to a 5xx, which a status
/// that is missing or unknown does too.
fn is_grpc_success(fields: &Headers) -> bool {
    let status = fields.get_bytes(&names::GRPC_STATUS);
    let status = status
        .and_then(|status| std::str::from_utf8(status).ok())
        .and_then(|status| status.parse::<u32>().ok());
    !matches!(status, None | Some(2 | 4 | 12..=15 | 17..))
}

impl Stream {
    fn host_stats(&self) -> Option<&HostStats> {
        match &self.upstream.attempt {
            Attempt::Active(active) => Some(&active.host().stats),
            _ => None,
        }
    }

    /// Charges the attempt's host with an error.
    pub(super) fn charge_host_error(&self) {
        if let Some(stats) = self.host_stats() {
            stats.rq_error.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Charges the attempt's host with a timeout, which is an error too unless the head of
    /// the response has come.
    pub(super) fn charge_host_timeout(&self) {
        if let Some(stats) = self.host_stats() {
            stats.rq_timeout.fetch_add(1, Ordering::Relaxed);
        }
        if !self.upstream.committed {
            self.charge_host_error();
        }
    }

    /// Charges the attempt's host by the head of its response. That of a gRPC call says
    /// nothing yet, unless it is all there is.
    pub(super) fn charge_host(&mut self, head: &ResponseHead, end_stream: bool) {
        if head.status.is_server_error() {
            return self.charge_host_error();
        }
        self.upstream.success_deferred = self.info.is_grpc && !end_stream;
        if !self.upstream.success_deferred {
            self.charge_host_outcome(!self.info.is_grpc || is_grpc_success(&head.headers));
        }
    }

    fn charge_host_outcome(&self, success: bool) {
        match self.host_stats() {
            Some(stats) if success => stats.rq_success.fetch_add(1, Ordering::Relaxed),
            Some(stats) => stats.rq_error.fetch_add(1, Ordering::Relaxed),
            None => 0,
        };
    }

    /// The end of a gRPC response says what its head did not; one without trailers is an
    /// error.
    pub(super) fn charge_host_at_end(&mut self, trailers: Option<&Headers>) {
        if std::mem::take(&mut self.upstream.success_deferred) {
            self.charge_host_outcome(trailers.is_some_and(is_grpc_success));
        }
    }

    /// The host, whose stats these are, ends the response of a call before its end.
    pub(super) fn charge_cut_response(&mut self, stats: &HostStats) {
        if std::mem::take(&mut self.upstream.success_deferred) {
            stats.rq_error.fetch_add(1, Ordering::Relaxed);
            self.hcm.count_reset_after_response_started();
        }
    }

    pub(super) fn charge_abort(&mut self, status: StatusCode) {
        self.charge(status.as_u16());
    }

    /// Counts a status for the cluster, and under the name that the request asked
    /// for.
    pub(super) fn charge(&self, status: u16) {
        let Some(target) = &self.upstream.target else {
            return;
        };
        let router = &self.hcm.config.router;
        if !router.dynamic_stats {
            return;
        }
        let internal = self.info.internal_request;
        let suppressed = self.info.is_grpc && router.suppress_grpc_request_failure_code_stats;
        target.cluster.charge_code(status, internal, suppressed);
        if let Some(name) = &self.upstream.alt_stat_name {
            target
                .cluster
                .charge_alt_code(name, status, internal, suppressed);
        }
        for counted in &self.upstream.counted {
            counted.charge(status);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrigger_types::HeaderValue;

    #[test]
    fn statuses_that_map_to_5xx_are_errors() {
        let of = |status: &'static str| {
            let mut trailers = Headers::default();
            trailers.append(names::GRPC_STATUS, HeaderValue::from_static(status));
            is_grpc_success(&trailers)
        };
        for status in ["0", "1", "3", "5", "6", "7", "8", "9", "10", "11", "16"] {
            assert!(of(status), "{status}");
        }
        for status in ["2", "4", "12", "13", "14", "15", "17", "x", "-1"] {
            assert!(!of(status), "{status}");
        }
        assert!(!is_grpc_success(&Headers::default()));
    }
}
