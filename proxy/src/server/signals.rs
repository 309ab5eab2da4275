//! What the system tells the process.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// SIGTERM or SIGINT: drain and end; the second time, end at once.
    Terminate,
    /// SIGUSR1: open log files anew.
    ReopenLogs,
}

/// The signals that the process listens to. SIGHUP is taken and has no effect,
/// as in Envoy.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    user1: Signal,
    hangup: Signal,
}

impl Signals {
    /// Begins to listen.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            user1: signal(SignalKind::user_defined1())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next request.
    pub async fn next(&mut self) -> Request {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Request::Terminate,
                _ = self.interrupt.recv() => return Request::Terminate,
                _ = self.user1.recv() => return Request::ReopenLogs,
                _ = self.hangup.recv() => {}
            }
        }
    }
}
