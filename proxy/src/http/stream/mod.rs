//! One HTTP stream, from the head of its request to its access log.
//!
//! A stream is a struct with `poll` and no `.await` inside. It has two halves,
//! each moved as far as it goes at every poll: the upload (downstream, decode
//! filters, router, attempt) and the download (attempt, encode filters,
//! downstream). The codec decides who polls it: for HTTP/2 a task a stream, for
//! HTTP/1 the connection's own task.

mod complete;
mod download;
mod flow_control;
mod head;
mod reply;
mod routing;
mod timers;
mod upload;
mod upstream;

pub use head::Incoming;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use filter_api::{LocalReply, Side};
use outrigger_filters::http::grpc_stats::GrpcRecorder;
use outrigger_types::{
    Details, Headers, RequestHead, ResetReason, ResponseFlag, ResponseHead, StatusCode, StreamInfo,
    details,
};

use self::routing::StreamRouting;
use self::timers::{Fired, Timers};
use self::upstream::Upstream;
use super::codec::{ServerStream, StreamError, h1};
use super::conn_manager::{Hcm, StreamGuard};
use super::filter_chain::{BodyEnd, FilterChain, Parts, Verdict};

/// The status INTERNAL of gRPC.
const GRPC_INTERNAL: u32 = 13;
/// Rounds of a poll before other tasks get their turn.
const ROUNDS: u32 = 32;

/// A request and its response.
pub struct Stream {
    hcm: Arc<Hcm>,
    down: ServerStream,
    info: StreamInfo,
    request: RequestHead,
    response: Option<ResponseHead>,
    response_trailers: Option<Headers>,
    routing: StreamRouting,
    chain: FilterChain,
    upload: Upload,
    download: Download,
    upstream: Upstream,
    timers: Timers,
    /// Counts the call, if it is one of gRPC and no filter counts it.
    grpc: Option<GrpcRecorder>,
    /// Most bytes that either half holds; 0 for no limit.
    buffer_limit: usize,
    /// Most bytes that a filter collects; 0 for no limit.
    collect_limit: usize,
    is_head: bool,
    /// There was no request that could be read.
    unreadable: bool,
    /// It is an upgrade, or a CONNECT, that was let through.
    upgrade: bool,
    over: bool,
    moved: bool,
    _guard: StreamGuard,
}

/// The half from downstream to upstream.
#[derive(Debug, Default)]
struct Upload {
    /// The head came as the whole request.
    head_ended: bool,
    /// Everything was received.
    received: bool,
    /// Nothing more is wanted.
    stopped: bool,
    /// Bytes received whose credit was not given back.
    unreleased: usize,
    /// Nothing is read because too much is held.
    paused: bool,
}

/// The half from upstream to downstream.
#[derive(Debug, Default)]
struct Download {
    /// The head went out.
    head_sent: bool,
    /// The response is one that this proxy made.
    is_local: bool,
    /// The filters do not see what is sent.
    around_filters: bool,
    /// The local reply is the router's: the route's changes to responses apply.
    by_router: bool,
    /// All that is left is to write it.
    flushing: bool,
    /// Everything went out.
    finished: bool,
    /// Bytes received from upstream whose credit was not given back.
    unreleased: usize,
    /// Nothing is read because too much is held.
    paused: bool,
    /// Bytes that wait to be sent and are counted as sent.
    counted: usize,
    /// It was this side that decided to close the HTTP/1 connection after it.
    closes: bool,
}

impl Stream {
    /// Polls until nothing moves any more. Ready when the stream is over and
    /// logged. A panic in here ends this stream alone.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.guarded(|stream| stream.poll_halves(cx));
        if !self.over {
            return Poll::Pending;
        }
        self.complete();
        Poll::Ready(())
    }

    /// Runs a part of the stream that calls filters. After a panic it is run once
    /// more, for the answer to go out.
    fn guarded(&mut self, mut run: impl FnMut(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| run(self))).is_ok() {
            return;
        }
        self.hcm.count_panic();
        let answered = catch_unwind(AssertUnwindSafe(|| {
            self.answer_panic();
            if !self.over {
                run(self);
            }
        }));
        if answered.is_err() && !self.over {
            self.reset(ResetReason::LocalReset);
        }
    }

    fn poll_halves(&mut self, cx: &mut Context<'_>) {
        let mut any = false;
        for round in 0.. {
            self.moved = false;
            self.poll_filters(cx);
            self.poll_upload(cx);
            self.poll_upstream(cx);
            self.poll_download(cx);
            self.poll_peer(cx);
            any |= self.moved;
            if self.over {
                return;
            }
            if !self.moved {
                match self.timers.poll(cx) {
                    Poll::Ready(fired) => self.on_timeout(fired),
                    Poll::Pending => break,
                }
            }
            if round >= ROUNDS {
                cx.waker().wake_by_ref();
                break;
            }
        }
        if any {
            self.timers.touch(Instant::now());
        }
        self.note_flow_control();
        self.flush(cx);
    }

    /// Pushes out what the HTTP/1 codecs have buffered.
    fn flush(&mut self, cx: &mut Context<'_>) {
        if let Poll::Ready(Err(error)) = self.down.poll_flush(cx) {
            self.on_downstream_reset(&error);
        }
        self.flush_upstream(cx);
    }

    /// Polls filters that wait.
    fn poll_filters(&mut self, cx: &mut Context<'_>) {
        while self.chain.is_paused() && !self.over {
            let (side, verdict) = {
                let (chain, mut parts) = self.split();
                match chain.poll_resume(&mut parts, cx) {
                    Poll::Pending => return,
                    Poll::Ready(happened) => happened,
                }
            };
            self.moved = true;
            self.act_on(verdict, side);
        }
    }

    /// Sees resets of the downstream while nothing is read from it.
    fn poll_peer(&mut self, cx: &mut Context<'_>) {
        let reading = !self.upload.received && !self.upload.stopped && self.has_upload_room();
        if !self.over
            && !reading
            && let Poll::Ready(error) = self.down.poll_reset(cx)
        {
            self.on_downstream_reset(&error);
        }
    }

    /// The chain, and what its filters may see.
    fn split(&mut self) -> (&mut FilterChain, Parts<'_>) {
        let parts = Parts {
            info: &mut self.info,
            request: &mut self.request,
            response: self.response.as_mut(),
            routing: &mut self.routing,
            services: &*self.hcm.worker,
            buffer_limit: &mut self.collect_limit,
        };
        (&mut self.chain, parts)
    }

    fn act_on(&mut self, verdict: Verdict, side: Side) {
        match verdict {
            Verdict::Continue => {}
            Verdict::Reply(reply) => self.local_reply(*reply),
            Verdict::BufferOverflow => self.on_overflow(side),
            Verdict::Reset => self.reset(ResetReason::LocalReset),
        }
    }

    fn on_timeout(&mut self, fired: Fired) {
        match fired {
            Fired::Idle if self.download.flushing => self.on_flush_timeout(),
            Fired::Idle => self.on_idle_timeout(),
            Fired::Request => self.on_request_timeout(),
            Fired::MaxDuration => self.on_max_duration(),
            Fired::Global => self.on_global_timeout(),
            Fired::PerTry | Fired::PerTryIdle => self.on_per_try_timeout(fired),
            Fired::AttemptLife => self.on_attempt_life(),
            Fired::BackOff => self.retry_now(),
            Fired::Report => self.report(),
        }
    }

    /// The peer is gone, or does not want the response any more.
    fn on_downstream_reset(&mut self, error: &StreamError) {
        if self.over {
            return;
        }
        if error.reason == ResetReason::ProtocolError {
            if matches!(self.down, ServerStream::H1(_)) {
                self.hcm.count_protocol_error();
            }
            if let (ServerStream::H1(connection), false) = (
                &mut self.down,
                self.download.head_sent || self.download.is_local,
            ) {
                connection.refuse();
                let details = error.details.clone();
                let status = h1::H1Error::status_of(&details);
                let body = status.canonical_reason().unwrap_or_default();
                let reply = LocalReply::new(status, body, details);
                return self.local_reply(reply.with_flag(ResponseFlag::DownstreamProtocolError));
            }
            self.info.flags.set(ResponseFlag::DownstreamProtocolError);
            self.set_details(match error.details.is_empty() {
                true => details::CODEC_ERROR.into(),
                false => error.details.clone(),
            });
        } else if !error.remote && !error.details.is_empty() {
            // It was this side that had enough.
            self.set_details(error.details.clone());
        } else if error.remote && error.code.is_some() {
            self.info.flags.set(ResponseFlag::DownstreamRemoteReset);
            self.set_details(match error.details.is_empty() {
                true => "http2.remote_reset".into(),
                false => error.details.clone(),
            });
        } else {
            self.info
                .flags
                .set(ResponseFlag::DownstreamConnectionTermination);
            self.set_details(details::DOWNSTREAM_REMOTE_DISCONNECT.into());
        }
        self.hcm.count_reset();
        self.abandon_upstream(true);
        self.over = true;
    }

    /// Resets the downstream: there is no other way to say that the response
    /// will not be complete.
    fn reset(&mut self, reason: ResetReason) {
        self.hcm.count_reset();
        self.hcm.count_local_reset();
        self.abandon_upstream(false);
        self.down.reset(match self.lost_tunnel() {
            true => ResetReason::ConnectError,
            false => reason,
        });
        self.over = true;
    }

    /// A filter panicked: nothing of the message is trusted to its filters any
    /// more.
    fn answer_panic(&mut self) {
        self.download.around_filters = true;
        let reply = LocalReply::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Internal Server Error",
            "filter_panic",
        );
        self.local_reply(reply.with_grpc_status(GRPC_INTERNAL));
    }

    /// Says why the stream ended as it did; the last word counts.
    fn set_details(&mut self, details: Details) {
        self.info.response_code_details = Some(details);
    }

    /// Whether the client went away before the stream was over.
    pub fn was_cut_by_peer(&self) -> bool {
        let flags = self.info.flags;
        flags.has(ResponseFlag::DownstreamConnectionTermination)
    }

    /// Time since the head of the request was read.
    pub fn age(&self) -> Duration {
        self.info.elapsed()
    }

    /// Whether a response head went out.
    pub fn was_answered(&self) -> bool {
        self.info.response_code.is_some()
    }

    /// Whether this side decided to close the HTTP/1 connection after the stream:
    /// the client, who does not expect it, is given time to read the answer.
    pub fn closes_connection(&self) -> bool {
        self.download.closes
    }

    /// Makes the head of the response, unless it went out, ask an HTTP/1 client to leave.
    pub fn announce_close(&mut self) {
        if let ServerStream::H1(connection) = &mut self.down {
            connection.announce_close();
        }
    }

    /// The HTTP/1 connection, for its next request, once the stream is over.
    pub fn into_downstream(self) -> ServerStream {
        self.down
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moves_between_threads<T: Send>() {}

    #[test]
    fn a_stream_stays_under_its_recorded_size() {
        moves_between_threads::<Stream>();
        assert!(size_of::<Stream>() <= 3328, "{}", size_of::<Stream>());
        assert!(size_of::<Upstream>() <= 704, "{}", size_of::<Upstream>());
        assert!(
            size_of::<FilterChain>() <= 960,
            "{}",
            size_of::<FilterChain>()
        );
    }
}
