//! Whether a request gets a fault, and which: configuration, then runtime, then
//! what the request itself asks for.

use std::time::Duration;

use filter_api::{FractionalPercent, RuntimeSnapshot, Services};
use outrigger_types::{HeaderName, RequestHead, StatusCode};

use super::config::{Abort, AbortWith, FaultConfig};

const DELAY: HeaderName = HeaderName::from_static("x-envoy-fault-delay-request");
const DELAY_PERCENTAGE: HeaderName =
    HeaderName::from_static("x-envoy-fault-delay-request-percentage");
const THROUGHPUT: HeaderName = HeaderName::from_static("x-envoy-fault-throughput-response");
const THROUGHPUT_PERCENTAGE: HeaderName =
    HeaderName::from_static("x-envoy-fault-throughput-response-percentage");
const ABORT: HeaderName = HeaderName::from_static("x-envoy-fault-abort-request");
const ABORT_GRPC: HeaderName = HeaderName::from_static("x-envoy-fault-abort-grpc-request");
const ABORT_PERCENTAGE: HeaderName =
    HeaderName::from_static("x-envoy-fault-abort-request-percentage");

/// With what a request is aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AbortStatus {
    Http(StatusCode),
    Grpc(u32),
}

/// What a decision is made from.
pub(super) struct Draw<'a> {
    runtime: &'a RuntimeSnapshot,
    services: &'a dyn Services,
    request: &'a RequestHead,
    /// The caller's cluster, which has runtime keys of its own.
    cluster: Option<&'a str>,
}

impl<'a> Draw<'a> {
    pub(super) fn new(
        runtime: &'a RuntimeSnapshot,
        services: &'a dyn Services,
        request: &'a RequestHead,
        cluster: Option<&'a str>,
    ) -> Self {
        Self {
            runtime,
            services,
            request,
            cluster,
        }
    }

    /// How long the request is delayed.
    pub(super) fn delay(&self, config: &FaultConfig) -> Option<Duration> {
        let delay = config.delay.as_ref()?;
        let of_header = delay.fixed.is_none().then_some(DELAY_PERCENTAGE);
        let share = self.share(delay.percentage, of_header);
        if !self.picks(
            &config.keys.delay_percent,
            "delay.fixed_delay_percent",
            share,
        ) {
            return None;
        }
        let asked = match delay.fixed {
            Some(fixed) => u64::try_from(fixed.as_millis()).unwrap_or(u64::MAX),
            None => self.number(&DELAY)?,
        };
        let millis = self.integer(
            &config.keys.delay_duration,
            "delay.fixed_duration_ms",
            asked,
        );
        (millis > 0).then(|| Duration::from_millis(millis))
    }

    /// How many KiB a second of the response may pass.
    pub(super) fn rate_limit(&self, config: &FaultConfig) -> Option<u64> {
        let limit = config.rate_limit.as_ref()?;
        let of_header = limit.fixed.is_none().then_some(THROUGHPUT_PERCENTAGE);
        let share = self.share(limit.percentage, of_header);
        let key = &config.keys.rate_limit_percent;
        if !self
            .runtime
            .fraction(key, share)
            .picks(self.services.random())
        {
            return None;
        }
        limit
            .fixed
            .or_else(|| self.number(&THROUGHPUT))
            .filter(|rate| *rate > 0)
    }

    /// With what the request is aborted.
    pub(super) fn abort(&self, config: &FaultConfig) -> Option<AbortStatus> {
        let abort = config.abort.as_ref()?;
        let of_header = (abort.with == AbortWith::Header).then_some(ABORT_PERCENTAGE);
        let share = self.share(abort.percentage, of_header);
        if !self.picks(&config.keys.abort_percent, "abort.abort_percent", share) {
            return None;
        }
        let http = self.http_status(config, abort).map(AbortStatus::Http);
        http.or_else(|| self.grpc_status(config, abort).map(AbortStatus::Grpc))
    }

    /// Most faults at a time.
    pub(super) fn max_active(&self, config: &FaultConfig) -> u64 {
        let default = config.max_active.unwrap_or(u64::MAX);
        self.runtime.integer(&config.keys.max_active, default)
    }

    fn http_status(&self, config: &FaultConfig, abort: &Abort) -> Option<StatusCode> {
        let default = match abort.with {
            AbortWith::Http(status) => status,
            AbortWith::Header => {
                let status = self.number(&ABORT)?;
                u16::try_from(status)
                    .ok()
                    .filter(|s| (200..600).contains(s))?
            }
            AbortWith::Grpc(_) => return None,
        };
        let keys = &config.keys;
        let status = self.integer(&keys.abort_http_status, "abort.http_status", default.into());
        let status = u16::try_from(status)
            .ok()
            .filter(|s| (200..600).contains(s));
        StatusCode::from_u16(status.unwrap_or(default)).ok()
    }

    fn grpc_status(&self, config: &FaultConfig, abort: &Abort) -> Option<u32> {
        let default = match abort.with {
            AbortWith::Grpc(status) => status,
            AbortWith::Header => u32::try_from(self.number(&ABORT_GRPC)?).ok()?,
            AbortWith::Http(_) => return None,
        };
        let keys = &config.keys;
        let status = self.integer(&keys.abort_grpc_status, "abort.grpc_status", default.into());
        Some(u32::try_from(status).unwrap_or(default))
    }

    /// The configured share, which a request may make smaller.
    fn share(
        &self,
        configured: FractionalPercent,
        header: Option<HeaderName>,
    ) -> FractionalPercent {
        let asked = header.and_then(|name| self.number(&name));
        let asked = asked.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        FractionalPercent {
            numerator: asked.map_or(configured.numerator, |n| n.min(configured.numerator)),
            ..configured
        }
    }

    /// Whether the draw falls on the request, by the key of all, or by that of
    /// the caller's cluster if the caller says its own.
    fn picks(&self, key: &str, suffix: &str, share: FractionalPercent) -> bool {
        let share = match self.cluster {
            Some(cluster) => {
                let key = format!("fault.http.{cluster}.{suffix}");
                self.runtime.fraction(&key, share)
            }
            None => self.runtime.fraction(key, share),
        };
        share.picks(self.services.random())
    }

    fn integer(&self, key: &str, suffix: &str, default: u64) -> u64 {
        let value = self.runtime.integer(key, default);
        match self.cluster {
            Some(cluster) => self
                .runtime
                .integer(&format!("fault.http.{cluster}.{suffix}"), value),
            None => value,
        }
    }

    fn number(&self, name: &HeaderName) -> Option<u64> {
        self.request
            .headers
            .get(name)?
            .to_str()
            .ok()?
            .trim()
            .parse()
            .ok()
    }
}
