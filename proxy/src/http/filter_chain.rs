//! The chain of HTTP filters of one stream: iteration, pause and resume, and
//! the bounded buffers of what is held.
//!
//! Each filter has a state for each side. What arrives at a filter that is
//! paused waits there; what passes the last filter of a side gathers in the
//! side's [`SideOut`], from which the stream takes it on. The encode side walks
//! the filters backwards.

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

/// What the callbacks may see of the stream.
pub struct Parts<'a> {
    /// See [`FilterContext::info`].
    pub info: &'a mut StreamInfo,
    /// See [`FilterContext::request`].
    pub request: &'a mut RequestHead,
    /// The head of the response, if there is one.
    pub response: Option<&'a mut ResponseHead>,
    /// See [`FilterContext::route`].
    pub route: Option<&'a RouteInfo>,
    /// See [`FilterContext::services`].
    pub services: &'a dyn Services,
    /// Set when a filter asked for a new choice of route.
    pub clear_route_cache: &'a mut bool,
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
    buffer_limit: usize,
    paused: u32,
}

impl FilterChain {
    /// A chain without filters. `buffer_limit` bounds what a filter may
    /// collect, in bytes; 0 means no bound.
    pub fn new(buffer_limit: usize) -> Self {
        Self {
            buffer_limit,
            ..Self::default()
        }
    }

    /// Adds a filter at the end.
    pub fn push(&mut self, filter: Box<dyn HttpFilter>, interest: Interest) {
        let (decode, encode) = (SideState::new(), SideState::new());
        self.entries.push(Entry {
            filter,
            interest,
            decode,
            encode,
        });
    }

    /// Sets the bound on what a filter may collect.
    pub fn set_buffer_limit(&mut self, limit: usize) {
        self.buffer_limit = limit;
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
    /// done.
    pub fn poll_resume(&mut self, parts: &mut Parts<'_>, task: &mut Context<'_>) -> Poll<Verdict> {
        if self.paused == 0 {
            return Poll::Pending;
        }
        for step in 0..self.entries.len() {
            for side in [Side::Decode, Side::Encode] {
                let index = self.index(side, step);
                if self.entries[index].side(side).mode != Mode::Paused {
                    continue;
                }
                let mut cx = context(parts);
                let resumed = self.entries[index].filter.poll_resume(side, &mut cx, task);
                let clear = cx.clear_route_cache;
                *parts.clear_route_cache |= clear;
                match resumed {
                    Poll::Pending => {}
                    Poll::Ready(Resume::Continue) => {
                        return Poll::Ready(self.resume(side, step, parts));
                    }
                    Poll::Ready(Resume::Reply(reply)) => {
                        self.set_mode(side, index, Mode::Running);
                        return Poll::Ready(Verdict::Reply(reply));
                    }
                    Poll::Ready(Resume::Reset) => return Poll::Ready(Verdict::Reset),
                }
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

    /// Tells every filter that the stream has ended.
    pub fn complete(&mut self, parts: &mut Parts<'_>) {
        for entry in &mut self.entries {
            if entry.interest.has(Interest::COMPLETE) {
                entry.filter.on_stream_complete(&mut context(parts));
            }
        }
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
        for step in from..self.entries.len() {
            let index = self.index(side, step);
            if !self.entries[index].interest.has(wanted) {
                continue;
            }
            let status = call_head(side, &mut self.entries[index], parts, end_stream);
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
                self.hold(side, index, &mut data, end_stream.then_some(BodyEnd::Plain));
                return Verdict::Continue;
            }
            let status = call_data(side, &mut self.entries[index], parts, &mut data, end_stream);
            match status {
                FilterStatus::Continue if mode == Mode::Buffering => {
                    self.hold(side, index, &mut data, end_stream.then_some(BodyEnd::Plain));
                    return self.resume(side, step, parts);
                }
                FilterStatus::Continue => {}
                FilterStatus::Reply(reply) => return Verdict::Reply(reply),
                FilterStatus::Pause | FilterStatus::PauseAndBuffer => {
                    let mode = pause_mode(&status);
                    self.set_mode(side, index, mode);
                    self.hold(side, index, &mut data, end_stream.then_some(BodyEnd::Plain));
                    return self.check_limit(side, index);
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
            let status = call_trailers(side, &mut self.entries[index], parts, &mut trailers);
            match status {
                FilterStatus::Continue if mode == Mode::Buffering => {
                    self.entries[index].side(side).end = Some(BodyEnd::Trailers(trailers));
                    return self.resume(side, step, parts);
                }
                FilterStatus::Continue => {}
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
    fn check_limit(&mut self, side: Side, index: usize) -> Verdict {
        let limit = self.buffer_limit;
        let state = self.entries[index].side(side);
        if limit > 0 && state.mode == Mode::Buffering && state.data.len() > limit {
            return Verdict::BufferOverflow;
        }
        Verdict::Continue
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

/// What a callback sees; the response's head is not lent here.
fn context<'a>(parts: &'a mut Parts<'_>) -> FilterContext<'a> {
    FilterContext {
        info: parts.info,
        request: parts.request,
        response: parts.response.as_deref_mut(),
        route: parts.route,
        services: parts.services,
        clear_route_cache: false,
    }
}

fn call_head(
    side: Side,
    entry: &mut Entry,
    parts: &mut Parts<'_>,
    end_stream: bool,
) -> FilterStatus {
    let response = if side == Side::Encode {
        parts.response.take()
    } else {
        None
    };
    let mut cx = context(parts);
    let (status, clear) = match response {
        None => {
            let status = entry.filter.decode_headers(&mut cx, end_stream);
            (status, cx.clear_route_cache)
        }
        Some(head) => {
            let status = entry.filter.encode_headers(&mut cx, head, end_stream);
            let clear = cx.clear_route_cache;
            parts.response = Some(head);
            (status, clear)
        }
    };
    *parts.clear_route_cache |= clear;
    status
}

fn call_data(
    side: Side,
    entry: &mut Entry,
    parts: &mut Parts<'_>,
    data: &mut Buffer,
    end_stream: bool,
) -> FilterStatus {
    let wanted = match side {
        Side::Decode => Interest::DECODE_DATA,
        Side::Encode => Interest::ENCODE_DATA,
    };
    if !entry.interest.has(wanted) {
        return FilterStatus::Continue;
    }
    let mut cx = context(parts);
    match side {
        Side::Decode => entry.filter.decode_data(&mut cx, data, end_stream),
        Side::Encode => entry.filter.encode_data(&mut cx, data, end_stream),
    }
}

fn call_trailers(
    side: Side,
    entry: &mut Entry,
    parts: &mut Parts<'_>,
    trailers: &mut Headers,
) -> FilterStatus {
    let wanted = match side {
        Side::Decode => Interest::DECODE_TRAILERS,
        Side::Encode => Interest::ENCODE_TRAILERS,
    };
    if !entry.interest.has(wanted) {
        return FilterStatus::Continue;
    }
    let mut cx = context(parts);
    match side {
        Side::Decode => entry.filter.decode_trailers(&mut cx, trailers),
        Side::Encode => entry.filter.encode_trailers(&mut cx, trailers),
    }
}
