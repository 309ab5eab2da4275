//! The gRPC stats filter (`envoy.filters.http.grpc_stats`): counts calls and
//! messages in the cluster's stats, by method if configured, and in our own
//! families.

mod config;
mod frames;
mod handles;
mod names;
mod recorder;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use filter_api::{
    CreateContext, FilterContext, FilterStatus, HttpFilter, HttpFilterConfig, HttpFilterFactory,
    Interest, RouteFilterConfig, WorkerContext,
};
use outrigger_types::{
    Buffer, FilterStateObject, Headers, MetadataValue, ResponseHead, StatusCode, names as header,
};

pub(crate) use config::{MESSAGE, filter};
pub use frames::FrameCounter;
pub use recorder::{GrpcMetrics, GrpcRecorder};

use config::GrpcStatsConfig;
use handles::{Handles, MethodStats};

/// Where the counts of messages are left with the stream.
const STATE_KEY: &str = "envoy.filters.http.grpc_stats";

/// The filter's configuration.
#[derive(Debug)]
pub(super) struct GrpcStats {
    config: Arc<GrpcStatsConfig>,
    direction: &'static str,
}

impl GrpcStats {
    fn new(config: GrpcStatsConfig, stat_prefix: &str) -> Self {
        Self {
            config: Arc::new(config),
            direction: direction(stat_prefix),
        }
    }
}

/// Which way the traffic of an HCM goes, from its stats (`http.<stat_prefix>.`):
/// Istio's say so in their prefix.
pub fn direction(stat_prefix: &str) -> &'static str {
    match stat_prefix.strip_prefix("http.") {
        Some(prefix) if prefix.starts_with("inbound") => "inbound",
        Some(prefix) if prefix.starts_with("outbound") => "outbound",
        _ => "",
    }
}

impl HttpFilterConfig for GrpcStats {
    fn factory(&self, worker: &WorkerContext) -> Box<dyn HttpFilterFactory> {
        Box::new(Factory(Arc::new(Shared {
            config: self.config.clone(),
            handles: Handles::default(),
            metrics: GrpcMetrics::new(&worker.store, self.direction),
        })))
    }

    fn records_grpc(&self) -> bool {
        true
    }
}

struct Factory(Arc<Shared>);

/// What the filters of one worker share.
struct Shared {
    config: Arc<GrpcStatsConfig>,
    handles: Handles,
    metrics: GrpcMetrics,
}

impl HttpFilterFactory for Factory {
    fn interest(&self) -> Interest {
        Interest::ALL
    }

    fn create(
        &self,
        _route: Option<&RouteFilterConfig>,
        _cx: &CreateContext<'_>,
    ) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(GrpcStatsFilter {
            shared: self.0.clone(),
            stats: None,
            recorder: None,
            frames: [FrameCounter::default(); 2],
            grpc_request: false,
            grpc_response: false,
            status: None,
            sent: 0,
            received: 0,
        }))
    }
}

/// The filter on one stream.
struct GrpcStatsFilter {
    shared: Arc<Shared>,
    /// None for what is not gRPC, or goes to no cluster.
    stats: Option<Arc<MethodStats>>,
    recorder: Option<GrpcRecorder>,
    /// Count what has no recorder, up and down.
    frames: [FrameCounter; 2],
    grpc_request: bool,
    grpc_response: bool,
    /// The last status seen.
    status: Option<outrigger_types::HeaderValue>,
    sent: u64,
    received: u64,
}

impl GrpcStatsFilter {
    fn on_status(&mut self, headers: &Headers) {
        let (Some(stats), Some(status)) = (&self.stats, headers.get(&header::GRPC_STATUS)) else {
            return;
        };
        stats.status(status.as_bytes());
        self.status = Some(status.clone());
    }

    /// The response is complete: records how long the upstream took after it had
    /// the whole request.
    fn on_response_end(&self, cx: &FilterContext<'_>) {
        let Some(stats) = self
            .stats
            .as_ref()
            .filter(|_| self.shared.config.upstream_time)
        else {
            return;
        };
        let times = &cx.info.times;
        if let (Some(sent), Some(received)) = (times.last_upstream_tx, times.last_upstream_rx) {
            let time = received.saturating_sub(sent).as_millis();
            stats.time(u64::try_from(time).unwrap_or(u64::MAX));
        }
    }

    /// Leaves the counts with the stream. Unlike stats they need no method.
    fn emit(&self, cx: &mut FilterContext<'_>) {
        if !self.shared.config.emit || self.sent + self.received == 0 {
            return;
        }
        let count = |n: u64| MetadataValue::String(n.to_string().into());
        let counts = [
            ("requestMessageCount", self.sent),
            ("responseMessageCount", self.received),
        ];
        let fields = counts.into_iter().filter(|(_, n)| *n > 0);
        let fields = fields.map(|(name, n)| (name.into(), count(n))).collect();
        let object = FilterStateObject {
            typed: MetadataValue::Struct(fields),
            plain: Some(format!("{},{}", self.sent, self.received).into()),
            fields: Default::default(),
        };
        cx.info.filter_state_mut().set(STATE_KEY, object);
    }
}

impl HttpFilter for GrpcStatsFilter {
    fn decode_headers(&mut self, cx: &mut FilterContext<'_>, _end_stream: bool) -> FilterStatus {
        self.grpc_request = cx.request.is_grpc();
        if self.grpc_request
            && let Some(cluster) = cx.route.and_then(|route| route.cluster.as_deref())
        {
            let Shared {
                config,
                handles,
                metrics,
            } = &*self.shared;
            self.stats = handles.find(config, cx.services, cluster, &cx.request.path);
            self.recorder = metrics.start(cluster, &cx.request.path);
        }
        FilterStatus::Continue
    }

    fn decode_data(
        &mut self,
        _cx: &mut FilterContext<'_>,
        data: &mut Buffer,
        _end_stream: bool,
    ) -> FilterStatus {
        if self.grpc_request {
            let n = match &mut self.recorder {
                Some(recorder) => recorder.on_request_data(data),
                None => self.frames[0].count(data),
            };
            self.sent += n;
            if let Some(stats) = self.stats.as_ref().filter(|_| n > 0) {
                stats.requests(n);
            }
        }
        FilterStatus::Continue
    }

    fn encode_headers(
        &mut self,
        cx: &mut FilterContext<'_>,
        head: &mut ResponseHead,
        end_stream: bool,
    ) -> FilterStatus {
        self.grpc_response = head.status == StatusCode::OK && head.is_grpc();
        self.on_status(&head.headers);
        if end_stream {
            self.on_response_end(cx);
        }
        FilterStatus::Continue
    }

    fn encode_data(
        &mut self,
        cx: &mut FilterContext<'_>,
        data: &mut Buffer,
        end_stream: bool,
    ) -> FilterStatus {
        if self.grpc_response {
            let n = match &mut self.recorder {
                Some(recorder) => recorder.on_response_data(data),
                None => self.frames[1].count(data),
            };
            self.received += n;
            if let Some(stats) = self.stats.as_ref().filter(|_| n > 0) {
                stats.responses(n);
            }
        }
        if end_stream {
            self.on_response_end(cx);
        }
        FilterStatus::Continue
    }

    fn encode_trailers(
        &mut self,
        cx: &mut FilterContext<'_>,
        trailers: &mut Headers,
    ) -> FilterStatus {
        self.on_status(trailers);
        self.on_response_end(cx);
        FilterStatus::Continue
    }

    fn on_stream_complete(&mut self, cx: &mut FilterContext<'_>) {
        self.emit(cx);
        if let Some(recorder) = self.recorder.take() {
            let status = self.status.as_ref().map(|status| status.as_bytes());
            recorder.on_end(status, cx.info.elapsed());
        }
    }
}
