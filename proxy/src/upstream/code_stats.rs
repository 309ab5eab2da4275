//! Counters of status codes, whose names are made on first use and kept.

use std::time::Duration;

use outrigger_stats::{Counter, Histogram, Scope, Unit};
use parking_lot::Mutex;
use smallvec::{SmallVec, smallvec};

/// Counters of one code.
#[derive(Debug)]
struct Code {
    key: (u16, Kind),
    counters: SmallVec<[Counter; 6]>,
}

/// What a status is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of a request of internal origin.
    Internal,
    /// Of a request of external origin.
    External,
    /// Of internal origin, and not among those of all origins.
    InternalAlone,
    /// Of external origin, and not among those of all origins.
    ExternalAlone,
    /// Retried instead of forwarded.
    Retry,
    /// Of an upstream that calls itself canary.
    Canary,
    /// Without distinction.
    Plain,
}

impl Kind {
    /// The kind that an origin has; `alone` leaves out the code among those of all origins.
    pub fn of_origin(internal: bool, alone: bool) -> Self {
        match (internal, alone) {
            (true, false) => Self::Internal,
            (false, false) => Self::External,
            (true, true) => Self::InternalAlone,
            (false, true) => Self::ExternalAlone,
        }
    }

    fn prefixes(self) -> &'static [&'static str] {
        match self {
            Self::Internal => &["", "internal."],
            Self::External => &["", "external."],
            Self::InternalAlone => &["internal."],
            Self::ExternalAlone => &["external."],
            Self::Retry => &["retry."],
            Self::Canary => &["canary."],
            Self::Plain => &[""],
        }
    }

    /// That of all origins is in the cluster's own set, which always shows it.
    fn counts_completed(self, prefix: &str) -> bool {
        self == Self::Plain || !prefix.is_empty()
    }
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

    /// Counts the status of a response.
    pub fn charge(&self, code: u16, kind: Kind) {
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
        let mut counters = SmallVec::new();
        for prefix in kind.prefixes() {
            let name = self.name;
            for what in labels(code) {
                counters.push(self.scope.counter(&format!("{prefix}{name}_{what}")));
            }
            if kind.counts_completed(prefix) {
                counters.push(self.scope.counter(&format!("{prefix}{name}_completed")));
            }
        }
        counters
    }
}

/// What a status is counted as: itself and its class, or as one of those without a class.
pub(super) fn labels(code: u16) -> SmallVec<[String; 2]> {
    match code {
        100..600 => smallvec![format!("{}xx", code / 100), code.to_string()],
        _ => smallvec!["unknown".to_owned()],
    }
}
