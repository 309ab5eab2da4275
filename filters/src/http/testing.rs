//! Filters that only tests configure: each does one thing that a chain must bear.
//!
//! They have no message: a test puts them into an HCM's configuration itself.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use filter_api::{
    CallFuture, CreateContext, FilterContext, FilterStatus, HttpFilter, HttpFilterConfig,
    HttpFilterFactory, Interest, LocalReply, Resume, RouteFilterConfig, Side, WorkerContext,
};
use outrigger_types::{HeaderName, HeaderValue, Method, RequestHead, ResponseHead, StatusCode};

const CALLED: HeaderName = HeaderName::from_static("x-called");
const CLEARED: HeaderName = HeaderName::from_static("x-cleared");

/// What a test filter does to every stream.
#[derive(Clone, Debug)]
pub enum TestFilter {
    /// Asks a cluster before it lets the request go on, and writes the status of
    /// the answer, or `error`, to `x-called` of the request. It answers 503
    /// itself if the call fails and `fail_open` is off.
    Callout {
        /// The cluster that is asked.
        cluster: Arc<str>,
        /// How long the answer may take.
        timeout: Duration,
        /// Go on without an answer.
        fail_open: bool,
    },
    /// Never goes on.
    PauseForEver(Side),
    /// Panics at the head.
    Panic(Side),
    /// Answers at the head of the response.
    AnswerOnEncode(StatusCode),
    /// Sets `x-cleared: 1` on the request and has the route chosen anew.
    ClearRouteCache,
}

impl HttpFilterConfig for TestFilter {
    fn factory(&self, _worker: &WorkerContext) -> Box<dyn HttpFilterFactory> {
        Box::new(self.clone())
    }
}

impl HttpFilterFactory for TestFilter {
    fn interest(&self) -> Interest {
        Interest::ALL
    }

    fn create(
        &self,
        _route: Option<&RouteFilterConfig>,
        _cx: &CreateContext<'_>,
    ) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Running {
            filter: self.clone(),
            call: None,
        }))
    }
}

struct Running {
    filter: TestFilter,
    call: Option<CallFuture>,
}

impl HttpFilter for Running {
    fn decode_headers(&mut self, cx: &mut FilterContext<'_>, _end_stream: bool) -> FilterStatus {
        match &self.filter {
            TestFilter::Callout {
                cluster, timeout, ..
            } => {
                let mut head = RequestHead::new(Method::GET, "/check");
                head.authority = Some(Bytes::copy_from_slice(cluster.as_bytes()));
                self.call = Some(cx.services.call(cluster, head, Bytes::new(), *timeout));
                FilterStatus::Pause
            }
            TestFilter::PauseForEver(Side::Decode) => FilterStatus::Pause,
            TestFilter::Panic(Side::Decode) => panic!("a test filter panics at the request"),
            TestFilter::ClearRouteCache => {
                cx.request
                    .headers
                    .set(CLEARED, HeaderValue::from_static("1"));
                cx.clear_route_cache = true;
                FilterStatus::Continue
            }
            _ => FilterStatus::Continue,
        }
    }

    fn encode_headers(
        &mut self,
        _cx: &mut FilterContext<'_>,
        _head: &mut ResponseHead,
        _end_stream: bool,
    ) -> FilterStatus {
        match &self.filter {
            TestFilter::PauseForEver(Side::Encode) => FilterStatus::Pause,
            TestFilter::Panic(Side::Encode) => panic!("a test filter panics at the response"),
            TestFilter::AnswerOnEncode(status) => {
                let reply = LocalReply::new(*status, "answered on the way back", "test_filter");
                FilterStatus::Reply(Box::new(reply))
            }
            _ => FilterStatus::Continue,
        }
    }

    fn poll_resume(
        &mut self,
        _side: Side,
        cx: &mut FilterContext<'_>,
        task: &mut Context<'_>,
    ) -> Poll<Resume> {
        let TestFilter::Callout { fail_open, .. } = &self.filter else {
            return Poll::Pending;
        };
        let Some(call) = &mut self.call else {
            return Poll::Ready(Resume::Continue);
        };
        let Poll::Ready(answer) = call.as_mut().poll(task) else {
            return Poll::Pending;
        };
        self.call = None;
        let value = match &answer {
            Ok(answer) => HeaderValue::from(answer.head.status.as_u16()),
            Err(_) => HeaderValue::from_static("error"),
        };
        cx.request.headers.set(CALLED, value);
        Poll::Ready(match answer {
            Err(_) if !fail_open => Resume::Reply(Box::new(LocalReply::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the call failed",
                "test_filter",
            ))),
            _ => Resume::Continue,
        })
    }
}
