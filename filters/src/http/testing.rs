//! Filters that only tests configure: each does one thing that a chain must bear.
//!
//! They have no message: a test puts them into an HCM's configuration itself.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use filter_api::{
    CallError, CallFuture, CallResponse, CreateContext, FilterContext, FilterStatus, HttpFilter,
    HttpFilterConfig, HttpFilterFactory, Interest, LocalReply, Resume, RouteFilterConfig, Side,
    WorkerContext,
};
use outrigger_types::{
    Buffer, HeaderName, HeaderValue, Headers, Method, RequestHead, ResponseHead, StatusCode,
};
use tokio::time::Sleep;

const CALLED: HeaderName = HeaderName::from_static("x-called");
const CLEARED: HeaderName = HeaderName::from_static("x-cleared");
const RAN: HeaderName = HeaderName::from_static("x-ran");
const ADDED: HeaderName = HeaderName::from_static("x-added");

/// A part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The head.
    Head,
    /// The first piece of the body.
    Data,
    /// The trailers.
    Trailers,
    /// The end of the stream, whatever the side.
    Complete,
}

/// What a test filter does to every stream.
#[derive(Clone, Debug)]
pub enum Behaviour {
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
    PauseForEver(Side, Part),
    /// Goes on after this time.
    PauseFor(Side, Part, Duration),
    /// Panics.
    Panic(Side, Part),
    /// Answers at the head of the response.
    AnswerOnEncode(StatusCode),
    /// Sets `x-cleared: 1` on the request and has the route chosen anew.
    ClearRouteCache,
    /// Collects the whole body before it lets it go on.
    Collect(Side),
    /// Makes the body upper case, piece by piece.
    Rewrite(Side),
    /// Sets `x-added: 1` in the trailers, which it adds where there are none.
    AddTrailers(Side),
    /// Appends its text to `x-ran` of the request; an override is an
    /// `Arc<str>` to append instead.
    Mark(Arc<str>),
}

/// A filter for tests, and how many of it live.
#[derive(Clone, Debug)]
pub struct TestFilter {
    behaviour: Behaviour,
    alive: Arc<AtomicI64>,
}

impl TestFilter {
    /// A filter that does this.
    pub fn new(behaviour: Behaviour) -> Self {
        Self {
            behaviour,
            alive: Arc::default(),
        }
    }

    /// Filters on streams that were not dropped yet.
    pub fn alive(&self) -> i64 {
        self.alive.load(Ordering::Relaxed)
    }
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
        route: Option<&RouteFilterConfig>,
        _cx: &CreateContext<'_>,
    ) -> Option<Box<dyn HttpFilter>> {
        let mut behaviour = self.behaviour.clone();
        let text = route.and_then(|route| route.downcast_ref::<Arc<str>>());
        if let (Behaviour::Mark(mark), Some(text)) = (&mut behaviour, text) {
            *mark = text.clone();
        }
        self.alive.fetch_add(1, Ordering::Relaxed);
        Some(Box::new(Running {
            behaviour,
            alive: self.alive.clone(),
            call: None,
            sleep: None,
            waited: false,
        }))
    }
}

/// The filter on one stream.
struct Running {
    behaviour: Behaviour,
    alive: Arc<AtomicI64>,
    call: Option<CallFuture>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// It has paused once already.
    waited: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Running {
    /// What the behaviours do that are the same for every part.
    fn at(&mut self, side: Side, part: Part) -> FilterStatus {
        let here = (side, part);
        match self.behaviour {
            Behaviour::PauseForEver(s, p) if (s, p) == here => FilterStatus::Pause,
            Behaviour::PauseFor(s, p, pause) if (s, p) == here && !self.waited => {
                self.waited = true;
                self.sleep = Some(Box::pin(tokio::time::sleep(pause)));
                FilterStatus::Pause
            }
            Behaviour::Panic(s, p) if (s, p) == here => {
                panic!("a test filter panics at {part:?}, {side:?}")
            }
            _ => FilterStatus::Continue,
        }
    }

    fn data(
        &mut self,
        side: Side,
        cx: &mut FilterContext<'_>,
        data: &mut Buffer,
        end_stream: bool,
    ) -> FilterStatus {
        match self.behaviour {
            Behaviour::Collect(s) if s == side && !end_stream => FilterStatus::PauseAndBuffer,
            Behaviour::Rewrite(s) if s == side => {
                *data = Bytes::from(data.to_bytes().to_ascii_uppercase()).into();
                FilterStatus::Continue
            }
            Behaviour::AddTrailers(s) if s == side && end_stream => {
                let mut trailers = Headers::new();
                trailers.set(ADDED, HeaderValue::from_static("1"));
                cx.add_trailers = Some(trailers);
                FilterStatus::Continue
            }
            _ => self.at(side, Part::Data),
        }
    }

    fn trailers(&mut self, side: Side, trailers: &mut Headers) -> FilterStatus {
        if matches!(self.behaviour, Behaviour::AddTrailers(s) if s == side) {
            trailers.set(ADDED, HeaderValue::from_static("1"));
        }
        self.at(side, Part::Trailers)
    }

    fn answered(
        &self,
        cx: &mut FilterContext<'_>,
        answer: Result<CallResponse, CallError>,
    ) -> Resume {
        let Behaviour::Callout { fail_open, .. } = self.behaviour else {
            return Resume::Continue;
        };
        let value = match &answer {
            Ok(answer) => HeaderValue::from(answer.head.status.as_u16()),
            Err(_) => HeaderValue::from_static("error"),
        };
        cx.request.headers.set(CALLED, value);
        match answer {
            Err(_) if !fail_open => Resume::Reply(Box::new(LocalReply::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the call failed",
                "test_filter",
            ))),
            _ => Resume::Continue,
        }
    }
}

impl HttpFilter for Running {
    fn decode_headers(&mut self, cx: &mut FilterContext<'_>, end_stream: bool) -> FilterStatus {
        match &self.behaviour {
            Behaviour::Callout {
                cluster, timeout, ..
            } => {
                let mut head = RequestHead::new(Method::GET, "/check");
                head.authority = Some(Bytes::copy_from_slice(cluster.as_bytes()));
                self.call = Some(cx.services.call(cluster, head, Bytes::new(), *timeout));
                FilterStatus::Pause
            }
            Behaviour::ClearRouteCache => {
                let one = HeaderValue::from_static("1");
                cx.request.headers.set(CLEARED, one);
                cx.clear_route_cache = true;
                FilterStatus::Continue
            }
            Behaviour::Mark(text) => {
                if let Ok(value) = HeaderValue::from_str(text) {
                    cx.request.headers.append(RAN, value);
                }
                FilterStatus::Continue
            }
            Behaviour::Collect(Side::Decode) if !end_stream => FilterStatus::PauseAndBuffer,
            _ => self.at(Side::Decode, Part::Head),
        }
    }

    fn decode_data(
        &mut self,
        cx: &mut FilterContext<'_>,
        data: &mut Buffer,
        end_stream: bool,
    ) -> FilterStatus {
        self.data(Side::Decode, cx, data, end_stream)
    }

    fn decode_trailers(
        &mut self,
        _cx: &mut FilterContext<'_>,
        trailers: &mut Headers,
    ) -> FilterStatus {
        self.trailers(Side::Decode, trailers)
    }

    fn encode_headers(
        &mut self,
        _cx: &mut FilterContext<'_>,
        _head: &mut ResponseHead,
        end_stream: bool,
    ) -> FilterStatus {
        match &self.behaviour {
            Behaviour::AnswerOnEncode(status) => {
                let reply = LocalReply::new(*status, "answered on the way back", "test_filter");
                FilterStatus::Reply(Box::new(reply))
            }
            Behaviour::Collect(Side::Encode) if !end_stream => FilterStatus::PauseAndBuffer,
            _ => self.at(Side::Encode, Part::Head),
        }
    }

    fn encode_data(
        &mut self,
        cx: &mut FilterContext<'_>,
        data: &mut Buffer,
        end_stream: bool,
    ) -> FilterStatus {
        self.data(Side::Encode, cx, data, end_stream)
    }

    fn encode_trailers(
        &mut self,
        _cx: &mut FilterContext<'_>,
        trailers: &mut Headers,
    ) -> FilterStatus {
        self.trailers(Side::Encode, trailers)
    }

    fn poll_resume(
        &mut self,
        _side: Side,
        cx: &mut FilterContext<'_>,
        task: &mut Context<'_>,
    ) -> Poll<Resume> {
        if let Some(sleep) = &mut self.sleep {
            return sleep.as_mut().poll(task).map(|()| Resume::Continue);
        }
        let Some(call) = &mut self.call else {
            return Poll::Pending;
        };
        let Poll::Ready(answer) = call.as_mut().poll(task) else {
            return Poll::Pending;
        };
        self.call = None;
        Poll::Ready(self.answered(cx, answer))
    }

    fn on_stream_complete(&mut self, _cx: &mut FilterContext<'_>) {
        if matches!(self.behaviour, Behaviour::Panic(_, Part::Complete)) {
            panic!("a test filter panics at the end");
        }
    }
}
