//! One connection: to which host it goes, and what ends it.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use outrigger_config::format::AccessLogType;
use outrigger_config::ir::{BackOffConfig, RoutingPriority};
use outrigger_types::{ConnectionInfo, ResetReason, ResponseFlag};
use tokio::time::{Instant as TimerInstant, sleep_until};

use super::log::Record;
use super::relay::{End, Event, Relay, Side};
use super::{Counted, TcpProxy, TcpProxyStats};
use crate::listener::Handshake;
use crate::listener::connection_log::ConnectionLog;
use crate::network::io::Io;
use crate::upstream::circuit_breaker::Kind;
use crate::upstream::cluster::{Wanted, WorkerCluster};
use crate::upstream::facts::{note_cluster, note_connection, note_host};
use crate::upstream::host::Host;
use crate::upstream::lb::LbContext;
use crate::upstream::pool::{Acquire, Attached, PoolFailure, RawStream};
use crate::upstream::stats::ClusterStats;

/// See the module.
pub(super) struct Session {
    proxy: Arc<TcpProxy>,
    connection_log: Option<ConnectionLog>,
    record: Record,
    /// Both ends, once both are there.
    ends: Option<Ends>,
}

struct Ends {
    downstream: Io,
    upstream: Box<RawStream>,
}

/// What became of an attempt to connect.
enum Attempt {
    Connected(Box<RawStream>),
    /// Another one may fare better.
    Failed,
    /// No other one would.
    Refused,
}

impl Session {
    pub(super) fn new(
        proxy: Arc<TcpProxy>,
        info: &Arc<ConnectionInfo>,
        connection_log: Option<ConnectionLog>,
    ) -> Self {
        let record = Record::new(info, &proxy.access_logs);
        if proxy.config.log_on_start {
            record.log(AccessLogType::TcpConnectionStart);
        }
        Self {
            proxy,
            connection_log,
            record,
            ends: None,
        }
    }

    /// Serves the connection as long as it may live.
    pub(super) async fn run(&mut self, io: Io, handshake: Option<Handshake>, sink: Arc<Counted>) {
        let proxy = self.proxy.clone();
        let end = proxy.longest_life().map(|life| Instant::now() + life);
        tokio::select! {
            biased;
            () = until(end) => {
                proxy.stats.inc(TcpProxyStats::max_downstream_connection_duration);
                self.record.stream.flags.set(ResponseFlag::DurationTimeout);
            }
            () = self.serve(io, handshake, sink) => {}
        }
    }

    async fn serve(&mut self, io: Io, handshake: Option<Handshake>, sink: Arc<Counted>) {
        let info = self.record.stream.connection.clone();
        let secured = async move {
            match handshake {
                // In a box, or connections in plain text would have room for it.
                Some(handshake) => Box::pin(handshake.run(io, &info)).await.ok(),
                None => Some(io),
            }
        };
        let Some((mut downstream, upstream)) = both(secured, self.connect()).await else {
            return;
        };
        downstream.report_to(sink);
        self.ends = Some(Ends {
            downstream,
            upstream,
        });
        if self.proxy.config.log_on_connected {
            self.record.log(AccessLogType::TcpUpstreamConnected);
        }
        self.relay().await;
    }

    /// A connection to a host of the cluster that is drawn, if one can be had.
    async fn connect(&mut self) -> Option<Box<RawStream>> {
        let proxy = self.proxy.clone();
        let name = proxy.config.cluster(rand::random());
        let mut failed = 0;
        loop {
            let Some(cluster) = proxy.worker.cluster(name) else {
                proxy.stats.inc(TcpProxyStats::downstream_cx_no_route);
                self.flag(ResponseFlag::NoClusterFound);
                return None;
            };
            match self.attempt(&cluster).await {
                Attempt::Connected(upstream) => return Some(upstream),
                Attempt::Refused => return None,
                Attempt::Failed => failed += 1,
            }
            if failed >= proxy.config.max_connect_attempts {
                cluster
                    .stats
                    .inc(ClusterStats::upstream_cx_connect_attempts_exceeded);
                self.flag(ResponseFlag::UpstreamRetryLimitExceeded);
                return None;
            }
            if let Some(back_off) = &proxy.config.back_off {
                tokio::time::sleep(pause(back_off, failed)).await;
            }
        }
    }

    async fn attempt(&mut self, cluster: &Arc<WorkerCluster>) -> Attempt {
        note_cluster(&mut self.record.stream.upstream, cluster);
        let breaker = cluster.info.breaker(RoutingPriority::Default);
        if breaker.is_open(Kind::Connections) {
            cluster.stats.inc(ClusterStats::upstream_cx_overflow);
            self.flag(ResponseFlag::UpstreamOverflow);
            return Attempt::Refused;
        }
        let cx = LbContext {
            destination: cluster.info.destination(&self.record.stream, None),
            ..LbContext::default()
        };
        let Some(host) = cluster.choose(&cx).host else {
            self.flag(ResponseFlag::NoHealthyUpstream);
            return Attempt::Refused;
        };
        self.record.stream.attempt_count += 1;
        self.record.stream.upstream.request_start = Some(Instant::now());
        let acquired = match cluster.acquire(&host, Wanted::default()) {
            Acquire::Ready(attached) => Ok(attached),
            Acquire::Pending(mut pending) => poll_fn(|cx| pending.poll(cx)).await,
            Acquire::Failed(failure) => Err(failure),
            Acquire::NoPool => {
                self.flag(ResponseFlag::UpstreamOverflow);
                return Attempt::Refused;
            }
        };
        match acquired {
            Ok(attached) => self.connected(&host, *attached),
            Err(failure) => self.failed(failure),
        }
    }

    fn connected(&mut self, host: &Host, attached: Attached) -> Attempt {
        let Some(raw) = attached.into_raw() else {
            return Attempt::Failed;
        };
        let upstream = &mut self.record.stream.upstream;
        note_host(upstream, host);
        note_connection(upstream, &raw.meta);
        Attempt::Connected(Box::new(raw))
    }

    fn failed(&mut self, failure: PoolFailure) -> Attempt {
        if failure.reason == ResetReason::Overflow {
            self.flag(ResponseFlag::UpstreamOverflow);
            return Attempt::Refused;
        }
        let upstream = &mut self.record.stream.upstream;
        note_host(upstream, &failure.host);
        upstream.transport_failure = failure.transport_failure.filter(|why| !why.is_empty());
        // As in Envoy one that could not even be tried has no flag of its own.
        if failure.reason != ResetReason::LocalConnectionFailure {
            self.flag(ResponseFlag::UpstreamConnectionFailure);
        }
        Attempt::Failed
    }

    fn flag(&mut self, flag: ResponseFlag) {
        self.record.stream.flags.set(flag);
    }

    /// Carries bytes until both sides are done, or nothing passes for too long.
    async fn relay(&mut self) {
        let Some(ends) = &mut self.ends else { return };
        let proxy = self.proxy.clone();
        let cluster = ends.upstream.meta.cluster().clone();
        let at_upstream = cluster.info.config.per_connection_buffer_limit as usize;
        let mut relay = Relay::new(at_upstream, proxy.buffer_limit);
        let mut gauges = Gauges::new(&proxy, &cluster);
        let mut moved = Instant::now();
        let interval = proxy.config.access_log_flush_interval;
        let mut report = interval.map(|interval| moved + interval);
        loop {
            let Some(ends) = &mut self.ends else { return };
            let idle = proxy.config.idle_timeout.map(|timeout| moved + timeout);
            let passing = poll_fn(|cx| {
                let tell = &mut |event| match event {
                    Event::Moved => moved = Instant::now(),
                    other => gauges.note(other),
                };
                let end = relay.poll(cx, &mut ends.downstream, &mut ends.upstream.io, tell);
                gauges.note_flush(relay.is_flushing());
                end
            });
            tokio::select! {
                biased;
                end = passing => {
                    if end == End::Both(Side::Upstream) {
                        ends.upstream.note_closed_by_peer();
                    }
                    return;
                }
                () = until(report) => {
                    self.count();
                    self.record.log(AccessLogType::TcpPeriodic);
                    report = interval.map(|interval| Instant::now() + interval);
                }
                () = until(idle) => {
                    if idle_since(moved, proxy.config.idle_timeout) {
                        proxy.stats.inc(TcpProxyStats::idle_timeout);
                        return;
                    }
                }
            }
        }
    }

    /// Brings the counts of the log up to date.
    fn count(&mut self) {
        let Some(Ends {
            downstream,
            upstream,
        }) = &self.ends
        else {
            return;
        };
        let stream = &mut self.record.stream;
        stream.bytes_received = downstream.bytes_read();
        stream.bytes_sent = downstream.bytes_written();
        stream.wire_bytes_received = downstream.bytes_read();
        stream.wire_bytes_sent = downstream.bytes_written();
        stream.upstream.wire_bytes_received = upstream.io.bytes_read();
        stream.upstream.wire_bytes_sent = upstream.io.bytes_written();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.count();
        // As in Envoy the listener's line comes before the proxy's, and says the same.
        if let Some(log) = self.connection_log.take() {
            log.end_as(&self.record.stream);
        }
    }
}

/// What a connection shows in gauges, taken back when it ends.
struct Gauges<'a> {
    proxy: &'a TcpProxy,
    cluster: &'a WorkerCluster,
    flushing: bool,
}

impl<'a> Gauges<'a> {
    fn new(proxy: &'a TcpProxy, cluster: &'a WorkerCluster) -> Self {
        Self {
            proxy,
            cluster,
            flushing: false,
        }
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Moved => {}
            Event::Paused(Side::Downstream) => {
                let stat = TcpProxyStats::downstream_flow_control_paused_reading_total;
                self.proxy.stats.inc(stat);
                let stat = ClusterStats::upstream_flow_control_backed_up_total;
                self.cluster.stats.inc(stat);
            }
            Event::Resumed(Side::Downstream) => {
                let stat = TcpProxyStats::downstream_flow_control_resumed_reading_total;
                self.proxy.stats.inc(stat);
                let stat = ClusterStats::upstream_flow_control_drained_total;
                self.cluster.stats.inc(stat);
            }
            Event::Paused(Side::Upstream) => {
                let stat = ClusterStats::upstream_flow_control_paused_reading_total;
                self.cluster.stats.inc(stat);
            }
            Event::Resumed(Side::Upstream) => {
                let stat = ClusterStats::upstream_flow_control_resumed_reading_total;
                self.cluster.stats.inc(stat);
            }
        }
    }

    /// The downstream is gone, and what it had sent is still delivered.
    fn note_flush(&mut self, flushing: bool) {
        if flushing && !self.flushing {
            self.flushing = true;
            self.proxy.stats.inc(TcpProxyStats::upstream_flush_total);
            let gauge = TcpProxyStats::upstream_flush_active;
            self.proxy.stats.gauge_inc(gauge);
        }
    }
}

impl Drop for Gauges<'_> {
    fn drop(&mut self) {
        if self.flushing {
            let gauge = TcpProxyStats::upstream_flush_active;
            self.proxy.stats.gauge_dec(gauge);
        }
    }
}

impl TcpProxy {
    /// How long a connection may live, if there is a limit.
    fn longest_life(&self) -> Option<Duration> {
        let life = self.config.max_duration?;
        let longer = self.config.max_duration_jitter / 100.0 * rand::random::<f64>();
        Some(life.mul_f64(1.0 + longer))
    }
}

/// What both give; none as soon as one has nothing.
async fn both<A, B>(
    one: impl Future<Output = Option<A>>,
    other: impl Future<Output = Option<B>>,
) -> Option<(A, B)> {
    let one = async { one.await.ok_or(()) };
    let other = async { other.await.ok_or(()) };
    tokio::try_join!(one, other).ok()
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(TimerInstant::from_std(time)).await,
        None => std::future::pending().await,
    }
}

fn idle_since(moved: Instant, timeout: Option<Duration>) -> bool {
    timeout.is_some_and(|timeout| moved.elapsed() >= timeout)
}

/// The pause after so many failures: at random below a ceiling that doubles.
fn pause(back_off: &BackOffConfig, failures: u32) -> Duration {
    let doubled = 1u32 << failures.saturating_sub(1).min(16);
    let ceiling = back_off.base.saturating_mul(doubled).min(back_off.max);
    ceiling.mul_f64(rand::random())
}
