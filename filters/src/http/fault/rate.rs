//! The pace of a response, as Envoy keeps it: bytes go every 50 ms, as many as the
//! time since has brought. At first there is one such interval's worth; a pause
//! saves up a second's at most.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Time between two pieces.
const INTERVAL: Duration = Duration::from_millis(50);

/// Lets a response go at so many KiB a second.
pub(super) struct Pace {
    /// Bytes a second, and the most that are saved up.
    rate: f64,
    /// Bytes that may go.
    saved: f64,
    filled: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// A pace in KiB a second.
    pub(super) fn new(kib_per_second: u64) -> Self {
        let rate = kib_per_second as f64 * 1024.0;
        Self {
            rate,
            saved: rate * INTERVAL.as_secs_f64(),
            filled: Instant::now(),
            sleep: None,
        }
    }

    /// How many of `held` bytes may go now; pending while it is none.
    pub(super) fn poll(&mut self, held: usize, task: &mut Context<'_>) -> Poll<usize> {
        loop {
            if let Some(sleep) = &mut self.sleep
                && sleep.as_mut().poll(task).is_pending()
            {
                return Poll::Pending;
            }
            let bytes = self.take(held, Instant::now());
            self.sleep = (bytes < held).then(|| Box::pin(tokio::time::sleep(INTERVAL)));
            if bytes > 0 || held == 0 {
                return Poll::Ready(bytes);
            }
        }
    }

    /// Takes as many of `held` bytes as may go.
    fn take(&mut self, held: usize, now: Instant) -> usize {
        let brought = (now - self.filled).as_secs_f64() * self.rate;
        self.saved = (self.saved + brought).min(self.rate);
        self.filled = now;
        // A number of bytes that is too large for its type becomes the largest.
        let bytes = held.min(self.saved as usize);
        self.saved -= bytes as f64;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    /// Milliseconds to each release, and its bytes.
    async fn releases(pace: &mut Pace, mut held: usize) -> Vec<(u128, usize)> {
        let start = Instant::now();
        let mut seen = Vec::new();
        while held > 0 {
            let bytes = poll_fn(|task| pace.poll(held, task)).await;
            assert!(bytes > 0 && bytes <= held);
            held -= bytes;
            seen.push((start.elapsed().as_millis(), bytes));
        }
        seen
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_go_every_interval() {
        let mut pace = Pace::new(1);
        let seen = releases(&mut pace, 120).await;
        assert_eq!(seen, [(0, 51), (50, 51), (100, 18)]);
        let mut pace = Pace::new(10);
        let start = Instant::now();
        releases(&mut pace, 10 * 1024).await;
        assert_eq!(start.elapsed().as_millis(), 950);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_saves_up_a_second_at_most() {
        let mut pace = Pace::new(1);
        releases(&mut pace, 10).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(releases(&mut pace, 500).await, [(0, 500)]);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let seen = releases(&mut pace, 1100).await;
        assert_eq!(seen, [(0, 1024), (50, 51), (100, 25)]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_absurd_pace_is_no_pace() {
        let mut pace = Pace::new(u64::MAX);
        assert_eq!(releases(&mut pace, usize::MAX >> 1).await.len(), 1);
    }
}
