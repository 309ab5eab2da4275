//! Access logs (`config.accesslog.v3`).

use std::sync::Arc;

use filter_api::RuntimeFraction;
use outrigger_types::ResponseFlags;

use crate::cel::Expression;
use crate::format::{AccessLogType, Format, JsonFormat};
use crate::matcher::HeaderMatcher;

/// One access logger: a filter, a format and where it goes.
#[derive(Clone, Debug)]
pub struct AccessLogConfig {
    /// Which streams are logged; none for all.
    pub filter: Option<AccessLogFilter>,
    /// Where.
    pub sink: AccessLogSink,
    /// How a line is made.
    pub format: AccessLogFormat,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogSink {
    /// A file, appended to.
    File(Arc<str>),
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a line is made.
#[derive(Clone, Debug)]
pub enum AccessLogFormat {
    /// Text as it is, with its newline if it has one.
    Text(Format),
    /// A JSON object a line.
    Json(JsonFormat),
}

/// Compares a number with a value that runtime may override.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The operator.
    pub op: ComparisonOp,
    /// The value when the key is not set.
    pub value: u32,
    /// The runtime key; empty for none.
    pub runtime_key: Box<str>,
}

/// The operators of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComparisonOp {
    /// ==
    Eq,
    /// >=
    Ge,
    /// <=
    Le,
    /// !=
    Ne,
}

/// Which streams are logged (`AccessLogFilter`).
#[derive(Clone, Debug)]
pub enum AccessLogFilter {
    /// By status; a stream without response counts as 0.
    StatusCode(Comparison),
    /// By duration in milliseconds.
    Duration(Comparison),
    /// Only what is not a health check.
    NotHealthCheck,
    /// Only traced requests.
    Traceable,
    /// A share of them; `independent` of the request id.
    Runtime {
        /// The share.
        fraction: RuntimeFraction,
        /// Draw a number of its own instead of one from the request id.
        independent: bool,
    },
    /// All of these.
    And(Vec<AccessLogFilter>),
    /// Any of these.
    Or(Vec<AccessLogFilter>),
    /// By a field of the request.
    Header(HeaderMatcher),
    /// Any of these flags; empty for any flag at all.
    ResponseFlag(ResponseFlags),
    /// By gRPC status; `exclude` turns the list around.
    GrpcStatus {
        /// The statuses.
        statuses: Vec<u32>,
        /// Log all but these.
        exclude: bool,
    },
    /// By an expression.
    Expression(Expression),
    /// By the kind of the entry; `exclude` turns the list around.
    LogType {
        /// The kinds, those left out that are never written.
        types: Vec<AccessLogType>,
        /// Log all but these.
        exclude: bool,
    },
}
