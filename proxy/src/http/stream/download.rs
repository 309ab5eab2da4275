//! The half from upstream to downstream.

use std::task::{Context, Poll};

use filter_api::Side;
use outrigger_types::{Buffer, HeaderValue, Headers, Protocol, ResetReason, ResponseHead, names};

use super::{BodyEnd, Stream};
use crate::http::codec::ServerStream;
use crate::http::conn_manager;

impl Stream {
    /// Whether less is held for downstream than the buffer limit allows.
    pub(super) fn has_download_room(&self) -> bool {
        let held = self.chain.held(Side::Encode);
        if self.chain.is_collecting(Side::Encode) {
            return self.collect_limit == 0 || held <= self.collect_limit;
        }
        self.buffer_limit == 0 || held < self.buffer_limit
    }

    /// The head of the response enters the encode filters.
    pub(super) fn encode_head(&mut self, head: ResponseHead, end_stream: bool) {
        self.response = Some(head);
        let verdict = {
            let (chain, mut parts) = self.split();
            chain.head(Side::Encode, &mut parts, end_stream)
        };
        self.act_on(verdict, Side::Encode);
    }

    /// A piece of the response's body enters the encode filters.
    pub(super) fn encode_data(&mut self, data: Buffer, end_stream: bool) {
        let verdict = {
            let (chain, mut parts) = self.split();
            chain.data(Side::Encode, &mut parts, data, end_stream)
        };
        self.act_on(verdict, Side::Encode);
        // What a filter collects has its own bound: it must not wait for a window.
        if self.chain.is_collecting(Side::Encode) {
            self.release_download(usize::MAX);
        }
    }

    /// The response's trailers enter the encode filters.
    pub(super) fn encode_trailers(&mut self, trailers: Headers) {
        let verdict = {
            let (chain, mut parts) = self.split();
            chain.trailers(Side::Encode, &mut parts, trailers)
        };
        self.act_on(verdict, Side::Encode);
    }

    /// Sends what passed the encode filters.
    pub(super) fn poll_download(&mut self, cx: &mut Context<'_>) {
        if self.over {
            return;
        }
        if self.chain.encode_out.head {
            self.chain.encode_out.head = false;
            self.moved = true;
            self.send_head();
        }
        if self.download.head_sent && !self.download.finished {
            // Bytes count as sent once they are on their way, however long the
            // client takes to grant a window.
            let waiting = self.chain.encode_out.data.len();
            self.info.bytes_sent += (waiting - self.download.counted) as u64;
            self.download.counted = waiting;
            self.send_body(cx);
        }
        if self.download.finished && !self.over {
            self.finish();
        } else if self.chain.encode_out.end.is_some()
            && self.download.head_sent
            && !self.download.flushing
        {
            self.begin_flush();
        }
    }

    /// The response is whole, and only waits for its reader. For Envoy the stream is over
    /// by now: what is left is held to the flush timeout, on HTTP/1 to the idle timeout of
    /// the connection, and to no other.
    fn begin_flush(&mut self) {
        self.download.flushing = true;
        let config = &self.hcm.config;
        self.timers.idle = match self.down {
            ServerStream::H1(_) => config.common_http.idle_timeout,
            ServerStream::H2(_) => config.stream_flush_timeout,
        };
        self.timers.max_duration = None;
        self.timers.request = None;
    }

    /// Nobody takes what is left of the response, which counts as answered all the same.
    pub(super) fn on_flush_timeout(&mut self) {
        match &self.down {
            ServerStream::H1(_) => self.hcm.count_idle_connection(),
            ServerStream::H2(stream) => stream.count_flush_timeout(),
        }
        self.down.reset(ResetReason::LocalReset);
        self.finish();
    }

    pub(super) fn send_head(&mut self) {
        let ends = matches!(self.chain.encode_out.end, Some(BodyEnd::Plain))
            && self.chain.encode_out.data.is_empty();
        let Some(response) = &mut self.response else {
            return;
        };
        conn_manager::mutate_response(&self.hcm, response, &self.request, self.download.is_local);
        self.info.response_code = Some(response.status.as_u16());
        self.info.header_bytes_sent = response.byte_size() as u64;
        self.info.times.first_downstream_tx = Some(self.info.elapsed());
        let ends = ends || self.is_head;
        if !self.upload.received {
            self.hcm.count_response_before_request_complete();
            if let ServerStream::H1(connection) = &mut self.down {
                connection.set_close();
                self.download.closes = true;
            }
        }
        let mut head = response.clone();
        if self.upgrade && self.info.protocol == Some(Protocol::Http2) {
            conn_manager::response::upgrade_to_http2(&mut head);
        }
        // What the connection adds is part of the response that is logged.
        if let ServerStream::H1(connection) = &self.down
            && connection.will_add_close(response)
        {
            let close = HeaderValue::from_static("close");
            response.headers.set(names::CONNECTION, close);
        }
        let sent = self.down.send_head(head, ends);
        self.download.head_sent = true;
        self.log_tunnel();
        match sent {
            Err(error) => self.on_downstream_reset(&error),
            Ok(()) if ends => {
                self.chain.encode_out.end = None;
                self.chain.encode_out.data.clear();
                self.download.finished = true;
            }
            Ok(()) => {}
        }
    }

    fn send_body(&mut self, cx: &mut Context<'_>) {
        let ends = matches!(self.chain.encode_out.end, Some(BodyEnd::Plain));
        if !self.chain.encode_out.data.is_empty() || ends {
            match self
                .down
                .poll_send_data(cx, &mut self.chain.encode_out.data, ends)
            {
                Poll::Pending => return,
                Poll::Ready(Err(error)) => return self.on_downstream_reset(&error),
                Poll::Ready(Ok(sent)) => {
                    self.moved |= sent > 0;
                    self.download.counted = self.chain.encode_out.data.len();
                    self.release_download(sent);
                    if !self.chain.encode_out.data.is_empty() {
                        return;
                    }
                }
            }
        }
        match self.chain.encode_out.end.take() {
            None => return,
            Some(BodyEnd::Plain) => {}
            Some(BodyEnd::Trailers(trailers)) => {
                self.info.header_bytes_sent += trailers.byte_size() as u64;
                self.response_trailers = Some(trailers.clone());
                if let Err(error) = self.down.send_trailers(trailers) {
                    return self.on_downstream_reset(&error);
                }
            }
        }
        self.moved = true;
        self.download.finished = true;
    }

    fn release_download(&mut self, sent: usize) {
        let n = sent.min(self.download.unreleased);
        if n > 0 {
            self.download.unreleased -= n;
            self.upstream.release(n);
        }
    }

    /// The response went out whole. A request that has not ended by now is not
    /// wanted any more: RST_STREAM with NO_ERROR, or the end of the connection.
    fn finish(&mut self) {
        self.info.times.last_downstream_tx = Some(self.info.elapsed());
        if !self.upload.received {
            self.hcm.count_reset();
        }
        self.abandon_upstream(false);
        self.over = true;
    }

    /// The response ended before it was complete.
    pub(super) fn cut_response(&mut self, reason: ResetReason) {
        self.reset(reason);
    }
}
