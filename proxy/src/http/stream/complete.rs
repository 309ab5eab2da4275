//! The end of a stream: filters are told, then stats and access logs are
//! written.

use std::time::Instant;

use outrigger_config::format::{AccessLogType, FormatContext};

use outrigger_types::{StatusCode, names};

use super::Stream;
use crate::http::codec::ByteCounts;

/// Bytes of a DATA frame at most, as both sides begin, and of each frame's head.
const FRAME: u64 = 16 * 1024;
const FRAME_HEAD: u64 = 9;

/// What an HTTP/2 message takes in frames: its fields as they are before HPACK, which
/// only the library beneath sees, and its body.
pub(super) fn in_frames(fields: u64, body: u64) -> u64 {
    let heads = u64::from(fields > 0);
    fields + body + FRAME_HEAD * (heads + body.div_ceil(FRAME))
}

impl Stream {
    /// Runs once, when the stream is over.
    pub(super) fn complete(&mut self) {
        self.release_upload(usize::MAX);
        let panicked = {
            let (chain, mut parts) = self.split();
            chain.complete(&mut parts)
        };
        for _ in 0..panicked {
            self.hcm.count_panic();
        }
        self.note_bytes();
        self.hcm.end_stream(&self.info);
        if self.upgrade {
            self.hcm.end_upgrade();
        }
        if let Some(grpc) = self.grpc.take() {
            grpc.on_end(self.grpc_status(), self.info.elapsed());
        }
        self.log(AccessLogType::DownstreamEnd);
    }

    /// Notes what the stream took of its connection.
    fn note_bytes(&mut self) {
        let info = &mut self.info;
        let counts = self.down.byte_counts().unwrap_or_else(|| ByteCounts {
            wire_received: in_frames(info.header_bytes_received, info.bytes_received),
            wire_sent: in_frames(info.header_bytes_sent, info.bytes_sent),
            header_received: info.header_bytes_received,
            header_sent: info.header_bytes_sent,
        });
        info.wire_bytes_received = counts.wire_received;
        info.wire_bytes_sent = counts.wire_sent;
        info.header_bytes_received = counts.header_received;
        info.header_bytes_sent = counts.header_sent;
    }

    /// `grpc-status` of the response, in its trailers or its only head.
    fn grpc_status(&self) -> Option<&[u8]> {
        let trailers = self.response_trailers.as_ref();
        let status = trailers.and_then(|t| t.get_bytes(&names::GRPC_STATUS));
        status.or_else(|| {
            self.response
                .as_ref()?
                .headers
                .get_bytes(&names::GRPC_STATUS)
        })
    }

    /// Logs the request where the configuration wants it logged when it comes too.
    pub(super) fn log_start(&self) {
        if self.hcm.config.flush_access_log_on_new_request {
            self.log(AccessLogType::DownstreamStart);
        }
    }

    /// Logs a stream that goes on, and says when to do so again.
    pub(super) fn report(&mut self) {
        self.log(AccessLogType::DownstreamPeriodic);
        let interval = self.hcm.config.access_log_flush_interval;
        self.timers.report = interval.map(|interval| Instant::now() + interval);
    }

    /// Logs a tunnel whose acceptance has just gone out, where the configuration wants that.
    pub(super) fn log_tunnel(&self) {
        let status = self.response.as_ref().map(|head| head.status);
        let accepted = match self.request.protocol {
            Some(_) => status == Some(StatusCode::SWITCHING_PROTOCOLS),
            None => status.is_some_and(|status| status.is_success()),
        };
        if self.hcm.config.flush_access_log_on_tunnel && self.upgrade && accepted {
            self.log(AccessLogType::DownstreamTunnelSuccessfullyEstablished);
        }
    }

    fn log(&self, access_log_type: AccessLogType) {
        if self.hcm.access_logs().is_empty() {
            return;
        }
        let context = FormatContext {
            request: (!self.unreadable).then_some(&self.request),
            response: self.response.as_ref(),
            trailers: self.response_trailers.as_ref(),
            access_log_type,
            ..FormatContext::new(&self.info)
        };
        for logger in self.hcm.access_logs() {
            logger.log(&context);
        }
    }
}
