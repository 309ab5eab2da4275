//! Requests that the HTTP/2 codec refused: they have no stream that could be answered,
//! yet they are counted and logged.

use std::sync::Arc;

use outrigger_config::format::{AccessLogType, FormatContext};
use outrigger_types::{ConnectionInfo, Protocol, ResponseFlag, StreamInfo};

use super::Hcm;
use crate::http::codec::h2;

impl Hcm {
    /// Counts and logs a request whose head nobody above the codec has seen.
    pub(super) fn log_refusal(
        self: &Arc<Self>,
        connection: &Arc<ConnectionInfo>,
        refusal: h2::Refusal,
    ) {
        let _guard = self.begin_stream(Protocol::Http2);
        let mut info = StreamInfo::new(connection.clone(), self.empty_name());
        info.protocol = Some(Protocol::Http2);
        info.flags.set(match refusal.malformed {
            true => ResponseFlag::DownstreamProtocolError,
            false => ResponseFlag::DownstreamRemoteReset,
        });
        info.response_code_details = Some(refusal.details.into());
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
