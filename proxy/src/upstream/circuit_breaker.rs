//! Circuit breakers: limits of a cluster that hold across workers.
//!
//! Requests, pending requests and retries are exact: a slot is taken by
//! compare-and-swap. Connections follow Envoy's rule: a pool that has none may
//! always open one, so that no worker waits on another's idle connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use filter_api::RuntimeSnapshot;
use outrigger_config::ir::{CircuitBreakerConfig, RetryBudget};

/// One limited resource.
#[derive(Debug)]
pub struct Resource {
    used: AtomicU64,
    /// A slot was ever taken.
    touched: AtomicBool,
    /// As configured.
    configured: u64,
    /// In force: runtime may say otherwise than the configuration.
    max: AtomicU64,
}

impl Resource {
    fn new(max: u32) -> Self {
        Self::up_to(u64::from(max))
    }

    fn up_to(max: u64) -> Self {
        Self {
            used: AtomicU64::new(0),
            touched: AtomicBool::new(false),
            configured: max,
            max: AtomicU64::new(max),
        }
    }

    /// Slots taken.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    fn apply_runtime(&self, key: &str, runtime: &RuntimeSnapshot) {
        let max = runtime.integer(key, self.configured);
        self.max.store(max, Ordering::Relaxed);
    }

    /// Slots left.
    pub fn remaining(&self) -> u64 {
        self.max().saturating_sub(self.used())
    }

    /// Whether no slot is left: the breaker is open.
    pub fn is_open(&self) -> bool {
        self.used() >= self.max()
    }

    /// Whether a slot was ever taken: there is nothing to show before.
    pub fn was_used(&self) -> bool {
        self.touched.load(Ordering::Relaxed)
    }

    fn touch(&self) {
        if !self.touched.load(Ordering::Relaxed) {
            self.touched.store(true, Ordering::Relaxed);
        }
    }

    fn try_take(&self, max: u64) -> bool {
        self.touch();
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |n| {
                (n < max).then_some(n + 1)
            })
            .is_ok()
    }

    fn take(&self) {
        self.touch();
        self.used.fetch_add(1, Ordering::AcqRel);
    }

    fn give_back(&self) {
        self.used.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Which of the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `max_connections`
    Connections,
    /// `max_pending_requests`
    Pending,
    /// `max_requests`
    Requests,
    /// `max_retries`, or the budget.
    Retries,
    /// `max_connection_pools`
    Pools,
}

/// A budget of retries.
#[derive(Debug)]
struct Budgeted {
    budget: RetryBudget,
    /// Whether a retry was ever asked for.
    asked: AtomicBool,
    /// Whether one was ever allowed.
    taken: AtomicBool,
}

impl Budgeted {
    fn new(budget: RetryBudget) -> Self {
        Self {
            budget,
            asked: AtomicBool::new(false),
            taken: AtomicBool::new(false),
        }
    }

    fn note(&self, taken: bool) {
        self.asked.store(true, Ordering::Relaxed);
        if taken {
            self.taken.store(true, Ordering::Relaxed);
        }
    }
}

/// The limits of one priority of one cluster.
#[derive(Debug)]
pub struct CircuitBreaker {
    connections: Resource,
    pending: Resource,
    requests: Resource,
    retries: Resource,
    pools: Resource,
    budgeted: Option<Budgeted>,
    max_connections_per_host: u32,
    /// Whether to publish what is left.
    pub track_remaining: bool,
}

impl CircuitBreaker {
    /// Breakers with these limits, nothing taken.
    pub fn new(config: &CircuitBreakerConfig) -> Self {
        Self {
            connections: Resource::new(config.max_connections),
            pending: Resource::new(config.max_pending_requests),
            requests: Resource::new(config.max_requests),
            retries: Resource::new(config.max_retries),
            // Without a limit Envoy shows that of 64 bits.
            pools: Resource::up_to(match config.max_connection_pools {
                u32::MAX => u64::MAX,
                max => u64::from(max),
            }),
            budgeted: config.retry_budget.map(Budgeted::new),
            max_connections_per_host: config.max_connections_per_host,
            track_remaining: config.track_remaining,
        }
    }

    /// Takes over the limits that runtime sets below `prefix`
    /// (`circuit_breakers.<cluster>.<priority>.`); the others are as configured.
    pub fn apply_runtime(&self, prefix: &str, runtime: &RuntimeSnapshot) {
        for (name, resource) in [
            ("max_connections", &self.connections),
            ("max_pending_requests", &self.pending),
            ("max_requests", &self.requests),
            ("max_retries", &self.retries),
            ("max_connection_pools", &self.pools),
        ] {
            resource.apply_runtime(&format!("{prefix}{name}"), runtime);
        }
    }

    /// Connections that one host may have, over all workers. A pool that has none may
    /// open one all the same.
    pub fn max_connections_per_host(&self) -> u64 {
        u64::from(self.max_connections_per_host)
    }

    /// One of the resources.
    pub fn resource(&self, kind: Kind) -> &Resource {
        match kind {
            Kind::Connections => &self.connections,
            Kind::Pending => &self.pending,
            Kind::Requests => &self.requests,
            Kind::Retries => &self.retries,
            Kind::Pools => &self.pools,
        }
    }

    /// Slots left, as a gauge shows it. Of retries under a budget nobody knows it: as in Envoy
    /// it is `max_retries` until a retry is asked for, and zero from then on.
    pub fn remaining(&self, kind: Kind) -> u64 {
        match &self.budgeted {
            Some(budgeted) if kind == Kind::Retries => {
                match budgeted.asked.load(Ordering::Relaxed) {
                    true => 0,
                    false => self.retries.max(),
                }
            }
            _ => self.resource(kind).remaining(),
        }
    }

    /// Whether a breaker shows as open: as in Envoy one that has never been in use
    /// does not, even if its limit is zero; and retries are held against `max_retries`, even
    /// where a budget is what counts.
    pub fn shows_open(&self, kind: Kind) -> bool {
        let resource = self.resource(kind);
        match &self.budgeted {
            Some(budgeted) if kind == Kind::Retries => {
                budgeted.taken.load(Ordering::Relaxed) && resource.is_open()
            }
            _ => resource.used() > 0 && resource.is_open(),
        }
    }

    /// Retries that are allowed now: fixed, or a share of what is active.
    pub fn retry_limit(&self) -> u64 {
        match &self.budgeted {
            None => self.retries.max(),
            Some(Budgeted { budget, .. }) => {
                let active = self.requests.used() + self.pending.used();
                let share = (budget.budget_percent / 100.0 * active as f64) as u64;
                share.max(u64::from(budget.min_retry_concurrency))
            }
        }
    }

    /// Whether the breaker of a resource is open.
    pub fn is_open(&self, kind: Kind) -> bool {
        match kind {
            Kind::Retries => self.retries.used() >= self.retry_limit(),
            _ => self.resource(kind).is_open(),
        }
    }

    /// Takes a slot, or none when the breaker is open.
    pub fn try_acquire(self: &Arc<Self>, kind: Kind) -> Option<BreakerGuard> {
        let max = match kind {
            Kind::Retries => self.retry_limit(),
            _ => self.resource(kind).max(),
        };
        let taken = self.resource(kind).try_take(max);
        self.note_retry(kind, taken);
        taken.then(|| BreakerGuard {
            breaker: self.clone(),
            kind,
        })
    }

    fn note_retry(&self, kind: Kind, taken: bool) {
        if let (Kind::Retries, Some(budgeted)) = (kind, &self.budgeted) {
            budgeted.note(taken);
        }
    }

    /// Takes a slot even when the breaker is open.
    pub fn acquire(self: &Arc<Self>, kind: Kind) -> BreakerGuard {
        self.resource(kind).take();
        self.note_retry(kind, true);
        BreakerGuard {
            breaker: self.clone(),
            kind,
        }
    }
}

/// A slot; dropping it gives it back.
#[derive(Debug)]
pub struct BreakerGuard {
    breaker: Arc<CircuitBreaker>,
    kind: Kind,
}

impl Drop for BreakerGuard {
    fn drop(&mut self) {
        self.breaker.resource(self.kind).give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker(max: u32, retry_budget: Option<RetryBudget>) -> Arc<CircuitBreaker> {
        Arc::new(CircuitBreaker::new(&CircuitBreakerConfig {
            max_connections: max,
            max_pending_requests: max,
            max_requests: max,
            max_retries: max,
            retry_budget,
            max_connection_pools: u32::MAX,
            track_remaining: true,
            max_connections_per_host: u32::MAX,
        }))
    }

    #[test]
    fn gives_no_more_than_there_is() {
        let b = breaker(2, None);
        let first = b.try_acquire(Kind::Requests);
        let second = b.try_acquire(Kind::Requests);
        assert!(first.is_some() && second.is_some() && b.is_open(Kind::Requests));
        assert!(b.try_acquire(Kind::Requests).is_none());
        drop(first);
        assert_eq!(b.resource(Kind::Requests).remaining(), 1);
        assert!(b.try_acquire(Kind::Requests).is_some());
    }

    #[test]
    fn a_budget_follows_what_is_active() {
        let b = breaker(
            100,
            Some(RetryBudget {
                budget_percent: 20.0,
                min_retry_concurrency: 1,
            }),
        );
        assert_eq!(b.retry_limit(), 1);
        let held: Vec<_> = (0..50).map(|_| b.acquire(Kind::Requests)).collect();
        assert_eq!(b.retry_limit(), 10);
        drop(held);
        let _one = b.try_acquire(Kind::Retries).unwrap();
        assert!(b.try_acquire(Kind::Retries).is_none());
    }

    #[test]
    fn shows_open_only_what_is_in_use() {
        let b = breaker(0, None);
        assert!(b.is_open(Kind::Connections) && !b.shows_open(Kind::Connections));
        let forced = b.acquire(Kind::Connections);
        assert!(b.shows_open(Kind::Connections));
        assert_eq!(b.remaining(Kind::Connections), 0);
        drop(forced);
        assert!(!b.shows_open(Kind::Connections));
    }

    const KINDS: [Kind; 4] = [
        Kind::Connections,
        Kind::Pending,
        Kind::Requests,
        Kind::Retries,
    ];

    proptest::proptest! {
        /// Slots taken, refused, forced and given back in any order leave what a plain
        /// count leaves.
        #[test]
        fn counts_like_a_plain_counter(
            max in 0u32..6,
            budget in proptest::option::of((0f64..=100.0, 0u32..4)),
            steps in proptest::collection::vec((0usize..4, 0u8..4, 0usize..8), 0..200),
        ) {
            let budget = budget.map(|(budget_percent, min_retry_concurrency)| RetryBudget {
                budget_percent,
                min_retry_concurrency,
            });
            let b = breaker(max, budget);
            let mut held: [Vec<BreakerGuard>; 4] = Default::default();
            for (at, action, which) in steps {
                let active = held[1].len() + held[2].len();
                let limit = match budget {
                    Some(budget) if KINDS[at] == Kind::Retries => {
                        let share = budget.budget_percent * active as f64 / 100.0;
                        // Where the share is whole, rounding may fall on either side.
                        if (share - share.round()).abs() < 1e-9 {
                            continue;
                        }
                        (share as usize).max(budget.min_retry_concurrency as usize)
                    }
                    _ => max as usize,
                };
                let used = held[at].len();
                proptest::prop_assert_eq!(b.is_open(KINDS[at]), used >= limit);
                if KINDS[at] != Kind::Retries || b.budgeted.is_none() {
                    let left = limit.saturating_sub(used) as u64;
                    proptest::prop_assert_eq!(b.remaining(KINDS[at]), left);
                }
                match action {
                    0 | 1 => {
                        let slot = b.try_acquire(KINDS[at]);
                        proptest::prop_assert_eq!(slot.is_some(), used < limit);
                        held[at].extend(slot);
                    }
                    2 => held[at].push(b.acquire(KINDS[at])),
                    _ if used > 0 => drop(held[at].swap_remove(which % used)),
                    _ => {}
                }
                proptest::prop_assert_eq!(
                    b.resource(KINDS[at]).used(),
                    held[at].len() as u64
                );
            }
            drop(held);
            for kind in KINDS {
                proptest::prop_assert_eq!(b.resource(kind).used(), 0);
            }
        }
    }

    #[test]
    fn is_exact_under_contention() {
        let b = breaker(7, None);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        if let Some(_guard) = b.try_acquire(Kind::Requests) {
                            assert!(b.resource(Kind::Requests).used() <= 7);
                        }
                    }
                });
            }
        });
        assert_eq!(b.resource(Kind::Requests).used(), 0);
    }
}
