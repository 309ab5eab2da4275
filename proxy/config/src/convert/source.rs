//! Where resources come from (`ConfigSource`).

use std::sync::Arc;
use std::time::Duration;

use super::path::{
    Within, duration_or, each, header_name, non_empty, optional, refuse, required, timeout_or,
};
use super::{Result, defaults};
use crate::ir::{ApiConfigSource, BackOffConfig, ConfigSourceConfig, ConfigSourceKind};
use crate::pb::envoy::config::core::v3 as pb;

/// A source. An initial fetch timeout of zero waits for ever.
pub(super) fn config_source(message: pb::ConfigSource) -> Result<ConfigSourceConfig> {
    use pb::config_source::ConfigSourceSpecifier as Specifier;
    let pb::ConfigSource {
        authorities: _,
        initial_fetch_timeout,
        resource_api_version: _,
        config_source_specifier,
    } = message;
    let source = match required("config_source_specifier", config_source_specifier)? {
        Specifier::Ads(pb::AggregatedConfigSource {}) => ConfigSourceKind::Ads,
        Specifier::Self_(_) => return refuse("self", "is not supported"),
        Specifier::ApiConfigSource(message) => {
            ConfigSourceKind::Api(Arc::new(api(message).within("api_config_source")?))
        }
        Specifier::Path(_) => return refuse("path", "files are not supported"),
        Specifier::PathConfigSource(_) => {
            return refuse("path_config_source", "files are not supported");
        }
    };
    Ok(ConfigSourceConfig {
        source,
        initial_fetch_timeout: timeout_or(
            "initial_fetch_timeout",
            initial_fetch_timeout,
            Some(defaults::INITIAL_FETCH_TIMEOUT),
        )?,
    })
}

/// A source that must be there.
pub(super) fn required_source(
    name: &str,
    message: Option<pb::ConfigSource>,
) -> Result<ConfigSourceConfig> {
    config_source(required(name, message)?).within(name)
}

/// A gRPC stream to a control plane.
pub(super) fn api(message: pb::ApiConfigSource) -> Result<ApiConfigSource> {
    let pb::ApiConfigSource {
        api_type,
        transport_api_version,
        cluster_names,
        mut grpc_services,
        refresh_delay: _,
        request_timeout: _,
        rate_limit_settings: _,
        set_node_on_first_message_only,
        config_validators: _,
    } = message;
    let delta = is_delta(api_type)?;
    if transport_api_version == pb::ApiVersion::V2 as i32 {
        return refuse("transport_api_version", "V2 has been removed");
    }
    if !cluster_names.is_empty() {
        return refuse(
            "cluster_names",
            "gRPC sources name their cluster in grpc_services",
        );
    }
    let service = match grpc_services.len() {
        1 => grpc_services.remove(0),
        0 => return refuse("grpc_services", "a gRPC service is required"),
        _ => return refuse("grpc_services", "only one gRPC service is supported"),
    };
    let mut source = grpc_service(service).at("grpc_services", 0)?;
    source.delta = delta;
    source.set_node_on_first_message_only = set_node_on_first_message_only;
    Ok(source)
}

fn is_delta(api_type: i32) -> Result<bool> {
    use pb::api_config_source::ApiType;
    match ApiType::try_from(api_type) {
        Ok(ApiType::Grpc) => Ok(false),
        Ok(ApiType::DeltaGrpc) => Ok(true),
        Ok(other) => refuse(
            "api_type",
            format!("{} is not supported", other.as_str_name()),
        ),
        Err(_) => super::path::unknown_enum("api_type", api_type),
    }
}

/// The service, as a state-of-the-world source.
fn grpc_service(message: pb::GrpcService) -> Result<ApiConfigSource> {
    use pb::grpc_service::{EnvoyGrpc, TargetSpecifier};
    let pb::GrpcService {
        timeout: _,
        initial_metadata,
        retry_policy: _,
        target_specifier,
    } = message;
    let EnvoyGrpc {
        cluster_name,
        authority,
        retry_policy,
        max_receive_message_length: _,
        skip_envoy_headers: _,
    } = match required("target_specifier", target_specifier)? {
        TargetSpecifier::EnvoyGrpc(message) => message,
        TargetSpecifier::GoogleGrpc(_) => return refuse("google_grpc", "is not supported"),
    };
    if cluster_name.is_empty() {
        return refuse("cluster_name", "value length must be at least 1 characters")
            .within("envoy_grpc");
    }
    Ok(ApiConfigSource {
        delta: false,
        cluster: cluster_name.into(),
        authority: non_empty(authority),
        initial_metadata: each("initial_metadata", initial_metadata, metadata_field)?,
        set_node_on_first_message_only: false,
        retry_back_off: optional("envoy_grpc", retry_policy, |message| {
            retry_policy_back_off(message).within("retry_policy")
        })?
        .unwrap_or(BackOffConfig {
            base: defaults::XDS_RETRY_BASE,
            max: defaults::XDS_RETRY_MAX,
        }),
    })
}

fn metadata_field(message: pb::HeaderValue) -> Result<(Arc<str>, Arc<str>)> {
    let pb::HeaderValue {
        key,
        value,
        raw_value,
    } = message;
    header_name(&key).within("key")?;
    if !raw_value.is_empty() {
        return refuse("raw_value", "is not supported");
    }
    Ok((key.to_ascii_lowercase().into(), value.into()))
}

/// The back-off between two streams; nothing else of the policy concerns one.
fn retry_policy_back_off(message: pb::RetryPolicy) -> Result<BackOffConfig> {
    let pb::RetryPolicy {
        retry_back_off,
        num_retries: _,
        retry_on: _,
        retry_priority: _,
        retry_host_predicate: _,
        host_selection_retry_max_attempts: _,
    } = message;
    let pb::BackoffStrategy {
        base_interval,
        max_interval,
    } = retry_back_off.unwrap_or_default();
    let base = duration_or("base_interval", base_interval, defaults::XDS_RETRY_BASE)?;
    let max = duration_or(
        "max_interval",
        max_interval,
        defaults::XDS_RETRY_MAX.max(base),
    )?;
    back_off(base, max).within("retry_back_off")
}

/// A pair of intervals that makes sense.
pub(super) fn back_off(base: Duration, max: Duration) -> Result<BackOffConfig> {
    if base.is_zero() {
        return refuse("base_interval", "must be at least 1 ms");
    }
    if max < base {
        return refuse("max_interval", "must be at least the base_interval");
    }
    Ok(BackOffConfig { base, max })
}
