//! HTTP filters: one instance a stream, both directions.

use std::any::Any;
use std::fmt;
use std::ops::BitOr;
use std::sync::Arc;
use std::task::{Context, Poll};

use outrigger_stats::Store;
use outrigger_types::{Buffer, Headers, Metadata, RequestHead, ResponseHead, StreamInfo};

use crate::{LocalReply, Services};

/// Which direction a filter works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Downstream to upstream: the request.
    Decode,
    /// Upstream to downstream: the response.
    Encode,
}

/// What the chain does after a callback.
#[derive(Debug)]
pub enum FilterStatus {
    /// Go on to the next filter.
    Continue,
    /// Stop here. What still comes is held before this filter, with
    /// back-pressure, and the filter is not called for it until
    /// [`HttpFilter::poll_resume`] is ready.
    Pause,
    /// Stop here, but keep calling this filter as more comes, and collect the
    /// body. Over [`FilterContext::buffer_limit`] the stream is answered 413
    /// (request) or 500 (response). The first `Continue` lets all that was held
    /// go on.
    PauseAndBuffer,
    /// Answer now, and go no further. On the encode side it replaces the
    /// response if its head was not sent yet, else resets the stream.
    Reply(Box<LocalReply>),
}

/// How a paused filter goes on.
#[derive(Debug)]
pub enum Resume {
    /// Let go what was held.
    Continue,
    /// Let go so many bytes of the body that is held, and stay paused. With the
    /// last of them the pause is over, and what ends the message follows.
    Release(usize),
    /// Answer.
    Reply(Box<LocalReply>),
    /// Reset the stream.
    Reset,
}

/// The events a filter wants; the chain skips it for all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest(u8);

impl Interest {
    /// Nothing: the filter takes no part.
    pub const NONE: Self = Self(0);
    /// The head of the request.
    pub const DECODE_HEADERS: Self = Self(1);
    /// Chunks of the request's body.
    pub const DECODE_DATA: Self = Self(2);
    /// The request's trailers.
    pub const DECODE_TRAILERS: Self = Self(4);
    /// The head of the response.
    pub const ENCODE_HEADERS: Self = Self(8);
    /// Chunks of the response's body.
    pub const ENCODE_DATA: Self = Self(16);
    /// The response's trailers.
    pub const ENCODE_TRAILERS: Self = Self(32);
    /// The end of the stream.
    pub const COMPLETE: Self = Self(64);
    /// Everything.
    pub const ALL: Self = Self(127);

    /// Whether all of `other` is in here.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Interest {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What a filter may see of the route that was chosen.
#[derive(Clone, Debug, Default)]
pub struct RouteInfo {
    /// The route's name.
    pub name: Arc<str>,
    /// The virtual host's name.
    pub virtual_host: Arc<str>,
    /// The cluster that the request goes to; none for a redirect or a direct
    /// response.
    pub cluster: Option<Arc<str>>,
    /// The route's metadata.
    pub metadata: Option<Arc<Metadata>>,
}

/// What a callback may use.
pub struct FilterContext<'a> {
    /// What is known of the stream.
    pub info: &'a mut StreamInfo,
    /// The head of the request, for the whole life of the stream. Changes are
    /// seen upstream as long as the head has not gone past this filter.
    pub request: &'a mut RequestHead,
    /// The head of the response while it is held at this filter.
    pub response: Option<&'a mut ResponseHead>,
    /// The route, if one was found.
    pub route: Option<&'a RouteInfo>,
    /// What the proxy offers: calls to clusters, runtime, random numbers.
    pub services: &'a dyn Services,
    /// Set to have the route chosen anew, as Envoy's `clearRouteCache()`. Filters
    /// that have not seen the head yet are made anew, with the overrides of the
    /// new route. Without effect once the head has passed the last filter.
    pub clear_route_cache: bool,
    /// Most bytes that a filter of this stream may collect, 0 for any number; the
    /// connection's buffer limit unless a filter sets it, as Envoy's
    /// `setBufferLimit()`.
    pub buffer_limit: usize,
    /// Bytes of the body that are held at the filter; set for
    /// [`HttpFilter::poll_resume`] alone.
    pub held: usize,
    /// Set in the callback for the last piece of a body without trailers: these
    /// follow it.
    pub add_trailers: Option<Headers>,
    /// Set in the callback of the trailers: the rest of the body, which goes before them.
    pub add_data: Option<Buffer>,
}

/// A filter on one stream. Every callback has a default that lets all pass.
#[allow(unused_variables)]
pub trait HttpFilter: Send {
    /// The head of the request; it is in `cx.request`.
    fn decode_headers(&mut self, cx: &mut FilterContext<'_>, end_stream: bool) -> FilterStatus {
        FilterStatus::Continue
    }

    /// A piece of the request's body.
    fn decode_data(
        &mut self,
        cx: &mut FilterContext<'_>,
        data: &mut Buffer,
        end_stream: bool,
    ) -> FilterStatus {
        FilterStatus::Continue
    }

    /// The request's trailers.
    fn decode_trailers(
        &mut self,
        cx: &mut FilterContext<'_>,
        trailers: &mut Headers,
    ) -> FilterStatus {
        FilterStatus::Continue
    }

    /// The head of the response, 1xx excepted.
    fn encode_headers(
        &mut self,
        cx: &mut FilterContext<'_>,
        head: &mut ResponseHead,
        end_stream: bool,
    ) -> FilterStatus {
        FilterStatus::Continue
    }

    /// A piece of the response's body.
    fn encode_data(
        &mut self,
        cx: &mut FilterContext<'_>,
        data: &mut Buffer,
        end_stream: bool,
    ) -> FilterStatus {
        FilterStatus::Continue
    }

    /// The response's trailers.
    fn encode_trailers(
        &mut self,
        cx: &mut FilterContext<'_>,
        trailers: &mut Headers,
    ) -> FilterStatus {
        FilterStatus::Continue
    }

    /// Polled after a `Pause` on `side`, whichever callback returned it, until it is ready. The task is woken as
    /// for any future. A filter that never is ready is ended by the stream idle
    /// timeout and dropped, which must cancel what it waits for.
    fn poll_resume(
        &mut self,
        side: Side,
        cx: &mut FilterContext<'_>,
        task: &mut Context<'_>,
    ) -> Poll<Resume> {
        Poll::Ready(Resume::Continue)
    }

    /// The stream has ended, in whatever way. Called once, before the access log.
    fn on_stream_complete(&mut self, cx: &mut FilterContext<'_>) {}
}

/// A validated per-route override, known only to the filter it belongs to.
pub type RouteFilterConfig = Arc<dyn Any + Send + Sync>;

/// What a worker offers to a factory.
#[derive(Clone, Debug)]
pub struct WorkerContext {
    /// Index of the worker, from 0.
    pub index: usize,
    /// Where stats are registered.
    pub store: Store,
}

/// What is known when a filter is made for a stream.
pub struct CreateContext<'a> {
    /// What the proxy offers.
    pub services: &'a dyn Services,
    /// Every override of the filter on the way to the route, the most specific first, for
    /// filters to which the less specific ones matter too.
    pub overrides: &'a dyn Fn() -> Vec<RouteFilterConfig>,
}

/// A filter's configuration, validated on the main thread.
pub trait HttpFilterConfig: fmt::Debug + Send + Sync {
    /// Makes the factory of one worker; its stats cells are that worker's own.
    fn factory(&self, worker: &WorkerContext) -> Box<dyn HttpFilterFactory>;

    /// Whether this is the router, which ends every chain.
    fn is_terminal(&self) -> bool {
        false
    }

    /// Whether the filter records gRPC calls by method, so that the connection
    /// manager need not.
    fn records_grpc(&self) -> bool {
        false
    }
}

/// Makes filters on one worker.
pub trait HttpFilterFactory: Send + Sync {
    /// The events that the filters made here want.
    fn interest(&self) -> Interest;

    /// Makes the filter of one stream. `route` is the most specific override:
    /// route before virtual host before route configuration. None if the filter
    /// has nothing to do on this stream.
    fn create(
        &self,
        route: Option<&RouteFilterConfig>,
        cx: &CreateContext<'_>,
    ) -> Option<Box<dyn HttpFilter>>;
}
