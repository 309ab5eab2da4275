//! Load balancing: by name, by the fields of the cluster, or by a typed policy.

use filter_api::ConfigError;

use super::any::{Typed, extension};
use super::matcher::percent;
use super::path::{Within, bool_or, duration, optional, refuse, required, u32_or, unknown_enum};
use super::{Result, defaults};
use crate::ir::{LbCommonConfig, LbPolicyConfig, SlowStart};
use crate::pb::envoy::config::cluster::v3 as pb;
use crate::pb::envoy::config::core::v3 as core;
use crate::pb::envoy::extensions::load_balancing_policies as policies;
use crate::pb::envoy::r#type::v3::Percent;
use crate::pb::google::protobuf as wkt;
use pb::cluster as parts;
use policies::common::v3 as common;

/// What a cluster says about its policy.
pub(super) struct Policy<'a> {
    /// `lb_policy`
    pub(super) by_name: i32,
    /// `lb_config`
    pub(super) config: Option<parts::LbConfig>,
    /// `load_balancing_policy`, which wins over all others.
    pub(super) typed: Option<pb::LoadBalancingPolicy>,
    /// What `common_lb_config` said; a typed policy has its own.
    pub(super) common: &'a mut LbCommonConfig,
}

/// Chooses the policy.
pub(super) fn policy(of: Policy<'_>) -> Result<LbPolicyConfig> {
    use parts::{LbConfig, LbPolicy};
    if let Some(message) = of.typed {
        return typed_policy(message, of.common).within("load_balancing_policy");
    }
    match (LbPolicy::try_from(of.by_name), of.config) {
        (Ok(LbPolicy::RoundRobin), Some(LbConfig::RoundRobinLbConfig(message))) => {
            let parts::RoundRobinLbConfig { slow_start_config } = message;
            old_slow_start(slow_start_config)
                .within("round_robin_lb_config")
                .map(LbPolicyConfig::RoundRobin)
        }
        (Ok(LbPolicy::RoundRobin), _) => Ok(LbPolicyConfig::RoundRobin(no_slow_start())),
        (Ok(LbPolicy::LeastRequest), Some(LbConfig::LeastRequestLbConfig(message))) => {
            least_request_by_field(message).within("least_request_lb_config")
        }
        (Ok(LbPolicy::LeastRequest), _) => least_request(None, None, false, no_slow_start()),
        (Ok(LbPolicy::Random), _) => Ok(LbPolicyConfig::Random),
        (Ok(LbPolicy::ClusterProvided), _) => Ok(LbPolicyConfig::ClusterProvided),
        (Ok(LbPolicy::LoadBalancingPolicyConfig), _) => {
            refuse("load_balancing_policy", "value is required")
        }
        (Ok(other), _) => refuse(
            "lb_policy",
            format!("{} is not supported", other.as_str_name()),
        ),
        (Err(_), _) => unknown_enum("lb_policy", of.by_name),
    }
}

/// The first policy of the list that is known here counts; the others may be of types that
/// nobody knows.
fn typed_policy(
    message: pb::LoadBalancingPolicy,
    common: &mut LbCommonConfig,
) -> Result<LbPolicyConfig> {
    let pb::LoadBalancingPolicy { policies } = message;
    let mut names = Vec::new();
    for (i, message) in policies.into_iter().enumerate() {
        let pb::load_balancing_policy::Policy {
            typed_extension_config,
        } = message;
        let config =
            required("typed_extension_config", typed_extension_config).at("policies", i)?;
        let any = config.typed_config.as_ref();
        let name = any.map_or(Ok(""), Typed::name_of);
        let name = name.within("typed_extension_config").at("policies", i)?;
        if POLICIES.contains(&name) {
            return extension(config)
                .and_then(|typed| known_policy(&typed, common))
                .within("typed_extension_config")
                .at("policies", i);
        }
        names.push(name.to_owned());
    }
    let reason = format!("no supported policy among: {}", names.join(", "));
    Err(ConfigError::field("policies", reason))
}

const ROUND_ROBIN: &str = "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin";
const RANDOM: &str = "envoy.extensions.load_balancing_policies.random.v3.Random";
const LEAST_REQUEST: &str =
    "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest";
const CLUSTER_PROVIDED: &str =
    "envoy.extensions.load_balancing_policies.cluster_provided.v3.ClusterProvided";
const POLICIES: [&str; 4] = [ROUND_ROBIN, RANDOM, LEAST_REQUEST, CLUSTER_PROVIDED];

fn known_policy(typed: &Typed, common: &mut LbCommonConfig) -> Result<LbPolicyConfig> {
    match typed.name.as_str() {
        ROUND_ROBIN => {
            let policies::round_robin::v3::RoundRobin {
                slow_start_config,
                locality_lb_config,
            } = typed.decode()?;
            locality(locality_lb_config, common)?;
            typed_slow_start(slow_start_config).map(LbPolicyConfig::RoundRobin)
        }
        RANDOM => {
            let policies::random::v3::Random { locality_lb_config } = typed.decode()?;
            locality(locality_lb_config, common)?;
            Ok(LbPolicyConfig::Random)
        }
        LEAST_REQUEST => typed_least_request(typed, common),
        CLUSTER_PROVIDED => {
            let policies::cluster_provided::v3::ClusterProvided {} = typed.decode()?;
            Ok(LbPolicyConfig::ClusterProvided)
        }
        _ => typed.unsupported("load balancing policy"),
    }
}

fn typed_least_request(typed: &Typed, common: &mut LbCommonConfig) -> Result<LbPolicyConfig> {
    use policies::least_request::v3::least_request::SelectionMethod;
    let policies::least_request::v3::LeastRequest {
        choice_count,
        active_request_bias,
        slow_start_config,
        locality_lb_config,
        enable_full_scan,
        selection_method,
    } = typed.decode()?;
    locality(locality_lb_config, common)?;
    let full_scan = match SelectionMethod::try_from(selection_method) {
        Ok(method) => method == SelectionMethod::FullScan || bool_or(enable_full_scan, false),
        Err(_) => return unknown_enum("selection_method", selection_method),
    };
    let slow_start = typed_slow_start(slow_start_config)?;
    least_request(choice_count, active_request_bias, full_scan, slow_start)
}

fn least_request_by_field(message: parts::LeastRequestLbConfig) -> Result<LbPolicyConfig> {
    let parts::LeastRequestLbConfig {
        choice_count,
        active_request_bias,
        slow_start_config,
    } = message;
    let slow_start = old_slow_start(slow_start_config)?;
    least_request(choice_count, active_request_bias, false, slow_start)
}

fn least_request(
    choices: Option<wkt::UInt32Value>,
    bias: Option<core::RuntimeDouble>,
    full_scan: bool,
    slow_start: SlowStart,
) -> Result<LbPolicyConfig> {
    let choice_count = u32_or(choices, defaults::LEAST_REQUEST_CHOICES);
    if choice_count < 2 {
        return refuse("choice_count", "value must be greater than or equal to 2");
    }
    Ok(LbPolicyConfig::LeastRequest {
        choice_count,
        active_request_bias: double(bias, defaults::ACTIVE_REQUEST_BIAS, 0.0),
        full_scan,
        slow_start,
    })
}

/// A number that runtime could override; no such key is read here. One that
/// makes no sense is as good as none, as in Envoy.
fn double(message: Option<core::RuntimeDouble>, default: f64, least: f64) -> f64 {
    let Some(core::RuntimeDouble {
        default_value,
        runtime_key: _,
    }) = message
    else {
        return default;
    };
    match default_value.is_finite() && default_value >= least {
        true => default_value,
        false => default,
    }
}

fn no_slow_start() -> SlowStart {
    SlowStart {
        window: std::time::Duration::ZERO,
        aggression: defaults::SLOW_START_AGGRESSION,
        min_weight_percent: defaults::SLOW_START_MIN_WEIGHT,
    }
}

fn old_slow_start(message: Option<parts::SlowStartConfig>) -> Result<SlowStart> {
    optional("slow_start_config", message, |message| {
        let parts::SlowStartConfig {
            slow_start_window,
            aggression,
            min_weight_percent,
        } = message;
        slow_start(slow_start_window, aggression, min_weight_percent)
    })
    .map(|config| config.unwrap_or_else(no_slow_start))
}

fn typed_slow_start(message: Option<common::SlowStartConfig>) -> Result<SlowStart> {
    optional("slow_start_config", message, |message| {
        let common::SlowStartConfig {
            slow_start_window,
            aggression,
            min_weight_percent,
        } = message;
        slow_start(slow_start_window, aggression, min_weight_percent)
    })
    .map(|config| config.unwrap_or_else(no_slow_start))
}

fn slow_start(
    window: Option<wkt::Duration>,
    aggression: Option<core::RuntimeDouble>,
    min_weight: Option<Percent>,
) -> Result<SlowStart> {
    let aggression = double(
        aggression,
        defaults::SLOW_START_AGGRESSION,
        f64::MIN_POSITIVE,
    );
    Ok(SlowStart {
        window: duration("slow_start_window", window)?.unwrap_or_default(),
        aggression,
        min_weight_percent: percent(
            "min_weight_percent",
            min_weight,
            defaults::SLOW_START_MIN_WEIGHT,
        )?,
    })
}

/// What all policies share.
pub(super) fn common_lb(message: Option<parts::CommonLbConfig>) -> Result<LbCommonConfig> {
    use parts::common_lb_config::{LocalityConfigSpecifier as Locality, ZoneAwareLbConfig};
    let parts::CommonLbConfig {
        healthy_panic_threshold,
        update_merge_window: _,
        ignore_new_hosts_until_first_hc: _,
        close_connections_on_host_set_change,
        consistent_hashing_lb_config: _,
        override_host_status: _,
        locality_config_specifier,
    } = message.unwrap_or_default();
    let (locality_weighted, fail_traffic_on_panic) = match locality_config_specifier {
        None => (false, false),
        Some(Locality::LocalityWeightedLbConfig(_)) => (true, false),
        Some(Locality::ZoneAwareLbConfig(ZoneAwareLbConfig {
            routing_enabled: _,
            min_cluster_size: _,
            fail_traffic_on_panic,
        })) => (false, fail_traffic_on_panic),
    };
    Ok(LbCommonConfig {
        healthy_panic_threshold: percent(
            "healthy_panic_threshold",
            healthy_panic_threshold,
            defaults::HEALTHY_PANIC_THRESHOLD,
        )?,
        fail_traffic_on_panic,
        locality_weighted,
        close_connections_on_host_set_change,
    })
}

/// A typed policy says itself how localities are weighed.
fn locality(message: Option<common::LocalityLbConfig>, into: &mut LbCommonConfig) -> Result<()> {
    use common::locality_lb_config::{LocalityConfigSpecifier as Locality, ZoneAwareLbConfig};
    let specifier = message.and_then(|message| message.locality_config_specifier);
    (into.locality_weighted, into.fail_traffic_on_panic) = match specifier {
        None => (false, false),
        Some(Locality::LocalityWeightedLbConfig(_)) => (true, false),
        Some(Locality::ZoneAwareLbConfig(ZoneAwareLbConfig {
            routing_enabled: _,
            min_cluster_size: _,
            fail_traffic_on_panic,
            force_locality_direct_routing,
            force_local_zone,
            locality_basis: _,
        })) => {
            if force_locality_direct_routing || force_local_zone.is_some() {
                return refuse(
                    "zone_aware_lb_config",
                    "zone aware routing is not supported",
                )
                .within("locality_lb_config");
            }
            (false, fail_traffic_on_panic)
        }
    };
    Ok(())
}
