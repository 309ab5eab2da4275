//! Retry policies.

use std::sync::Arc;

use filter_api::ConfigError;

use super::any::Typed;
use super::matcher::headers;
use super::path::{
    Within, duration, duration_or, each, header_name, optional, refuse, required, timeout_or,
    u32_or, unknown_enum,
};
use super::source::back_off;
use super::{Result, defaults};
use crate::ir::{BackOffConfig, RateLimitedBackOff, ResetHeaderFormat, RetryOn, RetryPolicyConfig};
use crate::pb::envoy::config::route::v3 as pb;
use crate::pb::envoy::extensions::retry::priority::previous_priorities::v3 as priorities;
use pb::retry_policy as parts;

const PREVIOUS_HOSTS: &str = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";
const OMIT_CANARY_HOSTS: &str =
    "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate";
const PREVIOUS_PRIORITIES: &str =
    "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig";

/// Converts a retry policy. Names in `retry_on` that are not known are ignored,
/// as Envoy does.
pub(super) fn retry_policy(message: pb::RetryPolicy) -> Result<Arc<RetryPolicyConfig>> {
    let pb::RetryPolicy {
        retry_on,
        num_retries,
        per_try_timeout,
        per_try_idle_timeout,
        retry_priority,
        retry_host_predicate,
        retry_options_predicates: _,
        host_selection_retry_max_attempts,
        retriable_status_codes,
        retry_back_off,
        rate_limited_retry_back_off,
        retriable_headers,
        retriable_request_headers,
        refresh_cluster_on_retry: _,
    } = message;
    let predicates = each("retry_host_predicate", retry_host_predicate, host_predicate)?;
    let avoids = |predicate| predicates.contains(&predicate);
    Ok(Arc::new(RetryPolicyConfig {
        retry_on: RetryOn::parse(&retry_on),
        num_retries: u32_or(num_retries, defaults::NUM_RETRIES),
        per_try_timeout: timeout_or("per_try_timeout", per_try_timeout, None)?,
        per_try_idle_timeout: timeout_or("per_try_idle_timeout", per_try_idle_timeout, None)?,
        // A status of more bits than it can have never matches.
        retriable_status_codes: retriable_status_codes
            .into_iter()
            .filter_map(|code| u16::try_from(code).ok())
            .collect(),
        retriable_headers: headers("retriable_headers", retriable_headers)?,
        retriable_request_headers: headers("retriable_request_headers", retriable_request_headers)?,
        back_off: optional("retry_back_off", retry_back_off, interval)?.unwrap_or(BackOffConfig {
            base: defaults::RETRY_BASE_INTERVAL,
            max: defaults::RETRY_BASE_INTERVAL * defaults::RETRY_MAX_INTERVAL_FACTOR,
        }),
        rate_limited_back_off: optional(
            "rate_limited_retry_back_off",
            rate_limited_retry_back_off,
            rate_limited,
        )?,
        avoid_previous_hosts: avoids(HostPredicate::Previous),
        avoid_canary_hosts: avoids(HostPredicate::Canary),
        previous_priorities: optional("retry_priority", retry_priority, priority)?,
        host_selection_retry_max_attempts: attempts(host_selection_retry_max_attempts),
    }))
}

/// Zero is the same as unset. Envoy keeps the low 32 bits, so that a negative
/// number is a very high one.
fn attempts(number: i64) -> u32 {
    match number as u32 {
        0 => defaults::HOST_SELECTION_ATTEMPTS,
        number => number,
    }
}

fn interval(message: parts::RetryBackOff) -> Result<BackOffConfig> {
    let parts::RetryBackOff {
        base_interval,
        max_interval,
    } = message;
    required("base_interval", base_interval.as_ref())?;
    let base = at_least_1_ms("base_interval", base_interval)?;
    let longest = base.saturating_mul(defaults::RETRY_MAX_INTERVAL_FACTOR);
    let max = match max_interval {
        Some(_) => at_least_1_ms("max_interval", max_interval)?,
        None => longest,
    };
    back_off(base, max)
}

/// Fractions of a millisecond count as a whole one; nothing at all is refused.
fn at_least_1_ms(
    name: &str,
    message: Option<crate::pb::google::protobuf::Duration>,
) -> Result<std::time::Duration> {
    let nothing = message
        .as_ref()
        .is_none_or(|d| d.seconds == 0 && d.nanos == 0);
    let value = duration(name, message)?.unwrap_or_default();
    if nothing {
        return refuse(name, "value must be greater than 0s");
    }
    Ok(value.max(std::time::Duration::from_millis(1)))
}

fn rate_limited(message: parts::RateLimitedRetryBackOff) -> Result<RateLimitedBackOff> {
    let parts::RateLimitedRetryBackOff {
        reset_headers,
        max_interval,
    } = message;
    if reset_headers.is_empty() {
        return refuse("reset_headers", "value must contain at least 1 item(s)");
    }
    Ok(RateLimitedBackOff {
        reset_headers: each("reset_headers", reset_headers, |message| {
            let parts::ResetHeader { name, format } = message;
            let format = match parts::ResetHeaderFormat::try_from(format) {
                Ok(parts::ResetHeaderFormat::Seconds) => ResetHeaderFormat::Seconds,
                Ok(parts::ResetHeaderFormat::UnixTimestamp) => ResetHeaderFormat::UnixTimestamp,
                Err(_) => return unknown_enum("format", format),
            };
            Ok((header_name(&name).within("name")?, format))
        })?,
        max_interval: duration_or(
            "max_interval",
            max_interval,
            defaults::RATE_LIMITED_MAX_INTERVAL,
        )?,
    })
}

/// Which hosts a retry leaves out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HostPredicate {
    Previous,
    Canary,
}

/// Each may be named once or more often.
fn host_predicate(message: parts::RetryHostPredicate) -> Result<HostPredicate> {
    let parts::RetryHostPredicate { name, config_type } = message;
    let Some(parts::retry_host_predicate::ConfigType::TypedConfig(config)) = config_type else {
        return refuse(
            "typed_config",
            format!("retry host predicate \"{name}\" has none"),
        );
    };
    let typed = Typed::unpack(config).within("typed_config")?;
    match typed.name.as_str() {
        PREVIOUS_HOSTS => Ok(HostPredicate::Previous),
        OMIT_CANARY_HOSTS => Ok(HostPredicate::Canary),
        _ => typed
            .unsupported("retry host predicate")
            .within("typed_config"),
    }
}

/// Only `previous_priorities`; the number of attempts after which it looks again.
fn priority(message: parts::RetryPriority) -> Result<u32> {
    let parts::RetryPriority { name, config_type } = message;
    let Some(parts::retry_priority::ConfigType::TypedConfig(config)) = config_type else {
        return refuse(
            "typed_config",
            format!("retry priority \"{name}\" has none"),
        );
    };
    let typed = Typed::unpack(config).within("typed_config")?;
    if typed.name != PREVIOUS_PRIORITIES {
        return typed.unsupported("retry priority").within("typed_config");
    }
    let priorities::PreviousPrioritiesConfig { update_frequency } =
        typed.decode().within("typed_config")?;
    match u32::try_from(update_frequency) {
        Ok(frequency) if frequency > 0 => Ok(frequency),
        _ => Err(
            ConfigError::field("update_frequency", "value must be greater than 0")
                .within("typed_config"),
        ),
    }
}
