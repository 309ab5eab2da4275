//! The retry state of one request: decides, without sockets or clocks, whether
//! an attempt that failed is followed by another, and after how long.

use std::sync::Arc;
use std::time::Duration;

use outrigger_config::ir::{BackOffConfig, ResetHeaderFormat, RetryOn, RetryPolicyConfig};
use outrigger_types::{HeaderName, RequestHead, ResetReason, ResponseHead, names};

/// What became of the question whether to retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// The outcome is not one that the policy retries.
    No,
    /// Retry after this long.
    Yes(BackOff),
    /// The policy would, but all attempts are used up.
    NoLimitExceeded,
    /// The policy would, but the breaker is open.
    NoOverflow,
}

/// How long to wait, and why so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOff {
    /// The wait.
    pub wait: Duration,
    /// The upstream asked for it.
    pub ratelimited: bool,
}

/// An outcome that may be retried.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// A response head; `trailers_only` if nothing follows it.
    Head(&'a ResponseHead),
    /// The attempt ended without one. `began` says whether the request was sent.
    Reset {
        /// Why.
        reason: ResetReason,
        /// Whether any of the request may have reached the upstream.
        began: bool,
    },
    /// The attempt took too long.
    PerTryTimeout,
}

/// Retries of one request.
#[derive(Debug)]
pub struct RetryState {
    on: RetryOn,
    left: u32,
    made: u32,
    statuses: Vec<u16>,
    /// Fields of the response that the request named.
    fields: Vec<HeaderName>,
    policy: Arc<RetryPolicyConfig>,
}

impl RetryState {
    /// The state of a request; none if nothing is ever retried for it. The
    /// `x-envoy-*` headers that ask for retries add to the policy.
    pub fn new(policy: Option<&Arc<RetryPolicyConfig>>, head: &RequestHead) -> Option<Self> {
        let asked_on = text(head, &names::X_ENVOY_RETRY_ON).map(RetryOn::parse_http);
        let asked_grpc = text(head, &names::X_ENVOY_RETRY_GRPC_ON).map(RetryOn::parse_grpc);
        let policy = match policy {
            Some(policy) => policy.clone(),
            None => without_policy(),
        };
        let allowed = policy.retriable_request_headers.is_empty()
            || policy
                .retriable_request_headers
                .iter()
                .any(|m| m.matches_request(head));
        let mut on = policy.retry_on;
        for asked in [asked_on, asked_grpc].into_iter().flatten() {
            on |= asked;
        }
        if !allowed || on.is_empty() {
            return None;
        }
        let fields = text(head, &names::X_ENVOY_RETRIABLE_HEADER_NAMES).unwrap_or_default();
        let fields = fields.split(',').map(str::trim);
        let fields = fields.filter_map(|f| HeaderName::try_from(f.to_owned()).ok());
        let mut statuses = policy.retriable_status_codes.clone();
        if let Some(list) = text(head, &names::X_ENVOY_RETRIABLE_STATUS_CODES) {
            statuses.extend(list.split(',').filter_map(|s| s.trim().parse::<u16>().ok()));
        }
        let asked_max = text(head, &names::X_ENVOY_MAX_RETRIES).and_then(|s| s.parse().ok());
        Some(Self {
            on,
            left: asked_max.unwrap_or(policy.num_retries),
            made: 0,
            statuses,
            fields: fields.collect(),
            policy,
        })
    }

    /// Retries made so far.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// The policy.
    pub fn policy(&self) -> &RetryPolicyConfig {
        &self.policy
    }

    /// Whether any retry is left.
    pub fn can_retry(&self) -> bool {
        self.left > 0
    }

    /// Decides on an outcome. `breaker` takes a retry slot, and says whether it
    /// could; `random` draws a number for the jitter.
    pub fn decide(
        &mut self,
        outcome: Outcome<'_>,
        breaker: impl FnOnce() -> bool,
        random: u64,
    ) -> RetryDecision {
        if !self.wants(outcome) {
            return RetryDecision::No;
        }
        if self.left == 0 {
            return RetryDecision::NoLimitExceeded;
        }
        if !breaker() {
            return RetryDecision::NoOverflow;
        }
        self.left -= 1;
        self.made += 1;
        RetryDecision::Yes(self.back_off(outcome, random))
    }

    /// Whether the policy retries an outcome.
    pub fn wants(&self, outcome: Outcome<'_>) -> bool {
        match outcome {
            Outcome::Head(head) => self.wants_head(head),
            Outcome::Reset { reason, began } => self.wants_reset(reason, began),
            Outcome::PerTryTimeout => {
                self.on.has(RetryOn::FIVE_XX) || self.on.has(RetryOn::GATEWAY_ERROR)
            }
        }
    }

    fn wants_head(&self, head: &ResponseHead) -> bool {
        let on = |condition| self.on.has(condition);
        let status = head.status.as_u16();
        if head.headers.contains(&names::X_ENVOY_RATELIMITED) {
            return on(RetryOn::ENVOY_RATE_LIMITED);
        }
        (on(RetryOn::FIVE_XX) && (500..600).contains(&status))
            || (on(RetryOn::GATEWAY_ERROR) && (502..=504).contains(&status))
            || (on(RetryOn::RETRIABLE_4XX) && status == 409)
            || (on(RetryOn::RETRIABLE_STATUS_CODES) && self.statuses.contains(&status))
            || (on(RetryOn::RETRIABLE_HEADERS) && self.has_retriable_field(head))
            || self.wants_grpc(head)
    }

    fn has_retriable_field(&self, head: &ResponseHead) -> bool {
        let of_policy = &self.policy.retriable_headers;
        of_policy.iter().any(|m| m.matches_response(head))
            || self.fields.iter().any(|f| head.headers.contains(f))
    }

    fn wants_grpc(&self, head: &ResponseHead) -> bool {
        let value = head.headers.get_bytes(&names::GRPC_STATUS);
        let status = value
            .and_then(|v| std::str::from_utf8(v).ok())
            .and_then(|v| v.parse().ok());
        status.is_some_and(|status| self.on.has_any(RetryOn::of_grpc_status(status)))
    }

    fn wants_reset(&self, reason: ResetReason, began: bool) -> bool {
        let on = |condition| self.on.has(condition);
        // A breaker that is open would refuse the retry as well.
        if matches!(reason, ResetReason::Overflow | ResetReason::OverloadManager) {
            return false;
        }
        let connect_failed = matches!(
            reason,
            ResetReason::ConnectionFailure
                | ResetReason::LocalConnectionFailure
                | ResetReason::ConnectionTimeout
        );
        on(RetryOn::RESET)
            || on(RetryOn::FIVE_XX)
            || on(RetryOn::GATEWAY_ERROR)
            || (on(RetryOn::RESET_BEFORE_REQUEST) && !began)
            || (on(RetryOn::CONNECT_FAILURE) && connect_failed)
            || (on(RetryOn::REFUSED_STREAM) && reason == ResetReason::RemoteRefusedStreamReset)
    }

    /// Fully jittered exponential back-off, or what the upstream's headers ask.
    fn back_off(&self, outcome: Outcome<'_>, random: u64) -> BackOff {
        if let Outcome::Head(head) = outcome
            && let Some(wait) = self.asked_wait(head)
        {
            return BackOff {
                wait: wait + wait.mul_f64((random % 500) as f64 / 1000.0),
                ratelimited: true,
            };
        }
        let base = u64::try_from(self.policy.back_off.base.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        let max = u64::try_from(self.policy.back_off.max.as_millis()).unwrap_or(u64::MAX);
        let factor = 1u64.checked_shl(self.made).unwrap_or(u64::MAX);
        let ceiling = base
            .saturating_mul(factor.saturating_sub(1).max(1))
            .min(max)
            .max(1);
        BackOff {
            wait: Duration::from_millis(random % ceiling),
            ratelimited: false,
        }
    }

    fn asked_wait(&self, head: &ResponseHead) -> Option<Duration> {
        let config = self.policy.rate_limited_back_off.as_ref()?;
        config.reset_headers.iter().find_map(|(name, format)| {
            let seconds: u64 = std::str::from_utf8(head.headers.get_bytes(name)?)
                .ok()?
                .parse()
                .ok()?;
            let wait = match format {
                ResetHeaderFormat::Seconds => seconds,
                ResetHeaderFormat::UnixTimestamp => seconds.checked_sub(unix_now())?,
            };
            Some(Duration::from_secs(wait)).filter(|w| *w <= config.max_interval)
        })
    }
}

/// The first value of a field, as text.
fn text<'a>(head: &'a RequestHead, name: &HeaderName) -> Option<&'a str> {
    head.headers
        .get_bytes(name)
        .and_then(|v| std::str::from_utf8(v).ok())
}

/// What applies to a request that asks for retries on a route without policy.
fn without_policy() -> Arc<RetryPolicyConfig> {
    Arc::new(RetryPolicyConfig {
        retry_on: RetryOn::NONE,
        num_retries: 1,
        per_try_timeout: None,
        per_try_idle_timeout: None,
        retriable_status_codes: Vec::new(),
        retriable_headers: Vec::new(),
        retriable_request_headers: Vec::new(),
        back_off: BackOffConfig {
            base: Duration::from_millis(25),
            max: Duration::from_millis(250),
        },
        rate_limited_back_off: None,
        avoid_previous_hosts: false,
        avoid_canary_hosts: false,
        previous_priorities: None,
        host_selection_retry_max_attempts: 1,
    })
}

fn unix_now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests;
