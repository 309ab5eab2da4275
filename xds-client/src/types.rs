//! Type URLs, and what the protocol holds to be true of each type.

use prost::Message;

/// Clusters (CDS).
pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// Endpoints (EDS).
pub const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
/// Listeners (LDS).
pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// Route configurations (RDS).
pub const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// Secrets (SDS).
pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// A resource with its name and TTL, around another in a state-of-the-world response.
pub(crate) const WRAPPER: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";

/// Whether a state-of-the-world response holds all resources of the type, so that what is absent is gone.
/// For the other types absence says nothing.
pub fn is_complete(type_url: &str) -> bool {
    type_url == CLUSTER || type_url == LISTENER
}

/// The gRPC method of the stream for one type alone.
pub fn method(type_url: &str, delta: bool) -> Option<&'static str> {
    let method = match (type_url, delta) {
        (CLUSTER, false) => "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters",
        (CLUSTER, true) => "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters",
        (ENDPOINTS, false) => "/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints",
        (ENDPOINTS, true) => "/envoy.service.endpoint.v3.EndpointDiscoveryService/DeltaEndpoints",
        (LISTENER, false) => "/envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners",
        (LISTENER, true) => "/envoy.service.listener.v3.ListenerDiscoveryService/DeltaListeners",
        (ROUTES, false) => "/envoy.service.route.v3.RouteDiscoveryService/StreamRoutes",
        (ROUTES, true) => "/envoy.service.route.v3.RouteDiscoveryService/DeltaRoutes",
        (SECRET, false) => "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets",
        (SECRET, true) => "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets",
        _ => return None,
    };
    Some(method)
}

/// The gRPC method of the stream for all types.
pub fn aggregated_method(delta: bool) -> &'static str {
    if delta {
        "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
    } else {
        "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
    }
}

/// Every type of resource has its name in field 1.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

/// The name inside a serialised resource.
///
/// # Errors
/// If the bytes are no message, or the name is not UTF-8.
pub(crate) fn name_of(bytes: &[u8]) -> Result<String, prost::DecodeError> {
    Named::decode(bytes).map(|named| named.name)
}
