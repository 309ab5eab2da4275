//! What the control plane says: one listener, one route table, two clusters and their endpoints.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy,
};
use envoy_types::pb::envoy::config::cluster::v3::{
    CircuitBreakers, Cluster, circuit_breakers::Thresholds,
};
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, Http2ProtocolOptions, SocketAddress,
    address::Address as AddressKind, socket_address::PortSpecifier,
};
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};
use envoy_types::pb::envoy::config::listener::v3::{
    Filter, FilterChain, Listener, filter::ConfigType as NetworkConfigType,
};
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::retry_policy::{
    RetryHostPredicate, retry_host_predicate::ConfigType as PredicateConfigType,
};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::config::route::v3::{
    HeaderMatcher, RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost,
    WeightedCluster,
};
use envoy_types::pb::envoy::extensions::filters::http::grpc_stats::v3::{
    FilterConfig as GrpcStats, filter_config::PerMethodStatSpecifier,
};
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_connection_manager::RouteSpecifier,
    http_filter::ConfigType as HttpConfigType,
};
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::{
    HttpProtocolOptions,
    http_protocol_options::{
        ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
    },
};
use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
use envoy_types::pb::google::protobuf::{Any, BoolValue, Duration as PbDuration, UInt32Value};
use prost::{Message, Name};

/// The cluster of version 1.
pub const V1: &str = "greeter-v1";
/// The cluster of version 2.
pub const V2: &str = "greeter-v2";
/// A request with this header goes to version 2 whatever the weights.
pub const VERSION_HEADER: &str = "x-demo-version";
/// The breaker of version 2: requests in flight.
pub const V2_MAX_REQUESTS: u32 = 20;

const LISTENER: &str = "demo";
const ROUTES: &str = "demo-routes";

/// All that the control plane knows of the mesh. What it sends is made from this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mesh {
    /// The port the proxy is to listen on.
    pub listener: u16,
    /// Weights of version 1 and version 2.
    pub weights: (u32, u32),
    /// Endpoints of version 1.
    pub v1: Vec<SocketAddr>,
    /// Endpoints of version 2.
    pub v2: Vec<SocketAddr>,
}

/// Resources of one type, by name.
pub type Resources = BTreeMap<String, Any>;

impl Mesh {
    /// The resources of a type, in the form they are sent; none for a type that is not served.
    pub fn resources(&self, type_url: &str) -> Resources {
        let listed = match type_url.rsplit('.').next().unwrap_or_default() {
            "Cluster" => vec![
                (V1, any(&cluster(V1, LbPolicy::RoundRobin, 1_000))),
                (
                    V2,
                    any(&cluster(V2, LbPolicy::LeastRequest, V2_MAX_REQUESTS)),
                ),
            ],
            "ClusterLoadAssignment" => {
                vec![
                    (V1, any(&endpoints(V1, &self.v1))),
                    (V2, any(&endpoints(V2, &self.v2))),
                ]
            }
            "Listener" => vec![(LISTENER, any(&listener(self.listener)))],
            "RouteConfiguration" => vec![(ROUTES, any(&routes(self.weights)))],
            _ => Vec::new(),
        };
        listed
            .into_iter()
            .map(|(name, any)| (name.to_owned(), any))
            .collect()
    }
}

/// The type URLs that are served, in the order in which they are pushed.
pub fn served_types() -> [String; 4] {
    [
        Cluster::type_url(),
        ClusterLoadAssignment::type_url(),
        Listener::type_url(),
        RouteConfiguration::type_url(),
    ]
}

/// What operators call the service that carries a type.
pub fn short_name(type_url: &str) -> &'static str {
    match type_url.rsplit('.').next().unwrap_or_default() {
        "Cluster" => "CDS",
        "ClusterLoadAssignment" => "EDS",
        "Listener" => "LDS",
        "RouteConfiguration" => "RDS",
        _ => "?",
    }
}

fn cluster(name: &str, policy: LbPolicy, max_requests: u32) -> Cluster {
    let http2 = HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(
            ExplicitHttpConfig {
                protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(
                    Http2ProtocolOptions::default(),
                )),
            },
        )),
        ..HttpProtocolOptions::default()
    };
    Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(ads()),
            service_name: String::new(),
        }),
        connect_timeout: Some(duration(Duration::from_secs(1))),
        lb_policy: policy.into(),
        circuit_breakers: Some(CircuitBreakers {
            thresholds: vec![breaker(max_requests)],
            ..Default::default()
        }),
        typed_extension_protocol_options: [(
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(),
            any(&http2),
        )]
        .into(),
        ..Cluster::default()
    }
}

/// Retries get room: what is shown is the breaker on requests.
fn breaker(max_requests: u32) -> Thresholds {
    Thresholds {
        max_connections: Some(number(1_000)),
        max_pending_requests: Some(number(1_000)),
        max_requests: Some(number(max_requests)),
        max_retries: Some(number(100)),
        track_remaining: true,
        ..Thresholds::default()
    }
}

fn endpoints(cluster: &str, addresses: &[SocketAddr]) -> ClusterLoadAssignment {
    let endpoint = |to: &SocketAddr| LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(address(&to.ip().to_string(), to.port())),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    };
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: addresses.iter().map(endpoint).collect(),
            ..LocalityLbEndpoints::default()
        }],
        ..ClusterLoadAssignment::default()
    }
}

fn listener(port: u16) -> Listener {
    let manager = HttpConnectionManager {
        stat_prefix: "demo".to_owned(),
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: Some(ads()),
            route_config_name: ROUTES.to_owned(),
        })),
        http_filters: vec![
            http_filter("envoy.filters.http.grpc_stats", &grpc_stats()),
            http_filter("envoy.filters.http.router", &Router::default()),
        ],
        ..HttpConnectionManager::default()
    };
    Listener {
        name: LISTENER.to_owned(),
        address: Some(address("127.0.0.1", port)),
        filter_chains: vec![FilterChain {
            filters: vec![Filter {
                name: "envoy.filters.network.http_connection_manager".to_owned(),
                config_type: Some(NetworkConfigType::TypedConfig(any(&manager))),
            }],
            ..FilterChain::default()
        }],
        ..Listener::default()
    }
}

fn grpc_stats() -> GrpcStats {
    GrpcStats {
        per_method_stat_specifier: Some(PerMethodStatSpecifier::StatsForAllMethods(BoolValue {
            value: true,
        })),
        ..GrpcStats::default()
    }
}

fn http_filter<M: Message + Name>(name: &str, config: &M) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(HttpConfigType::TypedConfig(any(config))),
        ..HttpFilter::default()
    }
}

fn routes((v1, v2): (u32, u32)) -> RouteConfiguration {
    let weight = |name: &str, weight| ClusterWeight {
        name: name.to_owned(),
        weight: Some(number(weight)),
        ..ClusterWeight::default()
    };
    let weighted = WeightedCluster {
        clusters: vec![weight(V1, v1), weight(V2, v2)],
        ..WeightedCluster::default()
    };
    RouteConfiguration {
        name: ROUTES.to_owned(),
        virtual_hosts: vec![VirtualHost {
            name: "greeter".to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![
                route(
                    vec![version_is_2()],
                    ClusterSpecifier::Cluster(V2.to_owned()),
                    None,
                ),
                route(
                    vec![],
                    ClusterSpecifier::WeightedClusters(weighted),
                    Some(retry_policy()),
                ),
            ],
            include_attempt_count_in_response: true,
            ..VirtualHost::default()
        }],
        ..RouteConfiguration::default()
    }
}

fn route(
    headers: Vec<HeaderMatcher>,
    to: ClusterSpecifier,
    retry_policy: Option<RetryPolicy>,
) -> Route {
    Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/demo.Greeter/".to_owned())),
            headers,
            ..RouteMatch::default()
        }),
        action: Some(Action::Route(RouteAction {
            cluster_specifier: Some(to),
            timeout: Some(duration(Duration::from_secs(5))),
            retry_policy,
            ..RouteAction::default()
        })),
        ..Route::default()
    }
}

fn version_is_2() -> HeaderMatcher {
    HeaderMatcher {
        name: VERSION_HEADER.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(StringMatcher {
            match_pattern: Some(MatchPattern::Exact("v2".to_owned())),
            ..StringMatcher::default()
        })),
        ..HeaderMatcher::default()
    }
}

/// What saves a call from the faulty backend and from the killed one: another attempt, on another host.
fn retry_policy() -> RetryPolicy {
    RetryPolicy {
        retry_on: "connect-failure,refused-stream,reset,unavailable".to_owned(),
        num_retries: Some(number(3)),
        retry_host_predicate: vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(PredicateConfigType::TypedConfig(any(
                &PreviousHostsPredicate::default(),
            ))),
        }],
        host_selection_retry_max_attempts: 5,
        ..RetryPolicy::default()
    }
}

fn ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(
            ConfigSourceSpecifier::Ads(AggregatedConfigSource::default()),
        ),
        ..ConfigSource::default()
    }
}

fn address(host: &str, port: u16) -> Address {
    Address {
        address: Some(AddressKind::SocketAddress(SocketAddress {
            address: host.to_owned(),
            port_specifier: Some(PortSpecifier::PortValue(u32::from(port))),
            ..SocketAddress::default()
        })),
    }
}

fn any<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: M::type_url(),
        value: message.encode_to_vec(),
    }
}

fn number(value: u32) -> UInt32Value {
    UInt32Value { value }
}

fn duration(of: Duration) -> PbDuration {
    PbDuration {
        seconds: of.as_secs() as i64,
        nanos: of.subsec_nanos() as i32,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn mesh() -> Mesh {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Mesh {
            listener: 1,
            weights: (90, 10),
            v1: vec![at(2), at(3)],
            v2: vec![at(4)],
        }
    }

    #[test]
    fn every_served_type_has_resources_of_that_type() {
        for type_url in served_types() {
            let resources = mesh().resources(&type_url);
            assert!(
                !resources.is_empty() && resources.values().all(|any| any.type_url == type_url),
                "{type_url}"
            );
            assert_ne!(short_name(&type_url), "?");
        }
        assert!(mesh().resources("type.googleapis.com/x.Y").is_empty());
    }

    #[test]
    fn weights_change_only_the_routes() {
        let shifted = Mesh {
            weights: (50, 50),
            ..mesh()
        };
        let changed = |url: &String| mesh().resources(url) != shifted.resources(url);
        let names: Vec<_> = served_types()
            .iter()
            .filter(|u| changed(u))
            .map(|u| short_name(u))
            .collect();
        assert_eq!(names, ["RDS"]);
    }
}
