//! The half from downstream to upstream.

use std::task::{Context, Poll};

use filter_api::Side;
use outrigger_types::{Buffer, Headers, Protocol};

use super::{BodyEnd, Stream};
use crate::http::codec::BodyEvent;

impl Stream {
    /// Reads from downstream as long as there is room, and hands on what passes
    /// the filters.
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) {
        while !self.over && !self.upload.received && !self.upload.stopped && self.has_upload_room()
        {
            match self.down.poll_recv(cx) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => return self.on_downstream_reset(&error),
                Poll::Ready(Ok(event)) => {
                    self.moved = true;
                    self.on_request_event(event);
                }
            }
        }
        self.feed_router();
    }

    /// Whether less is held than the buffer limit allows.
    pub(super) fn has_upload_room(&self) -> bool {
        let held = self.chain.held(Side::Decode);
        if self.chain.is_collecting(Side::Decode) {
            return self.collect_limit == 0 || held <= self.collect_limit;
        }
        self.buffer_limit == 0 || held + self.upstream.unsent() < self.buffer_limit
    }

    fn on_request_event(&mut self, event: BodyEvent) {
        match event {
            BodyEvent::Data { bytes, end_stream } => {
                self.info.bytes_received += bytes.len() as u64;
                self.upload.unreleased += bytes.len();
                // On HTTP/1 the end is an event of its own for filters, as the
                // codec of Envoy has it.
                let apart = end_stream && self.info.protocol != Some(Protocol::Http2);
                self.on_request_data(bytes.into(), end_stream && !apart);
                if apart && !self.upload.stopped && !self.over {
                    self.on_request_data(Buffer::new(), true);
                }
            }
            BodyEvent::End => self.on_request_data(Buffer::new(), true),
            BodyEvent::Trailers(trailers) => self.on_request_trailers(trailers),
        }
    }

    fn on_request_data(&mut self, data: Buffer, end_stream: bool) {
        if end_stream {
            self.on_request_received();
        }
        let verdict = {
            let (chain, mut parts) = self.split();
            chain.data(Side::Decode, &mut parts, data, end_stream)
        };
        self.act_on(verdict, Side::Decode);
        // What a filter collects has its own bound: it must not wait for a window.
        if self.chain.is_collecting(Side::Decode) {
            self.release_upload(usize::MAX);
        }
        self.feed_router();
    }

    fn on_request_trailers(&mut self, trailers: Headers) {
        self.on_request_received();
        let verdict = {
            let (chain, mut parts) = self.split();
            chain.trailers(Side::Decode, &mut parts, trailers)
        };
        self.act_on(verdict, Side::Decode);
        self.feed_router();
    }

    /// The last byte of the request is here.
    pub(super) fn on_request_received(&mut self) {
        self.upload.received = true;
        self.timers.request = None;
        self.info.times.last_downstream_rx = Some(self.info.elapsed());
    }

    /// Takes what passed the decode filters into the router.
    pub(super) fn feed_router(&mut self) {
        if self.upload.stopped || self.over {
            return;
        }
        if self.chain.decode_out.head {
            self.chain.decode_out.head = false;
            self.moved = true;
            let ends = self.chain.decode_out.end.is_some() && self.chain.decode_out.data.is_empty();
            self.route_request(ends && matches!(self.chain.decode_out.end, Some(BodyEnd::Plain)));
        }
        if self.upload.stopped || self.over {
            return;
        }
        if !self.chain.decode_out.data.is_empty() {
            self.moved = true;
            let mut data = std::mem::take(&mut self.chain.decode_out.data);
            if let Some(grpc) = &mut self.grpc {
                grpc.on_request_data(&data);
            }
            self.upstream.push(&mut data);
        }
        if let Some(end) = self.chain.decode_out.end.take() {
            self.moved = true;
            self.on_request_complete(end);
        }
    }

    /// Gives back the credit of bytes that went out.
    pub(super) fn release_upload(&mut self, sent: usize) {
        let n = sent.min(self.upload.unreleased);
        if n > 0 {
            self.upload.unreleased -= n;
            self.down.release(n);
        }
    }

    /// Wants nothing more of the request; gives back all of its credit.
    pub(super) fn stop_upload(&mut self) {
        self.upload.stopped = true;
        self.chain.abandon(Side::Decode);
        self.release_upload(usize::MAX);
    }
}
