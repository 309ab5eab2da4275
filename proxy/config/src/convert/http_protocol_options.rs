//! Which HTTP a cluster speaks: `HttpProtocolOptions`, and the deprecated fields
//! of the cluster that it replaced.

use std::collections::HashMap;

use super::Result;
use super::any::Typed;
use super::common::{common_http, http1, http2};
use super::path::{Within, header_name, refuse, required, unknown_enum};
use crate::ir::{
    AutoSniConfig, CommonHttpOptions, Http1Options, Http2Options, UpstreamProtocolConfig,
};
use crate::pb::envoy::config::cluster::v3::cluster::ClusterProtocolSelection;
use crate::pb::envoy::config::core::v3 as core;
use crate::pb::envoy::extensions::upstreams::http::v3 as pb;
use crate::pb::google::protobuf as wkt;
use pb::http_protocol_options as parts;

const NAME: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The fields of the cluster itself. They count where there is no
/// `HttpProtocolOptions`.
pub(super) struct Deprecated {
    pub(super) common: Option<core::HttpProtocolOptions>,
    pub(super) http1: Option<core::Http1ProtocolOptions>,
    pub(super) http2: Option<core::Http2ProtocolOptions>,
    pub(super) protocol_selection: i32,
    pub(super) max_requests_per_connection: Option<wkt::UInt32Value>,
    pub(super) upstream: Option<core::UpstreamHttpProtocolOptions>,
}

/// Everything a cluster says about HTTP.
pub(super) struct HttpOptions {
    pub(super) protocol: UpstreamProtocolConfig,
    pub(super) common: CommonHttpOptions,
    pub(super) http1: Http1Options,
    pub(super) http2: Http2Options,
    pub(super) auto_sni: Option<AutoSniConfig>,
}

/// Reads whichever of the two is there.
pub(super) fn http_options(
    typed: HashMap<String, wkt::Any>,
    deprecated: Deprecated,
) -> Result<HttpOptions> {
    let fallback = deprecated
        .max_requests_per_connection
        .map(|n| n.value)
        .filter(|n| *n > 0);
    let mut options = None;
    for (name, any) in typed {
        let segment = format!("typed_extension_protocol_options[\"{name}\"]");
        let typed = Typed::unpack(any).within(&segment)?;
        if typed.name != NAME {
            return typed.unsupported("protocol options").within(&segment);
        }
        if name != NAME {
            return refuse(
                &segment,
                format!("options of {NAME} belong under that name"),
            );
        }
        options = Some(typed.decode().and_then(convert).within(&segment)?);
    }
    let mut options = match options {
        Some(options) => options,
        None => old_options(deprecated)?,
    };
    let requests = &mut options.common.max_requests_per_connection;
    *requests = requests.or(fallback);
    Ok(options)
}

/// Without any options a cluster speaks HTTP/1.1.
fn old_options(of: Deprecated) -> Result<HttpOptions> {
    let protocol = match ClusterProtocolSelection::try_from(of.protocol_selection) {
        Ok(ClusterProtocolSelection::UseDownstreamProtocol) => UpstreamProtocolConfig::Downstream,
        Ok(ClusterProtocolSelection::UseConfiguredProtocol) if of.http2.is_some() => {
            UpstreamProtocolConfig::Http2
        }
        Ok(ClusterProtocolSelection::UseConfiguredProtocol) => UpstreamProtocolConfig::Http1,
        Err(_) => return unknown_enum("protocol_selection", of.protocol_selection),
    };
    Ok(HttpOptions {
        protocol,
        common: common_http(of.common).within("common_http_protocol_options")?,
        http1: http1(of.http1, false).within("http_protocol_options")?,
        http2: http2(of.http2).within("http2_protocol_options")?,
        auto_sni: auto_sni(of.upstream)?,
    })
}

fn convert(message: pb::HttpProtocolOptions) -> Result<HttpOptions> {
    let pb::HttpProtocolOptions {
        common_http_protocol_options,
        upstream_http_protocol_options,
        http_filters: _,
        header_validation_config: _,
        outlier_detection: _,
        request_mirror_policies: _,
        hash_policy: _,
        retry_policy: _,
        upstream_protocol_options,
    } = message;
    let versions = versions(required(
        "upstream_protocol_options",
        upstream_protocol_options,
    )?)?;
    Ok(HttpOptions {
        protocol: versions.protocol,
        common: common_http(common_http_protocol_options).within("common_http_protocol_options")?,
        http1: http1(versions.http1, false)
            .within("http_protocol_options")
            .within(versions.mode)?,
        http2: http2(versions.http2)
            .within("http2_protocol_options")
            .within(versions.mode)?,
        auto_sni: auto_sni(upstream_http_protocol_options)?,
    })
}

/// How requests choose the server name of their connections.
fn auto_sni(message: Option<core::UpstreamHttpProtocolOptions>) -> Result<Option<AutoSniConfig>> {
    let Some(core::UpstreamHttpProtocolOptions {
        auto_sni,
        auto_san_validation,
        override_auto_sni_header,
    }) = message
    else {
        return Ok(None);
    };
    let place = "upstream_http_protocol_options";
    match (auto_sni, auto_san_validation) {
        (false, false) => Ok(None),
        (false, true) => {
            let reason = "is not supported without auto_sni";
            refuse("auto_san_validation", reason).within(place)
        }
        (true, validates) => {
            let of = override_auto_sni_header;
            let named = !of.is_empty() && of != ":authority";
            let header = named.then(|| header_name(&of)).transpose();
            Ok(Some(AutoSniConfig {
                header: header.within("override_auto_sni_header").within(place)?,
                validates,
            }))
        }
    }
}

/// One of the three modes.
struct Versions {
    mode: &'static str,
    protocol: UpstreamProtocolConfig,
    http1: Option<core::Http1ProtocolOptions>,
    http2: Option<core::Http2ProtocolOptions>,
}

fn versions(options: parts::UpstreamProtocolOptions) -> Result<Versions> {
    use parts::UpstreamProtocolOptions as Mode;
    match options {
        Mode::ExplicitHttpConfig(message) => explicit(message).within("explicit_http_config"),
        Mode::UseDownstreamProtocolConfig(message) => {
            let parts::UseDownstreamHttpConfig {
                http_protocol_options,
                http2_protocol_options,
                http3_protocol_options: _,
            } = message;
            Ok(Versions {
                mode: "use_downstream_protocol_config",
                protocol: UpstreamProtocolConfig::Downstream,
                http1: http_protocol_options,
                http2: http2_protocol_options,
            })
        }
        Mode::AutoConfig(message) => {
            let parts::AutoHttpConfig {
                http_protocol_options,
                http2_protocol_options,
                http3_protocol_options: _,
                alternate_protocols_cache_options: _,
            } = message;
            Ok(Versions {
                mode: "auto_config",
                protocol: UpstreamProtocolConfig::Auto,
                http1: http_protocol_options,
                http2: http2_protocol_options,
            })
        }
    }
}

fn explicit(message: parts::ExplicitHttpConfig) -> Result<Versions> {
    use parts::explicit_http_config::ProtocolConfig;
    let parts::ExplicitHttpConfig { protocol_config } = message;
    let mode = "explicit_http_config";
    match required("protocol_config", protocol_config)? {
        ProtocolConfig::HttpProtocolOptions(options) => Ok(Versions {
            mode,
            protocol: UpstreamProtocolConfig::Http1,
            http1: Some(options),
            http2: None,
        }),
        ProtocolConfig::Http2ProtocolOptions(options) => Ok(Versions {
            mode,
            protocol: UpstreamProtocolConfig::Http2,
            http1: None,
            http2: Some(options),
        }),
        ProtocolConfig::Http3ProtocolOptions(_) => {
            refuse("http3_protocol_options", "HTTP/3 is not supported")
        }
    }
}
