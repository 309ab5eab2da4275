//! Texts given inline or by file, and formats of bodies.

use bytes::Bytes;
use filter_api::ConfigError;

use super::Result;
use super::any::extension;
use super::path::{Within, each, non_empty, refuse, required};
use super::structure::json_object;
use crate::format::{Format, FormatOptions, JsonFormat};
use crate::ir::{BodyFormat, BodyFormatContent};
use crate::pb::envoy::config::core::v3 as pb;
use crate::pb::google::protobuf as wkt;

/// The bytes of a data source, at most `limit` of them.
pub(super) fn data_source(message: pb::DataSource, limit: usize) -> Result<Bytes> {
    use pb::data_source::Specifier;
    let pb::DataSource {
        watched_directory: _,
        specifier,
    } = message;
    let bytes: Bytes = match required("specifier", specifier)? {
        Specifier::InlineBytes(bytes) => bytes.into(),
        Specifier::InlineString(text) => text.into(),
        Specifier::Filename(path) => read_file(&path, limit).within("filename")?,
        Specifier::EnvironmentVariable(name) => match std::env::var(&name) {
            Ok(value) => value.into(),
            Err(_) => {
                let reason = format!("environment variable {name} is not set");
                return refuse("environment_variable", reason);
            }
        },
    };
    if bytes.len() > limit {
        let reason = format!("{} bytes, more than the {limit} allowed", bytes.len());
        return Err(ConfigError::new(reason));
    }
    Ok(bytes)
}

/// A file; of one that is too long, no more than shows that it is.
fn read_file(path: &str, limit: usize) -> Result<Bytes> {
    use std::io::Read;
    let mut content = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    std::fs::File::open(path)
        .and_then(|file| file.take(most).read_to_end(&mut content))
        .map_err(|error| ConfigError::new(format!("{path}: {error}")))?;
    Ok(content.into())
}

/// The longest text of a format.
const MAX_FORMAT_LEN: usize = 1 << 20;

/// A format of text or of JSON.
pub(super) fn body_format(message: pb::SubstitutionFormatString) -> Result<BodyFormat> {
    use pb::substitution_format_string::Format as Kind;
    let pb::SubstitutionFormatString {
        omit_empty_values,
        content_type,
        formatters,
        json_format_options: _,
        format,
    } = message;
    let options = FormatOptions {
        omit_empty_values,
        req_without_query: !each("formatters", formatters, formatter)?.is_empty(),
    };
    let content = match required("format", format)? {
        Kind::TextFormat(text) => text_content("text_format", &text, &options)?,
        Kind::TextFormatSource(source) => {
            let bytes = data_source(source, MAX_FORMAT_LEN).within("text_format_source")?;
            match std::str::from_utf8(&bytes) {
                Ok(text) => text_content("text_format_source", text, &options)?,
                Err(_) => return refuse("text_format_source", "is not UTF-8"),
            }
        }
        Kind::JsonFormat(object) => BodyFormatContent::Json(json("json_format", object, &options)?),
    };
    Ok(BodyFormat {
        content,
        content_type: non_empty(content_type),
    })
}

/// Of the formatters that bring operators of their own only one is known.
fn formatter(message: pb::TypedExtensionConfig) -> Result<()> {
    let typed = extension(message).within("typed_config")?;
    if typed.name == "envoy.extensions.formatter.req_without_query.v3.ReqWithoutQuery" {
        return Ok(());
    }
    typed.unsupported("formatter").within("typed_config")
}

fn text_content(name: &str, text: &str, options: &FormatOptions) -> Result<BodyFormatContent> {
    Format::parse(text, options)
        .map(BodyFormatContent::Text)
        .map_err(|reason| ConfigError::field(name, reason))
}

/// A JSON format.
pub(super) fn json(name: &str, object: wkt::Struct, options: &FormatOptions) -> Result<JsonFormat> {
    JsonFormat::parse(&json_object(object), options)
        .map_err(|reason| ConfigError::field(name, reason))
}
