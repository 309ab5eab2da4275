//! RE2's dialect on top of the `regex` crate.

use std::sync::Arc;

/// A compiled RE2 expression.
#[derive(Clone, Debug)]
pub struct Regex {
    source: Arc<str>,
    compiled: regex::bytes::Regex,
}
