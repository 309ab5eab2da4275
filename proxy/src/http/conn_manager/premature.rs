//! The guard against rapid resets: a connection whose streams mostly end before there
//! was an answer is one of them.

use std::time::Duration;

use filter_api::RuntimeSnapshot;

/// Runtime key: streams from which on the share of premature resets counts.
const TOTAL_STREAMS: &str = "overload.premature_reset_total_stream_count";
/// Runtime key: whole seconds above which a stream did not end too soon.
const LIFETIME: &str = "overload.premature_reset_min_stream_lifetime_seconds";

/// Counts the streams of a connection that are over.
#[derive(Debug)]
pub(super) struct PrematureResets {
    limit: u64,
    lifetime: u64,
    closed: u64,
    premature: u64,
}

impl PrematureResets {
    pub(super) fn new(runtime: &RuntimeSnapshot) -> Self {
        Self {
            limit: runtime.integer(TOTAL_STREAMS, 500),
            lifetime: runtime.integer(LIFETIME, 1),
            closed: 0,
            premature: 0,
        }
    }

    /// A stream is over after `lived`; `answered` if a response head went out. True if
    /// the connection is to be ended: at least half of its streams, or of the limit
    /// where there were fewer, ended too soon.
    pub(super) fn end(&mut self, lived: Duration, answered: bool) -> bool {
        self.closed += 1;
        if !answered && lived.as_secs() <= self.lifetime {
            self.premature += 1;
        }
        self.premature.saturating_mul(2) >= self.closed.max(self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(3);

    fn guard(values: &[(&str, &str)]) -> PrematureResets {
        let values = values.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        PrematureResets::new(&RuntimeSnapshot::new(values.collect()))
    }

    fn ends_after(guard: &mut PrematureResets, lived: Duration, answered: bool) -> Option<u32> {
        (1..=2000).find(|_| guard.end(lived, answered))
    }

    #[test]
    fn half_of_the_limit_ends_a_young_connection() {
        assert_eq!(ends_after(&mut guard(&[]), SOON, false), Some(250));
        let mut small = guard(&[(TOTAL_STREAMS, "20")]);
        assert_eq!(ends_after(&mut small, SOON, false), Some(10));
    }

    #[test]
    fn an_old_connection_is_ended_when_half_of_its_streams_were_reset() {
        let mut guard = guard(&[]);
        assert_eq!(ends_after(&mut guard, SOON, true), None);
        assert_eq!(ends_after(&mut guard, SOON, false), Some(2000));
    }

    #[test]
    fn streams_that_lived_or_were_answered_do_not_count() {
        assert_eq!(ends_after(&mut guard(&[]), SOON, true), None);
        let two = Duration::from_secs(2);
        assert_eq!(ends_after(&mut guard(&[]), two, false), None);
        let mut patient = guard(&[(LIFETIME, "5")]);
        assert_eq!(ends_after(&mut patient, two, false), Some(250));
    }
}
