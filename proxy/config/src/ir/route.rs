//! Routes (`RouteConfiguration`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use filter_api::{RouteFilterConfig, RuntimeFraction};
use outrigger_types::{HeaderKey, HeaderName, Metadata, StatusCode};

use super::{BodyFormat, HeaderMutations, RetryOn, RoutingPriority};
use crate::format::Format;
use crate::matcher::{HeaderMatcher, QueryParameterMatcher};
use crate::re2::{Regex, Substitution};

/// A route configuration.
#[derive(Debug)]
pub struct RouteTableConfig {
    /// Its name.
    pub name: Arc<str>,
    /// The virtual hosts in order.
    pub virtual_hosts: Vec<Arc<VirtualHostConfig>>,
    /// Mutations of the request, the least specific.
    pub request_headers: HeaderMutations,
    /// Mutations of the response.
    pub response_headers: HeaderMutations,
    /// Fields removed from requests that are not internal.
    pub internal_only_headers: Vec<HeaderName>,
    /// Refuse the table if a cluster is unknown. Default true for a table within
    /// an HCM, false for one of RDS.
    pub validate_clusters: bool,
    /// Mutations are applied from the least to the most specific (route
    /// configuration, virtual host, route); else the other way round.
    pub most_specific_header_mutations_wins: bool,
    /// Per-filter overrides, the least specific.
    pub filter_overrides: FilterOverrides,
    /// Match domains without the port.
    pub ignore_port_in_host_matching: bool,
    /// Match paths without `;parameters`.
    pub ignore_path_parameters_in_path_matching: bool,
    /// Use this field instead of the authority to choose the virtual host.
    pub vhost_header: Option<HeaderName>,
    /// Metadata.
    pub metadata: Option<Arc<Metadata>>,
}

/// Per-filter overrides by the filter's name.
pub type FilterOverrides = BTreeMap<Arc<str>, FilterOverride>;

/// An override of one filter.
#[derive(Clone)]
pub struct FilterOverride {
    /// Leave the filter out.
    pub disabled: bool,
    /// The filter's own override; none for only turning it on or off.
    pub config: Option<RouteFilterConfig>,
}

impl std::fmt::Debug for FilterOverride {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FilterOverride")
            .field("disabled", &self.disabled)
            .field("config", &self.config.is_some())
            .finish()
    }
}

/// A virtual host.
#[derive(Debug)]
pub struct VirtualHostConfig {
    /// Its name.
    pub name: Arc<str>,
    /// Domains: exact, `*.suffix`, `prefix.*` or `*`; lower case.
    pub domains: Vec<Box<str>>,
    /// The routes in order.
    pub routes: Vec<Arc<RouteConfig>>,
    /// Redirect plain text to TLS.
    pub require_tls: TlsRequirement,
    /// Mutations of the request.
    pub request_headers: HeaderMutations,
    /// Mutations of the response.
    pub response_headers: HeaderMutations,
    /// Write `x-envoy-attempt-count` upstream.
    pub include_request_attempt_count: bool,
    /// Write `x-envoy-attempt-count` downstream.
    pub include_attempt_count_in_response: bool,
    /// Write `x-envoy-is-timeout-retry` upstream.
    pub include_is_timeout_retry_header: bool,
    /// Retries where the route has no policy of its own.
    pub retry_policy: Option<Arc<RetryPolicyConfig>>,
    /// Bytes buffered for a retry; none for the connection's limit.
    pub request_body_buffer_limit: Option<u64>,
    /// Classes of requests that are counted apart; none where there are none.
    pub virtual_clusters: Option<VirtualClusters>,
    /// Per-filter overrides.
    pub filter_overrides: FilterOverrides,
    /// Metadata.
    pub metadata: Option<Arc<Metadata>>,
}

/// The virtual clusters of a virtual host.
#[derive(Debug)]
pub struct VirtualClusters {
    /// In order; the first that matches counts the request.
    pub list: Vec<VirtualClusterConfig>,
    /// The one of requests that none of them matches, `vhost.V.vcluster.other.`.
    pub other: VirtualClusterConfig,
}

/// `VirtualCluster`
#[derive(Debug)]
pub struct VirtualClusterConfig {
    /// Its name, for logs; the one of the rest has none.
    pub name: Option<Arc<str>>,
    /// Where it is counted, `vhost.V.vcluster.C.`.
    pub stat_scope: Arc<str>,
    /// All must match.
    pub headers: Vec<HeaderMatcher>,
}

/// `TlsRequirementType`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TlsRequirement {
    /// NONE
    #[default]
    None,
    /// EXTERNAL_ONLY
    ExternalOnly,
    /// ALL
    All,
}

/// One route.
#[derive(Debug)]
pub struct RouteConfig {
    /// Its name; may be empty.
    pub name: Arc<str>,
    /// Which requests.
    pub matches: RouteMatchConfig,
    /// What becomes of them.
    pub action: RouteActionConfig,
    /// Mutations of the request, the most specific.
    pub request_headers: HeaderMutations,
    /// Mutations of the response.
    pub response_headers: HeaderMutations,
    /// Bytes buffered for a retry.
    pub request_body_buffer_limit: Option<u64>,
    /// Where its requests are counted apart, `vhost.V.route.S.`; none for nowhere.
    pub stat_scope: Option<Arc<str>>,
    /// Operation name for spans.
    pub decorator: Option<DecoratorConfig>,
    /// Per-filter overrides.
    pub filter_overrides: FilterOverrides,
    /// Metadata.
    pub metadata: Option<Arc<Metadata>>,
}

/// `Decorator`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecoratorConfig {
    /// The operation.
    pub operation: Arc<str>,
    /// Write it upstream too. Default true.
    pub propagate: bool,
}

/// Which requests a route takes (`RouteMatch`).
#[derive(Debug)]
pub struct RouteMatchConfig {
    /// By path.
    pub path: PathMatchConfig,
    /// Case counts. Default true.
    pub case_sensitive: bool,
    /// A share of them.
    pub runtime_fraction: Option<RuntimeFraction>,
    /// All must match.
    pub headers: Vec<HeaderMatcher>,
    /// All must match.
    pub query_parameters: Vec<QueryParameterMatcher>,
    /// Only gRPC.
    pub grpc: bool,
    /// Only where the TLS peer presented (true) or did not present a certificate.
    pub tls_presented: Option<bool>,
    /// Only where the TLS peer's certificate was (not) validated.
    pub tls_validated: Option<bool>,
}

/// How a path is matched; the query is left out.
#[derive(Debug)]
pub enum PathMatchConfig {
    /// Begins with.
    Prefix(Box<str>),
    /// Equals.
    Exact(Box<str>),
    /// Matches in full.
    Regex(Regex),
    /// Equals, or begins with it and a `/`.
    PathSeparatedPrefix(Box<str>),
    /// CONNECT.
    Connect,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum RouteActionConfig {
    /// It goes upstream.
    Forward(Box<ForwardConfig>),
    /// It is redirected.
    Redirect(Box<RedirectConfig>),
    /// It is answered here.
    DirectResponse {
        /// The status.
        status: StatusCode,
        /// The body.
        body: Bytes,
        /// Makes the body of it, if there is one.
        format: Option<Box<BodyFormat>>,
    },
}

/// Upstream (`RouteAction`).
#[derive(Debug)]
pub struct ForwardConfig {
    /// Which cluster.
    pub cluster: ClusterSpecifier,
    /// The answer when the cluster is unknown. Default 503.
    pub cluster_not_found: StatusCode,
    /// Replaces the matched prefix.
    pub prefix_rewrite: Option<Box<str>>,
    /// Rewrites the path by a regex.
    pub regex_rewrite: Option<RegexRewrite>,
    /// Rewrites the authority.
    pub host_rewrite: HostRewrite,
    /// Write the old host to `x-forwarded-host`.
    pub append_x_forwarded_host: bool,
    /// Whole response; none for any time. Default 15 s.
    pub timeout: Option<Duration>,
    /// Pause between bytes; none takes the HCM's, zero turns it off.
    pub idle_timeout: Option<Duration>,
    /// Life of the stream and the rules of `grpc-timeout`.
    pub max_stream_duration: Option<MaxStreamDuration>,
    /// Retries; none takes the virtual host's.
    pub retry_policy: Option<Arc<RetryPolicyConfig>>,
    /// Which breakers count.
    pub priority: RoutingPriority,
    /// Upgrades turned on or off here.
    pub upgrades: BTreeMap<Box<str>, bool>,
    /// CONNECT ends here: what follows it goes to the upstream as raw TCP
    /// (`connect_config`).
    pub terminates_connect: bool,
    /// Deprecated `max_grpc_timeout`: take `grpc-timeout`, at most this (zero:
    /// any). None ignores the field.
    pub max_grpc_timeout: Option<Duration>,
    /// Taken off a `grpc-timeout` (deprecated `grpc_timeout_offset`).
    pub grpc_timeout_offset: Option<Duration>,
}

/// `MaxStreamDuration`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MaxStreamDuration {
    /// Life of the stream; zero for any, none for the HCM's.
    pub max_stream_duration: Option<Duration>,
    /// Take `grpc-timeout`, at most this; zero for any.
    pub grpc_timeout_header_max: Option<Duration>,
    /// Taken off it.
    pub grpc_timeout_header_offset: Option<Duration>,
}

/// Which cluster.
#[derive(Debug)]
pub enum ClusterSpecifier {
    /// This one.
    Cluster(Arc<str>),
    /// The one that a field names.
    Header(HeaderKey),
    /// One of these, by weight.
    Weighted(WeightedClusters),
}

/// Clusters by weight.
#[derive(Debug)]
pub struct WeightedClusters {
    /// The clusters.
    pub clusters: Vec<WeightedCluster>,
    /// Sum of the weights, over 0.
    pub total: u32,
    /// Runtime prefix; `<prefix>.<name>` overrides a weight.
    pub runtime_key_prefix: Option<Box<str>>,
    /// Take the random number from this field.
    pub random_value_header: Option<HeaderName>,
}

/// One cluster of several.
#[derive(Debug)]
pub struct WeightedCluster {
    /// Which: a name, or the field that names it.
    pub cluster: WeightedClusterName,
    /// Its weight.
    pub weight: u32,
    /// Mutations of the request, more specific than the route's.
    pub request_headers: HeaderMutations,
    /// Mutations of the response.
    pub response_headers: HeaderMutations,
    /// Per-filter overrides, more specific than the route's.
    pub filter_overrides: FilterOverrides,
    /// Replaces the authority.
    pub host_rewrite_literal: Option<Arc<str>>,
}

/// A name, or the field that names it.
#[derive(Clone, Debug)]
pub enum WeightedClusterName {
    /// A name.
    Name(Arc<str>),
    /// The field that names it.
    Header(HeaderName),
}

/// Rewrites by a regex (`RegexMatchAndSubstitute`).
#[derive(Clone, Debug)]
pub struct RegexRewrite {
    /// What is replaced, wherever it is found.
    pub pattern: Regex,
    /// RE2's replacement, `\1` for groups.
    pub substitution: Substitution,
}

/// How the authority is rewritten.
#[derive(Clone, Debug)]
pub enum HostRewrite {
    /// Not at all.
    None,
    /// To this.
    Literal(Arc<str>),
    /// To the hostname of the chosen host (DNS clusters).
    Auto,
    /// To the value of a field.
    Header(HeaderName),
    /// To the path after a regex.
    PathRegex(RegexRewrite),
    /// To a format's value.
    Format(Format),
}

/// Redirects (`RedirectAction`).
#[derive(Debug)]
pub struct RedirectConfig {
    /// The status. Default 301.
    pub status: StatusCode,
    /// `https` or another scheme.
    pub scheme: Option<SchemeRedirect>,
    /// Another host.
    pub host: Option<Arc<str>>,
    /// Another port; none keeps it.
    pub port: Option<u32>,
    /// Another path.
    pub path: PathRedirect,
    /// Drop the query.
    pub strip_query: bool,
}

/// The scheme of a redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemeRedirect {
    /// `https`, and the default port of HTTP dropped.
    Https,
    /// This.
    Scheme(Arc<str>),
}

/// The path of a redirect.
#[derive(Clone, Debug)]
pub enum PathRedirect {
    /// The same.
    Keep,
    /// This; may hold a query.
    Path(Arc<str>),
    /// The matched prefix replaced.
    Prefix(Box<str>),
    /// By a regex.
    Regex(RegexRewrite),
}

/// The retry policy (`RetryPolicy`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicyConfig {
    /// Conditions.
    pub retry_on: RetryOn,
    /// Retries beside the first attempt. Default 1.
    pub num_retries: u32,
    /// Time of one attempt; none for the route's.
    pub per_try_timeout: Option<Duration>,
    /// Pause between bytes within one attempt.
    pub per_try_idle_timeout: Option<Duration>,
    /// Statuses for `retriable-status-codes`.
    pub retriable_status_codes: Vec<u16>,
    /// Fields of the response for `retriable-headers`.
    pub retriable_headers: Vec<HeaderMatcher>,
    /// Retry only requests with one of these.
    pub retriable_request_headers: Vec<HeaderMatcher>,
    /// Base 25 ms, longest ten times the base.
    pub back_off: super::BackOffConfig,
    /// Back-off as the upstream's fields say.
    pub rate_limited_back_off: Option<RateLimitedBackOff>,
    /// Do not choose a host that was tried (`previous_hosts`).
    pub avoid_previous_hosts: bool,
    /// Do not choose a host that its metadata calls canary (`omit_canary_hosts`).
    pub avoid_canary_hosts: bool,
    /// Prefer priorities not tried yet (`previous_priorities`), reset after so
    /// many attempts.
    pub previous_priorities: Option<u32>,
    /// Choices of a host before any is taken. Default 1.
    pub host_selection_retry_max_attempts: u32,
}

/// Back-off as the upstream's fields say (`RateLimitedRetryBackOff`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimitedBackOff {
    /// Fields to look at, in order.
    pub reset_headers: Vec<(HeaderName, ResetHeaderFormat)>,
    /// Longest interval. Default 300 s.
    pub max_interval: Duration,
}

/// How a reset field is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetHeaderFormat {
    /// Seconds from now.
    Seconds,
    /// Unix time.
    UnixTimestamp,
}
