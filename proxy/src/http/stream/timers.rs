//! All timeouts of one stream on one timer.
//!
//! Nothing is re-armed a frame: activity only notes a time, and the timer, when
//! it fires early, finds the next deadline anew.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

/// Which timeout passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fired {
    /// `request_timeout` of the HCM.
    Request,
    /// The stream idle timeout.
    Idle,
    /// `max_stream_duration`.
    MaxDuration,
    /// The route's timeout.
    Global,
    /// The timeout of one attempt.
    PerTry,
    /// The idle timeout of one attempt.
    PerTryIdle,
    /// The longest life of one attempt (`max_stream_duration` of the cluster).
    AttemptLife,
    /// The back-off before a retry.
    BackOff,
    /// The stream is to be logged.
    Report,
}

/// Deadlines; none where the timeout is off or not running.
#[derive(Debug, Default)]
pub struct Timers {
    /// Deadline of the whole request.
    pub request: Option<Instant>,
    /// Longest pause between bytes.
    pub idle: Option<Duration>,
    /// End of the stream's life.
    pub max_duration: Option<Instant>,
    /// Deadline of the response.
    pub global: Option<Instant>,
    /// Deadline of the attempt.
    pub per_try: Option<Instant>,
    /// Longest pause between the attempt's bytes.
    pub per_try_idle: Option<Duration>,
    /// End of the attempt's life; unlike the other timeouts of an attempt it holds for
    /// the whole response.
    pub attempt_life: Option<Instant>,
    /// When to retry.
    pub back_off: Option<Instant>,
    /// When to log the stream.
    pub report: Option<Instant>,
    last_activity: Option<Instant>,
    last_upstream_activity: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timers {
    /// Bytes moved on the stream.
    pub fn touch(&mut self, now: Instant) {
        self.last_activity = Some(now);
    }

    /// Bytes moved on the attempt.
    pub fn touch_upstream(&mut self, now: Instant) {
        self.last_upstream_activity = Some(now);
    }

    /// Forgets the timeouts of an attempt.
    pub fn end_attempt(&mut self) {
        self.per_try = None;
        self.per_try_idle = None;
        self.attempt_life = None;
        self.back_off = None;
    }

    /// Stops everything that waits for a response.
    pub fn end_upstream(&mut self) {
        self.end_attempt();
        self.global = None;
    }

    /// Those that end more come before those that end less, where several have passed.
    fn deadlines(&self) -> [(Fired, Option<Instant>); 9] {
        let after = |since: Option<Instant>, pause: Option<Duration>| Some(since? + pause?);
        [
            (Fired::Global, self.global),
            (Fired::BackOff, self.back_off),
            (Fired::PerTry, self.per_try),
            (Fired::AttemptLife, self.attempt_life),
            (Fired::MaxDuration, self.max_duration),
            (
                Fired::PerTryIdle,
                after(self.last_upstream_activity, self.per_try_idle),
            ),
            (Fired::Request, self.request),
            (Fired::Idle, after(self.last_activity, self.idle)),
            (Fired::Report, self.report),
        ]
    }

    /// The timeout that passed; registers the task for the next one.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Fired> {
        let Some(mut next) = self.deadlines().iter().filter_map(|(_, at)| *at).min() else {
            return Poll::Pending;
        };
        loop {
            // A timer that is too early costs a look; one too late would cost the deadline.
            if let Some(sleep) = &mut self.sleep
                && next >= sleep.deadline().into_std()
                && sleep.as_mut().poll(cx).is_pending()
            {
                return Poll::Pending;
            }
            // The timer's grain is a millisecond: what has passed does not wait for it.
            match self.passed(tokio::time::Instant::now().into_std()) {
                Ok(fired) => {
                    self.clear(fired);
                    return Poll::Ready(fired);
                }
                Err(at) => next = at,
            }
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(next.into()),
                None => self.sleep = Some(Box::pin(tokio::time::sleep_until(next.into()))),
            }
        }
    }

    /// The first timeout that has passed, or when the next one will.
    fn passed(&self, now: Instant) -> Result<Fired, Instant> {
        let deadlines = self.deadlines();
        if let Some((fired, _)) = deadlines
            .iter()
            .find(|(_, at)| at.is_some_and(|at| at <= now))
        {
            return Ok(*fired);
        }
        let next = deadlines.iter().filter_map(|(_, at)| *at).min();
        Err(next.unwrap_or(now + Duration::from_secs(3600)))
    }

    fn clear(&mut self, fired: Fired) {
        match fired {
            Fired::Request => self.request = None,
            Fired::Idle => self.idle = None,
            Fired::MaxDuration => self.max_duration = None,
            Fired::Global => self.global = None,
            Fired::PerTry => self.per_try = None,
            Fired::PerTryIdle => self.per_try_idle = None,
            Fired::AttemptLife => self.attempt_life = None,
            Fired::BackOff => self.back_off = None,
            Fired::Report => self.report = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test(start_paused = true)]
    async fn the_first_deadline_fires_first() {
        let now = tokio::time::Instant::now().into_std();
        let mut timers = Timers {
            global: Some(now + Duration::from_secs(15)),
            per_try: Some(now + Duration::from_secs(1)),
            ..Timers::default()
        };
        assert_eq!(poll_fn(|cx| timers.poll(cx)).await, Fired::PerTry);
        assert_eq!(poll_fn(|cx| timers.poll(cx)).await, Fired::Global);
        assert!(poll_fn(|cx| Poll::Ready(timers.poll(cx).is_pending())).await);
    }

    #[tokio::test(start_paused = true)]
    async fn activity_puts_the_idle_timeout_off() {
        let start = tokio::time::Instant::now();
        let mut timers = Timers {
            idle: Some(Duration::from_secs(5)),
            ..Timers::default()
        };
        timers.touch(start.into_std());
        assert!(poll_fn(|cx| Poll::Ready(timers.poll(cx).is_pending())).await);
        timers.touch(start.into_std() + Duration::from_secs(3));
        assert_eq!(poll_fn(|cx| timers.poll(cx)).await, Fired::Idle);
        assert_eq!(start.elapsed(), Duration::from_secs(8));
    }
}
