//! PING keep-alive: a PING an interval, one before a stream after a silence, and the
//! end if one is not answered.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep_until};

use super::meter::Meter;
use super::options;

/// The time of a timer that nothing waits for.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Sends PINGs and waits for their answers.
#[derive(Debug)]
pub(super) struct Keepalive {
    ping_pong: PingPong,
    timer: Pin<Box<Sleep>>,
    config: options::Keepalive,
    meter: Arc<Meter>,
    waiting: bool,
}

impl Keepalive {
    /// None unless it is configured.
    pub(super) fn new(
        config: Option<options::Keepalive>,
        ping_pong: Option<PingPong>,
        meter: Arc<Meter>,
    ) -> Option<Self> {
        let (config, ping_pong) = (config?, ping_pong?);
        Some(Self {
            ping_pong,
            timer: Box::pin(sleep_until(Instant::now() + next_interval(&config))),
            config,
            meter,
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
                self.set_timer(next_interval(&self.config));
            }
            let early = self.meter.take_ping() && !self.waiting;
            match self.timer.as_mut().poll(cx) {
                Poll::Pending if !early => return Poll::Pending,
                Poll::Ready(()) if self.waiting => return Poll::Ready(()),
                Poll::Pending | Poll::Ready(()) => {}
            }
            if self.ping_pong.send_ping(Ping::opaque()).is_err() {
                return Poll::Pending;
            }
            self.waiting = true;
            self.set_timer(self.config.timeout);
        }
    }

    fn set_timer(&mut self, after: Duration) {
        self.timer.as_mut().reset(Instant::now() + after);
    }
}

/// The interval with its jitter: connections made at once do not ping at once for ever.
fn next_interval(config: &options::Keepalive) -> Duration {
    match config.interval {
        Some(interval) => interval + config.jitter.mul_f64(rand::random::<f64>()),
        None => NEVER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jitter_only_adds() {
        let config = options::Keepalive {
            interval: Some(Duration::from_secs(10)),
            jitter: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            idle_interval: None,
        };
        let (least, most) = (Duration::from_secs(10), Duration::from_secs(12));
        let all: Vec<_> = (0..100).map(|_| next_interval(&config)).collect();
        assert!(all.iter().all(|i| (least..=most).contains(i)));
        assert!(all.iter().any(|i| *i != all[0]));
        let none = options::Keepalive {
            interval: None,
            ..config
        };
        assert_eq!(next_interval(&none), NEVER);
    }
}
