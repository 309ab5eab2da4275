//! Counters of status codes, whose names are made on first use and kept.

use std::time::Duration;

use outrigger_stats::{Counter, Histogram, Scope, Unit};
use parking_lot::Mutex;
use smallvec::SmallVec;

/// Counters of one code.
#[derive(Debug)]
struct Code {
    key: (u16, Kind),
    counters: SmallVec<[Counter; 6]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Internal,
    External,
    Retry,
}

/// Status codes of one cluster or one HCM, on one worker.
#[derive(Debug)]
pub struct CodeStats {
    scope: Scope,
    name: &'static str,
    codes: Mutex<SmallVec<[Code; 4]>>,
    times: Mutex<[Option<Histogram>; 2]>,
}

impl CodeStats {
    /// Codes named `<name>_200` and `<name>_2xx` below a scope.
    pub fn new(scope: Scope, name: &'static str) -> Self {
        Self {
            scope,
            name,
            codes: Mutex::default(),
            times: Mutex::default(),
        }
    }

    /// Counts a response of an upstream, for requests of internal or external
    /// origin.
    pub fn charge(&self, code: u16, internal: bool) {
        self.count(
            code,
            if internal {
                Kind::Internal
            } else {
                Kind::External
            },
        );
    }

    /// Counts a response that is retried instead of forwarded.
    pub fn charge_retry(&self, code: u16) {
        self.count(code, Kind::Retry);
    }

    /// Records the time of a response by origin (`external.upstream_rq_time`).
    pub fn record_time(&self, time: Duration, internal: bool) {
        let (index, name) = if internal {
            (0, "internal")
        } else {
            (1, "external")
        };
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.times.lock()[index]
            .get_or_insert_with(|| {
                self.scope
                    .histogram(&format!("{name}.{}_time", self.name), Unit::Milliseconds)
            })
            .record(millis);
    }

    fn count(&self, code: u16, kind: Kind) {
        let mut codes = self.codes.lock();
        let at = match codes.iter().position(|c| c.key == (code, kind)) {
            Some(at) => at,
            None => {
                codes.push(Code {
                    key: (code, kind),
                    counters: self.counters(code, kind),
                });
                codes.len() - 1
            }
        };
        for counter in &codes[at].counters {
            counter.inc();
        }
    }

    fn counters(&self, code: u16, kind: Kind) -> SmallVec<[Counter; 6]> {
        let prefixes: &[&str] = match kind {
            Kind::Internal => &["", "internal."],
            Kind::External => &["", "external."],
            Kind::Retry => &["retry."],
        };
        let mut counters = SmallVec::new();
        for prefix in prefixes {
            let name = self.name;
            counters.push(
                self.scope
                    .counter(&format!("{prefix}{name}_{}xx", code / 100)),
            );
            counters.push(self.scope.counter(&format!("{prefix}{name}_{code}")));
            // That of all origins is in the cluster's set: it is always shown.
            if !prefix.is_empty() {
                counters.push(self.scope.counter(&format!("{prefix}{name}_completed")));
            }
        }
        counters
    }
}
