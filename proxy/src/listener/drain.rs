//! When connections of what drains are asked to end.
//!
//! As in Envoy a connection is not ended where it is idle: the next answer on it asks the client to go
//! elsewhere. By the strategy `gradual` a share of the answers does so that grows with the drain time.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How the process drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainPolicy {
    /// Time after which what is left is cut (`--drain-time-s`). Default 600 s.
    pub time: Duration,
    /// Ask at once (`--drain-strategy immediate`).
    pub immediate: bool,
}

impl Default for DrainPolicy {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(600),
            immediate: false,
        }
    }
}

/// Whether and since when something drains.
#[derive(Debug, Default)]
pub struct DrainDecision {
    began: OnceLock<Instant>,
}

impl DrainDecision {
    /// Begins to drain, unless that has begun.
    pub fn begin(&self, now: Instant) {
        self.began.get_or_init(|| now);
    }

    /// Whether an answer asks its client to go elsewhere. Neither clock nor chance is asked before it has
    /// begun.
    pub fn asks(
        &self,
        policy: DrainPolicy,
        now: impl FnOnce() -> Instant,
        random: impl FnOnce() -> u64,
    ) -> bool {
        let Some(began) = self.began.get() else {
            return false;
        };
        let elapsed = now().saturating_duration_since(*began);
        if policy.immediate || elapsed >= policy.time {
            return true;
        }
        let whole = u64::try_from(policy.time.as_millis()).unwrap_or(u64::MAX);
        let passed = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        passed > random() % whole.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: DrainPolicy = DrainPolicy {
        time: Duration::from_secs(10),
        immediate: false,
    };

    #[test]
    fn nobody_is_asked_before_it_begins() {
        let decision = DrainDecision::default();
        assert!(!decision.asks(TEN, Instant::now, || 0));
    }

    #[test]
    fn the_share_of_those_asked_grows_with_time() {
        let decision = DrainDecision::default();
        let start = Instant::now();
        decision.begin(start);
        let asked_at = |seconds| {
            let now = start + Duration::from_secs(seconds);
            (0..10_000u64)
                .step_by(100)
                .filter(|random| decision.asks(TEN, || now, || *random))
                .count()
        };
        assert_eq!((asked_at(0), asked_at(3), asked_at(10)), (0, 30, 100));
    }

    #[test]
    fn at_once_means_everybody_from_the_beginning() {
        let decision = DrainDecision::default();
        let start = Instant::now();
        decision.begin(start);
        let policy = DrainPolicy {
            immediate: true,
            ..TEN
        };
        assert!(decision.asks(policy, || start, || u64::MAX));
    }

    #[test]
    fn the_first_beginning_counts() {
        let decision = DrainDecision::default();
        let start = Instant::now();
        decision.begin(start);
        decision.begin(start + Duration::from_secs(100));
        assert!(decision.asks(TEN, || start + Duration::from_secs(10), || 9_999));
    }
}
