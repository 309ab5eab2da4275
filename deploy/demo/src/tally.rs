//! What the client has seen, by method.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tonic::Code;

use crate::greeter::Method;

/// How a call ended, as the client saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Answered whole.
    Answered,
    /// Refused by a circuit breaker (`x-envoy-overloaded`): policy, not loss.
    Refused,
    /// A stream that had begun was cut: nothing can save it.
    Cut,
    /// Failed although policy should have saved it.
    Lost(Code, String),
}

/// A distribution of durations in steps of about six per cent, from 1 µs to over an hour.
#[derive(Debug, Clone)]
pub struct Durations {
    counts: Vec<u64>,
    total: u64,
}

/// Steps between one power of two and the next.
const STEPS: u64 = 16;
/// Powers of two.
const POWERS: u64 = 32;
/// Reasons for losses that are kept word for word.
const KEPT_REASONS: usize = 5;

impl Default for Durations {
    fn default() -> Self {
        Self {
            counts: vec![0; (STEPS * POWERS) as usize],
            total: 0,
        }
    }
}

impl Durations {
    /// Adds a duration.
    pub fn add(&mut self, duration: Duration) {
        let index = bucket(duration.as_micros().min(u128::from(u32::MAX)) as u64);
        self.counts[index] += 1;
        self.total += 1;
    }

    /// The duration below which so large a part (0 to 1) lies; none if nothing was added.
    pub fn percentile(&self, part: f64) -> Option<Duration> {
        let rank = ((self.total as f64 * part).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        let index = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(Duration::from_micros(middle(index)))
    }

    /// Adds all of another distribution.
    pub fn merge(&mut self, other: &Self) {
        self.counts
            .iter_mut()
            .zip(&other.counts)
            .for_each(|(mine, theirs)| *mine += theirs);
        self.total += other.total;
    }
}

fn bucket(micros: u64) -> usize {
    if micros < STEPS {
        return micros as usize;
    }
    let power = u64::from(micros.ilog2());
    let step = (micros >> (power - 4)) - STEPS;
    ((power - 3) * STEPS + step) as usize
}

/// A value that stands for the bucket.
fn middle(index: usize) -> u64 {
    let (row, step) = (index as u64 / STEPS, index as u64 % STEPS);
    if row == 0 {
        return step;
    }
    let width = 1 << (row - 1);
    (STEPS + step) * width + width / 2
}

/// What one method has seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Calls ended.
    pub calls: u64,
    /// Of those, answered whole.
    pub answered: u64,
    /// Of those, refused by a breaker.
    pub refused: u64,
    /// Of those, cut mid-stream.
    pub cut: u64,
    /// Of those, lost.
    pub lost: u64,
    /// Attempts beyond the first, as the proxy's `x-envoy-attempt-count` says.
    pub retries: u64,
    /// Calls that were answered, but not at the first attempt.
    pub saved: u64,
    /// From send to the end of the answer, for those answered whole.
    pub durations: Durations,
}

/// A copy of everything seen at one moment.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// By method.
    pub methods: BTreeMap<Method, Seen>,
    /// What the first losses said.
    pub reasons: Vec<String>,
}

impl Totals {
    /// A figure summed over all methods.
    pub fn sum(&self, figure: fn(&Seen) -> u64) -> u64 {
        self.methods.values().map(figure).sum()
    }

    /// The durations of all methods.
    pub fn durations(&self) -> Durations {
        let mut all = Durations::default();
        self.methods
            .values()
            .for_each(|seen| all.merge(&seen.durations));
        all
    }
}

/// What the client writes down. Shared by all of its calls.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Totals>);

impl Tally {
    /// Writes down the end of a call.
    pub fn record(&self, method: Method, outcome: Outcome, retries: u64, took: Duration) {
        let mut totals = self.lock();
        let seen = totals.methods.entry(method).or_default();
        seen.calls += 1;
        seen.retries += retries;
        match outcome {
            Outcome::Answered => {
                seen.answered += 1;
                seen.saved += u64::from(retries > 0);
                seen.durations.add(took);
            }
            Outcome::Refused => seen.refused += 1,
            Outcome::Cut => seen.cut += 1,
            Outcome::Lost(code, message) => {
                seen.lost += 1;
                if totals.reasons.len() < KEPT_REASONS {
                    totals
                        .reasons
                        .push(format!("{} {code:?}: {message}", method.name()));
                }
            }
        }
    }

    /// What has been seen so far.
    pub fn totals(&self) -> Totals {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Totals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_step() {
        let mut durations = Durations::default();
        assert_eq!(durations.percentile(0.5), None);
        (1..=1_000).for_each(|ms| durations.add(Duration::from_millis(ms)));
        for (part, exact) in [(0.5, 500.0), (0.99, 990.0)] {
            let found = durations.percentile(part).unwrap().as_secs_f64() * 1e3;
            assert!((found / exact - 1.0).abs() < 0.07, "{found} for {exact}");
        }
    }

    #[test]
    fn every_duration_has_a_bucket_that_stands_for_it() {
        for micros in [
            0,
            1,
            15,
            16,
            17,
            1_000,
            65_535,
            1 << 31,
            u64::from(u32::MAX),
        ] {
            let stood_for = middle(bucket(micros)) as f64;
            assert!(
                (stood_for - micros as f64).abs() <= micros as f64 * 0.07 + 0.5,
                "{micros}: {stood_for}"
            );
        }
    }

    #[test]
    fn a_call_saved_by_a_retry_is_answered_and_counted() {
        let tally = Tally::default();
        tally.record(
            Method::SayHello,
            Outcome::Answered,
            2,
            Duration::from_millis(1),
        );
        tally.record(
            Method::SayHello,
            Outcome::Lost(Code::Unavailable, "no".into()),
            3,
            Duration::ZERO,
        );
        tally.record(Method::StreamHellos, Outcome::Cut, 0, Duration::ZERO);
        let totals = tally.totals();
        assert_eq!(totals.sum(|s| s.calls), 3);
        assert_eq!(totals.methods[&Method::SayHello].saved, 1);
        assert_eq!(totals.sum(|s| s.retries), 5);
        assert_eq!(totals.reasons, ["SayHello Unavailable: no"]);
    }
}
