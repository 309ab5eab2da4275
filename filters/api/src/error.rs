//! The error of configuration: where, and why.

use std::fmt;

/// A value of the configuration that is refused, with the path to it.
///
/// The path is built from the inside out: each layer that passes the error on
/// adds its own segment with [`ConfigError::within`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Segments, innermost first.
    path: Vec<String>,
    reason: String,
}

impl ConfigError {
    /// An error at the place that is being read.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            path: Vec::new(),
            reason: reason.into(),
        }
    }

    /// An error at a field of what is being read.
    pub fn field(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::new(reason).within(name)
    }

    /// Puts an enclosing segment before the path, such as `filter_chains[0]`
    /// or `listener "x"`.
    #[must_use]
    pub fn within(mut self, segment: impl Into<String>) -> Self {
        self.path.push(segment.into());
        self
    }

    /// Puts an enclosing `name[index]` before the path.
    #[must_use]
    pub fn at(self, name: &str, index: usize) -> Self {
        self.within(format!("{name}[{index}]"))
    }

    /// The reason without the path.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The path, outermost first, joined by ` / `.
    pub fn path(&self) -> String {
        let segments: Vec<&str> = self.path.iter().rev().map(String::as_str).collect();
        segments.join(" / ")
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.path(), self.reason)
        }
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_from_the_outside_in() {
        let error = ConfigError::field("timeout", "must be positive")
            .at("routes", 2)
            .within("listener \"x\"");
        assert_eq!(
            error.to_string(),
            "listener \"x\" / routes[2] / timeout: must be positive"
        );
    }
}
