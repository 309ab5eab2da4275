//! The end of a stream: filters are told, then stats and access logs are
//! written.

use outrigger_config::format::{AccessLogType, FormatContext};

use super::Stream;

impl Stream {
    /// Runs once, when the stream is over.
    pub(super) fn complete(&mut self) {
        self.release_upload(usize::MAX);
        {
            let (chain, mut parts) = self.split();
            chain.complete(&mut parts);
        }
        self.hcm.end_stream(&self.info);
        self.log();
    }

    fn log(&self) {
        if self.hcm.access_logs().is_empty() {
            return;
        }
        let context = FormatContext {
            request: Some(&self.request),
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
