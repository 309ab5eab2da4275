//! Clusters whose hosts are where the connections were meant to go (ORIGINAL_DST).

use std::time::Duration;

use http::HeaderName;
use outrigger_types::names;

use super::defaults;
use super::path::{Within, each, header_name, optional, refuse, required};
use super::{Result, path};
use crate::ir::{
    DestinationHeader, DiscoveryConfig, LbPolicyConfig, MetadataPath, MetadataSegment,
    OriginalDstConfig,
};
use crate::pb::envoy::config::cluster::v3::cluster as parts;
use crate::pb::envoy::r#type::metadata::v3 as pb;
use crate::pb::google::protobuf as wkt;
use parts::{LbConfig, LbPolicy, OriginalDstLbConfig};

/// What a cluster itself says that only matters to this type.
pub(super) struct OriginalDst {
    lb_policy: i32,
    cleanup_interval: Option<wkt::Duration>,
    options: OriginalDstLbConfig,
}

impl OriginalDst {
    /// Takes `original_dst_lb_config` out of `options`, if that is what there is.
    pub(super) fn new(
        lb_policy: i32,
        cleanup_interval: Option<wkt::Duration>,
        options: &mut Option<LbConfig>,
    ) -> Self {
        let ours = options.take_if(|config| matches!(config, LbConfig::OriginalDstLbConfig(_)));
        Self {
            lb_policy,
            cleanup_interval,
            options: match ours {
                Some(LbConfig::OriginalDstLbConfig(message)) => message,
                _ => OriginalDstLbConfig::default(),
            },
        }
    }

    /// Converts a cluster of this type, which must have no endpoints.
    pub(super) fn config(self, has_endpoints: bool) -> Result<DiscoveryConfig> {
        let by_name = LbPolicy::try_from(self.lb_policy);
        if by_name != Ok(LbPolicy::ClusterProvided) {
            let name =
                by_name.map_or_else(|_| self.lb_policy.to_string(), |p| p.as_str_name().into());
            let reason = format!(
                "LB policy {name} is not valid for Cluster type ORIGINAL_DST. Only \
                 'CLUSTER_PROVIDED' is allowed with cluster type 'ORIGINAL_DST'"
            );
            return refuse("lb_policy", reason);
        }
        if has_endpoints {
            let reason = "ORIGINAL_DST clusters must have no load assignment configured";
            return refuse("load_assignment", reason);
        }
        let cleanup_interval = cleanup(self.cleanup_interval)?;
        options(self.options, cleanup_interval)
            .within("original_dst_lb_config")
            .map(DiscoveryConfig::OriginalDst)
    }
}

fn cleanup(message: Option<wkt::Duration>) -> Result<Duration> {
    let name = "cleanup_interval";
    if message.is_some_and(|d| d.seconds == 0 && d.nanos == 0) {
        return refuse(name, "value must be greater than 0s");
    }
    let interval = path::duration_or(name, message, defaults::CLEANUP_INTERVAL)?;
    // Shorter ones are cut to none at all, which would be without a pause.
    Ok(interval.max(Duration::from_millis(1)))
}

fn options(message: OriginalDstLbConfig, cleanup_interval: Duration) -> Result<OriginalDstConfig> {
    let OriginalDstLbConfig {
        use_http_header,
        http_header_name,
        upstream_port_override,
        metadata_key,
    } = message;
    if !use_http_header && !http_header_name.is_empty() {
        let reason = format!(
            "invalid config http_header_name={http_header_name} and use_http_header is false. \
             Set use_http_header to true if http_header_name is desired."
        );
        return refuse("http_header_name", reason);
    }
    let port = upstream_port_override.map(|port| u16::try_from(port.value));
    let Ok(port) = port.transpose() else {
        return refuse(
            "upstream_port_override",
            "value must be less than or equal to 65535",
        );
    };
    Ok(OriginalDstConfig {
        metadata: optional("metadata_key", metadata_key, metadata_path)?,
        header: use_http_header
            .then(|| header(&http_header_name).within("http_header_name"))
            .transpose()?,
        port,
        cleanup_interval,
    })
}

fn header(name: &str) -> Result<DestinationHeader> {
    match name {
        "" => Ok(DestinationHeader::Field(names::X_ENVOY_ORIGINAL_DST_HOST)),
        ":authority" => Ok(DestinationHeader::Authority),
        other => header_name(other).map(|name: HeaderName| match name.as_str() {
            "host" => DestinationHeader::Authority,
            _ => DestinationHeader::Field(name),
        }),
    }
}

fn metadata_path(message: pb::MetadataKey) -> Result<MetadataPath> {
    use pb::metadata_key::PathSegment;
    use pb::metadata_key::path_segment::Segment;
    let pb::MetadataKey { key, path } = message;
    if key.is_empty() {
        return refuse("key", "value length must be at least 1 characters");
    }
    if path.is_empty() {
        return refuse("path", "value must contain at least 1 item(s)");
    }
    let path = each("path", path, |PathSegment { segment }| {
        Ok(match required("segment", segment)? {
            Segment::Key(key) => MetadataSegment::Key(key.into()),
            Segment::Index(at) => MetadataSegment::Index(at as usize),
        })
    })?;
    Ok(MetadataPath {
        namespace: key.into(),
        path,
    })
}

/// A cluster of this type provides its policy, and no other does.
pub(super) fn check_policy(
    cluster: &str,
    discovery: &DiscoveryConfig,
    policy: &LbPolicyConfig,
) -> Result<()> {
    let provides = matches!(discovery, DiscoveryConfig::OriginalDst(_));
    match (provides, policy == &LbPolicyConfig::ClusterProvided) {
        (true, false) => {
            let reason = format!(
                "cluster provided LB not specified but cluster '{cluster}' provided one. Check \
                 cluster documentation."
            );
            refuse("load_balancing_policy", reason)
        }
        (false, true) => {
            let reason = format!(
                "cluster provided LB specified but cluster '{cluster}' did not provide one. \
                 Check cluster documentation."
            );
            refuse("lb_policy", reason)
        }
        (true, true) | (false, false) => Ok(()),
    }
}
