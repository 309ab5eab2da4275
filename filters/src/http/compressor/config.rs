//! Configuration of the compressor filter.

use std::sync::Arc;

use filter_api::{ConfigError, FactoryContext, HttpFilterConfig, RouteFilterConfig};
use outrigger_config::convert;
use outrigger_config::matcher::StringMatcher;
use prost::Message;
use xds_api::pb::envoy::config::core::v3 as core;
use xds_api::pb::envoy::extensions::compression::brotli::compressor::v3::Brotli;
use xds_api::pb::envoy::extensions::compression::gzip::compressor::v3::Gzip;
use xds_api::pb::envoy::extensions::compression::zstd::compressor::v3::Zstd;
use xds_api::pb::envoy::extensions::filters::http::compressor::v3 as pb;

use super::encoder::Library;
use super::{Chained, Compressor};
use crate::registry::decode;

pub(crate) const MESSAGE: &str = "envoy.extensions.filters.http.compressor.v3.Compressor";
pub(crate) const ROUTE_MESSAGE: &str =
    "envoy.extensions.filters.http.compressor.v3.CompressorPerRoute";

/// Media types that are compressed unless others are named.
const CONTENT_TYPES: [&str; 20] = [
    "text/html",
    "text/plain",
    "text/css",
    "application/javascript",
    "application/x-javascript",
    "text/javascript",
    "text/x-javascript",
    "text/ecmascript",
    "text/js",
    "text/jscript",
    "text/x-js",
    "application/ecmascript",
    "application/x-json",
    "application/xml",
    "application/json",
    "image/svg+xml",
    "text/xml",
    "application/xhtml+xml",
    "application/grpc-web",
    "application/grpc-web+proto",
];

/// Shortest body that is compressed, bytes.
const MIN_LENGTH: u64 = 30;

/// Which responses are compressed, and how.
#[derive(Debug)]
pub(super) struct CompressorConfig {
    pub(super) library: Library,
    /// What runtime may turn on and off: the key, and what holds without it.
    pub(super) enabled: Option<(Box<str>, bool)>,
    pub(super) min_length: u64,
    pub(super) types: ContentTypes,
    pub(super) disable_on_etag: bool,
    pub(super) weaken_etag: bool,
    pub(super) remove_accept_encoding: bool,
    pub(super) uncompressible_codes: Vec<u16>,
}

/// Media types.
#[derive(Debug)]
pub(super) enum ContentTypes {
    Exact(Vec<Box<str>>),
    Matching(Vec<StringMatcher>),
}

impl ContentTypes {
    /// Whether one of them is that of a message, without its parameters. As in Envoy only
    /// matchers heed its case.
    pub(super) fn contain(&self, media_type: &str) -> bool {
        match self {
            Self::Exact(all) => all.iter().any(|t| t.eq_ignore_ascii_case(media_type)),
            Self::Matching(all) => all.iter().any(|m| m.matches(media_type.as_bytes())),
        }
    }
}

/// What a route says.
#[derive(Debug, Default)]
pub(super) struct RouteCompressor {
    /// No response is compressed.
    pub(super) disabled: bool,
    pub(super) remove_accept_encoding: Option<bool>,
}

pub(crate) fn filter(
    bytes: &[u8],
    cx: &FactoryContext,
) -> Result<Arc<dyn HttpFilterConfig>, ConfigError> {
    let mut message: pb::Compressor = decode(MESSAGE, bytes)?;
    let library = message.compressor_library.take().unwrap_or_default();
    let name = library.name.clone();
    let first = message.choose_first;
    let own_direction = message.response_direction_config.is_some();
    let library = codec(library).map_err(|error| error.within("compressor_library"))?;
    let config = Arc::new(response(message, library)?);
    let scope = format!(
        "{}compressor.{name}.{}.",
        cx.stat_prefix,
        library.stat_name()
    );
    let chained = Arc::new(Chained {
        config: config.clone(),
        first,
    });
    cx.chain.add(chained);
    Ok(Arc::new(Compressor {
        config,
        scope: scope.into(),
        response_prefix: if own_direction { "response." } else { "" },
        chain: cx.chain.clone(),
    }))
}

#[expect(deprecated, reason = "what is deprecated is still taken")]
/// What holds for responses. Without a message of their own it is what the filter itself says,
/// in fields that are deprecated.
fn response(message: pb::Compressor, library: Library) -> Result<CompressorConfig, ConfigError> {
    use pb::compressor::{CommonDirectionConfig, ResponseDirectionConfig};
    let direction = message.response_direction_config.unwrap_or_else(|| {
        let common = CommonDirectionConfig {
            enabled: message.runtime_enabled,
            min_content_length: message.content_length,
            content_type: message.content_type,
            content_type_matcher: Vec::new(),
        };
        ResponseDirectionConfig {
            common_config: Some(common),
            disable_on_etag_header: message.disable_on_etag_header,
            remove_accept_encoding_header: message.remove_accept_encoding_header,
            ..ResponseDirectionConfig::default()
        }
    });
    let CommonDirectionConfig {
        enabled,
        min_content_length,
        content_type,
        content_type_matcher,
    } = direction.common_config.unwrap_or_default();
    Ok(CompressorConfig {
        library,
        enabled: enabled.map(|flag| {
            let default = flag.default_value.is_some_and(|wrapped| wrapped.value);
            (flag.runtime_key.into(), default)
        }),
        min_length: min_content_length.map_or(MIN_LENGTH, |wrapped| wrapped.value.into()),
        types: types(content_type, content_type_matcher)?,
        disable_on_etag: direction.disable_on_etag_header,
        weaken_etag: direction.weaken_etag_on_compress,
        remove_accept_encoding: direction.remove_accept_encoding_header,
        uncompressible_codes: direction
            .uncompressible_response_codes
            .into_iter()
            .filter_map(|code| u16::try_from(code).ok())
            .collect(),
    })
}

fn types(
    exact: Vec<String>,
    matchers: Vec<xds_api::pb::envoy::r#type::matcher::v3::StringMatcher>,
) -> Result<ContentTypes, ConfigError> {
    if !matchers.is_empty() {
        let matchers = matchers.into_iter().enumerate().map(|(i, message)| {
            convert::string(message).map_err(|error| error.at("content_type_matcher", i))
        });
        return Ok(ContentTypes::Matching(matchers.collect::<Result<_, _>>()?));
    }
    Ok(ContentTypes::Exact(match exact.is_empty() {
        true => CONTENT_TYPES.map(Into::into).into(),
        false => exact.into_iter().map(Into::into).collect(),
    }))
}

fn codec(config: core::TypedExtensionConfig) -> Result<Library, ConfigError> {
    const PACKAGE: &str = "envoy.extensions.compression";
    let any = config.typed_config.unwrap_or_default();
    let name = any.type_url.rsplit_once('/').map_or("", |(_, name)| name);
    let inner = |error: ConfigError| error.within("typed_config");
    match name.strip_prefix(PACKAGE) {
        Some(".gzip.compressor.v3.Gzip") => gzip(read(name, &any.value).map_err(inner)?),
        Some(".brotli.compressor.v3.Brotli") => {
            let message: Brotli = read(name, &any.value).map_err(inner)?;
            Ok(Library::Brotli {
                quality: message.quality.map_or(3, |wrapped| wrapped.value),
                window: message.window_bits.map_or(18, |wrapped| wrapped.value),
            })
        }
        Some(".zstd.compressor.v3.Zstd") => {
            let message: Zstd = read(name, &any.value).map_err(inner)?;
            let level = message.compression_level.map_or(3, |wrapped| wrapped.value);
            Ok(Library::Zstd {
                level: i32::try_from(level).unwrap_or(i32::MAX),
                checksum: message.enable_checksum,
            })
        }
        _ => Err(inner(ConfigError::new(format!(
            "compressor library {name} is not supported"
        )))),
    }
}

fn read<M: Message + Default>(name: &str, bytes: &[u8]) -> Result<M, ConfigError> {
    decode(name, bytes)
}

/// By default, as by zlib's, the level is 6.
fn gzip(message: Gzip) -> Result<Library, ConfigError> {
    let level = match message.compression_level {
        0 => 6,
        level => u32::try_from(level).unwrap_or(9).min(9),
    };
    Ok(Library::Gzip { level })
}

pub(crate) fn route(bytes: &[u8]) -> Result<RouteFilterConfig, ConfigError> {
    use pb::compressor_per_route::Override;
    let pb::CompressorPerRoute { r#override } = decode(ROUTE_MESSAGE, bytes)?;
    Ok(Arc::new(match r#override {
        Some(Override::Disabled(_)) => RouteCompressor {
            disabled: true,
            ..RouteCompressor::default()
        },
        Some(Override::Overrides(overrides)) => RouteCompressor {
            disabled: false,
            remove_accept_encoding: overrides
                .response_direction_config
                .and_then(|direction| direction.remove_accept_encoding_header)
                .map(|wrapped| wrapped.value),
        },
        None => return Err(ConfigError::field("override", "is required")),
    }))
}
