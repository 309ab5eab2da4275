//! Configuration of the fault filter.

use std::sync::Arc;
use std::time::Duration;

use filter_api::{
    ConfigError, FactoryContext, FractionalPercent, HttpFilterConfig, RouteFilterConfig,
};
use outrigger_config::convert;
use outrigger_config::matcher::HeaderMatcher;
use outrigger_types::Metadata;
use xds_api::pb::envoy::config::core::v3 as core;
use xds_api::pb::envoy::extensions::filters::common::fault::v3 as common;
use xds_api::pb::envoy::extensions::filters::http::fault::v3 as pb;
use xds_api::pb::envoy::r#type::v3::FractionalPercent as PercentMessage;
use xds_api::pb::google::protobuf::Duration as DurationMessage;

use super::Fault;
use crate::registry::decode;

pub(crate) const MESSAGE: &str = "envoy.extensions.filters.http.fault.v3.HTTPFault";
/// Where a fault leaves its metadata.
pub(super) const NAMESPACE: &str = "envoy.filters.http.fault";

/// What is injected, and into which requests.
#[derive(Clone, Debug)]
pub(super) struct FaultConfig {
    pub(super) delay: Option<Delay>,
    pub(super) abort: Option<Abort>,
    pub(super) rate_limit: Option<RateLimit>,
    /// Only requests to this cluster, if it is not empty.
    pub(super) upstream_cluster: Box<str>,
    pub(super) headers: Vec<HeaderMatcher>,
    /// Only requests of these nodes, if there is one.
    pub(super) downstream_nodes: Vec<Box<str>>,
    /// Most requests with a fault at a time, over all workers.
    pub(super) max_active: Option<u64>,
    pub(super) keys: RuntimeKeys,
    pub(super) cluster_stats: bool,
    pub(super) metadata: Option<Arc<Metadata>>,
}

#[derive(Clone, Debug)]
pub(super) struct Delay {
    /// None: the request says how long.
    pub(super) fixed: Option<Duration>,
    pub(super) percentage: FractionalPercent,
}

#[derive(Clone, Debug)]
pub(super) struct RateLimit {
    /// KiB a second; none: the request says how many.
    pub(super) fixed: Option<u64>,
    pub(super) percentage: FractionalPercent,
}

#[derive(Clone, Debug)]
pub(super) struct Abort {
    pub(super) with: AbortWith,
    pub(super) percentage: FractionalPercent,
    pub(super) body: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AbortWith {
    Http(u16),
    Grpc(u32),
    /// The request says with what.
    Header,
}

/// Keys of the runtime that override the configuration.
#[derive(Clone, Debug)]
pub(super) struct RuntimeKeys {
    pub(super) delay_percent: Box<str>,
    pub(super) delay_duration: Box<str>,
    pub(super) abort_percent: Box<str>,
    pub(super) abort_http_status: Box<str>,
    pub(super) abort_grpc_status: Box<str>,
    pub(super) max_active: Box<str>,
    pub(super) rate_limit_percent: Box<str>,
}

pub(crate) fn filter(
    bytes: &[u8],
    cx: &FactoryContext,
) -> Result<Arc<dyn HttpFilterConfig>, ConfigError> {
    let config = fault(decode(MESSAGE, bytes)?)?;
    Ok(Arc::new(Fault::new(Arc::new(config), &cx.stat_prefix)))
}

pub(crate) fn route(bytes: &[u8]) -> Result<RouteFilterConfig, ConfigError> {
    Ok(Arc::new(RouteFault(Arc::new(fault(decode(
        MESSAGE, bytes,
    )?)?))))
}

/// A route's override.
pub(super) struct RouteFault(pub(super) Arc<FaultConfig>);

fn fault(message: pb::HttpFault) -> Result<FaultConfig, ConfigError> {
    let pb::HttpFault {
        delay: delay_message,
        abort: abort_message,
        upstream_cluster,
        headers,
        downstream_nodes,
        max_active_faults,
        response_rate_limit,
        response_rate_limit_percent_runtime,
        delay_percent_runtime,
        abort_percent_runtime,
        delay_duration_runtime,
        abort_http_status_runtime,
        max_active_faults_runtime,
        abort_grpc_status_runtime,
        disable_downstream_cluster_stats,
        filter_metadata,
    } = message;
    let key = |name: String, default: &str| match name.is_empty() {
        true => default.into(),
        false => name.into(),
    };
    let delay_message = delay_message.map(delay).transpose();
    let abort_message = abort_message.map(abort).transpose();
    let rate_limit = response_rate_limit.map(rate_limit).transpose();
    Ok(FaultConfig {
        delay: delay_message.map_err(|error| error.within("delay"))?,
        abort: abort_message.map_err(|error| error.within("abort"))?,
        rate_limit: rate_limit.map_err(|error| error.within("response_rate_limit"))?,
        upstream_cluster: upstream_cluster.into(),
        headers: convert::headers("headers", headers)?,
        downstream_nodes: downstream_nodes.into_iter().map(Into::into).collect(),
        max_active: max_active_faults.map(|max| max.value.into()),
        keys: RuntimeKeys {
            delay_percent: key(
                delay_percent_runtime,
                "fault.http.delay.fixed_delay_percent",
            ),
            delay_duration: key(delay_duration_runtime, "fault.http.delay.fixed_duration_ms"),
            abort_percent: key(abort_percent_runtime, "fault.http.abort.abort_percent"),
            abort_http_status: key(abort_http_status_runtime, "fault.http.abort.http_status"),
            abort_grpc_status: key(abort_grpc_status_runtime, "fault.http.abort.grpc_status"),
            max_active: key(max_active_faults_runtime, "fault.http.max_active_faults"),
            rate_limit_percent: key(
                response_rate_limit_percent_runtime,
                "fault.http.rate_limit.response_percent",
            ),
        },
        cluster_stats: !disable_downstream_cluster_stats,
        metadata: filter_metadata.and_then(|fields| {
            convert::metadata(Some(core::Metadata {
                filter_metadata: [(NAMESPACE.to_owned(), fields)].into(),
                ..core::Metadata::default()
            }))
        }),
    })
}

fn percentage(message: Option<PercentMessage>) -> Result<FractionalPercent, ConfigError> {
    message.map_or(Ok(FractionalPercent::ZERO), |message| {
        convert::fraction(message).map_err(|error| error.within("percentage"))
    })
}

fn delay(message: common::FaultDelay) -> Result<Delay, ConfigError> {
    use common::fault_delay::FaultDelaySecifier as Kind;
    let common::FaultDelay {
        percentage: share,
        fault_delay_secifier,
    } = message;
    let fixed = match fault_delay_secifier {
        Some(Kind::FixedDelay(fixed)) => Some(
            positive(fixed)
                .ok_or_else(|| ConfigError::field("fixed_delay", "must be greater than 0"))?,
        ),
        Some(Kind::HeaderDelay(common::fault_delay::HeaderDelay {})) => None,
        None => return Err(ConfigError::field("fault_delay_secifier", "is required")),
    };
    Ok(Delay {
        fixed,
        percentage: percentage(share)?,
    })
}

fn rate_limit(message: common::FaultRateLimit) -> Result<RateLimit, ConfigError> {
    use common::fault_rate_limit::{FixedLimit, HeaderLimit, LimitType};
    let common::FaultRateLimit {
        percentage: share,
        limit_type,
    } = message;
    let fixed = match limit_type {
        Some(LimitType::FixedLimit(FixedLimit { limit_kbps: 0 })) => {
            return Err(
                ConfigError::field("limit_kbps", "must be at least 1").within("fixed_limit")
            );
        }
        Some(LimitType::FixedLimit(FixedLimit { limit_kbps })) => Some(limit_kbps),
        Some(LimitType::HeaderLimit(HeaderLimit {})) => None,
        None => return Err(ConfigError::field("limit_type", "is required")),
    };
    Ok(RateLimit {
        fixed,
        percentage: percentage(share)?,
    })
}

fn positive(message: DurationMessage) -> Option<Duration> {
    let DurationMessage { seconds, nanos } = message;
    let duration = Duration::new(seconds.try_into().ok()?, nanos.try_into().ok()?);
    (!duration.is_zero()).then_some(duration)
}

fn abort(message: pb::FaultAbort) -> Result<Abort, ConfigError> {
    use pb::fault_abort::ErrorType as Kind;
    let pb::FaultAbort {
        percentage: share,
        response_body,
        error_type,
    } = message;
    let with = match error_type {
        Some(Kind::HttpStatus(status)) => AbortWith::Http(
            u16::try_from(status)
                .ok()
                .filter(|s| (200..600).contains(s))
                .ok_or_else(|| ConfigError::field("http_status", "must be in 200..600"))?,
        ),
        Some(Kind::GrpcStatus(status)) => AbortWith::Grpc(status),
        Some(Kind::HeaderAbort(pb::fault_abort::HeaderAbort {})) => AbortWith::Header,
        None => return Err(ConfigError::field("error_type", "is required")),
    };
    Ok(Abort {
        with,
        percentage: percentage(share)?,
        body: (!response_body.is_empty()).then(|| response_body.into()),
    })
}
