//! String, header and query parameter matchers.

use std::borrow::Cow;
use std::sync::Arc;

use outrigger_types::{HeaderKey, Headers, RequestHead, ResponseHead};

use crate::re2::Regex;

/// How a string is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StringPattern {
    /// The whole string.
    Exact(Arc<str>),
    /// Its beginning.
    Prefix(Arc<str>),
    /// Its end.
    Suffix(Arc<str>),
    /// Any part of it.
    Contains(Arc<str>),
    /// The whole string, by an expression.
    Regex(Regex),
}

/// `type.matcher.v3.StringMatcher`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StringMatcher {
    pattern: StringPattern,
    ignore_case: bool,
}

impl StringMatcher {
    /// A matcher; `ignore_case` is about ASCII letters, and an expression takes
    /// no notice of it.
    pub fn new(pattern: StringPattern, ignore_case: bool) -> Self {
        Self {
            pattern,
            ignore_case,
        }
    }

    /// Matches one string, case taken into account.
    pub fn exact(text: &str) -> Self {
        Self::new(StringPattern::Exact(text.into()), false)
    }

    /// Matches what begins with `text`, case taken into account.
    pub fn prefix(text: &str) -> Self {
        Self::new(StringPattern::Prefix(text.into()), false)
    }

    /// Matches what ends with `text`, case taken into account.
    pub fn suffix(text: &str) -> Self {
        Self::new(StringPattern::Suffix(text.into()), false)
    }

    /// Matches what contains `text`, case taken into account.
    pub fn contains(text: &str) -> Self {
        Self::new(StringPattern::Contains(text.into()), false)
    }

    /// Matches what an expression matches from end to end.
    pub fn regex(regex: Regex) -> Self {
        Self::new(StringPattern::Regex(regex), false)
    }

    /// The pattern.
    pub fn pattern(&self) -> &StringPattern {
        &self.pattern
    }

    /// Whether the case of ASCII letters is ignored.
    pub fn ignore_case(&self) -> bool {
        self.ignore_case
    }

    /// Whether `value` matches.
    pub fn matches(&self, value: &[u8]) -> bool {
        let ignore = self.ignore_case;
        match &self.pattern {
            StringPattern::Exact(text) => same(value, text.as_bytes(), ignore),
            StringPattern::Prefix(text) => value
                .get(..text.len())
                .is_some_and(|start| same(start, text.as_bytes(), ignore)),
            StringPattern::Suffix(text) => value
                .len()
                .checked_sub(text.len())
                .is_some_and(|at| same(&value[at..], text.as_bytes(), ignore)),
            StringPattern::Contains(text) => contains(value, text.as_bytes(), ignore),
            StringPattern::Regex(regex) => regex.is_full_match(value),
        }
    }
}

fn same(a: &[u8], b: &[u8], ignore_case: bool) -> bool {
    if ignore_case {
        a.eq_ignore_ascii_case(b)
    } else {
        a == b
    }
}

fn contains(value: &[u8], text: &[u8], ignore_case: bool) -> bool {
    text.is_empty()
        || value
            .windows(text.len())
            .any(|w| same(w, text, ignore_case))
}

/// How a header's value is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderPattern {
    /// The header is there (`true`) or is not (`false`).
    Present(bool),
    /// The value is a decimal integer of 64 bits with `start <= n < end`.
    Range {
        /// First number that matches.
        start: i64,
        /// First number above that does not.
        end: i64,
    },
    /// The value as a string.
    String(StringMatcher),
}

/// `config.route.v3.HeaderMatcher`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatcher {
    /// The header.
    pub key: HeaderKey,
    /// How it is compared.
    pub pattern: HeaderPattern,
    /// Turn the result around.
    pub invert: bool,
    /// An absent header counts as an empty one.
    pub treat_missing_as_empty: bool,
}

impl HeaderMatcher {
    /// A matcher that neither inverts nor treats a missing header as empty.
    pub fn new(key: HeaderKey, pattern: HeaderPattern) -> Self {
        Self {
            key,
            pattern,
            invert: false,
            treat_missing_as_empty: false,
        }
    }

    /// Whether a request matches.
    pub fn matches_request(&self, head: &RequestHead) -> bool {
        self.matches_value(self.key.in_request(head))
    }

    /// Whether a response matches.
    pub fn matches_response(&self, head: &ResponseHead) -> bool {
        self.matches_value(self.key.in_response(head))
    }

    /// Whether bare fields (trailers) match.
    pub fn matches_headers(&self, headers: &Headers) -> bool {
        self.matches_value(match &self.key {
            HeaderKey::Field(name) => headers.joined(name),
            _ => None,
        })
    }

    fn matches_value(&self, value: Option<Cow<'_, [u8]>>) -> bool {
        if let HeaderPattern::Present(wanted) = self.pattern {
            return (value.is_some() == wanted) != self.invert;
        }
        let value = match value {
            Some(value) => value,
            None if self.treat_missing_as_empty => Cow::Borrowed(&b""[..]),
            None => return self.invert,
        };
        self.matches_present(&value) != self.invert
    }

    fn matches_present(&self, value: &[u8]) -> bool {
        match &self.pattern {
            HeaderPattern::Present(wanted) => *wanted,
            HeaderPattern::Range { start, end } => std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .is_some_and(|n| *start <= n && n < *end),
            HeaderPattern::String(matcher) => matcher.matches(value),
        }
    }
}

/// How a query parameter is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryParameterPattern {
    /// The parameter is there (`true`) or is not (`false`).
    Present(bool),
    /// Its first value as a string.
    String(StringMatcher),
}

/// `config.route.v3.QueryParameterMatcher`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryParameterMatcher {
    /// Name of the parameter.
    pub name: Arc<str>,
    /// How it is compared.
    pub pattern: QueryParameterPattern,
}

impl QueryParameterMatcher {
    /// Whether a request matches.
    pub fn matches(&self, head: &RequestHead) -> bool {
        let value = query_parameter(head.query().unwrap_or_default(), self.name.as_bytes());
        match &self.pattern {
            QueryParameterPattern::Present(wanted) => value.is_some() == *wanted,
            QueryParameterPattern::String(matcher) => value.is_some_and(|v| matcher.matches(v)),
        }
    }
}

/// The first value of a parameter in a query string, as it is written there.
pub fn query_parameter<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    query.split(|b| *b == b'&').find_map(|pair| {
        let end = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
        (&pair[..end] == name).then(|| pair.get(end + 1..).unwrap_or_default())
    })
}
