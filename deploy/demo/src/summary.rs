//! The end of the story: a sentence for each step, with figures of this run, and the verdict.

use std::time::Duration;

use crate::client::Burst;
use crate::resources::V2_MAX_REQUESTS;
use crate::table::{View, megabytes, milliseconds};

/// What was measured while the weights were shifted.
#[derive(Debug, Clone, Default)]
pub struct Shift {
    /// Part of the calls that went to version 1 before, 0 to 1.
    pub before: f64,
    /// And after.
    pub after: f64,
    /// From the push to its acknowledgement.
    pub acked: Duration,
}

/// What was measured while the breaker was tripped.
#[derive(Debug, Clone, Default)]
pub struct Breaker {
    /// What came of the burst.
    pub burst: Burst,
    /// The admin said that the breaker was open.
    pub seen_open: bool,
    /// And that it was closed after.
    pub seen_closed: bool,
}

/// What was measured when a backend was killed.
#[derive(Debug, Clone, Default)]
pub struct Kill {
    /// The backend.
    pub name: &'static str,
    /// Attempts that failed because of it (connects refused, streams cut before an answer).
    pub failed_attempts: u64,
    /// Retries in that time.
    pub retries: u64,
    /// Calls lost in that time.
    pub lost: u64,
    /// From the EDS push to its acknowledgement.
    pub acked: Duration,
}

/// All that the story has found.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// Calls that reached the faulty backend, and those it failed.
    pub faulty: (u64, u64),
    /// The step of the weights.
    pub shift: Shift,
    /// The step of the breaker.
    pub breaker: Breaker,
    /// The step of the killed backend.
    pub kill: Kill,
    /// The proxy's own count of gRPC requests by method, if it has one (Outrigger does).
    pub labelled_requests: Option<f64>,
    /// The proxy was built without optimisation.
    pub debug_build: bool,
    /// The last view.
    pub view: View,
}

impl Findings {
    /// Why the run has failed; none if it has not.
    pub fn failures(&self) -> Vec<String> {
        let totals = &self.view.totals;
        let lost = totals.sum(|s| s.lost);
        let checks = [
            (totals.sum(|s| s.calls) == 0, "no call was made".to_owned()),
            (
                lost > 0,
                format!(
                    "{lost} calls were lost that policy should have saved: {}",
                    totals.reasons.join("; ")
                ),
            ),
            (
                !self.view.progress.nacks.is_empty(),
                format!("the proxy refused: {}", self.view.progress.nacks.join("; ")),
            ),
            (
                !self.view.progress.is_settled(),
                "a push was never acknowledged".to_owned(),
            ),
            (
                self.breaker.burst.refused == 0,
                "the breaker refused nothing of the burst".to_owned(),
            ),
            (
                self.breaker.burst.other > 0,
                format!("{} calls of the burst were lost", self.breaker.burst.other),
            ),
            (
                !self.breaker.seen_closed,
                "the breaker did not close again".to_owned(),
            ),
        ];
        checks
            .into_iter()
            .filter_map(|(failed, why)| failed.then_some(why))
            .collect()
    }

    /// The sentences.
    pub fn sentences(&self) -> Vec<String> {
        vec![
            self.about_calls(),
            self.about_retries(),
            self.about_weights(),
            self.about_breaker(),
            self.about_kill(),
            self.about_xds(),
            self.about_cost(),
        ]
    }

    fn about_calls(&self) -> String {
        let totals = &self.view.totals;
        let durations = totals.durations();
        let percentile = |part| {
            durations
                .percentile(part)
                .map_or("-".to_owned(), milliseconds)
        };
        format!(
            "Calls: of {} calls {} were answered (p50 {}, p99 {}), {} refused by a breaker, {} cut mid-stream, {} lost.",
            totals.sum(|s| s.calls),
            totals.sum(|s| s.answered),
            percentile(0.5),
            percentile(0.99),
            totals.sum(|s| s.refused),
            totals.sum(|s| s.cut),
            totals.sum(|s| s.lost),
        )
    }

    fn about_retries(&self) -> String {
        let (calls, failed) = self.faulty;
        let share = 100.0 * failed as f64 / calls.max(1) as f64;
        format!(
            "Retries: backend v1-a answered {failed} of {calls} calls ({share:.1} %) with `unavailable`; {} calls were saved by another attempt on another host.",
            self.view.totals.sum(|s| s.saved),
        )
    }

    fn about_weights(&self) -> String {
        format!(
            "Weights: 90/10 sent {:.1} % of the calls to version 1; 50/50, acknowledged {} after the push, sent {:.1} %.",
            100.0 * self.shift.before,
            milliseconds(self.shift.acked),
            100.0 * self.shift.after,
        )
    }

    fn about_breaker(&self) -> String {
        let Breaker {
            burst,
            seen_open,
            seen_closed,
        } = &self.breaker;
        let took = burst
            .refusals
            .percentile(0.5)
            .map_or("-".to_owned(), milliseconds);
        let states = match (seen_open, seen_closed) {
            (true, true) => "it was seen open, and closed after",
            (false, true) => "it was closed after",
            (true, false) => "it was seen open and never closed",
            (false, false) => "it was never seen to change",
        };
        format!(
            "Breaker: of a burst of {} calls on version 2, which may have {V2_MAX_REQUESTS} in flight, {} were answered and {} refused (p50 {took}); {states}.",
            burst.calls, burst.answered, burst.refused,
        )
    }

    fn about_kill(&self) -> String {
        let Kill {
            name,
            failed_attempts,
            retries,
            lost,
            acked,
        } = &self.kill;
        format!(
            "Killed: when {name} died {failed_attempts} attempts met it, {retries} attempts were made anew and {lost} calls lost; EDS took it out, acknowledged after {}.",
            milliseconds(*acked),
        )
    }

    fn about_xds(&self) -> String {
        let progress = &self.view.progress;
        let pushes: u64 = progress.types.values().map(|t| t.pushed).sum();
        format!(
            "xDS: {pushes} pushes of {} types over {} stream, {} refused.",
            progress.types.len(),
            progress.streams,
            progress.nacks.len(),
        )
    }

    fn about_cost(&self) -> String {
        let cpu = self
            .view
            .cpu_per_call()
            .map_or("-".to_owned(), |d| format!("{} µs", d.as_micros()));
        let labelled = self.labelled_requests.map_or(String::new(), |count| {
            format!("; `outrigger_grpc_requests_total` counts {count:.0} calls by method")
        });
        let build = if self.debug_build {
            " This is a debug build: a release build costs a fraction."
        } else {
            ""
        };
        let rate = self.view.calls() as f64 / self.view.elapsed.as_secs_f64().max(1.0);
        format!(
            "Cost: {cpu} of the proxy's CPU for each of {} calls at {rate:.0} a second (its admin pages, read twice a second, included), {} of memory{labelled}.{build}",
            self.view.calls(),
            megabytes(self.view.cost.rss),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control_plane::{Progress, TypeProgress};
    use crate::greeter::Method;
    use crate::resources::served_types;
    use crate::tally::{Outcome, Tally};

    fn findings() -> Findings {
        let mut view = crate::table::tests::view();
        let mut done = TypeProgress::default();
        (done.pushed, done.acked) = (2, 2);
        let types = served_types()
            .into_iter()
            .map(|url| (url, done.clone()))
            .collect();
        view.progress = Progress {
            types,
            nacks: Vec::new(),
            streams: 1,
        };
        Findings {
            faulty: (200, 40),
            shift: Shift {
                before: 0.9,
                after: 0.5,
                acked: Duration::from_micros(1_500),
            },
            breaker: Breaker {
                burst: Burst {
                    calls: 60,
                    answered: 20,
                    refused: 40,
                    ..Burst::default()
                },
                seen_open: true,
                seen_closed: true,
            },
            kill: Kill {
                name: "v1-a",
                failed_attempts: 12,
                retries: 12,
                lost: 0,
                acked: Duration::from_millis(1),
            },
            labelled_requests: None,
            debug_build: false,
            view,
        }
    }

    #[test]
    fn a_sound_run_has_no_failure_and_a_sentence_for_each_step() {
        let findings = findings();
        assert_eq!(findings.failures(), Vec::<String>::new());
        let text = findings.sentences().join("\n");
        for part in [
            "of 98 calls 98 were answered",
            "40 of 200 calls (20.0 %)",
            "17 calls were saved",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(
            text.contains("90/10 sent 90.0 %")
                && text.contains("1.5 ms after the push, sent 50.0 %"),
            "{text}"
        );
        assert!(
            text.contains("20 were answered and 40 refused")
                && text.contains("seen open, and closed after"),
            "{text}"
        );
        assert!(
            text.contains("8 pushes of 4 types over 1 stream, 0 refused"),
            "{text}"
        );
        assert!(
            text.contains("50 µs of the proxy's CPU for each of 100 calls"),
            "{text}"
        );
    }

    #[test]
    fn the_cost_says_what_it_is_the_cost_of() {
        let mut run = findings();
        assert!(run.about_cost().ends_with("12.0 MB of memory."));
        (run.labelled_requests, run.debug_build) = (Some(100.0), true);
        let cost = run.about_cost();
        assert!(
            cost.contains("`outrigger_grpc_requests_total` counts 100 calls by method."),
            "{cost}"
        );
        assert!(
            cost.ends_with("a release build costs a fraction."),
            "{cost}"
        );
    }

    #[test]
    fn a_lost_call_fails_the_run_and_a_refused_one_does_not() {
        let mut run = findings();
        let tally = Tally::default();
        tally.record(Method::SayHello, Outcome::Refused, 0, Duration::ZERO);
        run.view.totals = tally.totals();
        assert!(run.failures().is_empty());
        tally.record(
            Method::SayHello,
            Outcome::Lost(tonic::Code::Unavailable, "gone".into()),
            1,
            Duration::ZERO,
        );
        run.view.totals = tally.totals();
        assert_eq!(
            run.failures(),
            ["1 calls were lost that policy should have saved: SayHello Unavailable: gone"]
        );
    }

    #[test]
    fn a_refused_push_and_a_breaker_that_does_nothing_fail_the_run() {
        let mut run = findings();
        run.view.progress.nacks.push("RDS: no".to_owned());
        run.breaker.burst.refused = 0;
        assert_eq!(
            run.failures(),
            [
                "the proxy refused: RDS: no",
                "the breaker refused nothing of the burst"
            ]
        );
    }
}
