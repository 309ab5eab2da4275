//! Who the proxy says it is.

use outrigger_config::ir::NodeConfig;
use prost::Message;
use xds_api::pb::envoy::config::core::v3 as pb;

use crate::version;

/// The node of the bootstrap, with what the proxy adds about itself.
pub(crate) fn node(config: &NodeConfig) -> pb::Node {
    // The message was decoded once already, when the bootstrap was read.
    let mut node = pb::Node::decode(config.message.clone()).unwrap_or_default();
    node.id = config.id.to_string();
    node.cluster = config.cluster.to_string();
    node.user_agent_name = "envoy".to_owned();
    node.user_agent_version_type = Some(version::of_node());
    node
}
