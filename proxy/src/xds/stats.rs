//! Stats of subscriptions, under Envoy's names.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outrigger_stats::{CounterId, GaugeId, HistogramId, Slab, StatSet, TextId};

use super::version;

outrigger_stats::stat_set! {
    /// `control_plane.`
    pub struct ControlPlaneStats {
        counters {
            rate_limit_enforced,
        }
        gauges {
            connected_state,
            pending_requests,
        }
        text {
            identifier,
        }
    }
}

outrigger_stats::stat_set! {
    /// `cluster_manager.cds.`, and most of `http.<prefix>.rds.<name>.`
    pub struct ReloadStats {
        counters {
            config_reload,
            init_fetch_timeout,
            update_attempt,
            update_failure,
            update_rejected,
            update_success,
        }
        gauges {
            config_reload_time_ms,
            update_time,
            version,
        }
        histograms {
            update_duration: ms,
        }
        text {
            version_text,
        }
    }
}

outrigger_stats::stat_set! {
    /// `http.<prefix>.rds.<name>.`, what CDS has not.
    pub struct RouteStats {
        counters {
            /// Answers without resources, which Envoy does not take to subscriptions of routes.
            update_empty,
        }
    }
}

outrigger_stats::stat_set! {
    /// `listener_manager.lds.`
    pub struct SubscriptionStats {
        counters {
            init_fetch_timeout,
            update_attempt,
            update_failure,
            update_rejected,
            update_success,
        }
        gauges {
            update_time,
            version,
        }
        histograms {
            update_duration: ms,
        }
        text {
            version_text,
        }
    }
}

outrigger_stats::stat_set! {
    /// `sds.<name>.`, what other subscriptions have not.
    pub struct SecretStats {
        counters {
            /// Files of a secret that changed and could not be read.
            key_rotation_failed,
        }
    }
}

outrigger_stats::stat_set! {
    /// `cluster.<name>.` of a cluster by EDS, beside those that every cluster has.
    pub struct EndpointsStats {
        counters {
            init_fetch_timeout,
            update_rejected,
        }
        gauges {
            update_time,
        }
        histograms {
            update_duration: ms,
        }
        text {
            version_text,
        }
    }
}

/// The stats that tell of an accepted update, whatever set they are in.
pub(crate) trait AcceptedStats: StatSet + Sized {
    /// `update_time`
    const TIME: GaugeId<Self>;
    /// `update_duration`
    const DURATION: HistogramId<Self>;
    /// `version_text`
    const TEXT: TextId<Self>;
}

macro_rules! accepted {
    ($($set:ident),*) => {$(
        impl AcceptedStats for $set {
            const TIME: GaugeId<Self> = Self::update_time;
            const DURATION: HistogramId<Self> = Self::update_duration;
            const TEXT: TextId<Self> = Self::version_text;
        }
    )*};
}
accepted!(ReloadStats, SubscriptionStats, EndpointsStats);

/// Notes when an update was accepted, how long it took and which version it was.
pub(crate) fn note_accepted<S: AcceptedStats>(slab: &Slab<S>, version: &str, took: Duration) {
    slab.gauge_set(S::TIME, unix_millis());
    slab.record(
        S::DURATION,
        u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    );
    slab.set_text(S::TEXT, version);
}

/// Milliseconds since 1970.
pub(crate) fn unix_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

/// The counters that tell what came of a subscription, and its version.
pub(crate) trait OutcomeStats: AcceptedStats {
    /// `init_fetch_timeout`
    const TIMEOUT: CounterId<Self>;
    /// `update_attempt`
    const ATTEMPT: CounterId<Self>;
    /// `update_failure`
    const FAILURE: CounterId<Self>;
    /// `update_rejected`
    const REJECTED: CounterId<Self>;
    /// `update_success`
    const SUCCESS: CounterId<Self>;
    /// `version`
    const VERSION: GaugeId<Self>;
}

macro_rules! outcomes {
    ($($set:ident),*) => {$(
        impl OutcomeStats for $set {
            const TIMEOUT: CounterId<Self> = Self::init_fetch_timeout;
            const ATTEMPT: CounterId<Self> = Self::update_attempt;
            const FAILURE: CounterId<Self> = Self::update_failure;
            const REJECTED: CounterId<Self> = Self::update_rejected;
            const SUCCESS: CounterId<Self> = Self::update_success;
            const VERSION: GaugeId<Self> = Self::version;
        }
    )*};
}
outcomes!(ReloadStats, SubscriptionStats);

/// What came of a subscription.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome<'a> {
    /// It began.
    Started,
    /// An update of this version was applied as a whole, in this time.
    Accepted(&'a str, Duration),
    /// An update was refused, if only in part.
    Rejected,
    /// The stream failed.
    Failed,
    /// The first answer was late.
    TimedOut,
}

/// Notes what became of an attempt of a subscription, if there is one.
pub(crate) fn note_some<S: OutcomeStats>(slab: Option<&Slab<S>>, outcome: Outcome<'_>) {
    if let Some(slab) = slab {
        note(slab, outcome);
    }
}

/// Counts an outcome. Each is an attempt too, as in Envoy.
pub(crate) fn note<S: OutcomeStats>(slab: &Slab<S>, outcome: Outcome<'_>) {
    slab.inc(S::ATTEMPT);
    match outcome {
        Outcome::Started => {}
        Outcome::Accepted(version, took) => {
            slab.inc(S::SUCCESS);
            slab.gauge_set(S::VERSION, version::gauge(version));
            note_accepted(slab, version, took);
        }
        Outcome::Rejected => slab.inc(S::REJECTED),
        Outcome::Failed => slab.inc(S::FAILURE),
        Outcome::TimedOut => slab.inc(S::TIMEOUT),
    }
}
