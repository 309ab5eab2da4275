//! The chain of HTTP filters of one stream: iteration, pause and resume, and
//! the bounded buffers of what is held.
//!
//! Each filter has a state for each side. What arrives at a filter that is
//! paused waits there; what passes the last filter of a side gathers in the
//! side's [`SideOut`], from which the stream takes it on. The encode side walks
//! the filters backwards.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll};

use filter_api::{
    FilterContext, FilterStatus, HttpFilter, Interest, LocalReply, Resume, RouteInfo, Services,
    Side,
};
use outrigger_types::{Buffer, Headers, RequestHead, ResponseHead, StreamInfo};
use smallvec::SmallVec;

/// How a body ended.
#[derive(Debug)]
pub enum BodyEnd {
    /// Without trailers.
    Plain,
    /// With trailers.
    Trailers(Headers),
}

/// What came out of a side of the chain and waits to be taken.
#[derive(Debug, Default)]
pub struct SideOut {
    /// The head has passed all filters.
    pub head: bool,
    /// Body that has passed all filters.
    pub data: Buffer,
    /// The end has passed all filters.
    pub end: Option<BodyEnd>,
}

/// What a filter decided that the stream must act on.
#[derive(Debug)]
pub enum Verdict {
    /// Go on.
    Continue,
    /// Answer.
    Reply(Box<LocalReply>),
    /// A filter that collects the body holds more than the limit.
    BufferOverflow,
    /// Reset the stream.
    Reset,
}

/// What a filter was made from: its place among all that are configured, the
/// filter, and the events that it wants.
pub type Made = (usize, Box<dyn HttpFilter>, Interest);

/// The choice of the route, and the filters that come of it.
pub trait Routing {
    /// What filters may see of the route in force.
    fn route(&self) -> Option<&RouteInfo>;

    /// Chooses the route anew, for the head as it is now.
    fn refresh(&mut self, request: &RequestHead, info: &mut StreamInfo);

    /// The first filter from this place on that takes part, by the route in force.
    fn next_filter(&self, from: usize) -> Option<Made>;
}

/// What the callbacks may see of the stream.
pub struct Parts<'a> {
    /// See [`FilterContext::info`].
    pub info: &'a mut StreamInfo,
    /// See [`FilterContext::request`].
    pub request: &'a mut RequestHead,
    /// The head of the response, if there is one.
    pub response: Option<&'a mut ResponseHead>,
    /// The route, and the way to another one.
    pub routing: &'a mut dyn Routing,
    /// See [`FilterContext::services`].
    pub services: &'a dyn Services,
    /// See [`FilterContext::buffer_limit`].
    pub buffer_limit: &'a mut usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Running,
    Paused,
    Buffering,
}

#[derive(Debug)]
struct SideState {
    mode: Mode,
    /// The head waits here.
    holds_head: bool,
    /// The head ends the message.
    head_ends: bool,
    data: Buffer,
    end: Option<BodyEnd>,
}

impl SideState {
    const fn new() -> Self {
        Self {
            mode: Mode::Running,
            holds_head: false,
            head_ends: false,
            data: Buffer::new(),
            end: None,
        }
    }
}

struct Entry {
    /// Its place among the filters that are configured.
    slot: usize,
    filter: Box<dyn HttpFilter>,
    interest: Interest,
    decode: SideState,
    encode: SideState,
}

impl Entry {
    fn side(&mut self, side: Side) -> &mut SideState {
        match side {
            Side::Decode => &mut self.decode,
            Side::Encode => &mut self.encode,
        }
    }
}

/// The filters of one stream.
#[derive(Default)]
pub struct FilterChain {
    entries: SmallVec<[Entry; 4]>,
    /// What passed towards upstream.
    pub decode_out: SideOut,
    /// What passed towards downstream.
    pub encode_out: SideOut,
    paused: u32,
    /// How many filters the head of the request has come to.
    reached: usize,
    /// The head of the request has passed all filters.
    head_passed: bool,
}

impl FilterChain {
    /// A chain without filters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds all filters that take part, behind those that are there.
    pub fn fill(&mut self, routing: &dyn Routing) {
        let mut from = self.entries.last().map_or(0, |entry| entry.slot + 1);
        while let Some((slot, filter, interest)) = routing.next_filter(from) {
            self.entries.push(Entry {
                slot,
                filter,
                interest,
                decode: SideState::new(),
                encode: SideState::new(),
            });
            from = slot + 1;
        }
    }

    /// Bytes that filters hold on a side, and what has passed but is not taken.
    pub fn held(&self, side: Side) -> usize {
        if self.paused == 0 {
            return self.out_ref(side).data.len();
        }
        let held: usize = self
            .entries
            .iter()
            .map(|e| match side {
                Side::Decode => e.decode.data.len(),
                Side::Encode => e.encode.data.len(),
            })
            .sum();
        held + self.out_ref(side).data.len()
    }

    /// Whether a filter collects the body of a side: it is to be given all of it,
    /// up to the limit, whatever it does with it.
    pub fn is_collecting(&self, side: Side) -> bool {
        let collects = |entry: &Entry| match side {
            Side::Decode => entry.decode.mode == Mode::Buffering,
            Side::Encode => entry.encode.mode == Mode::Buffering,
        };
        self.paused > 0 && self.entries.iter().any(collects)
    }

    /// Whether any filter waits.
    pub fn is_paused(&self) -> bool {
        self.paused > 0
    }

    /// Sends a head through. The head itself is in `parts`.
    pub fn head(&mut self, side: Side, parts: &mut Parts<'_>, end_stream: bool) -> Verdict {
        self.head_from(side, 0, parts, end_stream)
    }

    /// Sends a piece of the body through.
    pub fn data(
        &mut self,
        side: Side,
        parts: &mut Parts<'_>,
        data: Buffer,
        end_stream: bool,
    ) -> Verdict {
        self.data_from(side, 0, parts, data, end_stream)
    }

    /// Sends trailers through.
    pub fn trailers(&mut self, side: Side, parts: &mut Parts<'_>, trailers: Headers) -> Verdict {
        self.trailers_from(side, 0, parts, trailers)
    }

    /// Polls the filters that wait; lets go what was held by those that are
    /// done. Says on which side something happened.
    pub fn poll_resume(
        &mut self,
        parts: &mut Parts<'_>,
        task: &mut Context<'_>,
    ) -> Poll<(Side, Verdict)> {
        if self.paused == 0 {
            return Poll::Pending;
        }
        for step in 0..self.entries.len() {
            for side in [Side::Decode, Side::Encode] {
                let index = self.index(side, step);
                if self.entries[index].side(side).mode != Mode::Paused {
                    continue;
                }
                let held = self.entries[index].side(side).data.len();
                let filter = &mut self.entries[index].filter;
                let called = call(parts, |cx| {
                    cx.held = held;
                    filter.poll_resume(side, cx, task)
                });
                self.refresh(side, called.clear, parts);
                let verdict = match called.result {
                    Poll::Pending => continue,
                    Poll::Ready(Resume::Continue) => self.resume(side, step, parts),
                    Poll::Ready(Resume::Release(bytes)) => self.release(side, step, parts, bytes),
                    Poll::Ready(Resume::Reply(reply)) => {
                        self.set_mode(side, index, Mode::Running);
                        Verdict::Reply(reply)
                    }
                    Poll::Ready(Resume::Reset) => Verdict::Reset,
                };
                return Poll::Ready((side, verdict));
            }
        }
        Poll::Pending
    }

    /// Throws away what a side holds and lets nothing wait on it any more.
    pub fn abandon(&mut self, side: Side) {
        for index in 0..self.entries.len() {
            self.set_mode(side, index, Mode::Running);
            *self.entries[index].side(side) = SideState::new();
        }
        *self.out(side) = SideOut::default();
    }

    /// Tells every filter that the stream has ended. One that panics at that does
    /// not keep it from the others; returns how many did.
    pub fn complete(&mut self, parts: &mut Parts<'_>) -> usize {
        let mut panicked = 0;
        for entry in &mut self.entries {
            if entry.interest.has(Interest::COMPLETE) {
                let end = || call(parts, |cx| entry.filter.on_stream_complete(cx));
                panicked += usize::from(catch_unwind(AssertUnwindSafe(end)).is_err());
            }
        }
        panicked
    }

    /// A filter asked for another route: those that the head has not come to yet
    /// are made anew.
    fn refresh(&mut self, side: Side, asked: bool, parts: &mut Parts<'_>) {
        if !asked || side != Side::Decode || self.head_passed {
            return;
        }
        parts.routing.refresh(parts.request, parts.info);
        self.entries.truncate(self.reached);
        self.fill(parts.routing);
    }

    /// The filter that a step of a side's walk is about.
    fn index(&self, side: Side, step: usize) -> usize {
        match side {
            Side::Decode => step,
            Side::Encode => self.entries.len() - 1 - step,
        }
    }

    fn out(&mut self, side: Side) -> &mut SideOut {
        match side {
            Side::Decode => &mut self.decode_out,
            Side::Encode => &mut self.encode_out,
        }
    }

    fn out_ref(&self, side: Side) -> &SideOut {
        match side {
            Side::Decode => &self.decode_out,
            Side::Encode => &self.encode_out,
        }
    }

    fn set_mode(&mut self, side: Side, index: usize, mode: Mode) {
        let state = self.entries[index].side(side);
        let was = std::mem::replace(&mut state.mode, mode);
        self.paused += u32::from(mode != Mode::Running);
        self.paused -= u32::from(was != Mode::Running);
    }

    fn head_from(
        &mut self,
        side: Side,
        from: usize,
        parts: &mut Parts<'_>,
        end_stream: bool,
    ) -> Verdict {
        let wanted = match side {
            Side::Decode => Interest::DECODE_HEADERS,
            Side::Encode => Interest::ENCODE_HEADERS,
        };
        let mut next = from;
        // There may be more filters, or fewer, after each.
        while next < self.entries.len() {
            let index = self.index(side, next);
            next += 1;
            if side == Side::Decode {
                self.reached = next;
            }
            if !self.entries[index].interest.has(wanted) {
                continue;
            }
            let called = call_head(side, &mut self.entries[index], parts, end_stream);
            self.refresh(side, called.clear, parts);
            let status = called.result;
            match status {
                FilterStatus::Continue => {}
                FilterStatus::Reply(reply) => return Verdict::Reply(reply),
                FilterStatus::Pause | FilterStatus::PauseAndBuffer => {
                    let mode = pause_mode(&status);
                    self.set_mode(side, index, mode);
                    let state = self.entries[index].side(side);
                    state.holds_head = true;
                    state.head_ends = end_stream;
                    return Verdict::Continue;
                }
            }
        }
        self.head_passed |= side == Side::Decode;
        let out = self.out(side);
        out.head = true;
        if end_stream {
            out.end = Some(BodyEnd::Plain);
        }
        Verdict::Continue
    }

    fn data_from(
        &mut self,
        side: Side,
        from: usize,
        parts: &mut Parts<'_>,
        mut data: Buffer,
        end_stream: bool,
    ) -> Verdict {
        for step in from..self.entries.len() {
            let index = self.index(side, step);
            let mode = self.entries[index].side(side).mode;
            if mode == Mode::Paused {
                self.hold(side, index, &mut data, end_of(end_stream, None));
                return Verdict::Continue;
            }
            let called = call_data(side, &mut self.entries[index], parts, &mut data, end_stream);
            self.refresh(side, called.clear, parts);
            let added = called.trailers.filter(|_| end_stream);
            match called.result {
                FilterStatus::Continue if mode == Mode::Buffering => {
                    self.hold(side, index, &mut data, end_of(end_stream, added));
                    return self.resume(side, step, parts);
                }
                FilterStatus::Continue => {
                    let Some(trailers) = added else { continue };
                    return match self.data_from(side, step + 1, parts, data, false) {
                        Verdict::Continue => self.trailers_from(side, step + 1, parts, trailers),
                        other => other,
                    };
                }
                FilterStatus::Reply(reply) => return Verdict::Reply(reply),
                status @ (FilterStatus::Pause | FilterStatus::PauseAndBuffer) => {
                    self.set_mode(side, index, pause_mode(&status));
                    self.hold(side, index, &mut data, end_of(end_stream, added));
                    return self.check_limit(side, index, *parts.buffer_limit);
                }
            }
        }
        let out = self.out(side);
        out.data.append(&mut data);
        if end_stream {
            out.end = Some(BodyEnd::Plain);
        }
        Verdict::Continue
    }

    fn trailers_from(
        &mut self,
        side: Side,
        from: usize,
        parts: &mut Parts<'_>,
        mut trailers: Headers,
    ) -> Verdict {
        for step in from..self.entries.len() {
            let index = self.index(side, step);
            let mode = self.entries[index].side(side).mode;
            if mode == Mode::Paused {
                self.entries[index].side(side).end = Some(BodyEnd::Trailers(trailers));
                return Verdict::Continue;
            }
            let called = call_trailers(side, &mut self.entries[index], parts, &mut trailers);
            self.refresh(side, called.clear, parts);
            match called.result {
                FilterStatus::Continue if mode == Mode::Buffering => {
                    let end = Some(BodyEnd::Trailers(trailers));
                    self.hold(side, index, &mut called.data.unwrap_or_default(), end);
                    return self.resume(side, step, parts);
                }
                FilterStatus::Continue => {
                    let Some(rest) = called.data else { continue };
                    match self.data_from(side, step + 1, parts, rest, false) {
                        Verdict::Continue => {}
                        other => return other,
                    }
                }
                FilterStatus::Reply(reply) => return Verdict::Reply(reply),
                FilterStatus::Pause | FilterStatus::PauseAndBuffer => {
                    self.set_mode(side, index, Mode::Paused);
                    self.entries[index].side(side).end = Some(BodyEnd::Trailers(trailers));
                    return Verdict::Continue;
                }
            }
        }
        self.out(side).end = Some(BodyEnd::Trailers(trailers));
        Verdict::Continue
    }

    fn hold(&mut self, side: Side, index: usize, data: &mut Buffer, end: Option<BodyEnd>) {
        let state = self.entries[index].side(side);
        state.data.append(data);
        if end.is_some() {
            state.end = end;
        }
    }

    /// A filter that collects the body may hold no more than the limit; one that
    /// only waits is kept below it by back-pressure.
    fn check_limit(&mut self, side: Side, index: usize, limit: usize) -> Verdict {
        let state = self.entries[index].side(side);
        if limit > 0 && state.mode == Mode::Buffering && state.data.len() > limit {
            return Verdict::BufferOverflow;
        }
        Verdict::Continue
    }

    /// Lets a part of what a filter holds go on to the filters after it.
    fn release(
        &mut self,
        side: Side,
        step: usize,
        parts: &mut Parts<'_>,
        mut bytes: usize,
    ) -> Verdict {
        let index = self.index(side, step);
        let state = self.entries[index].side(side);
        // A head goes before any of its body.
        if state.holds_head || bytes >= state.data.len() {
            return self.resume(side, step, parts);
        }
        let mut piece = Buffer::new();
        while let Some(chunk) = state.data.pop_up_to(bytes) {
            bytes -= chunk.len();
            piece.push(chunk);
        }
        self.data_from(side, step + 1, parts, piece, false)
    }

    /// Lets what a filter held go on to the filters after it.
    fn resume(&mut self, side: Side, step: usize, parts: &mut Parts<'_>) -> Verdict {
        let index = self.index(side, step);
        self.set_mode(side, index, Mode::Running);
        let state = std::mem::replace(self.entries[index].side(side), SideState::new());
        if state.holds_head {
            let ends = state.head_ends && state.data.is_empty() && state.end.is_none();
            match self.head_from(side, step + 1, parts, ends) {
                Verdict::Continue => {}
                other => return other,
            }
        }
        let plain_end = matches!(state.end, Some(BodyEnd::Plain));
        if !state.data.is_empty() || plain_end {
            match self.data_from(side, step + 1, parts, state.data, plain_end) {
                Verdict::Continue => {}
                other => return other,
            }
        }
        match state.end {
            Some(BodyEnd::Trailers(trailers)) => {
                self.trailers_from(side, step + 1, parts, trailers)
            }
            Some(BodyEnd::Plain) | None => Verdict::Continue,
        }
    }
}

fn pause_mode(status: &FilterStatus) -> Mode {
    if matches!(status, FilterStatus::PauseAndBuffer) {
        Mode::Buffering
    } else {
        Mode::Paused
    }
}

fn end_of(end_stream: bool, trailers: Option<Headers>) -> Option<BodyEnd> {
    end_stream.then(|| trailers.map_or(BodyEnd::Plain, BodyEnd::Trailers))
}

/// What a callback returned, and what it asked for besides.
struct Called<R> {
    result: R,
    clear: bool,
    trailers: Option<Headers>,
    data: Option<Buffer>,
}

impl Called<FilterStatus> {
    /// Of a filter that does not want the event.
    const PASSED: Self = Self {
        result: FilterStatus::Continue,
        clear: false,
        trailers: None,
        data: None,
    };
}

/// Makes a callback.
fn call<R>(parts: &mut Parts<'_>, f: impl FnOnce(&mut FilterContext<'_>) -> R) -> Called<R> {
    let mut cx = FilterContext {
        info: parts.info,
        request: parts.request,
        response: parts.response.as_deref_mut(),
        route: parts.routing.route(),
        services: parts.services,
        clear_route_cache: false,
        buffer_limit: *parts.buffer_limit,
        add_trailers: None,
        add_data: None,
        held: 0,
    };
    let result = f(&mut cx);
    let called = Called {
        result,
        clear: cx.clear_route_cache,
        trailers: cx.add_trailers,
        data: cx.add_data,
    };
    *parts.buffer_limit = cx.buffer_limit;
    called
}

fn call_head(
    side: Side,
    entry: &mut Entry,
    parts: &mut Parts<'_>,
    end_stream: bool,
) -> Called<FilterStatus> {
    // The head that a callback is about is an argument of its own.
    let response = match side {
        Side::Decode => None,
        Side::Encode => parts.response.take(),
    };
    match response {
        None => call(parts, |cx| entry.filter.decode_headers(cx, end_stream)),
        Some(head) => {
            let called = call(parts, |cx| {
                entry.filter.encode_headers(cx, head, end_stream)
            });
            parts.response = Some(head);
            called
        }
    }
}

fn call_data(
    side: Side,
    entry: &mut Entry,
    parts: &mut Parts<'_>,
    data: &mut Buffer,
    end_stream: bool,
) -> Called<FilterStatus> {
    let wanted = match side {
        Side::Decode => Interest::DECODE_DATA,
        Side::Encode => Interest::ENCODE_DATA,
    };
    if !entry.interest.has(wanted) {
        return Called::PASSED;
    }
    call(parts, |cx| match side {
        Side::Decode => entry.filter.decode_data(cx, data, end_stream),
        Side::Encode => entry.filter.encode_data(cx, data, end_stream),
    })
}

fn call_trailers(
    side: Side,
    entry: &mut Entry,
    parts: &mut Parts<'_>,
    trailers: &mut Headers,
) -> Called<FilterStatus> {
    let wanted = match side {
        Side::Decode => Interest::DECODE_TRAILERS,
        Side::Encode => Interest::ENCODE_TRAILERS,
    };
    if !entry.interest.has(wanted) {
        return Called::PASSED;
    }
    call(parts, |cx| match side {
        Side::Decode => entry.filter.decode_trailers(cx, trailers),
        Side::Encode => entry.filter.encode_trailers(cx, trailers),
    })
}
