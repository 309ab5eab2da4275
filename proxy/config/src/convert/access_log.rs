//! Access logs (`config.accesslog.v3.AccessLog`).

use filter_api::{ConfigError, RuntimeFraction};
use outrigger_types::{ResponseFlag, ResponseFlags};

use super::Result;
use super::any::Typed;
use super::body::{body_format, json};
use super::matcher::{fraction, header};
use super::path::{Within, each, optional, refuse, required, unknown_enum};
use crate::cel::Expression;
use crate::format::{AccessLogType, Format, FormatOptions, default_access_log_format};
use crate::ir::{
    AccessLogConfig, AccessLogFilter, AccessLogFormat, AccessLogSink, BodyFormatContent,
    Comparison, ComparisonOp,
};
use crate::pb::envoy::config::accesslog::v3 as pb;
use crate::pb::envoy::config::core::v3 as core;
use crate::pb::envoy::data::accesslog::v3::AccessLogType as Kind;
use crate::pb::envoy::extensions::access_loggers::file::v3 as file;
use crate::pb::envoy::extensions::access_loggers::filters::cel::v3 as cel;
use crate::pb::envoy::extensions::access_loggers::stream::v3 as stream;
use crate::pb::envoy::r#type::v3::FractionalPercent;

const EXPRESSION: &str = "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter";

/// A list of access logs.
///
/// # Errors
/// For a logger or a filter that is not known, or whose format is malformed.
pub fn access_logs(name: &str, list: Vec<pb::AccessLog>) -> Result<Vec<AccessLogConfig>> {
    each(name, list, access_log)
}

fn access_log(message: pb::AccessLog) -> Result<AccessLogConfig> {
    let pb::AccessLog {
        name: _,
        filter: filter_message,
        config_type,
    } = message;
    let pb::access_log::ConfigType::TypedConfig(config) = required("typed_config", config_type)?;
    let (sink, format) = logger(Typed::unpack(config)?).within("typed_config")?;
    Ok(AccessLogConfig {
        filter: optional("filter", filter_message, filter)?,
        sink,
        format,
    })
}

fn logger(typed: Typed) -> Result<(AccessLogSink, AccessLogFormat)> {
    match typed.name.as_str() {
        "envoy.extensions.access_loggers.file.v3.FileAccessLog" => file_logger(typed.decode()?),
        "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog" => {
            use stream::stdout_access_log::AccessLogFormat::LogFormat;
            let stream::StdoutAccessLog { access_log_format } = typed.decode()?;
            let format = access_log_format.map(|LogFormat(format)| format);
            Ok((AccessLogSink::Stdout, log_format(format)?))
        }
        "envoy.extensions.access_loggers.stream.v3.StderrAccessLog" => {
            use stream::stderr_access_log::AccessLogFormat::LogFormat;
            let stream::StderrAccessLog { access_log_format } = typed.decode()?;
            let format = access_log_format.map(|LogFormat(format)| format);
            Ok((AccessLogSink::Stderr, log_format(format)?))
        }
        _ => typed.unsupported("access logger"),
    }
}

fn file_logger(message: file::FileAccessLog) -> Result<(AccessLogSink, AccessLogFormat)> {
    use file::file_access_log::AccessLogFormat as Kind;
    let file::FileAccessLog {
        path,
        access_log_format,
    } = message;
    if path.is_empty() {
        return refuse("path", "value length must be at least 1 characters");
    }
    let options = FormatOptions::default();
    let format = match access_log_format {
        None => default_format()?,
        Some(Kind::Format(text)) if text.is_empty() => default_format()?,
        Some(Kind::Format(text)) => Format::parse(&text, &options)
            .map(AccessLogFormat::Text)
            .map_err(|reason| ConfigError::field("format", reason))?,
        Some(Kind::JsonFormat(object)) => {
            AccessLogFormat::Json(json("json_format", object, &options)?)
        }
        Some(Kind::TypedJsonFormat(object)) => {
            AccessLogFormat::Json(json("typed_json_format", object, &options)?)
        }
        Some(Kind::LogFormat(format)) => log_format(Some(format))?,
    };
    Ok((sink(path), format))
}

/// The two streams of the process are known by their names under `/dev`, so that
/// nothing has to be opened.
fn sink(path: String) -> AccessLogSink {
    match path.as_str() {
        "/dev/stdout" => AccessLogSink::Stdout,
        "/dev/stderr" => AccessLogSink::Stderr,
        _ => AccessLogSink::File(path.into()),
    }
}

fn default_format() -> Result<AccessLogFormat> {
    Format::parse(default_access_log_format(), &FormatOptions::default())
        .map(AccessLogFormat::Text)
        .map_err(ConfigError::new)
}

fn log_format(message: Option<core::SubstitutionFormatString>) -> Result<AccessLogFormat> {
    let Some(message) = message else {
        return default_format();
    };
    match body_format(message).within("log_format")?.content {
        BodyFormatContent::Text(format) => Ok(AccessLogFormat::Text(format)),
        BodyFormatContent::Json(format) => Ok(AccessLogFormat::Json(format)),
    }
}

/// A filter of streams; the depth of its nesting is that of the messages, which
/// the decoder bounds.
pub(super) fn filter(message: pb::AccessLogFilter) -> Result<AccessLogFilter> {
    use pb::access_log_filter::FilterSpecifier as Filter;
    let pb::AccessLogFilter { filter_specifier } = message;
    match required("filter_specifier", filter_specifier)? {
        Filter::StatusCodeFilter(pb::StatusCodeFilter { comparison: of }) => comparison(of)
            .within("status_code_filter")
            .map(AccessLogFilter::StatusCode),
        Filter::DurationFilter(pb::DurationFilter { comparison: of }) => comparison(of)
            .within("duration_filter")
            .map(AccessLogFilter::Duration),
        Filter::NotHealthCheckFilter(pb::NotHealthCheckFilter {}) => {
            Ok(AccessLogFilter::NotHealthCheck)
        }
        Filter::TraceableFilter(pb::TraceableFilter {}) => Ok(AccessLogFilter::Traceable),
        Filter::RuntimeFilter(message) => runtime(message).within("runtime_filter"),
        Filter::AndFilter(pb::AndFilter { filters }) => several(filters)
            .within("and_filter")
            .map(AccessLogFilter::And),
        Filter::OrFilter(pb::OrFilter { filters }) => several(filters)
            .within("or_filter")
            .map(AccessLogFilter::Or),
        Filter::HeaderFilter(pb::HeaderFilter { header: of }) => required("header", of)
            .and_then(|message| header(message).within("header"))
            .within("header_filter")
            .map(AccessLogFilter::Header),
        Filter::ResponseFlagFilter(pb::ResponseFlagFilter { flags }) => {
            response_flags(flags).within("response_flag_filter")
        }
        Filter::GrpcStatusFilter(message) => grpc_status(message).within("grpc_status_filter"),
        Filter::MetadataFilter(_) => refuse("metadata_filter", "is not supported"),
        Filter::LogTypeFilter(message) => log_type(message).within("log_type_filter"),
        Filter::ExtensionFilter(pb::ExtensionFilter { name, config_type }) => {
            extension(name, config_type).within("extension_filter")
        }
    }
}

fn log_type(message: pb::LogTypeFilter) -> Result<AccessLogFilter> {
    let pb::LogTypeFilter { types, exclude } = message;
    let known = each("types", types, |number| {
        Kind::try_from(number)
            .map(entry_kind)
            .or_else(|_| unknown_enum("", number))
    })?;
    Ok(AccessLogFilter::LogType {
        types: known.into_iter().flatten().collect(),
        exclude,
    })
}

/// The kind of an entry; none for one that only UDP or the router's own upstream
/// logs write.
fn entry_kind(kind: Kind) -> Option<AccessLogType> {
    match kind {
        Kind::NotSet => Some(AccessLogType::NotSet),
        Kind::TcpConnectionStart => Some(AccessLogType::TcpConnectionStart),
        Kind::TcpUpstreamConnected => Some(AccessLogType::TcpUpstreamConnected),
        Kind::TcpPeriodic => Some(AccessLogType::TcpPeriodic),
        Kind::TcpConnectionEnd => Some(AccessLogType::TcpConnectionEnd),
        Kind::DownstreamStart => Some(AccessLogType::DownstreamStart),
        Kind::DownstreamPeriodic => Some(AccessLogType::DownstreamPeriodic),
        Kind::DownstreamEnd => Some(AccessLogType::DownstreamEnd),
        _ => None,
    }
}

fn several(filters: Vec<pb::AccessLogFilter>) -> Result<Vec<AccessLogFilter>> {
    if filters.len() < 2 {
        return refuse("filters", "value must contain at least 2 item(s)");
    }
    each("filters", filters, filter)
}

fn extension(
    name: String,
    config: Option<pb::extension_filter::ConfigType>,
) -> Result<AccessLogFilter> {
    match config {
        Some(pb::extension_filter::ConfigType::TypedConfig(any)) => Typed::unpack(any)
            .and_then(|typed| match typed.name.as_str() {
                EXPRESSION => typed.decode().and_then(expression),
                _ => typed.unsupported("access log filter"),
            })
            .within("typed_config"),
        None => refuse("name", format!("access log filter {name} is not supported")),
    }
}

fn comparison(message: Option<pb::ComparisonFilter>) -> Result<Comparison> {
    use pb::comparison_filter::Op;
    let pb::ComparisonFilter { op, value } = required("comparison", message)?;
    let op = match Op::try_from(op) {
        Ok(Op::Eq) => ComparisonOp::Eq,
        Ok(Op::Ge) => ComparisonOp::Ge,
        Ok(Op::Le) => ComparisonOp::Le,
        Ok(Op::Ne) => ComparisonOp::Ne,
        Err(_) => return unknown_enum("op", op).within("comparison"),
    };
    let core::RuntimeUInt32 {
        default_value,
        runtime_key,
    } = required("value", value).within("comparison")?;
    Ok(Comparison {
        op,
        value: default_value,
        runtime_key: runtime_key.into(),
    })
}

fn runtime(message: pb::RuntimeFilter) -> Result<AccessLogFilter> {
    let pb::RuntimeFilter {
        runtime_key,
        percent_sampled,
        use_independent_randomness,
    } = message;
    let none = FractionalPercent::default();
    let default = fraction(percent_sampled.unwrap_or(none)).within("percent_sampled")?;
    Ok(AccessLogFilter::Runtime {
        fraction: RuntimeFraction {
            default,
            key: runtime_key.into(),
        },
        independent: use_independent_randomness,
    })
}

fn response_flags(flags: Vec<String>) -> Result<AccessLogFilter> {
    let mut set = ResponseFlags::default();
    each("flags", flags, |name| {
        let known = ResponseFlag::ALL.iter().find(|flag| flag.short() == name);
        let flag = known.ok_or_else(|| ConfigError::new(format!("unknown flag \"{name}\"")))?;
        set.set(*flag);
        Ok(())
    })?;
    Ok(AccessLogFilter::ResponseFlag(set))
}

fn expression(message: cel::ExpressionFilter) -> Result<AccessLogFilter> {
    let cel::ExpressionFilter {
        expression,
        cel_config: _,
    } = message;
    let parsed = Expression::parse(&expression);
    parsed
        .map(AccessLogFilter::Expression)
        .map_err(|reason| ConfigError::field("expression", reason))
}

fn grpc_status(message: pb::GrpcStatusFilter) -> Result<AccessLogFilter> {
    let pb::GrpcStatusFilter { statuses, exclude } = message;
    Ok(AccessLogFilter::GrpcStatus {
        statuses: each("statuses", statuses, |status| {
            u32::try_from(status)
                .ok()
                .filter(|status| *status <= 16)
                .ok_or_else(|| ConfigError::new(format!("value {status} is not defined")))
        })?,
        exclude,
    })
}
