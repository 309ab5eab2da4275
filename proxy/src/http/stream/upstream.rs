//! The router's part of a stream: attempts at upstream hosts. What they answer is
//! in [`response`], what becomes of those that fail in [`outcome`], what is particular
//! to upgrades in [`tunnel`], what they are charged to in [`charge`], what they leave in
//! histograms in [`tracked`].

mod charge;
mod outcome;
mod response;
mod tracked;
mod tunnel;

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use filter_api::LocalReply;
use outrigger_config::ir::{ForwardConfig, HostRewrite, RoutingPriority};
use outrigger_stats::Slab;
use outrigger_types::{
    Address, Buffer, HeaderValue, Method, Protocol, RequestHead, ResponseFlag, StatusCode,
    UpstreamInfo, details, names,
};

use self::tracked::Tracked;
use super::{BodyEnd, Stream};
use crate::router::request_stats::{self, Counted, RequestStats};
use crate::router::retry::RetryState;
use crate::router::retry_priority::TriedPriorities;
use crate::router::rewrite;
use crate::router::timeouts::{self, Timeouts};
use crate::upstream::circuit_breaker::BreakerGuard;
use crate::upstream::cluster::{Overload, Wanted, WorkerCluster};
use crate::upstream::facts::{note_cluster, note_connection, note_host};
use crate::upstream::host::Host;
use crate::upstream::lb::LbContext;
use crate::upstream::pool::{Acquire, Attached, PendingStream, Speaks, UpstreamStream};
use crate::upstream::stats::ClusterStats;

/// What the router knows of the way upstream.
#[derive(Default)]
pub(super) struct Upstream {
    target: Option<Target>,
    attempt: Attempt,
    tracked: Option<Box<Tracked>>,
    /// Body that the attempt has not sent yet.
    to_send: Buffer,
    end: Option<BodyEnd>,
    end_sent: bool,
    /// What was sent, for as long as it may have to be sent again.
    replay: Option<Buffer>,
    replay_limit: usize,
    retry: Option<RetryState>,
    retry_slot: Option<BreakerGuard>,
    timeouts: Timeouts,
    tried: Vec<Address>,
    tried_priorities: TriedPriorities,
    /// The final head was received: no other attempt can follow.
    committed: bool,
    /// Any of the body was received from the attempt.
    finished: bool,
    /// Whether a gRPC call is a success is known only at its end.
    success_deferred: bool,
    /// A 1xx was received.
    informed: bool,
    /// The upstream says how long to wait for the next attempt.
    ratelimited: bool,
    /// Where status codes are counted too (`x-envoy-upstream-alt-stat-name`).
    alt_stat_name: Option<Box<str>>,
    /// Virtual cluster and route that count the request.
    counted: Counted,
    /// The caller wants 204 in place of 504.
    alt_response: bool,
    /// The attempt before this one ended by a timeout.
    after_timeout: bool,
    completed_at: Option<Instant>,
}

/// Where the request goes.
struct Target {
    cluster: Arc<WorkerCluster>,
    priority: RoutingPriority,
    speaks: Speaks,
    /// The server that TLS is spoken with, where the request chooses it.
    server_name: Option<Arc<str>>,
    /// What TLS offers, where a filter chose it.
    alpn: Option<Arc<[Box<[u8]>]>>,
    head: RequestHead,
    attempt_count_header: bool,
    timeout_retry_header: bool,
    auto_host: bool,
    append_forwarded_host: bool,
}

#[derive(Default)]
enum Attempt {
    #[default]
    None,
    Pending(PendingStream),
    Active(Box<UpstreamStream>),
}

impl Upstream {
    /// Bytes that wait to be sent.
    pub(super) fn unsent(&self) -> usize {
        self.to_send.len()
    }

    /// Takes in body; keeps it for a retry as long as the limit allows.
    pub(super) fn push(&mut self, data: &mut Buffer) {
        if let Some(replay) = &mut self.replay {
            if self.replay_limit > 0 && replay.len() + data.len() > self.replay_limit {
                self.replay = None;
                self.retry = None;
                if let Some(target) = &self.target {
                    target
                        .cluster
                        .stats
                        .inc(ClusterStats::retry_or_shadow_abandoned);
                }
            } else {
                for chunk in data.chunks() {
                    replay.push(chunk.clone());
                }
            }
        }
        self.to_send.append(data);
    }

    /// What the next attempt asks of the balancer; `destination` is where the request is for.
    fn lb_context(
        &mut self,
        cluster: &WorkerCluster,
        destination: Option<SocketAddr>,
    ) -> LbContext<'_> {
        let Some(retry) = &self.retry else {
            return LbContext {
                destination,
                ..LbContext::default()
            };
        };
        let policy = retry.policy();
        let attempts = policy.host_selection_retry_max_attempts;
        LbContext {
            avoid: if policy.avoid_previous_hosts {
                &self.tried
            } else {
                &[]
            },
            avoid_canaries: policy.avoid_canary_hosts,
            max_attempts: if retry.made() > 0 { attempts } else { 0 },
            excluded_priorities: policy
                .previous_priorities
                .and_then(|every| self.tried_priorities.excluded(every, &cluster.hosts())),
            destination,
        }
    }

    /// The request has ended before the way upstream was begun.
    pub(super) fn note_end(&mut self, end: BodyEnd) {
        self.end = Some(end);
    }

    /// Gives back flow-control credit to the attempt.
    pub(super) fn release(&mut self, n: usize) {
        if let Attempt::Active(active) = &mut self.attempt {
            active.stream().release(n);
        }
    }
}

impl Stream {
    /// Sends the request on its way to a cluster. `ends` says that it has no
    /// body.
    pub(super) fn forward(&mut self, forward: &ForwardConfig, cluster: Arc<WorkerCluster>) {
        let Some(matched) = self.routing.matched.clone() else {
            return;
        };
        let policy = forward
            .retry_policy
            .as_ref()
            .or(matched.vhost.retry_policy.as_ref());
        let router = &self.hcm.config.router;
        let max_duration = self.hcm.config.common_http.max_stream_duration;
        let found = timeouts::of_request(
            forward,
            policy.map(|p| &**p),
            &self.request,
            max_duration,
            router.respect_expected_rq_timeout,
        );
        self.upstream.retry = RetryState::new(policy, &self.request);
        if self.info.is_grpc {
            self.grpc = self
                .hcm
                .record_grpc(cluster.info.observability_name(), &self.request.path);
        }
        self.upstream.timeouts = found;
        self.timers.max_duration = found.max_duration.map(|d| self.info.start + d);
        if let Some(idle) = forward.idle_timeout {
            self.timers.idle = Some(idle).filter(|d| !d.is_zero());
        }
        let envoy_headers = !router.suppress_envoy_headers;
        let counted = self.hcm.worker.request_counters(&matched, &self.request);
        self.upstream.counted = counted;
        self.info.virtual_cluster = request_stats::virtual_cluster(&matched.vhost, &self.request)
            .and_then(|c| c.name.clone());
        timeouts::strip(&mut self.request, router.respect_expected_rq_timeout);
        let at_first = Duration::ZERO;
        timeouts::announce(&found, forward, &mut self.request, envoy_headers, at_first);
        timeouts::announce_life(&found, forward, &mut self.request, max_duration);
        let alt = &names::X_ENVOY_UPSTREAM_RQ_TIMEOUT_ALT_RESPONSE;
        self.upstream.alt_response = self.request.headers.contains(alt);
        let alt = self
            .request
            .headers
            .get_bytes(&names::X_ENVOY_UPSTREAM_ALT_STAT_NAME);
        self.upstream.alt_stat_name = alt.map(|name| String::from_utf8_lossy(name).into());
        strip_retry_headers(&mut self.request);
        if matched.vhost.include_request_attempt_count {
            let first = HeaderValue::from(1_u32);
            (self.request.headers).set(names::X_ENVOY_ATTEMPT_COUNT, first);
        }
        rewrite::request(
            &matched,
            forward,
            &mut self.request,
            &self.info,
            envoy_headers,
        );
        let server_name = cluster.info.server_name(&self.request);
        let limit = matched
            .route
            .as_ref()
            .and_then(|r| r.request_body_buffer_limit);
        let limit = limit.or(matched.vhost.request_body_buffer_limit);
        self.upstream.replay_limit = limit.map_or(self.replay_limit(), |l| {
            usize::try_from(l).unwrap_or(usize::MAX)
        });
        if self.upstream.retry.is_some() {
            self.upstream.replay = Some(Buffer::new());
        }
        let downstream = self.info.protocol.unwrap_or(Protocol::Http11);
        let terminates = forward.terminates_connect && self.request.method == Method::CONNECT;
        self.upstream.target = Some(Target {
            priority: forward.priority,
            speaks: match terminates {
                true => Speaks::Raw,
                false => cluster.info.speaks(downstream),
            },
            server_name,
            alpn: self
                .info
                .upstream_alpn
                .clone()
                .filter(|_| cluster.info.sockets.have_tls()),
            head: self.request.clone(),
            attempt_count_header: matched.vhost.include_request_attempt_count,
            timeout_retry_header: matched.vhost.include_is_timeout_retry_header,
            auto_host: matches!(forward.host_rewrite, HostRewrite::Auto),
            append_forwarded_host: forward.append_x_forwarded_host,
            cluster: cluster.clone(),
        });
        if self.is_websocket() {
            // Its request does not end: the answer is waited for from now on.
            self.timers.global = found.global.map(|d| Instant::now() + d);
        }
        match cluster.overload() {
            Overload::Serve => self.start_attempt(),
            Overload::Maintenance => self.refuse_for_maintenance(&cluster),
            dropped => self.drop_for_overload(&cluster, dropped == Overload::DropAll),
        }
    }

    /// What is kept for a retry unless the route says otherwise: as much as the
    /// downstream codec lets a stream hold.
    fn replay_limit(&self) -> usize {
        match self.info.protocol {
            Some(Protocol::Http2) => self.hcm.config.http2.initial_stream_window_size as usize,
            _ => self.buffer_limit,
        }
    }

    /// Whether more of a response is to come from upstream.
    pub(super) fn reads_response(&self) -> bool {
        self.upstream.committed && !self.upstream.finished
    }

    /// The stats of the cluster that the request goes to.
    pub(super) fn cluster_stats(&self) -> Option<&Slab<ClusterStats>> {
        Some(&self.upstream.target.as_ref()?.cluster.stats)
    }

    /// Refuses a request because runtime has the cluster in maintenance.
    fn refuse_for_maintenance(&mut self, cluster: &WorkerCluster) {
        note_cluster(&mut self.info.upstream, cluster);
        self.charge_abort(StatusCode::SERVICE_UNAVAILABLE);
        cluster
            .stats
            .inc(ClusterStats::upstream_rq_maintenance_mode);
        let mut reply = LocalReply::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "maintenance mode",
            details::MAINTENANCE_MODE,
        );
        if !self.hcm.config.router.suppress_envoy_headers {
            reply
                .headers
                .append(names::X_ENVOY_OVERLOADED, HeaderValue::from_static("true"));
        }
        self.router_reply(reply.with_flag(ResponseFlag::UpstreamOverflow));
    }

    /// Refuses a request that the load assignment says to drop.
    fn drop_for_overload(&mut self, cluster: &WorkerCluster, unconditional: bool) {
        note_cluster(&mut self.info.upstream, cluster);
        self.charge_abort(StatusCode::SERVICE_UNAVAILABLE);
        let (body, why, flag, header) = if unconditional {
            (
                "unconditional drop overload",
                details::UNCONDITIONAL_DROP_OVERLOAD,
                ResponseFlag::UnconditionalDropOverload,
                names::X_ENVOY_UNCONDITIONAL_DROP_OVERLOAD,
            )
        } else {
            (
                "drop overload",
                details::DROP_OVERLOAD,
                ResponseFlag::DropOverLoad,
                names::X_ENVOY_DROP_OVERLOAD,
            )
        };
        let mut reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, body, why);
        if !self.hcm.config.router.suppress_envoy_headers {
            reply
                .headers
                .append(header, HeaderValue::from_static("true"));
        }
        self.router_reply(reply.with_flag(flag));
    }

    /// Chooses a host and asks for a stream to it.
    pub(super) fn start_attempt(&mut self) {
        let Some(target) = &self.upstream.target else {
            return;
        };
        let cluster = target.cluster.clone();
        let (server_name, alpn) = (target.server_name.clone(), target.alpn.clone());
        let wanted = Wanted {
            priority: target.priority,
            speaks: target.speaks,
            server_name: server_name.as_ref(),
            alpn: alpn.as_ref(),
        };
        self.info.attempt_count += 1;
        let destination = cluster.info.destination(&self.info, Some(&target.head));
        let choice = cluster.choose(&self.upstream.lb_context(&cluster, destination));
        let Some(host) = choice.host else {
            return self.no_healthy_upstream(&cluster);
        };
        self.note_host(&cluster, &host);
        if let Some(target) = &self.upstream.target {
            self.upstream.tracked = Tracked::new(&cluster, &target.head);
        }
        match cluster.acquire(&host, wanted) {
            Acquire::Ready(attached) => self.begin(*attached),
            Acquire::Pending(pending) => {
                note_host(&mut self.info.upstream, &host);
                self.upstream.attempt = Attempt::Pending(pending);
            }
            Acquire::Failed(failure) => self.on_pool_failure(failure),
            Acquire::NoPool => return self.no_healthy_upstream(&cluster),
        }
        self.moved = true;
    }

    fn note_host(&mut self, cluster: &WorkerCluster, host: &Arc<Host>) {
        self.upstream.tried.push(host.address.clone());
        self.upstream.tried_priorities.note(host.priority);
        let before = std::mem::take(&mut self.info.upstream);
        self.info.upstream = UpstreamInfo {
            attempted: before.attempted,
            attempted_hostnames: before.attempted_hostnames,
            attempted_connection_ids: before.attempted_connection_ids,
            request_start: Some(Instant::now()),
            ..UpstreamInfo::default()
        };
        note_cluster(&mut self.info.upstream, cluster);
    }

    /// Sends the head on a connection.
    fn begin(&mut self, attached: Attached) {
        note_host(&mut self.info.upstream, &attached.host().clone());
        note_connection(&mut self.info.upstream, attached.meta());
        let Some(target) = &self.upstream.target else {
            return;
        };
        let mut head = target.head.clone();
        if self.info.attempt_count > 1 {
            self.announce_retry(&mut head);
        }
        if target.auto_host && !attached.host().hostname.is_empty() {
            let name = bytes::Bytes::copy_from_slice(attached.host().hostname.as_bytes());
            rewrite::set_authority(&mut head, name, target.append_forwarded_host, true);
        }
        self.info.upstream.header_bytes_sent = head.byte_size() as u64;
        if let Some(tracked) = &mut self.upstream.tracked {
            tracked.note_request(&head);
        }
        // A body that turned out to be empty is framed as one all the same.
        let ends = self.upload.head_ended
            && self.upstream.to_send.is_empty()
            && matches!(self.upstream.end, Some(BodyEnd::Plain));
        self.upstream.end_sent = ends;
        for counted in &self.upstream.counted {
            counted.stats.inc(RequestStats::upstream_rq_total);
        }
        match attached.start(head, ends) {
            Err(error) => self.on_attempt_reset(&error, false),
            Ok(active) => {
                self.upstream.attempt = Attempt::Active(Box::new(active));
                let now = self.info.elapsed();
                self.info.times.first_upstream_tx = Some(now);
                if ends {
                    self.info.times.last_upstream_tx = Some(now);
                }
                self.timers.attempt_life = self.attempt_life().map(|life| Instant::now() + life);
                if self.upstream.end.is_some() {
                    self.start_per_try_timers();
                }
            }
        }
    }

    /// Tells the upstream that this is another attempt, and what time is left for it.
    fn announce_retry(&self, head: &mut RequestHead) {
        let Some(target) = &self.upstream.target else {
            return;
        };
        if target.attempt_count_header {
            head.headers.set(
                names::X_ENVOY_ATTEMPT_COUNT,
                HeaderValue::from(self.info.attempt_count),
            );
        }
        if target.timeout_retry_header {
            let after = if self.upstream.after_timeout {
                "true"
            } else {
                "false"
            };
            head.headers.set(
                names::X_ENVOY_IS_TIMEOUT_RETRY,
                HeaderValue::from_static(after),
            );
        }
        let forward = self.routing.matched.as_ref().and_then(|m| m.forward());
        let since = self.upstream.completed_at.map(|at| at.elapsed());
        if let (Some(forward), Some(elapsed)) = (forward, since) {
            let envoy_headers = !self.hcm.config.router.suppress_envoy_headers;
            let timeouts = &self.upstream.timeouts;
            timeouts::announce(timeouts, forward, head, envoy_headers, elapsed);
        }
    }

    /// How long an attempt may live, by the options of the cluster unless the request asks otherwise.
    fn attempt_life(&self) -> Option<Duration> {
        let target = self.upstream.target.as_ref()?;
        let of_cluster = target.cluster.info.config.common_http.max_stream_duration;
        let asked = self.upstream.timeouts.attempt_duration;
        asked.or(of_cluster).filter(|life| !life.is_zero())
    }

    fn start_per_try_timers(&mut self) {
        let now = Instant::now();
        self.timers.per_try = self.upstream.timeouts.per_try.map(|d| now + d);
        self.timers.per_try_idle = self.upstream.timeouts.per_try_idle;
        self.timers.touch_upstream(now);
    }

    /// The request has passed the filters whole.
    pub(super) fn on_request_complete(&mut self, end: BodyEnd) {
        let now = Instant::now();
        self.upstream.end = Some(end);
        self.upstream.completed_at = Some(now);
        if self.upstream.target.is_some() && !self.upstream.finished {
            self.timers.global = self.upstream.timeouts.global.map(|d| now + d);
            if matches!(self.upstream.attempt, Attempt::Active(_)) {
                self.start_per_try_timers();
            }
        }
    }

    /// Moves the attempt as far as it goes.
    pub(super) fn poll_upstream(&mut self, cx: &mut Context<'_>) {
        if self.over {
            return;
        }
        if let Attempt::Pending(pending) = &mut self.upstream.attempt {
            match pending.poll(cx) {
                Poll::Pending => return,
                Poll::Ready(outcome) => {
                    self.moved = true;
                    self.upstream.attempt = Attempt::None;
                    match outcome {
                        Ok(attached) => self.begin(*attached),
                        Err(failure) => self.on_pool_failure(failure),
                    }
                }
            }
        }
        self.send_upstream(cx);
        self.receive_upstream(cx);
    }

    /// Pushes out what the HTTP/1 codec has buffered.
    pub(super) fn flush_upstream(&mut self, cx: &mut Context<'_>) {
        if let Attempt::Active(active) = &mut self.upstream.attempt
            && let Poll::Ready(Err(_)) = active.stream().poll_flush(cx)
        {
            // Seen again, with its reason, by the next read.
            cx.waker().wake_by_ref();
        }
    }

    fn send_upstream(&mut self, cx: &mut Context<'_>) {
        let waits = !self.upstream.committed && self.waits_for_answer();
        let Attempt::Active(active) = &mut self.upstream.attempt else {
            return;
        };
        if self.upstream.end_sent || waits {
            return;
        }
        let plain_end = matches!(self.upstream.end, Some(BodyEnd::Plain));
        if !self.upstream.to_send.is_empty() || plain_end {
            match active
                .stream()
                .poll_send_data(cx, &mut self.upstream.to_send, plain_end)
            {
                Poll::Pending => return,
                // The read side knows why: a response may still be there.
                Poll::Ready(Err(_)) => {
                    self.upstream.end_sent = true;
                    self.upstream.to_send.clear();
                    return self.release_upload(usize::MAX);
                }
                Poll::Ready(Ok(sent)) => {
                    self.moved |= sent > 0;
                    self.info.upstream.body_bytes_sent += sent as u64;
                    self.release_upload(sent);
                    if !self.upstream.to_send.is_empty() {
                        return;
                    }
                }
            }
        }
        let Attempt::Active(active) = &mut self.upstream.attempt else {
            return;
        };
        match &self.upstream.end {
            None => return,
            Some(BodyEnd::Plain) => {}
            Some(BodyEnd::Trailers(trailers)) => {
                // A failure shows on the read side, as above.
                let _ = active.stream().send_trailers(trailers.clone());
            }
        }
        self.moved = true;
        self.upstream.end_sent = true;
        self.info.times.last_upstream_tx = Some(self.info.elapsed());
    }
}

/// The headers that ask for retries are for this proxy alone.
fn strip_retry_headers(head: &mut RequestHead) {
    for name in [
        &names::X_ENVOY_RETRY_ON,
        &names::X_ENVOY_RETRY_GRPC_ON,
        &names::X_ENVOY_MAX_RETRIES,
        &names::X_ENVOY_RETRIABLE_STATUS_CODES,
        &names::X_ENVOY_RETRIABLE_HEADER_NAMES,
        &names::X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT,
        &names::X_ENVOY_UPSTREAM_RQ_TIMEOUT_ALT_RESPONSE,
        &names::X_ENVOY_UPSTREAM_ALT_STAT_NAME,
    ] {
        head.headers.remove(name);
    }
}
