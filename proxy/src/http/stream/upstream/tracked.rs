//! What an attempt leaves in the histograms of its cluster that are kept only where
//! they are asked for: the sizes of requests and responses, and the share of the
//! timeouts that was used.

use std::time::{Duration, Instant};

use outrigger_types::{RequestHead, ResponseHead};

use super::Stream;
use crate::upstream::cluster::WorkerCluster;
use crate::upstream::stats::{BudgetStats, SizeStats};

/// The size of a head.
#[derive(Clone, Copy, Debug)]
struct HeadSize {
    bytes: u64,
    fields: u64,
}

/// One attempt, of a cluster that tracks any of this.
#[derive(Debug)]
pub(super) struct Tracked {
    started: Instant,
    /// When its response was complete.
    ended: Option<Instant>,
    request: HeadSize,
    response: Option<HeadSize>,
    /// The timeout of the whole request ended it, which says nothing of the attempt's own.
    cut: bool,
}

impl Tracked {
    /// An attempt that begins now, if its cluster wants to know.
    pub(super) fn new(cluster: &WorkerCluster, head: &RequestHead) -> Option<Box<Self>> {
        if cluster.sizes.is_none() && cluster.budgets.is_none() {
            return None;
        }
        Some(Box::new(Self {
            started: Instant::now(),
            ended: None,
            request: of_request(head),
            response: None,
            cut: false,
        }))
    }

    /// The head that goes out.
    pub(super) fn note_request(&mut self, head: &RequestHead) {
        self.request = of_request(head);
    }

    /// The head that came in.
    pub(super) fn note_response(&mut self, head: &ResponseHead) {
        self.response = Some(HeadSize {
            bytes: head.byte_size() as u64,
            fields: head.field_count() as u64,
        });
    }

    /// The response is complete.
    pub(super) fn note_end(&mut self) {
        self.ended = Some(Instant::now());
    }

    /// The timeout of the whole request has passed.
    pub(super) fn note_cut(&mut self) {
        self.cut = true;
    }
}

fn of_request(head: &RequestHead) -> HeadSize {
    HeadSize {
        bytes: head.byte_size() as u64,
        fields: head.field_count() as u64,
    }
}

/// What percentage of a timeout has passed; 0 without a timeout.
fn percentage(elapsed: Duration, timeout: Option<Duration>) -> u64 {
    let Some(timeout) = timeout.map(|t| t.as_millis()).filter(|t| *t > 0) else {
        return 0;
    };
    u64::try_from(elapsed.as_millis() * 100 / timeout).unwrap_or(u64::MAX)
}

impl Stream {
    /// Records the attempt that has ended, once.
    pub(super) fn record_tracked(&mut self) {
        let (Some(tracked), Some(target)) = (self.upstream.tracked.take(), &self.upstream.target)
        else {
            return;
        };
        if let Some(sizes) = &target.cluster.sizes {
            let info = &self.info.upstream;
            sizes.record(SizeStats::upstream_rq_headers_size, tracked.request.bytes);
            sizes.record(SizeStats::upstream_rq_headers_count, tracked.request.fields);
            sizes.record(SizeStats::upstream_rq_body_size, info.body_bytes_sent);
            if let Some(response) = tracked.response {
                sizes.record(SizeStats::upstream_rs_headers_size, response.bytes);
                sizes.record(SizeStats::upstream_rs_headers_count, response.fields);
                sizes.record(SizeStats::upstream_rs_body_size, info.body_bytes_received);
            }
        }
        if let Some(budgets) = target.cluster.budgets.as_ref().filter(|_| !tracked.cut) {
            let ended = tracked.ended.unwrap_or_else(Instant::now);
            budgets.record(
                BudgetStats::upstream_rq_timeout_budget_per_try_percent_used,
                percentage(ended - tracked.started, self.upstream.timeouts.per_try),
            );
        }
    }

    /// Records what the whole request used of its timeout.
    pub(super) fn record_budget(&self) {
        let (Some(target), Some(completed)) = (&self.upstream.target, self.upstream.completed_at)
        else {
            return;
        };
        if let Some(budgets) = &target.cluster.budgets {
            budgets.record(
                BudgetStats::upstream_rq_timeout_budget_percent_used,
                percentage(completed.elapsed(), self.upstream.timeouts.global),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_whole_milliseconds() {
        let of = |elapsed, timeout| {
            percentage(
                Duration::from_micros(elapsed),
                Some(Duration::from_millis(timeout)),
            )
        };
        assert_eq!(of(999, 10), 0);
        assert_eq!(of(1_000, 10), 10);
        assert_eq!(of(25_000, 10), 250);
        assert_eq!(of(25_000, 0), 0);
        assert_eq!(percentage(Duration::from_secs(1), None), 0);
    }
}
