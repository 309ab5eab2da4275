//! What becomes of an attempt that failed: another one, or an answer made here.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use filter_api::LocalReply;
use outrigger_stats::CounterId;
use outrigger_types::{
    Buffer, Protocol, ResetReason, ResponseFlag, ResponseHead, StatusCode, details,
};

use super::tunnel;
use super::{Attempt, Stream};
use crate::http::codec::{ByteCounts, ServerStream, StreamError};
use crate::http::conn_manager::local_reply;
use crate::http::stream::complete::in_frames;
use crate::http::stream::timers::Fired;
use crate::router::request_stats::{Counted, RequestStats};
use crate::router::retry::{BackOff, Outcome, RetryDecision, RetryState};
use crate::upstream::circuit_breaker::Kind;
use crate::upstream::cluster::WorkerCluster;
use crate::upstream::facts::{note_cluster, note_host};
use crate::upstream::pool::{PoolFailure, UpstreamStream};
use crate::upstream::stats::ClusterStats;

impl Stream {
    /// Whether the head is retried instead of forwarded.
    pub(super) fn retried_by_head(&mut self, head: &ResponseHead, end_stream: bool) -> bool {
        match self.decide(Outcome::Head(head)) {
            RetryDecision::Yes(back_off) => {
                self.charge_host_error();
                if let Some(target) = &self.upstream.target {
                    target.cluster.charge_retry_code(head.status.as_u16());
                }
                self.upstream.finished = end_stream;
                self.retry_after(back_off);
                true
            }
            _ => false,
        }
    }

    /// Asks the retry state, takes the retry slot, and counts what came out.
    pub(super) fn decide(&mut self, outcome: Outcome<'_>) -> RetryDecision {
        let (Some(retry), Some(target)) = (&mut self.upstream.retry, &self.upstream.target) else {
            return RetryDecision::No;
        };
        if self.download.head_sent || self.upstream.replay.is_none() {
            return RetryDecision::No;
        }
        // The slot of the retry that just failed is free for the next one.
        self.upstream.retry_slot = None;
        let breaker = target.cluster.info.breaker(target.priority);
        let slot = &mut self.upstream.retry_slot;
        let acquire = || {
            *slot = breaker.try_acquire(Kind::Retries);
            slot.is_some()
        };
        let mut decision = retry.decide(outcome, acquire, rand::random());
        if matches!(decision, RetryDecision::Yes(_)) && !self.hcm.worker.retries_enabled() {
            self.upstream.retry_slot = None;
            decision = RetryDecision::No;
        }
        let stats = &target.cluster.stats;
        let counted = &self.upstream.counted;
        match decision {
            // It counts when it is made.
            RetryDecision::No | RetryDecision::Yes(_) => {}
            RetryDecision::NoLimitExceeded => {
                stats.inc(ClusterStats::upstream_rq_retry_limit_exceeded);
                count(counted, RequestStats::upstream_rq_retry_limit_exceeded);
                self.info
                    .flags
                    .set(ResponseFlag::UpstreamRetryLimitExceeded);
            }
            RetryDecision::NoOverflow => {
                stats.inc(ClusterStats::upstream_rq_retry_overflow);
                count(counted, RequestStats::upstream_rq_retry_overflow);
                self.info.flags.set(ResponseFlag::UpstreamOverflow);
            }
        }
        decision
    }

    /// Ends the attempt and makes another after the back-off.
    pub(super) fn retry_after(&mut self, back_off: BackOff) {
        self.drop_attempt();
        self.timers.end_attempt();
        self.upstream.after_timeout = false;
        self.upstream.finished = false;
        self.upstream.end_sent = false;
        self.upstream.to_send = self.upstream.replay.clone().unwrap_or_default();
        self.timers.back_off = Some(Instant::now() + back_off.wait);
        self.upstream.ratelimited = back_off.ratelimited;
        self.moved = true;
    }

    /// The back-off is over.
    pub(in crate::http::stream) fn retry_now(&mut self) {
        if let Some(target) = &self.upstream.target {
            let stats = &target.cluster.stats;
            stats.inc(ClusterStats::upstream_rq_retry);
            count(&self.upstream.counted, RequestStats::upstream_rq_retry);
            stats.inc(match self.upstream.ratelimited {
                true => ClusterStats::upstream_rq_retry_backoff_ratelimited,
                false => ClusterStats::upstream_rq_retry_backoff_exponential,
            });
        }
        self.start_attempt();
    }

    /// Notes what the attempt took of its connection.
    fn note_upstream_bytes(&mut self, active: &mut UpstreamStream) {
        let info = &mut self.info.upstream;
        let counts = active.stream().byte_counts().unwrap_or_else(|| ByteCounts {
            wire_received: in_frames(info.header_bytes_received, info.body_bytes_received),
            wire_sent: in_frames(info.header_bytes_sent, info.body_bytes_sent),
            header_received: info.header_bytes_received,
            header_sent: info.header_bytes_sent,
        });
        info.wire_bytes_received = counts.wire_received;
        info.wire_bytes_sent = counts.wire_sent;
        info.header_bytes_received = counts.header_received;
        info.header_bytes_sent = counts.header_sent;
    }

    /// Drops the attempt; one that is not complete is reset.
    pub(super) fn drop_attempt(&mut self) {
        self.record_tracked();
        let attempt = std::mem::take(&mut self.upstream.attempt);
        let complete = self.upstream.finished && self.upstream.end_sent;
        let Attempt::Active(mut active) = attempt else {
            return;
        };
        self.note_upstream_bytes(&mut active);
        if complete {
            return;
        }
        if active.meta.protocol == Some(Protocol::Http2) {
            let stats = &active.meta.cluster().stats;
            stats.inc(ClusterStats::upstream_rq_tx_reset);
        }
        if self.is_tunnel() && active.meta.protocol != Some(Protocol::Http2) {
            let rest = std::mem::take(&mut self.upstream.to_send);
            tokio::spawn(tunnel::deliver(*active, rest));
            return;
        }
        active.stream().reset(ResetReason::LocalReset);
    }

    /// Gives up the way upstream; `cancelled` by the downstream's end.
    pub(in crate::http::stream) fn abandon_upstream(&mut self, cancelled: bool) {
        if let (Attempt::Pending(_), Some(target)) = (&self.upstream.attempt, &self.upstream.target)
            && cancelled
        {
            target
                .cluster
                .stats
                .inc(ClusterStats::upstream_rq_cancelled);
        }
        self.drop_attempt();
        self.timers.end_upstream();
        self.timers.max_duration = None;
        self.upstream.retry_slot = None;
        self.upstream.finished = true;
        self.upstream.end_sent = true;
        self.upstream.to_send.clear();
        self.upstream.replay = None;
    }

    pub(super) fn on_pool_failure(&mut self, failure: PoolFailure) {
        let stats = &failure.host.stats;
        stats.rq_error.fetch_add(1, Ordering::Relaxed);
        if failure.reached_host {
            note_host(&mut self.info.upstream, &failure.host);
        }
        self.info.upstream.transport_failure =
            failure.transport_failure.clone().filter(|t| !t.is_empty());
        let error = StreamError {
            reason: failure.reason,
            details: "".into(),
            code: None,
            remote: true,
        };
        self.on_attempt_reset(&error, false);
    }

    /// The attempt ended before its response was complete. `began`: the request
    /// may have reached the host.
    pub(super) fn on_attempt_reset(&mut self, error: &StreamError, began: bool) {
        self.moved = true;
        self.record_tracked();
        let reason = error.reason;
        if let Attempt::Active(mut active) = std::mem::take(&mut self.upstream.attempt) {
            self.note_upstream_bytes(&mut active);
            if began {
                count_stream_reset(&active, reason);
            }
            if reason == ResetReason::ConnectionTermination {
                active.note_closed_by_peer();
            }
            let stats = &active.host().stats;
            if self.upstream.committed {
                self.charge_cut_response(stats);
            } else {
                stats.rq_error.fetch_add(1, Ordering::Relaxed);
            }
        }
        if self.upstream.committed {
            return self.on_reset_after_head(reason);
        }
        let made = self.upstream.retry.as_ref().map_or(0, RetryState::made);
        if let RetryDecision::Yes(back_off) = self.decide(Outcome::Reset { reason, began }) {
            return self.retry_after(back_off);
        }
        self.info.flags.set(local_reply::flag_of(reason));
        let transport = self.info.upstream.transport_failure.take();
        let mut reply = local_reply::of_upstream_reset(reason, transport.as_deref(), made > 0);
        self.info.upstream.transport_failure = transport;
        if self.upstream.informed {
            // An interim head had begun the response.
            reply.details = local_reply::details_after_head(reason);
            return self.router_reply(reply);
        }
        self.charge_abort(reply.status);
        self.router_reply(reply);
    }

    pub(super) fn on_reset_after_head(&mut self, reason: ResetReason) {
        self.info.flags.set(local_reply::flag_of(reason));
        self.info.response_code_details = Some(local_reply::details_after_head(reason));
        self.upstream.finished = true;
        // What came before the end goes out before it.
        if std::mem::take(&mut self.chain.encode_out.head) {
            self.send_head();
        }
        if self.is_tunnel() && reason == ResetReason::ConnectionTermination {
            // The end of a tunnel is that of its bytes: they are delivered before it.
            self.hcm.count_local_reset();
            if self.upload.received && matches!(self.down, ServerStream::H2(_)) {
                self.hcm.count_reset();
            }
            self.down.break_at_end();
            return self.encode_data(Buffer::new(), true);
        }
        // A head that a filter still holds is cut too, as in Envoy. Whoever broke
        // the protocol was not the downstream.
        self.cut_response(match reason {
            ResetReason::ProtocolError => ResetReason::LocalReset,
            other => other,
        });
    }

    pub(super) fn no_healthy_upstream(&mut self, cluster: &Arc<WorkerCluster>) {
        note_cluster(&mut self.info.upstream, cluster);
        self.charge_abort(StatusCode::SERVICE_UNAVAILABLE);
        let reply = LocalReply::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "no healthy upstream",
            details::NO_HEALTHY_UPSTREAM,
        );
        self.router_reply(reply.with_flag(ResponseFlag::NoHealthyUpstream));
    }

    pub(in crate::http::stream) fn on_global_timeout(&mut self) {
        let Some(target) = &self.upstream.target else {
            return;
        };
        if self.timers.back_off.is_some() {
            // As in Envoy nothing counts while no attempt is under way.
            return self.upstream_timeout(details::RESPONSE_TIMEOUT);
        }
        if let Some(tracked) = &mut self.upstream.tracked {
            tracked.note_cut();
        }
        target.cluster.stats.inc(ClusterStats::upstream_rq_timeout);
        count(&self.upstream.counted, RequestStats::upstream_rq_timeout);
        self.charge_host_timeout();
        self.upstream_timeout(details::RESPONSE_TIMEOUT);
    }

    pub(in crate::http::stream) fn on_per_try_timeout(&mut self, fired: Fired) {
        let Some(target) = &self.upstream.target else {
            return;
        };
        let idle = fired == Fired::PerTryIdle;
        // Silence ends an attempt in the middle of its response, too.
        if self.upstream.committed && !idle {
            return;
        }
        target.cluster.stats.inc(if idle {
            ClusterStats::upstream_rq_per_try_idle_timeout
        } else {
            ClusterStats::upstream_rq_per_try_timeout
        });
        self.charge_host_timeout();
        if let RetryDecision::Yes(back_off) = self.decide(Outcome::PerTryTimeout) {
            self.retry_after(back_off);
            self.upstream.after_timeout = true;
            return;
        }
        self.upstream_timeout(if idle {
            details::UPSTREAM_PER_TRY_IDLE_TIMEOUT
        } else {
            details::UPSTREAM_PER_TRY_TIMEOUT
        });
    }

    /// The attempt has lived as long as the cluster allows.
    pub(in crate::http::stream) fn on_attempt_life(&mut self) {
        let Some(target) = &self.upstream.target else {
            return;
        };
        let stats = &target.cluster.stats;
        stats.inc(ClusterStats::upstream_rq_max_duration_reached);
        let why = details::UPSTREAM_MAX_STREAM_DURATION_REACHED;
        if !self.upstream.committed {
            let outcome = Outcome::Reset {
                reason: ResetReason::LocalReset,
                began: true,
            };
            if let RetryDecision::Yes(back_off) = self.decide(outcome) {
                return self.retry_after(back_off);
            }
        }
        self.info
            .flags
            .set(ResponseFlag::UpstreamMaxStreamDurationReached);
        if self.download.head_sent {
            self.info.response_code_details = Some(why.into());
            return self.cut_response(ResetReason::LocalReset);
        }
        // Envoy charges no status for it.
        self.router_reply(LocalReply::new(
            StatusCode::GATEWAY_TIMEOUT,
            "upstream max stream duration reached",
            why,
        ));
    }

    pub(super) fn upstream_timeout(&mut self, why: &'static str) {
        self.info.flags.set(ResponseFlag::UpstreamRequestTimeout);
        self.record_budget();
        if self.upstream.committed {
            self.info.response_code_details = Some(why.into());
            return self.cut_response(ResetReason::LocalReset);
        }
        let (status, body) = if self.upstream.alt_response {
            (StatusCode::NO_CONTENT, "")
        } else {
            (StatusCode::GATEWAY_TIMEOUT, "upstream request timeout")
        };
        if self.timers.back_off.is_none() {
            self.charge_abort(status);
        }
        self.router_reply(LocalReply::new(status, body, why));
    }
}

/// Counts for the request's virtual cluster and route.
pub(super) fn count(counted: &Counted, stat: CounterId<RequestStats>) {
    for counted in counted {
        counted.stats.inc(stat);
    }
}

/// Counts the end of a stream as a pool of HTTP/2 does in Envoy; those of HTTP/1
/// do not.
fn count_stream_reset(active: &UpstreamStream, reason: ResetReason) {
    if active.meta.protocol != Some(Protocol::Http2) {
        return;
    }
    let stats = &active.meta.cluster().stats;
    match reason {
        ResetReason::RemoteReset => stats.inc(ClusterStats::upstream_rq_rx_reset),
        ResetReason::ConnectionTermination => {
            stats.inc(ClusterStats::upstream_rq_pending_failure_eject);
        }
        ResetReason::ProtocolError => stats.inc(ClusterStats::upstream_rq_tx_reset),
        _ => {}
    }
}
