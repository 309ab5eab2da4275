//! The end of a stream: filters are told, then stats and access logs are
//! written.

use outrigger_config::format::{AccessLogType, FormatContext};

use outrigger_types::names;

use super::Stream;

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
        self.hcm.end_stream(&self.info);
        if self.upgrade {
            self.hcm.end_upgrade();
        }
        if let Some(grpc) = self.grpc.take() {
            grpc.on_end(self.grpc_status(), self.info.elapsed());
        }
        self.log();
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

    fn log(&self) {
        if self.hcm.access_logs().is_empty() {
            return;
        }
        let context = FormatContext {
            request: (!self.unreadable).then_some(&self.request),
            response: self.response.as_ref(),
            trailers: self.response_trailers.as_ref(),
            access_log_type: AccessLogType::DownstreamEnd,
            ..FormatContext::new(&self.info)
        };
        for logger in self.hcm.access_logs() {
            logger.log(&context);
        }
    }
}
