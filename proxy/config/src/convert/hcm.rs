//! The HTTP connection manager.

use std::sync::Arc;
use std::time::Duration;

use filter_api::{FractionalPercent, RuntimeFraction};

use super::access_log::access_logs;
use super::any::Typed;
use super::common::{cidr, common_http, http1, http2};
use super::filters::filters;
use super::local_reply::local_reply;
use super::matcher::percent;
use super::path::{
    Within, bool_or, duration, duration_or, each, non_empty, optional, refuse, required,
    timeout_or, u32_or, unknown_enum,
};
use super::route::{Origin, table};
use super::source::required_source;
use super::{ConvertContext, Result, defaults};
use crate::ir::{
    CidrRange, ClientCertDetails, CodecType, EscapedSlashesAction, ForwardClientCert, HcmConfig,
    RouteSource, ServerHeaderTransformation, StripPort, TracingConfig, UpgradeConfig,
};
use crate::pb::envoy::config::core::v3 as core;
use crate::pb::envoy::extensions::filters::network::http_connection_manager::v3 as pb;
use crate::pb::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use pb::http_connection_manager as parts;

/// Converts an HCM. Long because the message is: every field stands here once.
pub(super) fn hcm(
    message: pb::HttpConnectionManager,
    cx: &ConvertContext<'_>,
) -> Result<HcmConfig> {
    let pb::HttpConnectionManager {
        codec_type,
        stat_prefix,
        http_filters,
        add_user_agent,
        tracing,
        common_http_protocol_options,
        http1_safe_max_connection_duration: _,
        http_protocol_options,
        http2_protocol_options,
        http3_protocol_options: _,
        server_name,
        server_header_transformation,
        scheme_header_transformation,
        max_request_headers_kb,
        stream_idle_timeout,
        stream_flush_timeout,
        request_timeout,
        request_headers_timeout,
        drain_timeout,
        drain_timeout_jitter: _,
        delayed_close_timeout,
        access_log,
        access_log_flush_interval,
        flush_access_log_on_new_request,
        access_log_options,
        use_remote_address,
        xff_num_trusted_hops,
        original_ip_detection_extensions: _,
        early_header_mutation_extensions: _,
        internal_address_config,
        skip_xff_append,
        via,
        generate_request_id,
        preserve_external_request_id,
        always_set_request_id_in_response,
        forward_client_cert_details,
        set_current_client_cert_details,
        forward_client_cert_matcher: _,
        proxy_100_continue,
        represent_ipv4_remote_address_as_ipv4_mapped_ipv6: _,
        upgrade_configs,
        normalize_path,
        merge_slashes,
        path_with_escaped_slashes_action,
        request_id_extension,
        local_reply_config,
        strip_matching_host_port,
        stream_error_on_invalid_http_message,
        path_normalization_options: _,
        strip_trailing_host_dot,
        proxy_status_config: _,
        typed_header_validation_config: _,
        append_x_forwarded_port,
        append_local_overload: _,
        add_proxy_protocol_connection_state: _,
        forward_proto_config: _,
        route_specifier,
        strip_port_mode,
    } = message;
    let stat_prefix: Arc<str> = stat_prefix.trim_end_matches('.').into();
    if stat_prefix.is_empty() {
        return refuse("stat_prefix", "value length must be at least 1 characters");
    }
    let (filters, router) = filters(http_filters, &format!("http.{stat_prefix}."), cx)?;
    let stream_error = bool_or(stream_error_on_invalid_http_message, false);
    let codec = codec(codec_type)?;
    if stream_error && codec != CodecType::Http1 {
        let why = "a malformed message of HTTP/2 ends its connection: only with codec_type HTTP1";
        return refuse("stream_error_on_invalid_http_message", why);
    }
    let (internal_addresses, internal_unix_sockets) = internal(internal_address_config)?;
    let marks = request_id(request_id_extension)?;
    let options = match access_log_options {
        Some(options) => log_options(options).within("access_log_options")?,
        None => LogOptions {
            on_new_request: flush_access_log_on_new_request,
            on_tunnel: false,
            interval: duration("access_log_flush_interval", access_log_flush_interval)?,
        },
    };
    Ok(HcmConfig {
        codec,
        stat_prefix,
        routes: routes(route_specifier, cx)?,
        filters,
        router,
        upgrades: upgrades(upgrade_configs)?,
        common_http: common_http(common_http_protocol_options)
            .within("common_http_protocol_options")?,
        http1: http1(http_protocol_options, stream_error).within("http_protocol_options")?,
        http2: http2(http2_protocol_options).within("http2_protocol_options")?,
        server_name: non_empty(server_name).unwrap_or_else(|| defaults::SERVER_NAME.into()),
        server_header: server_header(server_header_transformation)?,
        scheme_overwrite: scheme(scheme_header_transformation)?,
        max_request_headers_kb: u32_or(max_request_headers_kb, defaults::MAX_REQUEST_HEADERS_KB),
        stream_idle_timeout: timeout_or(
            "stream_idle_timeout",
            stream_idle_timeout,
            Some(defaults::STREAM_IDLE_TIMEOUT),
        )?,
        stream_flush_timeout: timeout_or(
            "stream_flush_timeout",
            stream_flush_timeout.or(stream_idle_timeout),
            Some(defaults::STREAM_IDLE_TIMEOUT),
        )?,
        request_timeout: timeout_or("request_timeout", request_timeout, None)?,
        request_headers_timeout: timeout_or(
            "request_headers_timeout",
            request_headers_timeout,
            None,
        )?,
        drain_timeout: duration_or("drain_timeout", drain_timeout, defaults::DRAIN_TIMEOUT)?,
        delayed_close_timeout: duration_or(
            "delayed_close_timeout",
            delayed_close_timeout,
            defaults::DELAYED_CLOSE_TIMEOUT,
        )?,
        access_logs: access_logs("access_log", access_log)?,
        use_remote_address: bool_or(use_remote_address, false),
        xff_num_trusted_hops,
        skip_xff_append,
        internal_addresses,
        internal_unix_sockets,
        add_user_agent: bool_or(add_user_agent, false),
        via: via.into(),
        generate_request_id: bool_or(generate_request_id, true),
        preserve_external_request_id,
        always_set_request_id_in_response,
        forward_client_cert: forward_client_cert(forward_client_cert_details)?,
        client_cert_details: set_current_client_cert_details
            .map(client_cert_details)
            .unwrap_or_default(),
        proxy_100_continue,
        normalize_path: bool_or(normalize_path, false),
        merge_slashes,
        escaped_slashes: escaped_slashes(path_with_escaped_slashes_action)?,
        strip_port: strip_port(strip_matching_host_port, strip_port_mode)?,
        strip_trailing_host_dot,
        tracing: optional("tracing", tracing, sampling)?.filter(|_| marks),
        local_reply: local_reply(local_reply_config).within("local_reply_config")?,
        flush_access_log_on_new_request: options.on_new_request,
        flush_access_log_on_tunnel: options.on_tunnel,
        access_log_flush_interval: options.interval,
        append_x_forwarded_port,
    })
}

fn codec(number: i32) -> Result<CodecType> {
    match parts::CodecType::try_from(number) {
        Ok(parts::CodecType::Auto) => Ok(CodecType::Auto),
        Ok(parts::CodecType::Http1) => Ok(CodecType::Http1),
        Ok(parts::CodecType::Http2) => Ok(CodecType::Http2),
        Ok(parts::CodecType::Http3) => refuse("codec_type", "HTTP3 is not supported"),
        Err(_) => unknown_enum("codec_type", number),
    }
}

fn routes(
    specifier: Option<parts::RouteSpecifier>,
    cx: &ConvertContext<'_>,
) -> Result<RouteSource> {
    match required("route_specifier", specifier)? {
        parts::RouteSpecifier::RouteConfig(message) => table(message, Origin::Inline, cx)
            .map(|table| RouteSource::Inline(Arc::new(table)))
            .within("route_config"),
        parts::RouteSpecifier::Rds(message) => rds(message).within("rds"),
        parts::RouteSpecifier::ScopedRoutes(_) => refuse("scoped_routes", "is not supported"),
    }
}

fn rds(message: pb::Rds) -> Result<RouteSource> {
    let pb::Rds {
        config_source,
        route_config_name,
    } = message;
    Ok(RouteSource::Rds {
        source: required_source("config_source", config_source)?,
        name: route_config_name.into(),
    })
}

/// Each upgrade may be there once.
fn upgrades(messages: Vec<parts::UpgradeConfig>) -> Result<Vec<UpgradeConfig>> {
    let all = each("upgrade_configs", messages, upgrade)?;
    for (i, one) in all.iter().enumerate() {
        if all[..i].iter().any(|before| before.name == one.name) {
            let reason = format!("multiple upgrade configs with the same name: {}", one.name);
            return refuse("upgrade_type", reason).at("upgrade_configs", i);
        }
    }
    Ok(all)
}

/// Upgrades are by name in lower case.
fn upgrade(message: parts::UpgradeConfig) -> Result<UpgradeConfig> {
    let parts::UpgradeConfig {
        upgrade_type,
        filters: _,
        enabled,
    } = message;
    Ok(UpgradeConfig {
        name: upgrade_name(upgrade_type)?,
        enabled: bool_or(enabled, true),
    })
}

/// The name of an upgrade.
pub(super) fn upgrade_name(name: String) -> Result<Box<str>> {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "connect-udp" | "connect-ip" => refuse("upgrade_type", format!("{name} is not supported")),
        _ => Ok(name.into()),
    }
}

fn server_header(number: i32) -> Result<ServerHeaderTransformation> {
    use parts::ServerHeaderTransformation as Kind;
    match Kind::try_from(number) {
        Ok(Kind::Overwrite) => Ok(ServerHeaderTransformation::Overwrite),
        Ok(Kind::AppendIfAbsent) => Ok(ServerHeaderTransformation::AppendIfAbsent),
        Ok(Kind::PassThrough) => Ok(ServerHeaderTransformation::PassThrough),
        Err(_) => unknown_enum("server_header_transformation", number),
    }
}

fn scheme(message: Option<core::SchemeHeaderTransformation>) -> Result<Option<Arc<str>>> {
    use core::scheme_header_transformation::Transformation;
    let core::SchemeHeaderTransformation {
        match_upstream: _,
        transformation,
    } = message.unwrap_or_default();
    let Some(Transformation::SchemeToOverwrite(scheme)) = transformation else {
        return Ok(None);
    };
    match scheme.as_str() {
        "http" | "https" => Ok(Some(scheme.into())),
        _ => refuse("scheme_to_overwrite", "must be http or https")
            .within("scheme_header_transformation"),
    }
}

fn internal(message: Option<parts::InternalAddressConfig>) -> Result<(Vec<CidrRange>, bool)> {
    let parts::InternalAddressConfig {
        unix_sockets,
        cidr_ranges,
    } = message.unwrap_or_default();
    let ranges = each("cidr_ranges", cidr_ranges, cidr).within("internal_address_config")?;
    Ok((ranges, unix_sockets))
}

/// The shares of requests that are marked as traced.
fn sampling(message: parts::Tracing) -> Result<TracingConfig> {
    let parts::Tracing {
        client_sampling,
        random_sampling,
        overall_sampling,
        verbose: _,
        max_path_tag_length: _,
        custom_tags: _,
        provider: _,
        spawn_upstream_span: _,
        operation: _,
        upstream_operation: _,
        no_context_propagation: _,
    } = message;
    // Envoy counts the client's share in whole per cents, the others in hundredths of one.
    let share = |name: &str, message, key: &str, parts: u32| {
        let value = percent(name, message, 100.0)?;
        Ok(RuntimeFraction {
            default: FractionalPercent {
                numerator: (value * f64::from(parts / 100)) as u32,
                denominator: parts,
            },
            key: key.into(),
        })
    };
    Ok(TracingConfig {
        client: share(
            "client_sampling",
            client_sampling,
            "tracing.client_enabled",
            100,
        )?,
        random: share(
            "random_sampling",
            random_sampling,
            "tracing.random_sampling",
            10_000,
        )?,
        overall: share(
            "overall_sampling",
            overall_sampling,
            "tracing.global_enabled",
            10_000,
        )?,
    })
}

/// There is one kind of id, the UUID; whether it tells of tracing.
fn request_id(message: Option<pb::RequestIdExtension>) -> Result<bool> {
    let Some(config) = message.and_then(|message| message.typed_config) else {
        return Ok(true);
    };
    let known =
        |typed: Typed| match typed.name.as_str() {
            "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig" => {
                let UuidRequestIdConfig {
                    pack_trace_reason,
                    use_request_id_for_trace_sampling,
                } = typed.decode()?;
                Ok(bool_or(pack_trace_reason, true)
                    && bool_or(use_request_id_for_trace_sampling, true))
            }
            _ => typed.unsupported("request id extension"),
        };
    Typed::unpack(config)
        .and_then(known)
        .within("typed_config")
        .within("request_id_extension")
}

fn client_cert_details(
    message: pb::http_connection_manager::SetCurrentClientCertDetails,
) -> ClientCertDetails {
    let pb::http_connection_manager::SetCurrentClientCertDetails {
        subject,
        cert,
        chain,
        dns,
        uri,
        format: _,
        issuer: _,
    } = message;
    ClientCertDetails {
        subject: bool_or(subject, false),
        cert,
        chain,
        dns,
        uri,
    }
}

fn forward_client_cert(number: i32) -> Result<ForwardClientCert> {
    use parts::ForwardClientCertDetails as Kind;
    match Kind::try_from(number) {
        Ok(Kind::Sanitize) => Ok(ForwardClientCert::Sanitize),
        Ok(Kind::ForwardOnly) => Ok(ForwardClientCert::ForwardOnly),
        Ok(Kind::AppendForward) => Ok(ForwardClientCert::AppendForward),
        Ok(Kind::SanitizeSet) => Ok(ForwardClientCert::SanitizeSet),
        Ok(Kind::AlwaysForwardOnly) => Ok(ForwardClientCert::AlwaysForwardOnly),
        Err(_) => unknown_enum("forward_client_cert_details", number),
    }
}

fn escaped_slashes(number: i32) -> Result<EscapedSlashesAction> {
    use parts::PathWithEscapedSlashesAction as Action;
    match Action::try_from(number) {
        Ok(Action::ImplementationSpecificDefault | Action::KeepUnchanged) => {
            Ok(EscapedSlashesAction::KeepUnchanged)
        }
        Ok(Action::RejectRequest) => Ok(EscapedSlashesAction::RejectRequest),
        Ok(Action::UnescapeAndRedirect) => Ok(EscapedSlashesAction::UnescapeAndRedirect),
        Ok(Action::UnescapeAndForward) => Ok(EscapedSlashesAction::UnescapeAndForward),
        Err(_) => unknown_enum("path_with_escaped_slashes_action", number),
    }
}

fn strip_port(matching: bool, mode: Option<parts::StripPortMode>) -> Result<StripPort> {
    let any = matches!(mode, Some(parts::StripPortMode::StripAnyHostPort(true)));
    match (matching, any) {
        (true, true) => refuse(
            "strip_any_host_port",
            "cannot be set together with strip_matching_host_port",
        ),
        (true, false) => Ok(StripPort::Matching),
        (false, true) => Ok(StripPort::Any),
        (false, false) => Ok(StripPort::None),
    }
}

/// When streams are logged beside at their end.
struct LogOptions {
    on_new_request: bool,
    on_tunnel: bool,
    interval: Option<Duration>,
}

fn log_options(message: parts::HcmAccessLogOptions) -> Result<LogOptions> {
    let parts::HcmAccessLogOptions {
        access_log_flush_interval,
        flush_access_log_on_new_request,
        flush_log_on_tunnel_successfully_established,
    } = message;
    Ok(LogOptions {
        on_new_request: flush_access_log_on_new_request,
        on_tunnel: flush_log_on_tunnel_successfully_established,
        interval: duration("access_log_flush_interval", access_log_flush_interval)?,
    })
}
