//! The access log of a connection.

use std::sync::Arc;
use std::time::SystemTime;

use outrigger_config::format::{AccessLogType, FormatContext};
use outrigger_types::{ConnectionInfo, StreamInfo};

use crate::access_log::AccessLogger;

/// What is known of a connection that a TCP proxy has; logged when it is dropped.
pub(super) struct Record {
    pub(super) stream: StreamInfo,
    loggers: Arc<[AccessLogger]>,
}

impl Record {
    pub(super) fn new(info: &Arc<ConnectionInfo>, loggers: &Arc<[AccessLogger]>) -> Self {
        let mut stream = StreamInfo::new(info.clone(), "".into());
        stream.start = info.start;
        let begun = SystemTime::now().checked_sub(info.start.elapsed());
        stream.start_wall = begun.unwrap_or(stream.start_wall);
        Self {
            stream,
            loggers: loggers.clone(),
        }
    }

    /// Writes a line.
    pub(super) fn log(&self, kind: AccessLogType) {
        let mut context = FormatContext::new(&self.stream);
        context.access_log_type = kind;
        for logger in &*self.loggers {
            logger.log(&context);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.log(AccessLogType::TcpConnectionEnd);
    }
}
