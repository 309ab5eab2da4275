//! PING keep-alive: a PING an interval, and the end if one is not answered.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep_until};

use super::options;

/// Sends PINGs and waits for their answers.
#[derive(Debug)]
pub(super) struct Keepalive {
    ping_pong: PingPong,
    timer: Pin<Box<Sleep>>,
    config: options::Keepalive,
    waiting: bool,
}

impl Keepalive {
    /// None unless it is configured.
    pub(super) fn new(
        config: Option<options::Keepalive>,
        ping_pong: Option<PingPong>,
    ) -> Option<Self> {
        let (config, ping_pong) = (config?, ping_pong?);
        Some(Self {
            ping_pong,
            timer: Box::pin(sleep_until(Instant::now() + config.interval)),
            config,
            waiting: false,
        })
    }

    /// Ready when an answer did not come in time.
    pub(super) fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.waiting
                && let Poll::Ready(pong) = self.ping_pong.poll_pong(cx)
            {
                if pong.is_err() {
                    return Poll::Pending;
                }
                self.waiting = false;
                self.timer
                    .as_mut()
                    .reset(Instant::now() + self.config.interval);
            }
            match self.timer.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) if self.waiting => return Poll::Ready(()),
                Poll::Ready(()) => {}
            }
            if self.ping_pong.send_ping(Ping::opaque()).is_err() {
                return Poll::Pending;
            }
            self.waiting = true;
            self.timer
                .as_mut()
                .reset(Instant::now() + self.config.timeout);
        }
    }
}
