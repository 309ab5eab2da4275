//! Choosing the virtual host and the route of a request.
//!
//! Envoy's order: exact domain, longest suffix wildcard, longest prefix
//! wildcard, `*`; then the first route of the virtual host that matches.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use filter_api::{RouteInfo, RuntimeSnapshot};
use outrigger_config::ir::{
    ClusterSpecifier, FilterOverride, ForwardConfig, PathMatchConfig, RouteActionConfig,
    RouteConfig, RouteMatchConfig, RouteTableConfig, TlsRequirement, VirtualHostConfig,
    WeightedCluster, WeightedClusterName, WeightedClusters,
};
use outrigger_stats::{Slab, Store};
use outrigger_types::{Method, RequestHead, StreamInfo, names};

use super::request_stats::{self, RequestStats};

/// A route configuration made ready for look-ups.
#[derive(Debug)]
pub struct RouteTable {
    config: Arc<RouteTableConfig>,
    exact: HashMap<Box<str>, usize>,
    /// `*.example.com`, the longest first.
    suffixes: Vec<(Box<str>, usize)>,
    /// `example.*`, the longest first.
    prefixes: Vec<(Box<str>, usize)>,
    any: Option<usize>,
    /// Keeps the stats of its virtual clusters and routes listed.
    _shown: Vec<Slab<RequestStats>>,
}

/// The route chosen for a request.
#[derive(Clone, Debug)]
pub struct RouteMatch {
    /// The table it is from; kept alive so that a request sees one
    /// configuration to its end.
    pub table: Arc<RouteTable>,
    /// The virtual host.
    pub vhost: Arc<VirtualHostConfig>,
    /// The route; none when the virtual host asks for TLS and the request came
    /// without.
    pub route: Option<Arc<RouteConfig>>,
    /// Index of the chosen one of weighted clusters.
    pub weighted: Option<usize>,
    /// The cluster that the request goes to.
    pub cluster: Option<Arc<str>>,
}

impl RouteTable {
    /// Makes a configuration ready; its stats are listed as long as it lives.
    pub fn new(config: Arc<RouteTableConfig>, store: &Store) -> Arc<Self> {
        let mut table = Self {
            exact: HashMap::new(),
            suffixes: Vec::new(),
            prefixes: Vec::new(),
            any: None,
            _shown: request_stats::shown(&config, store),
            config: config.clone(),
        };
        for (index, vhost) in config.virtual_hosts.iter().enumerate() {
            for domain in &vhost.domains {
                table.add_domain(domain, index);
            }
        }
        table
            .suffixes
            .sort_by_key(|(d, _)| std::cmp::Reverse(d.len()));
        table
            .prefixes
            .sort_by_key(|(d, _)| std::cmp::Reverse(d.len()));
        Arc::new(table)
    }

    fn add_domain(&mut self, domain: &str, index: usize) {
        if domain == "*" {
            self.any.get_or_insert(index);
        } else if let Some(suffix) = domain.strip_prefix('*') {
            self.suffixes.push((suffix.into(), index));
        } else if let Some(prefix) = domain.strip_suffix('*') {
            self.prefixes.push((prefix.into(), index));
        } else {
            self.exact.entry(domain.into()).or_insert(index);
        }
    }

    /// The configuration it was made from.
    pub fn config(&self) -> &Arc<RouteTableConfig> {
        &self.config
    }

    /// The virtual host of a request.
    pub fn virtual_host(&self, head: &RequestHead) -> Option<&Arc<VirtualHostConfig>> {
        let index = if self.exact.is_empty() && self.suffixes.is_empty() && self.prefixes.is_empty()
        {
            self.any
        } else {
            self.domain_index(head)
        };
        Some(&self.config.virtual_hosts[index?])
    }

    fn domain_index(&self, head: &RequestHead) -> Option<usize> {
        let host = match &self.config.vhost_header {
            Some(name) => head.headers.get_bytes(name).unwrap_or_default(),
            None => head.authority_bytes(),
        };
        let host = if self.config.ignore_port_in_host_matching {
            without_port(host)
        } else {
            host
        };
        let host = String::from_utf8_lossy(host).to_ascii_lowercase();
        if let Some(index) = self.exact.get(&*host) {
            return Some(*index);
        }
        let suffix = self
            .suffixes
            .iter()
            .find(|(s, _)| host.len() > s.len() && host.ends_with(&**s));
        let found = suffix.or_else(|| {
            self.prefixes
                .iter()
                .find(|(p, _)| host.len() > p.len() && host.starts_with(&**p))
        });
        found.map(|(_, index)| *index).or(self.any)
    }

    /// The route of a request; `random` is the stream's number. None where
    /// `x-forwarded-proto` is empty: Envoy looks for no route then.
    pub fn find(
        self: &Arc<Self>,
        head: &RequestHead,
        info: &StreamInfo,
        runtime: &RuntimeSnapshot,
        random: u64,
    ) -> Option<RouteMatch> {
        let proto = head.headers.get_bytes(&names::X_FORWARDED_PROTO);
        if proto.is_some_and(<[u8]>::is_empty) {
            return None;
        }
        let vhost = self.virtual_host(head)?.clone();
        if needs_tls(&vhost, head, info) {
            return Some(RouteMatch {
                table: self.clone(),
                vhost,
                route: None,
                weighted: None,
                cluster: None,
            });
        }
        let path = match_path(head, self.config.ignore_path_parameters_in_path_matching);
        let matches = |route: &&Arc<RouteConfig>| {
            route_matches(&route.matches, head, &path, info, runtime, random)
        };
        let route = vhost.routes.iter().find(matches)?.clone();
        let (weighted, cluster) = match &route.action {
            RouteActionConfig::Forward(forward) => choose_cluster(forward, head, runtime, random),
            RouteActionConfig::Redirect(_) | RouteActionConfig::DirectResponse { .. } => {
                (None, None)
            }
        };
        Some(RouteMatch {
            table: self.clone(),
            vhost,
            route: Some(route),
            weighted,
            cluster,
        })
    }
}

impl RouteMatch {
    /// What filters may see of it.
    pub fn info(&self) -> RouteInfo {
        RouteInfo {
            name: self
                .route
                .as_ref()
                .map(|r| r.name.clone())
                .unwrap_or_default(),
            virtual_host: self.vhost.name.clone(),
            cluster: self.cluster.clone(),
            metadata: self.route.as_ref().and_then(|r| r.metadata.clone()),
        }
    }

    /// The action, if the request goes upstream.
    pub fn forward(&self) -> Option<&ForwardConfig> {
        match &self.route.as_ref()?.action {
            RouteActionConfig::Forward(forward) => Some(forward),
            RouteActionConfig::Redirect(_) | RouteActionConfig::DirectResponse { .. } => None,
        }
    }

    /// The chosen one of weighted clusters.
    pub fn weighted_cluster(&self) -> Option<&WeightedCluster> {
        match &self.forward()?.cluster {
            ClusterSpecifier::Weighted(weighted) => weighted.clusters.get(self.weighted?),
            ClusterSpecifier::Cluster(_) | ClusterSpecifier::Header(_) => None,
        }
    }

    /// The most specific override of a filter.
    pub fn filter_override(&self, name: &str) -> Option<&FilterOverride> {
        self.filter_overrides(name).next()
    }

    /// Every override of a filter, the most specific first: weighted cluster, route, virtual
    /// host, route configuration.
    pub fn filter_overrides(&self, name: &str) -> impl Iterator<Item = &FilterOverride> {
        let levels = [
            self.weighted_cluster().map(|w| &w.filter_overrides),
            self.route.as_ref().map(|r| &r.filter_overrides),
            Some(&self.vhost.filter_overrides),
            Some(&self.table.config.filter_overrides),
        ];
        levels
            .into_iter()
            .flatten()
            .filter_map(move |o| o.get(name))
    }
}

/// The host without its port; IPv6 literals keep their colons.
pub fn without_port(host: &[u8]) -> &[u8] {
    let Some(colon) = host.iter().rposition(|b| *b == b':') else {
        return host;
    };
    let bracket = host.iter().rposition(|b| *b == b']');
    let is_port = host[colon + 1..].iter().all(u8::is_ascii_digit);
    let alone = bracket.is_some() || !host[..colon].contains(&b':');
    if is_port && alone && bracket.is_none_or(|b| b < colon) {
        &host[..colon]
    } else {
        host
    }
}

fn needs_tls(vhost: &VirtualHostConfig, head: &RequestHead, info: &StreamInfo) -> bool {
    let forwarded = head
        .headers
        .get_bytes(&names::X_FORWARDED_PROTO)
        .unwrap_or_default();
    let https = forwarded.eq_ignore_ascii_case(b"https");
    match vhost.require_tls {
        TlsRequirement::None => false,
        TlsRequirement::All => !https,
        TlsRequirement::ExternalOnly => !https && !info.internal_request,
    }
}

/// The path that routes see: no query, no fragment, and no `;parameters` where
/// they are ignored.
fn match_path(head: &RequestHead, ignore_parameters: bool) -> Cow<'_, [u8]> {
    let path = head.path_only();
    if !ignore_parameters || !path.contains(&b';') {
        return path.into();
    }
    let mut plain = Vec::with_capacity(path.len());
    for (index, segment) in path.split(|b| *b == b'/').enumerate() {
        if index > 0 {
            plain.push(b'/');
        }
        plain.extend_from_slice(segment.split(|b| *b == b';').next().unwrap_or_default());
    }
    plain.into()
}

fn route_matches(
    config: &RouteMatchConfig,
    head: &RequestHead,
    path: &[u8],
    info: &StreamInfo,
    runtime: &RuntimeSnapshot,
    random: u64,
) -> bool {
    path_matches(config, head, path)
        && config
            .runtime_fraction
            .as_ref()
            .is_none_or(|f| f.resolve(runtime).picks(random))
        && (!config.grpc || head.is_grpc())
        && config.headers.iter().all(|m| m.matches_request(head))
        && config.query_parameters.iter().all(|m| m.matches(head))
        && config
            .tls_presented
            .is_none_or(|wanted| wanted == info.connection.tls().is_some())
        && config
            .tls_validated
            .is_none_or(|wanted| wanted == info.connection.tls().is_some())
}

fn path_matches(config: &RouteMatchConfig, head: &RequestHead, path: &[u8]) -> bool {
    let is_connect = head.method == Method::CONNECT;
    if let PathMatchConfig::Connect = config.path {
        return is_connect;
    }
    if path.is_empty() {
        return false;
    }
    let starts = |prefix: &str| {
        let prefix = prefix.as_bytes();
        path.len() >= prefix.len()
            && if config.case_sensitive {
                path.starts_with(prefix)
            } else {
                path[..prefix.len()].eq_ignore_ascii_case(prefix)
            }
    };
    match &config.path {
        PathMatchConfig::Prefix(prefix) => starts(prefix),
        PathMatchConfig::Exact(exact) => path.len() == exact.len() && starts(exact),
        PathMatchConfig::PathSeparatedPrefix(prefix) => {
            starts(prefix) && matches!(path.get(prefix.len()), None | Some(b'/'))
        }
        PathMatchConfig::Regex(regex) => regex.is_full_match(path),
        PathMatchConfig::Connect => is_connect,
    }
}

fn choose_cluster(
    forward: &ForwardConfig,
    head: &RequestHead,
    runtime: &RuntimeSnapshot,
    random: u64,
) -> (Option<usize>, Option<Arc<str>>) {
    let text = |bytes: &[u8]| Arc::from(String::from_utf8_lossy(bytes));
    match &forward.cluster {
        ClusterSpecifier::Cluster(name) => (None, Some(name.clone())),
        ClusterSpecifier::Header(key) => (None, key.in_request(head).map(|v| text(&v))),
        ClusterSpecifier::Weighted(weighted) => {
            let index = choose_weighted(weighted, head, runtime, random);
            let name = match &weighted.clusters[index].cluster {
                WeightedClusterName::Name(name) => Some(name.clone()),
                WeightedClusterName::Header(name) => head.headers.get_bytes(name).map(text),
            };
            (Some(index), name)
        }
    }
}

/// The weights, which runtime may override, as slices of a circle; the random
/// number points at one.
fn choose_weighted(
    weighted: &WeightedClusters,
    head: &RequestHead,
    runtime: &RuntimeSnapshot,
    random: u64,
) -> usize {
    let weight = |c: &WeightedCluster| match (&weighted.runtime_key_prefix, &c.cluster) {
        (Some(prefix), WeightedClusterName::Name(name)) => {
            runtime.integer(&format!("{prefix}.{name}"), u64::from(c.weight))
        }
        _ => u64::from(c.weight),
    };
    let total = match weighted.runtime_key_prefix {
        None => u64::from(weighted.total),
        Some(_) => weighted.clusters.iter().map(weight).sum(),
    };
    if total == 0 {
        return 0;
    }
    let random = weighted
        .random_value_header
        .as_ref()
        .map_or(random, |name| {
            let value = head
                .headers
                .get_bytes(name)
                .and_then(|v| std::str::from_utf8(v).ok());
            value.and_then(|v| v.parse().ok()).unwrap_or(random)
        });
    let mut at = random % total;
    for (index, cluster) in weighted.clusters.iter().enumerate() {
        let weight = weight(cluster);
        if at < weight {
            return index;
        }
        at -= weight;
    }
    weighted.clusters.len() - 1
}
