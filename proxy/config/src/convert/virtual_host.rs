//! Virtual hosts and their routes.

use std::sync::Arc;

use bytes::Bytes;

use super::body::{body_format, data_source};
use super::filters::overrides;
use super::forward::forward;
use super::header_mutation::mutations;
use super::matcher::{headers, regex_rewrite};
use super::path::{
    Within, bool_or, each, non_empty, optional, refuse, required, status, unknown_enum,
};
use super::retry::retry_policy;
use super::route_match::route_match;
use super::structure::metadata;
use super::{ConvertContext, Result};
use crate::ir::{
    DecoratorConfig, PathMatchConfig, PathRedirect, RedirectConfig, RouteActionConfig, RouteConfig,
    SchemeRedirect, TlsRequirement, VirtualClusterConfig, VirtualClusters, VirtualHostConfig,
};
use crate::pb::envoy::config::route::v3 as pb;
use crate::pb::google::protobuf as wkt;

/// Converts a virtual host. `max_body` bounds the bodies of direct responses.
pub(super) fn virtual_host(
    message: pb::VirtualHost,
    max_body: u32,
    cx: &ConvertContext<'_>,
) -> Result<VirtualHostConfig> {
    let pb::VirtualHost {
        name,
        domains,
        routes,
        matcher: _,
        require_tls,
        virtual_clusters: virtual_cluster_messages,
        rate_limits: _,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        cors: _,
        typed_per_filter_config,
        include_request_attempt_count,
        include_attempt_count_in_response,
        retry_policy: retry,
        retry_policy_typed_config: _,
        hedge_policy: _,
        include_is_timeout_retry_header,
        per_request_buffer_limit_bytes,
        request_body_buffer_limit,
        request_mirror_policies: _,
        metadata: metadata_message,
        route_specifiers: _,
    } = message;
    if name.is_empty() {
        return refuse("name", "value length must be at least 1 characters");
    }
    if domains.is_empty() {
        return refuse("domains", "value must contain at least 1 item(s)");
    }
    Ok(VirtualHostConfig {
        // Domains are compared without regard to case.
        domains: domains
            .into_iter()
            .map(|domain| domain.to_ascii_lowercase().into())
            .collect(),
        routes: each("routes", routes, |message| {
            route(message, &name, max_body, cx).map(Arc::new)
        })?,
        require_tls: tls_requirement(require_tls)?,
        request_headers: mutations("request", request_headers_to_add, request_headers_to_remove)?,
        response_headers: mutations(
            "response",
            response_headers_to_add,
            response_headers_to_remove,
        )?,
        include_request_attempt_count,
        include_attempt_count_in_response,
        include_is_timeout_retry_header,
        retry_policy: optional("retry_policy", retry, retry_policy)?,
        request_body_buffer_limit: body_limit(
            per_request_buffer_limit_bytes,
            request_body_buffer_limit,
        ),
        virtual_clusters: virtual_clusters(virtual_cluster_messages, &name)?,
        filter_overrides: overrides(typed_per_filter_config, cx)?,
        metadata: metadata(metadata_message),
        name: name.into(),
    })
}

fn virtual_clusters(
    messages: Vec<pb::VirtualCluster>,
    vhost: &str,
) -> Result<Option<VirtualClusters>> {
    let counted_as = |name: &str| VirtualClusterConfig {
        name: None,
        headers: Vec::new(),
        stat_scope: format!("vhost.{vhost}.vcluster.{name}.").into(),
    };
    if messages.is_empty() {
        return Ok(None);
    }
    let list = each("virtual_clusters", messages, |message| {
        let pb::VirtualCluster {
            headers: header_messages,
            name,
        } = message;
        if header_messages.is_empty() {
            return refuse("headers", "virtual clusters must define 'headers'");
        }
        Ok(VirtualClusterConfig {
            headers: headers("headers", header_messages)?,
            name: Some(name.as_str().into()),
            ..counted_as(&name)
        })
    })?;
    Ok(Some(VirtualClusters {
        list,
        other: counted_as("other"),
    }))
}

fn tls_requirement(number: i32) -> Result<TlsRequirement> {
    use pb::virtual_host::TlsRequirementType as Type;
    match Type::try_from(number) {
        Ok(Type::None) => Ok(TlsRequirement::None),
        Ok(Type::ExternalOnly) => Ok(TlsRequirement::ExternalOnly),
        Ok(Type::All) => Ok(TlsRequirement::All),
        Err(_) => unknown_enum("require_tls", number),
    }
}

/// The limit on what is buffered: the newer of the two fields wins.
fn body_limit(old: Option<wkt::UInt32Value>, new: Option<wkt::UInt64Value>) -> Option<u64> {
    new.map(|n| n.value).or(old.map(|n| n.value.into()))
}

fn route(
    message: pb::Route,
    vhost: &str,
    max_body: u32,
    cx: &ConvertContext<'_>,
) -> Result<RouteConfig> {
    let pb::Route {
        name,
        r#match,
        metadata: metadata_message,
        decorator: decorator_message,
        typed_per_filter_config,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        tracing: _,
        per_request_buffer_limit_bytes,
        stat_prefix,
        request_body_buffer_limit,
        route_specifiers: _,
        action,
    } = message;
    let matches = route_match(required("match", r#match)?).within("match")?;
    let action = route_action(required("action", action)?, &matches.path, max_body, cx)?;
    Ok(RouteConfig {
        name: name.into(),
        matches,
        action,
        request_headers: mutations("request", request_headers_to_add, request_headers_to_remove)?,
        response_headers: mutations(
            "response",
            response_headers_to_add,
            response_headers_to_remove,
        )?,
        request_body_buffer_limit: body_limit(
            per_request_buffer_limit_bytes,
            request_body_buffer_limit,
        ),
        stat_scope: (!stat_prefix.is_empty())
            .then(|| format!("vhost.{vhost}.route.{stat_prefix}.").into()),
        decorator: optional("decorator", decorator_message, decorator)?,
        filter_overrides: overrides(typed_per_filter_config, cx)?,
        metadata: metadata(metadata_message),
    })
}

fn decorator(message: pb::Decorator) -> Result<DecoratorConfig> {
    let pb::Decorator {
        operation,
        propagate,
    } = message;
    if operation.is_empty() {
        return refuse("operation", "value length must be at least 1 characters");
    }
    Ok(DecoratorConfig {
        operation: operation.into(),
        propagate: bool_or(propagate, true),
    })
}

fn route_action(
    action: pb::route::Action,
    path: &PathMatchConfig,
    max_body: u32,
    cx: &ConvertContext<'_>,
) -> Result<RouteActionConfig> {
    use pb::route::Action;
    match action {
        Action::Route(message) => forward(message, path, cx)
            .map(|config| RouteActionConfig::Forward(Box::new(config)))
            .within("route"),
        Action::Redirect(message) => redirect(message)
            .map(|config| RouteActionConfig::Redirect(Box::new(config)))
            .within("redirect"),
        Action::DirectResponse(message) => {
            direct_response(message, max_body).within("direct_response")
        }
        Action::FilterAction(_) => refuse("filter_action", "is not supported"),
        Action::NonForwardingAction(_) => refuse("non_forwarding_action", "is not supported"),
    }
}

fn direct_response(message: pb::DirectResponseAction, max_body: u32) -> Result<RouteActionConfig> {
    let pb::DirectResponseAction {
        status: code,
        body,
        body_format: format,
    } = message;
    if !(200..600).contains(&code) {
        return refuse("status", "value must be inside range [200, 600)");
    }
    let limit = usize::try_from(max_body).unwrap_or(usize::MAX);
    let body = optional("body", body, |source| data_source(source, limit))?;
    Ok(RouteActionConfig::DirectResponse {
        status: status(code).within("status")?,
        body: body.unwrap_or_else(Bytes::new),
        format: optional("body_format", format, body_format)?.map(Box::new),
    })
}

fn redirect(message: pb::RedirectAction) -> Result<RedirectConfig> {
    use pb::redirect_action::{RedirectResponseCode as Code, SchemeRewriteSpecifier as Scheme};
    let pb::RedirectAction {
        host_redirect,
        port_redirect,
        response_code,
        strip_query,
        scheme_rewrite_specifier,
        path_rewrite_specifier,
    } = message;
    let code = match Code::try_from(response_code) {
        Ok(Code::MovedPermanently) => 301,
        Ok(Code::Found) => 302,
        Ok(Code::SeeOther) => 303,
        Ok(Code::TemporaryRedirect) => 307,
        Ok(Code::PermanentRedirect) => 308,
        Err(_) => return unknown_enum("response_code", response_code),
    };
    let scheme = match scheme_rewrite_specifier {
        Some(Scheme::HttpsRedirect(true)) => Some(SchemeRedirect::Https),
        Some(Scheme::SchemeRedirect(scheme)) if !scheme.is_empty() => {
            Some(SchemeRedirect::Scheme(scheme.into()))
        }
        _ => None,
    };
    Ok(RedirectConfig {
        status: status(code)?,
        scheme,
        host: non_empty(host_redirect),
        port: (port_redirect != 0).then_some(port_redirect),
        path: redirect_path(path_rewrite_specifier)?,
        strip_query,
    })
}

fn redirect_path(
    specifier: Option<pb::redirect_action::PathRewriteSpecifier>,
) -> Result<PathRedirect> {
    use pb::redirect_action::PathRewriteSpecifier as Path;
    Ok(match specifier {
        Some(Path::PathRedirect(path)) if !path.is_empty() => PathRedirect::Path(path.into()),
        Some(Path::PrefixRewrite(prefix)) if !prefix.is_empty() => {
            PathRedirect::Prefix(prefix.into())
        }
        Some(Path::RegexRewrite(message)) => {
            PathRedirect::Regex(regex_rewrite(message).within("regex_rewrite")?)
        }
        Some(Path::PathRewrite(path)) if !path.is_empty() => {
            return refuse("path_rewrite", "is not supported");
        }
        _ => PathRedirect::Keep,
    })
}
