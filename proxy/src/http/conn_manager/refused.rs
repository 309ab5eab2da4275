//! Requests that the HTTP/2 codec refused, and heads that were cut off: they have no stream
//! that could be answered, yet they are counted and logged.

use std::sync::Arc;

use outrigger_config::format::{AccessLogType, FormatContext};
use outrigger_types::{ConnectionInfo, Protocol, ResponseFlag, StreamInfo, details};

use super::Hcm;
use crate::http::codec::h2;

impl Hcm {
    /// Counts and logs a request whose head nobody above the codec has seen.
    pub(super) fn log_refusal(
        self: &Arc<Self>,
        connection: &Arc<ConnectionInfo>,
        refusal: h2::Refusal,
    ) {
        let flag = match refusal.malformed {
            true => ResponseFlag::DownstreamProtocolError,
            false => ResponseFlag::DownstreamRemoteReset,
        };
        self.log_unseen(connection, Protocol::Http2, flag, refusal.details);
    }

    /// Counts and logs an HTTP/1 request whose client went away in the middle of its head.
    pub(super) fn log_cut_head(self: &Arc<Self>, connection: &Arc<ConnectionInfo>) {
        let flag = ResponseFlag::DownstreamConnectionTermination;
        let details = details::DOWNSTREAM_REMOTE_DISCONNECT;
        self.log_unseen(connection, Protocol::Http11, flag, details);
    }

    fn log_unseen(
        self: &Arc<Self>,
        connection: &Arc<ConnectionInfo>,
        protocol: Protocol,
        flag: ResponseFlag,
        details: &'static str,
    ) {
        let _guard = self.begin_stream(protocol);
        let mut info = StreamInfo::new(connection.clone(), self.empty_name());
        info.protocol = Some(protocol);
        info.flags.set(flag);
        info.response_code_details = Some(details.into());
        self.count_reset();
        self.end_stream(&info);
        let context = FormatContext {
            access_log_type: AccessLogType::DownstreamEnd,
            ..FormatContext::new(&info)
        };
        for logger in self.access_logs() {
            logger.log(&context);
        }
    }
}
