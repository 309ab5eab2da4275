//! The fault filter (`envoy.filters.http.fault`): delays and aborts requests on
//! purpose, and slows responses down, by configuration, by runtime or as the request itself asks.

mod config;
mod decide;
mod rate;
mod stats;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use filter_api::{
    CreateContext, FilterContext, FilterStatus, HttpFilter, HttpFilterConfig, HttpFilterFactory,
    Interest, LocalReply, ResponseFlag, Resume, RouteFilterConfig, Side, WorkerContext,
};
use outrigger_types::{Buffer, StatusCode, details, names};
use tokio::time::Sleep;

pub(crate) use config::{MESSAGE, filter, route};

use config::{FaultConfig, NAMESPACE, RouteFault};
use decide::{AbortStatus, Draw};
use rate::Pace;
use stats::FaultCounts;

/// The filter's configuration, with what all workers share.
#[derive(Debug)]
pub(super) struct Fault {
    config: Arc<FaultConfig>,
    prefix: Box<str>,
    /// Faults under way, over all workers.
    active: Arc<AtomicU64>,
}

impl Fault {
    fn new(config: Arc<FaultConfig>, stat_prefix: &str) -> Self {
        Self {
            config,
            prefix: format!("{stat_prefix}fault.").into(),
            active: Arc::default(),
        }
    }
}

impl HttpFilterConfig for Fault {
    fn factory(&self, worker: &WorkerContext) -> Box<dyn HttpFilterFactory> {
        Box::new(Factory {
            config: self.config.clone(),
            active: self.active.clone(),
            counts: Arc::new(FaultCounts::new(worker.store.scope(&self.prefix))),
        })
    }
}

struct Factory {
    config: Arc<FaultConfig>,
    active: Arc<AtomicU64>,
    counts: Arc<FaultCounts>,
}

impl HttpFilterFactory for Factory {
    fn interest(&self) -> Interest {
        Interest::DECODE_HEADERS | Interest::ENCODE_DATA | Interest::COMPLETE
    }

    fn create(
        &self,
        route: Option<&RouteFilterConfig>,
        _cx: &CreateContext<'_>,
    ) -> Option<Box<dyn HttpFilter>> {
        let of_route = route.and_then(|r| r.downcast_ref::<RouteFault>());
        let config = of_route.map_or(&self.config, |route| &route.0).clone();
        if config.delay.is_none() && config.abort.is_none() && config.rate_limit.is_none() {
            return None;
        }
        Some(Box::new(FaultFilter {
            config,
            active: self.active.clone(),
            counts: self.counts.clone(),
            counted: false,
            delay: None,
            pace: None,
        }))
    }
}

/// The filter on one stream.
struct FaultFilter {
    config: Arc<FaultConfig>,
    active: Arc<AtomicU64>,
    counts: Arc<FaultCounts>,
    /// Whether this stream is among the active faults.
    counted: bool,
    delay: Option<Pin<Box<Sleep>>>,
    /// How fast the response goes.
    pace: Option<Pace>,
}

impl FaultFilter {
    /// Takes one of the active faults; a stream takes one at most.
    fn try_begin(&mut self, draw: &Draw<'_>) -> bool {
        if self.counted {
            return true;
        }
        let max = draw.max_active(&self.config);
        let taken = self
            .active
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                (n < max).then_some(n + 1)
            });
        if taken.is_err() {
            self.counts.overflow();
            return false;
        }
        self.counted = true;
        self.counts.begin();
        true
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.counted) {
            self.active.fetch_sub(1, Ordering::Relaxed);
            self.counts.end();
        }
    }

    /// The name under which the caller's own faults are counted.
    fn downstream_cluster<'a>(&self, cx: &'a FilterContext<'_>) -> Option<&'a str> {
        let name = cx
            .request
            .headers
            .get(&names::X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER)?;
        name.to_str().ok().filter(|name| !name.is_empty())
    }

    fn start_delay(&mut self, cx: &mut FilterContext<'_>, delay: Duration) -> FilterStatus {
        cx.info.flags.set(ResponseFlag::DelayInjected);
        let of_cluster = self
            .downstream_cluster(cx)
            .filter(|_| self.config.cluster_stats);
        self.counts.delayed(of_cluster);
        self.leave_metadata(cx);
        self.delay = Some(Box::pin(tokio::time::sleep(delay)));
        FilterStatus::Pause
    }

    fn set_pace(&mut self, draw: &Draw<'_>) {
        let Some(rate) = draw.rate_limit(&self.config) else {
            return;
        };
        if self.try_begin(draw) {
            self.counts.rate_limited();
            self.pace = Some(Pace::new(rate));
        }
    }

    fn leave_metadata(&self, cx: &mut FilterContext<'_>) {
        if let Some(value) = self.config.metadata.as_ref().and_then(|m| m.get(NAMESPACE)) {
            cx.info.metadata_mut().set(NAMESPACE, value.clone());
        }
    }

    /// The abort that this request gets, if it gets one.
    fn abort(&mut self, cx: &mut FilterContext<'_>) -> Option<Box<LocalReply>> {
        let runtime = cx.services.runtime();
        let cluster = self.downstream_cluster(cx);
        let status = {
            let draw = Draw::new(&runtime, cx.services, cx.request, cluster);
            let status = draw.abort(&self.config)?;
            self.try_begin(&draw).then_some(status)?
        };
        self.counts
            .aborted(cluster.filter(|_| self.config.cluster_stats));
        self.leave_metadata(cx);
        let body = self
            .config
            .abort
            .as_ref()
            .and_then(|abort| abort.body.as_ref());
        let body = body.map_or_else(
            || "fault filter abort".into(),
            |body| body.as_bytes().to_vec(),
        );
        let reply = |status| {
            LocalReply::new(status, body, details::FAULT_FILTER_ABORT)
                .with_flag(ResponseFlag::FaultInjected)
        };
        Some(Box::new(match status {
            AbortStatus::Http(status) => reply(status),
            AbortStatus::Grpc(status) => reply(StatusCode::OK).with_grpc_status(status),
        }))
    }

    fn applies(&self, cx: &FilterContext<'_>) -> bool {
        let config = &self.config;
        let cluster = cx.route.and_then(|route| route.cluster.as_deref());
        let node = || {
            cx.request
                .headers
                .get_bytes(&names::X_ENVOY_DOWNSTREAM_SERVICE_NODE)
        };
        (config.upstream_cluster.is_empty() || cluster == Some(&*config.upstream_cluster))
            && (config.downstream_nodes.is_empty()
                || node().is_some_and(|node| {
                    config
                        .downstream_nodes
                        .iter()
                        .any(|known| known.as_bytes() == node)
                }))
            && config
                .headers
                .iter()
                .all(|matcher| matcher.matches_request(cx.request))
    }
}

impl HttpFilter for FaultFilter {
    fn decode_headers(&mut self, cx: &mut FilterContext<'_>, _end_stream: bool) -> FilterStatus {
        if !self.applies(cx) {
            return FilterStatus::Continue;
        }
        let runtime = cx.services.runtime();
        let delay = {
            let cluster = self.downstream_cluster(cx);
            let draw = Draw::new(&runtime, cx.services, cx.request, cluster);
            self.set_pace(&draw);
            let delay = draw.delay(&self.config);
            delay.filter(|_| self.try_begin(&draw))
        };
        if let Some(delay) = delay {
            return self.start_delay(cx, delay);
        }
        match self.abort(cx) {
            Some(reply) => FilterStatus::Reply(reply),
            None => FilterStatus::Continue,
        }
    }

    fn encode_data(
        &mut self,
        _cx: &mut FilterContext<'_>,
        data: &mut Buffer,
        _end_stream: bool,
    ) -> FilterStatus {
        match &self.pace {
            Some(_) if !data.is_empty() => FilterStatus::Pause,
            _ => FilterStatus::Continue,
        }
    }

    fn poll_resume(
        &mut self,
        side: Side,
        cx: &mut FilterContext<'_>,
        task: &mut Context<'_>,
    ) -> Poll<Resume> {
        if let (Side::Encode, Some(pace)) = (side, &mut self.pace) {
            return pace.poll(cx.held, task).map(Resume::Release);
        }
        if let Some(delay) = &mut self.delay
            && delay.as_mut().poll(task).is_pending()
        {
            return Poll::Pending;
        }
        self.delay = None;
        Poll::Ready(match self.abort(cx) {
            Some(reply) => Resume::Reply(reply),
            None => Resume::Continue,
        })
    }

    fn on_stream_complete(&mut self, _cx: &mut FilterContext<'_>) {
        self.end();
    }
}

impl Drop for FaultFilter {
    fn drop(&mut self) {
        self.end();
    }
}
