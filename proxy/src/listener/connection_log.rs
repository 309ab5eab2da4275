//! The access log of a listener: a line for each connection, at its end or when no filter
//! chain takes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use outrigger_config::format::FormatContext;
use outrigger_types::{ConnectionInfo, Protocol, ResponseFlag, StreamInfo, details};
use parking_lot::Mutex;

use crate::access_log::AccessLogger;

/// What a connection has done so far.
#[derive(Debug, Default)]
pub struct Account {
    received: AtomicU64,
    sent: AtomicU64,
    outcome: Mutex<Outcome>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    protocol: Option<Protocol>,
    malformed: bool,
}

impl Account {
    /// The socket has given and taken so many bytes.
    pub fn count(&self, read: u64, written: u64) {
        self.received.fetch_add(read, Ordering::Relaxed);
        self.sent.fetch_add(written, Ordering::Relaxed);
    }

    /// The codec is known.
    pub fn speaks(&self, protocol: Protocol) {
        self.outcome.lock().protocol = Some(protocol);
    }

    /// The peer broke the protocol; `at_once` with the first it said, so that it spoke none.
    pub fn note_malformed(&self, at_once: bool) {
        let mut outcome = self.outcome.lock();
        outcome.malformed = true;
        if at_once {
            outcome.protocol = None;
        }
    }
}

/// Logs a connection when it is dropped.
pub struct ConnectionLog {
    /// What the connection has done so far.
    pub account: Arc<Account>,
    info: Arc<ConnectionInfo>,
    loggers: Arc<[AccessLogger]>,
}

impl ConnectionLog {
    /// The log of a connection; none if nobody listens.
    pub fn new(info: &Arc<ConnectionInfo>, loggers: &Arc<[AccessLogger]>) -> Option<Self> {
        (!loggers.is_empty()).then(|| Self {
            account: Arc::default(),
            info: info.clone(),
            loggers: loggers.clone(),
        })
    }

    /// Logs the connection as the one stream that it was.
    pub fn end_as(mut self, stream: &StreamInfo) {
        log(stream, &std::mem::take(&mut self.loggers));
    }
}

impl Drop for ConnectionLog {
    fn drop(&mut self) {
        let mut stream = facts(&self.info);
        let outcome = *self.account.outcome.lock();
        stream.bytes_received = self.account.received.load(Ordering::Relaxed);
        stream.bytes_sent = self.account.sent.load(Ordering::Relaxed);
        // Who has said nothing has spoken no protocol.
        stream.protocol = outcome.protocol.filter(|_| stream.bytes_received > 0);
        if outcome.malformed {
            stream.flags.set(ResponseFlag::DownstreamProtocolError);
        }
        log(&stream, &self.loggers);
    }
}

/// Logs a connection that no filter chain takes.
pub fn log_unmatched(info: &Arc<ConnectionInfo>, loggers: &[AccessLogger]) {
    let mut stream = facts(info);
    stream.flags.set(ResponseFlag::NoRouteFound);
    stream.response_code_details = Some(details::FILTER_CHAIN_NOT_FOUND.into());
    log(&stream, loggers);
}

/// Logs a connection that ends before its filter chain is chosen.
pub fn log_unserved(info: &Arc<ConnectionInfo>, loggers: &[AccessLogger]) {
    log(&facts(info), loggers);
}

/// What is known of a connection as a whole.
fn facts(info: &Arc<ConnectionInfo>) -> StreamInfo {
    let mut stream = StreamInfo::new(info.clone(), "".into());
    stream.start = info.start;
    let begun = SystemTime::now().checked_sub(info.start.elapsed());
    stream.start_wall = begun.unwrap_or(stream.start_wall);
    stream
}

fn log(stream: &StreamInfo, loggers: &[AccessLogger]) {
    let context = FormatContext::new(stream);
    for logger in loggers {
        logger.log(&context);
    }
}
