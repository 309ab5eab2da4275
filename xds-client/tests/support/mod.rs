//! What the tests of the machine and of the driver share.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use xds_api::pb::envoy::config::cluster::v3::Cluster;
use xds_api::pb::envoy::config::core::v3::{ControlPlane, Node};
use xds_api::pb::envoy::service::discovery::v3 as pb;
use xds_api::pb::google::protobuf::{Any, Duration as PbDuration};
use xds_client::message::{Rejection, Request, Response, Variant};
use xds_client::protocol::{Action, Event, Machine, Push, Settings};
use xds_client::types;

pub(crate) fn settings(variant: Variant) -> Settings {
    Settings {
        variant,
        node: Node {
            id: "node".into(),
            ..Node::default()
        },
        node_on_first_message_only: true,
        back_off_base: Duration::from_millis(500),
        back_off_max: Duration::from_secs(30),
    }
}

pub(crate) fn machine(variant: Variant) -> Machine {
    Machine::new(settings(variant))
}

pub(crate) fn arcs(names: &[&str]) -> Vec<Arc<str>> {
    names.iter().map(|n| Arc::from(*n)).collect()
}

pub(crate) fn subscribe(url: &str, names: &[&str]) -> Event {
    Event::Subscribe {
        type_url: url.into(),
        names: arcs(names),
        fetch_timeout: None,
    }
}

pub(crate) fn unsubscribe(url: &str, names: &[&str]) -> Event {
    Event::Unsubscribe {
        type_url: url.into(),
        names: arcs(names),
    }
}

/// A resource whose bytes are those of a cluster of this name; every type has its name in field 1.
pub(crate) fn any(url: &str, name: &str, content: &str) -> Any {
    Any {
        type_url: url.into(),
        value: Cluster {
            name: name.into(),
            alt_stat_name: content.into(),
            ..Cluster::default()
        }
        .encode_to_vec(),
    }
}

/// A resource of a delta response.
pub(crate) fn resource(url: &str, name: &str, version: &str, content: &str) -> pb::Resource {
    pb::Resource {
        name: name.into(),
        version: version.into(),
        resource: Some(any(url, name, content)),
        ..pb::Resource::default()
    }
}

pub(crate) fn with_ttl(mut resource: pb::Resource, seconds: i64) -> pb::Resource {
    resource.ttl = Some(PbDuration { seconds, nanos: 0 });
    resource
}

pub(crate) fn delta(
    url: &str,
    nonce: &str,
    resources: Vec<pb::Resource>,
    removed: &[&str],
) -> Response {
    Response::Delta(Box::new(pb::DeltaDiscoveryResponse {
        system_version_info: nonce.into(),
        type_url: url.into(),
        nonce: nonce.into(),
        resources,
        removed_resources: removed.iter().map(ToString::to_string).collect(),
        control_plane: Some(ControlPlane {
            identifier: "test".into(),
        }),
        ..pb::DeltaDiscoveryResponse::default()
    }))
}

pub(crate) fn whole(url: &str, version: &str, nonce: &str, resources: Vec<Any>) -> Response {
    Response::Whole(Box::new(pb::DiscoveryResponse {
        version_info: version.into(),
        type_url: url.into(),
        nonce: nonce.into(),
        resources,
        ..pb::DiscoveryResponse::default()
    }))
}

pub(crate) fn rejected(name: &str, reason: &str) -> Event {
    Event::Validated {
        rejected: vec![Rejection {
            name: name.into(),
            reason: reason.into(),
        }],
    }
}

pub(crate) fn accepted() -> Event {
    Event::Validated {
        rejected: Vec::new(),
    }
}

/// The requests among actions, one line each.
pub(crate) fn sent(actions: &[Action]) -> Vec<String> {
    let requests = actions.iter().filter_map(|a| match a {
        Action::Send(request) => Some(line(request)),
        _ => None,
    });
    requests.collect()
}

/// A request as a line: type, what it says, whether the node is in it.
pub(crate) fn line(request: &Request) -> String {
    match request {
        Request::Whole(m) => {
            let error = m.error_detail.as_ref().map(|e| e.message.as_str());
            format!(
                "{} version={} nonce={} names={:?} error={error:?} node={}",
                short(&m.type_url),
                m.version_info,
                m.response_nonce,
                m.resource_names,
                m.node.is_some()
            )
        }
        Request::Delta(m) => {
            let error = m.error_detail.as_ref().map(|e| e.message.as_str());
            let mut held: Vec<_> = m.initial_resource_versions.iter().collect();
            held.sort();
            format!(
                "{} nonce={} +{:?} -{:?} held={held:?} error={error:?} node={}",
                short(&m.type_url),
                m.response_nonce,
                m.resource_names_subscribe,
                m.resource_names_unsubscribe,
                m.node.is_some()
            )
        }
    }
}

pub(crate) fn short(url: &str) -> &'static str {
    match url {
        types::CLUSTER => "CDS",
        types::ENDPOINTS => "EDS",
        types::LISTENER => "LDS",
        types::ROUTES => "RDS",
        _ => "?",
    }
}

/// The push among actions.
pub(crate) fn push(actions: &[Action]) -> Option<&Push> {
    actions.iter().find_map(|a| match a {
        Action::Deliver(push) => Some(push),
        _ => None,
    })
}

/// A push as lines: changed, unchanged, removed.
pub(crate) fn describe(actions: &[Action]) -> String {
    let Some(push) = push(actions) else {
        return "none".into();
    };
    let changed: Vec<&str> = push.changed.iter().map(|r| &*r.name).collect();
    format!(
        "{} changed={changed:?} unchanged={:?} removed={:?}",
        short(&push.type_url),
        push.unchanged,
        push.removed
    )
}
