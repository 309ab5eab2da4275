//! The response of an attempt, on its way to the encode filters.

use std::task::{Context, Poll};
use std::time::Instant;

use outrigger_types::{Buffer, HeaderValue, ResponseHead, details, names};

use super::outcome::count;
use super::{Attempt, Stream};
use crate::http::codec::{BodyEvent, HeadEvent};
use crate::router::request_stats::RequestStats;
use crate::router::retry::Outcome;
use crate::router::rewrite;
use crate::upstream::stats::ClusterStats;

impl Stream {
    pub(super) fn receive_upstream(&mut self, cx: &mut Context<'_>) {
        while !self.over && !self.upstream.finished {
            let room = self.has_download_room();
            let Attempt::Active(active) = &mut self.upstream.attempt else {
                return;
            };
            if !self.upstream.committed {
                match active.stream().poll_head(cx) {
                    Poll::Pending => return,
                    Poll::Ready(Err(error)) => return self.on_attempt_reset(&error, true),
                    Poll::Ready(Ok(HeadEvent::Informational(head))) => self.on_informational(head),
                    Poll::Ready(Ok(HeadEvent::Final { head, end_stream })) => {
                        self.on_response_head(head, end_stream);
                    }
                }
            } else if room {
                match active.stream().poll_recv(cx) {
                    Poll::Pending => return,
                    Poll::Ready(Err(error)) => return self.on_attempt_reset(&error, true),
                    Poll::Ready(Ok(event)) => self.on_response_event(event),
                }
            } else {
                if let Poll::Ready(error) = active.stream().poll_reset(cx) {
                    self.on_attempt_reset(&error, true);
                }
                return;
            }
            self.moved = true;
        }
    }

    pub(super) fn on_informational(&mut self, head: ResponseHead) {
        // Of several only the first is counted and passed on, as in Envoy.
        if std::mem::replace(&mut self.upstream.informed, true) {
            return;
        }
        // The response has begun: no other attempt can follow.
        self.upstream.replay = None;
        self.timers.per_try = None;
        let status = head.status.as_u16();
        self.charge(status);
        if !self.hcm.config.proxy_100_continue {
            return;
        }
        self.hcm.count_response(status);
        if let Err(error) = self.down.send_informational(head) {
            self.on_downstream_reset(&error);
        }
    }

    pub(super) fn on_response_head(&mut self, mut head: ResponseHead, end_stream: bool) {
        let now = self.info.elapsed();
        self.info.times.first_upstream_rx = Some(now);
        self.info.upstream.header_bytes_received = head.byte_size() as u64;
        if let Some(tracked) = &mut self.upstream.tracked {
            tracked.note_response(&head);
        }
        self.timers.touch_upstream(Instant::now());
        if self.upgrade && self.answered_upgrade(&mut head) {
            return;
        }
        if self.retried_by_head(&head, end_stream) {
            return;
        }
        self.commit(&head, end_stream);
        if !self.hcm.config.router.suppress_envoy_headers
            && let Some(completed) = self.upstream.completed_at
        {
            let millis = u64::try_from(completed.elapsed().as_millis()).unwrap_or(u64::MAX);
            head.headers.set(
                names::X_ENVOY_UPSTREAM_SERVICE_TIME,
                HeaderValue::from(millis),
            );
        }
        self.info.response_code = Some(head.status.as_u16());
        self.set_details(details::VIA_UPSTREAM.into());
        self.finish_router_headers(&mut head);
        if end_stream {
            self.on_response_complete();
        }
        self.encode_head(head, end_stream);
    }

    /// Headers that the router adds to every response of its own, upstream's or
    /// local.
    pub(in crate::http::stream) fn finish_router_headers(&mut self, head: &mut ResponseHead) {
        let Some(matched) = &self.routing.matched else {
            return;
        };
        rewrite::response(matched, head, &self.request, &self.info);
        // A direct response is not an attempt.
        if matched.vhost.include_attempt_count_in_response && self.info.attempt_count > 0 {
            head.headers.set(
                names::X_ENVOY_ATTEMPT_COUNT,
                HeaderValue::from(self.info.attempt_count),
            );
        }
    }

    /// No other attempt can follow: the response goes downstream.
    pub(super) fn commit(&mut self, head: &ResponseHead, end_stream: bool) {
        self.upstream.committed = true;
        self.upstream.replay = None;
        self.timers.per_try = None;
        let Some(target) = &self.upstream.target else {
            return;
        };
        let cluster = &target.cluster;
        let status = head.status.as_u16();
        self.charge(status);
        if self.hcm.config.router.dynamic_stats
            && head.headers.get_bytes(&names::X_ENVOY_UPSTREAM_CANARY) == Some(b"true")
        {
            cluster.charge_canary_code(status);
        }
        if let Some(retry) = &self.upstream.retry
            && retry.made() > 0
            && !retry.wants(Outcome::Head(head))
        {
            cluster.stats.inc(ClusterStats::upstream_rq_retry_success);
            count(
                &self.upstream.counted,
                RequestStats::upstream_rq_retry_success,
            );
        }
        self.charge_host(head, end_stream);
        self.upstream.retry_slot = None;
    }

    pub(super) fn on_response_event(&mut self, event: BodyEvent) {
        self.timers.touch_upstream(Instant::now());
        match event {
            BodyEvent::Data { bytes, end_stream } => {
                let first = &mut self.info.times.first_upstream_rx_body;
                first.get_or_insert_with(|| self.info.start.elapsed());
                self.info.upstream.body_bytes_received += bytes.len() as u64;
                self.download.unreleased += bytes.len();
                if end_stream {
                    self.charge_host_at_end(None);
                    self.on_response_complete();
                }
                let data = Buffer::from(bytes);
                if let Some(grpc) = &mut self.grpc {
                    grpc.on_response_data(&data);
                }
                self.encode_data(data, end_stream);
            }
            BodyEvent::End => {
                self.charge_host_at_end(None);
                self.on_response_complete();
                self.encode_data(Buffer::new(), true);
            }
            BodyEvent::Trailers(trailers) => {
                self.info.upstream.header_bytes_received += trailers.byte_size() as u64;
                self.charge_host_at_end(Some(&trailers));
                self.on_response_complete();
                self.encode_trailers(trailers);
            }
        }
    }

    /// The last byte of the response is here.
    pub(super) fn on_response_complete(&mut self) {
        self.info.times.last_upstream_rx = Some(self.info.elapsed());
        self.upstream.finished = true;
        self.timers.end_upstream();
        if let Some(tracked) = &mut self.upstream.tracked {
            tracked.note_end();
            self.record_budget();
        }
        if self.hcm.config.router.dynamic_stats
            && let Some(completed) = self.upstream.completed_at
            && let Some(target) = &self.upstream.target
        {
            target
                .cluster
                .record_time(completed.elapsed(), self.info.internal_request);
            for counted in &self.upstream.counted {
                counted.record_time(completed.elapsed());
            }
        }
    }
}
