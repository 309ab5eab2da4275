//! Clusters by weight.

use filter_api::ConfigError;

use super::filters::overrides;
use super::header_mutation::mutations;
use super::path::{Within, each, header_name, non_empty, refuse, required};
use super::{ConvertContext, Result};
use crate::ir::{WeightedCluster, WeightedClusterName, WeightedClusters};
use crate::pb::envoy::config::route::v3 as pb;
use pb::weighted_cluster as parts;

/// Converts the list; its weights must have a sum that is neither zero nor more
/// than 32 bits hold.
pub(super) fn weighted_clusters(
    message: pb::WeightedCluster,
    cx: &ConvertContext<'_>,
) -> Result<WeightedClusters> {
    let pb::WeightedCluster {
        clusters,
        total_weight: _,
        runtime_key_prefix,
        random_value_specifier,
    } = message;
    if clusters.is_empty() {
        return refuse("clusters", "value must contain at least 1 item(s)");
    }
    let clusters = each("clusters", clusters, |message| cluster(message, cx))?;
    let sum: u64 = clusters.iter().map(|c| u64::from(c.weight)).sum();
    let total = match u32::try_from(sum) {
        Ok(0) => return refuse("clusters", "the sum of weights must be greater than 0"),
        Ok(total) => total,
        Err(_) => {
            let reason = format!("the sum of weights must not exceed {}", u32::MAX);
            return refuse("clusters", reason);
        }
    };
    Ok(WeightedClusters {
        clusters,
        total,
        runtime_key_prefix: non_empty(runtime_key_prefix),
        random_value_header: match random_value_specifier {
            None => None,
            Some(parts::RandomValueSpecifier::HeaderName(name)) => {
                Some(header_name(&name).within("header_name")?)
            }
            Some(parts::RandomValueSpecifier::UseHashPolicy(wrapped)) if !wrapped.value => None,
            Some(parts::RandomValueSpecifier::UseHashPolicy(_)) => {
                return refuse("use_hash_policy", "is not supported");
            }
        },
    })
}

fn cluster(message: parts::ClusterWeight, cx: &ConvertContext<'_>) -> Result<WeightedCluster> {
    let parts::ClusterWeight {
        name,
        cluster_header,
        weight,
        metadata_match: _,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        typed_per_filter_config,
        host_rewrite_specifier,
    } = message;
    let cluster = match (name.is_empty(), cluster_header.is_empty()) {
        (false, true) => WeightedClusterName::Name(name.into()),
        (true, false) => {
            WeightedClusterName::Header(header_name(&cluster_header).within("cluster_header")?)
        }
        (true, true) => {
            return Err(ConfigError::new(
                "at least one of name or cluster_header must be set",
            ));
        }
        (false, false) => {
            return Err(ConfigError::new(
                "only one of name or cluster_header can be set",
            ));
        }
    };
    let host_rewrite_literal = host_rewrite_specifier
        .map(|parts::cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host)| host);
    Ok(WeightedCluster {
        cluster,
        weight: required("weight", weight)?.value,
        request_headers: mutations("request", request_headers_to_add, request_headers_to_remove)?,
        response_headers: mutations(
            "response",
            response_headers_to_add,
            response_headers_to_remove,
        )?,
        filter_overrides: overrides(typed_per_filter_config, cx)?,
        host_rewrite_literal: host_rewrite_literal.and_then(non_empty),
    })
}
