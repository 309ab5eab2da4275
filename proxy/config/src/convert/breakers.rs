//! Circuit breakers.

use super::matcher::percent;
use super::path::{Within, each, optional, u32_or};
use super::{Result, defaults, forward};
use crate::ir::{CircuitBreakerConfig, RetryBudget, RoutingPriority};
use crate::pb::envoy::config::cluster::v3 as pb;
use pb::circuit_breakers as parts;

/// The limits of both priorities.
pub(super) struct Breakers {
    /// DEFAULT
    pub(super) default: CircuitBreakerConfig,
    /// HIGH
    pub(super) high: CircuitBreakerConfig,
}

/// Converts the limits. Of several thresholds of a priority the first counts, as
/// in Envoy.
pub(super) fn breakers(message: pb::CircuitBreakers) -> Result<Breakers> {
    let pb::CircuitBreakers {
        thresholds,
        per_host_thresholds,
    } = message;
    let thresholds = each("thresholds", thresholds, threshold)?;
    let per_host = each("per_host_thresholds", per_host_thresholds, per_host)?;
    let of = |priority: RoutingPriority| {
        let mut limits = thresholds
            .iter()
            .find(|(of, _)| *of == priority)
            .map_or_else(default_limits, |(_, limits)| limits.clone());
        if let Some((_, most)) = per_host.iter().find(|(of, _)| *of == priority) {
            limits.max_connections_per_host = *most;
        }
        limits
    };
    Ok(Breakers {
        default: of(RoutingPriority::Default),
        high: of(RoutingPriority::High),
    })
}

fn default_limits() -> CircuitBreakerConfig {
    CircuitBreakerConfig {
        max_connections: defaults::BREAKER_LIMIT,
        max_pending_requests: defaults::BREAKER_LIMIT,
        max_requests: defaults::BREAKER_LIMIT,
        max_retries: defaults::BREAKER_RETRIES,
        retry_budget: None,
        max_connection_pools: u32::MAX,
        track_remaining: false,
        max_connections_per_host: u32::MAX,
    }
}

fn threshold(message: parts::Thresholds) -> Result<(RoutingPriority, CircuitBreakerConfig)> {
    let parts::Thresholds {
        priority,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining,
        max_connection_pools,
    } = message;
    let limits = CircuitBreakerConfig {
        max_connections: u32_or(max_connections, defaults::BREAKER_LIMIT),
        max_pending_requests: u32_or(max_pending_requests, defaults::BREAKER_LIMIT),
        max_requests: u32_or(max_requests, defaults::BREAKER_LIMIT),
        max_retries: u32_or(max_retries, defaults::BREAKER_RETRIES),
        retry_budget: optional("retry_budget", retry_budget, budget)?,
        max_connection_pools: u32_or(max_connection_pools, u32::MAX),
        track_remaining,
        max_connections_per_host: u32::MAX,
    };
    Ok((
        forward::routing_priority(priority).within("priority")?,
        limits,
    ))
}

fn budget(message: parts::thresholds::RetryBudget) -> Result<RetryBudget> {
    let parts::thresholds::RetryBudget {
        budget_percent,
        budget_interval: _,
        min_retry_concurrency,
    } = message;
    Ok(RetryBudget {
        budget_percent: percent(
            "budget_percent",
            budget_percent,
            defaults::RETRY_BUDGET_PERCENT,
        )?,
        min_retry_concurrency: u32_or(min_retry_concurrency, defaults::MIN_RETRY_CONCURRENCY),
    })
}

/// Of a single host only connections are limited.
fn per_host(message: parts::Thresholds) -> Result<(RoutingPriority, u32)> {
    let parts::Thresholds {
        priority,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining: _,
        max_connection_pools,
    } = message;
    let others = [
        ("max_pending_requests", max_pending_requests.is_some()),
        ("max_requests", max_requests.is_some()),
        ("max_retries", max_retries.is_some()),
        ("retry_budget", retry_budget.is_some()),
        ("max_connection_pools", max_connection_pools.is_some()),
    ];
    if let Some((name, _)) = others.iter().find(|(_, set)| *set) {
        return super::path::refuse(name, "only max_connections can be set for a host");
    }
    let priority = forward::routing_priority(priority).within("priority")?;
    Ok((priority, u32_or(max_connections, u32::MAX)))
}
