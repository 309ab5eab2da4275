//! The HTTP connection manager: what all connections of a filter chain share on
//! one worker, and the rules for heads.

mod client_cert;
mod connection;
mod forwarded;
mod http1;
mod http2;
pub mod local_reply;
mod path;
mod premature;
mod refused;
pub mod request;
pub mod request_id;
pub mod response;
mod stats;

use std::sync::Arc;
use std::time::Instant;

use filter_api::{HttpFilterFactory, LocalReply, WorkerContext};
use outrigger_config::ir::{HcmConfig, RouteSource};
use outrigger_filters::http::grpc_stats::{self, GrpcMetrics, GrpcRecorder};
use outrigger_stats::{Scope, Slab};
use outrigger_types::{Protocol, RequestHead, ResponseHead, StatusCode, StreamInfo, details};
use parking_lot::RwLock;

use request_id::TraceReason;

pub use connection::serve;
pub use stats::{HcmListenerStats, HcmStats, RouterStats};

use crate::access_log::AccessLogger;
use crate::http::codec::{h1, h2};
use crate::http::codec_options;
use crate::listener::{DrainDecision, ListenerSpec};
use crate::network::io::ByteSink;
use crate::router::matcher::RouteTable;
use crate::server::worker::Worker;

/// One filter of the chain on one worker.
pub struct FilterSlot {
    /// The name that per-route overrides use.
    pub name: Arc<str>,
    /// Makes the filter of a stream.
    pub factory: Box<dyn HttpFilterFactory>,
    /// Off unless a route turns it on.
    pub disabled: bool,
}

/// An HCM on one worker.
pub struct Hcm {
    /// Its configuration.
    pub config: Arc<HcmConfig>,
    /// The worker.
    pub worker: Arc<Worker>,
    /// Most bytes that either half of a stream holds.
    pub buffer_limit: usize,
    /// This worker's cells.
    pub stats: Slab<HcmStats>,
    listener_stats: Slab<HcmListenerStats>,
    /// None without a router: the admin endpoint has none.
    router_stats: Option<Slab<RouterStats>>,
    filters: Vec<FilterSlot>,
    routes: RwLock<Option<Arc<RouteTable>>>,
    access_logs: Vec<AccessLogger>,
    /// Counts gRPC calls by method where no filter does.
    grpc: Option<GrpcMetrics>,
    h1_options: Arc<h1::Options>,
    h2_options: Arc<h2::Options>,
    empty: Arc<str>,
    drain: DrainDecision,
    /// A failed health check drains, too.
    drains_on_health: bool,
}

impl ByteSink for Hcm {
    fn count_bytes(&self, read: u64, written: u64) {
        let stats = &self.stats;
        stats.add(HcmStats::downstream_cx_rx_bytes_total, read);
        stats.add(HcmStats::downstream_cx_tx_bytes_total, written);
    }

    fn count_unread(&self, change: i64) {
        self.stats
            .gauge_add(HcmStats::downstream_cx_rx_bytes_buffered, change);
    }

    fn count_unwritten(&self, change: i64) {
        self.stats
            .gauge_add(HcmStats::downstream_cx_tx_bytes_buffered, change);
    }
}

impl Hcm {
    /// An HCM of a listener.
    pub fn new(config: Arc<HcmConfig>, worker: &Arc<Worker>, listener: &ListenerSpec) -> Arc<Self> {
        let buffer_limit = listener.config.per_connection_buffer_limit as usize;
        let name = &listener.stat_name;
        let by_listener = format!("listener.{name}.http.{}.", config.stat_prefix);
        let prefix = format!("http.{}.", config.stat_prefix);
        let scope: Scope = worker.store.scope(&prefix);
        let cx = WorkerContext {
            index: worker.index,
            store: worker.store.clone(),
        };
        let filters = config
            .filters
            .iter()
            .filter(|f| !f.config.is_terminal())
            .map(|f| FilterSlot {
                name: f.name.clone(),
                factory: f.config.factory(&cx),
                disabled: f.disabled,
            });
        let routes = match &config.routes {
            RouteSource::Inline(table) => Some(RouteTable::new(table.clone(), &worker.store)),
            RouteSource::Rds { name, .. } => worker.route_table(name),
        };
        let access_logs = config
            .access_logs
            .iter()
            .map(|log| worker.access_logs.logger(log));
        let routes_requests = config.filters.iter().any(|f| f.config.is_terminal());
        let recorded = config.filters.iter().any(|f| f.config.records_grpc());
        let direction = grpc_stats::direction(&prefix);
        let grpc = (!recorded).then(|| GrpcMetrics::new(&worker.store, direction));
        Arc::new(Self {
            stats: scope.slab::<HcmStats>(),
            listener_stats: worker.store.scope(&by_listener).slab(),
            router_stats: routes_requests.then(|| scope.slab()),
            filters: filters.collect(),
            routes: RwLock::new(routes),
            access_logs: access_logs.collect(),
            grpc,
            h1_options: codec_options::h1_server(&config, buffer_limit),
            h2_options: codec_options::h2_server(&config, buffer_limit),
            empty: Arc::from(""),
            drain: DrainDecision::default(),
            drains_on_health: !listener.config.drain_modify_only,
            worker: worker.clone(),
            buffer_limit,
            config,
        })
    }

    /// The filters, the router left out.
    pub fn filters(&self) -> &[FilterSlot] {
        &self.filters
    }

    /// The routes in force; none until RDS has sent them.
    pub fn routes(&self) -> Option<Arc<RouteTable>> {
        self.routes.read().clone()
    }

    /// The name asked for by RDS, if the routes come from there.
    pub fn rds_name(&self) -> Option<&Arc<str>> {
        match &self.config.routes {
            RouteSource::Inline(_) => None,
            RouteSource::Rds { name, .. } => Some(name),
        }
    }

    /// Takes over routes; none takes them away.
    pub fn set_routes(&self, table: Option<Arc<RouteTable>>) {
        *self.routes.write() = table;
    }

    /// The access loggers.
    pub fn access_logs(&self) -> &[AccessLogger] {
        &self.access_logs
    }

    /// The recorder of a gRPC call, where no filter records it.
    pub fn record_grpc(&self, cluster: &str, path: &[u8]) -> Option<GrpcRecorder> {
        self.grpc.as_ref()?.start(cluster, path)
    }

    /// Options of the HTTP/1 codec.
    pub fn h1_options(&self) -> Arc<h1::Options> {
        self.h1_options.clone()
    }

    /// Options of the HTTP/2 codec.
    pub fn h2_options(&self) -> Arc<h2::Options> {
        self.h2_options.clone()
    }

    /// An upgrade was let through the filters.
    pub fn begin_upgrade(&self) {
        self.stats.inc(HcmStats::downstream_cx_upgrades_total);
        self.stats
            .gauge_inc(HcmStats::downstream_cx_upgrades_active);
    }

    /// A stream that was upgraded is over.
    pub fn end_upgrade(&self) {
        self.stats
            .gauge_dec(HcmStats::downstream_cx_upgrades_active);
    }

    /// The empty string, shared.
    pub fn empty_name(&self) -> Arc<str> {
        self.empty.clone()
    }

    /// Responses from now on ask the client to go elsewhere, by and by.
    pub fn start_drain(&self) {
        self.drain.begin(Instant::now());
    }

    /// Whether the next response asks its client to go elsewhere.
    pub fn asks_to_leave(&self) -> bool {
        let unhealthy = self.drains_on_health && self.worker.health_failed();
        unhealthy
            || self
                .drain
                .asks(self.worker.drain, Instant::now, rand::random)
    }

    /// Counts a request; the guard counts its end.
    pub fn begin_stream(self: &Arc<Self>, protocol: Protocol) -> StreamGuard {
        self.stats.inc(HcmStats::downstream_rq_total);
        self.stats.inc(match protocol {
            Protocol::Http2 => HcmStats::downstream_rq_http2_total,
            Protocol::Http10 | Protocol::Http11 => HcmStats::downstream_rq_http1_total,
        });
        self.stats.gauge_inc(HcmStats::downstream_rq_active);
        StreamGuard { hcm: self.clone() }
    }

    /// Counts the response and the time of a stream that is over.
    pub fn end_stream(&self, info: &StreamInfo) {
        if let Some(code) = info.response_code {
            self.count_response(code);
        }
        let millis = u64::try_from(info.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.stats.record(HcmStats::downstream_rq_time, millis);
    }
}

impl Hcm {
    /// Counts a request that the rules for heads refuse.
    pub fn count_refused(&self, reply: &LocalReply) {
        self.stats.inc(match &*reply.details {
            details::ABSOLUTE_PATH_REJECTED | details::MISSING_PATH => {
                HcmStats::downstream_rq_non_relative_path
            }
            details::PATH_NORMALIZATION_FAILED
                if reply.status == StatusCode::TEMPORARY_REDIRECT =>
            {
                HcmStats::downstream_rq_redirected_with_normalized_path
            }
            details::PATH_NORMALIZATION_FAILED => HcmStats::downstream_rq_failed_path_normalization,
            details::UPGRADE_FAILED => HcmStats::downstream_rq_ws_on_non_ws_route,
            _ => return,
        });
    }
}

impl Hcm {
    /// Counts a response by the class of its status.
    pub fn count_response(&self, code: u16) {
        self.stats.inc(HcmStats::downstream_rq_completed);
        self.listener_stats
            .inc(HcmListenerStats::downstream_rq_completed);
        let (stat, by_listener) = match code / 100 {
            1 => (
                HcmStats::downstream_rq_1xx,
                HcmListenerStats::downstream_rq_1xx,
            ),
            2 => (
                HcmStats::downstream_rq_2xx,
                HcmListenerStats::downstream_rq_2xx,
            ),
            3 => (
                HcmStats::downstream_rq_3xx,
                HcmListenerStats::downstream_rq_3xx,
            ),
            4 => (
                HcmStats::downstream_rq_4xx,
                HcmListenerStats::downstream_rq_4xx,
            ),
            5 => (
                HcmStats::downstream_rq_5xx,
                HcmListenerStats::downstream_rq_5xx,
            ),
            _ => return,
        };
        self.stats.inc(stat);
        self.listener_stats.inc(by_listener);
    }
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident: $stat:ident;)*) => {
        impl Hcm {
            $($(#[$doc])* pub fn $name(&self) {
                self.stats.inc(HcmStats::$stat);
            })*
        }
    };
}

counts! {
    /// A stream was reset, by whichever side.
    count_reset: downstream_rq_rx_reset;
    /// A stream was reset by this side.
    count_local_reset: downstream_rq_tx_reset;
    /// The response began before the request was complete.
    count_response_before_request_complete: downstream_rq_response_before_rq_complete;
    /// The client broke the protocol in the middle of a request.
    count_protocol_error: downstream_cx_protocol_error;
    /// A filter panicked.
    count_panic: downstream_rq_filter_panic;
    /// A request was answered 413.
    count_too_large: downstream_rq_too_large;
    /// A response was answered 500 for its size.
    count_response_too_large: rs_too_large;
    /// The stream idle timeout passed.
    count_idle_timeout: downstream_rq_idle_timeout;
    /// The idle timeout of a connection passed.
    count_idle_connection: downstream_cx_idle_timeout;
    /// The request timeout passed.
    count_request_timeout: downstream_rq_timeout;
    /// The longest life of a stream passed.
    count_max_duration: downstream_rq_max_duration_reached;
}

macro_rules! router_counts {
    ($($(#[$doc:meta])* $name:ident: $stat:ident;)*) => {
        impl Hcm {
            $($(#[$doc])* pub fn $name(&self) {
                if let Some(stats) = &self.router_stats {
                    stats.inc(RouterStats::$stat);
                }
            })*
        }
    };
}

router_counts! {
    /// The router saw the request.
    count_routed: rq_total;
    /// No route matched.
    count_no_route: no_route;
    /// The route's cluster does not exist.
    count_no_cluster: no_cluster;
    /// The upstream reset a gRPC stream after its response had begun.
    count_reset_after_response_started: rq_reset_after_downstream_response_started;
    /// A direct response was sent.
    count_direct_response: rq_direct_response;
}

impl Hcm {
    /// Whether a request is traced, and why.
    pub fn count_tracing(&self, reason: TraceReason) {
        if let Some(stats) = &self.router_stats {
            stats.inc(match reason {
                TraceReason::NotTraceable => RouterStats::tracing_not_traceable,
                TraceReason::Sampling => RouterStats::tracing_random_sampling,
                TraceReason::ServiceForced => RouterStats::tracing_service_forced,
                TraceReason::ClientForced => RouterStats::tracing_client_enabled,
            });
        }
    }
}

/// The rules for the head of a response, on its way out.
pub fn mutate_response(hcm: &Hcm, head: &mut ResponseHead, request: &RequestHead, is_local: bool) {
    response::mutate(head, &hcm.config, request, is_local);
}

/// Counts a stream while it lives.
pub struct StreamGuard {
    hcm: Arc<Hcm>,
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.hcm.stats.gauge_dec(HcmStats::downstream_rq_active);
    }
}
