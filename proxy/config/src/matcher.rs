//! String, header and query parameter matchers.

use std::sync::Arc;

use outrigger_types::{HeaderKey, HeaderName, HeaderValue, Headers, RequestHead, ResponseHead};

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
///
/// Of several fields of the name one that matches is enough. A field that is
/// absent matches no string and no range, inverted or not.
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
        match &self.key {
            HeaderKey::Field(name) => self.matches_field(&head.headers, name),
            key => self.matches_values(key.in_request(head).iter().map(|value| &**value)),
        }
    }

    /// Whether a response matches.
    pub fn matches_response(&self, head: &ResponseHead) -> bool {
        match &self.key {
            HeaderKey::Field(name) => self.matches_field(&head.headers, name),
            HeaderKey::Status => self.matches_values([head.status.as_str().as_bytes()].into_iter()),
            _ => self.matches_values(std::iter::empty()),
        }
    }

    /// Whether bare fields (trailers) match.
    pub fn matches_headers(&self, headers: &Headers) -> bool {
        match &self.key {
            HeaderKey::Field(name) => self.matches_field(headers, name),
            _ => self.matches_values(std::iter::empty()),
        }
    }

    fn matches_field(&self, headers: &Headers, name: &HeaderName) -> bool {
        self.matches_values(headers.get_all(name).map(HeaderValue::as_bytes))
    }

    /// One value that matches is enough; what is absent matches no pattern, and
    /// is not turned around either.
    fn matches_values<'a>(&self, values: impl Iterator<Item = &'a [u8]>) -> bool {
        let mut values = values.peekable();
        let there = values.peek().is_some() || self.treat_missing_as_empty;
        if let HeaderPattern::Present(wanted) = self.pattern {
            return (there == wanted) != self.invert;
        }
        if values.peek().is_none() {
            return there && self.matches_value(b"") != self.invert;
        }
        values.any(|value| self.matches_value(value)) != self.invert
    }

    fn matches_value(&self, value: &[u8]) -> bool {
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

#[cfg(test)]
mod tests {
    use outrigger_types::Method;

    use super::*;

    /// Values of the header `x` that a request was sent to Envoy with.
    const REQUESTS: [&[&str]; 10] = [
        &[],
        &[""],
        &["ab"],
        &["5"],
        &["a", "b"],
        &["AB"],
        &["+5"],
        &["05"],
        &["-5"],
        &["5x"],
    ];

    fn string(pattern: StringPattern, ignore_case: bool) -> HeaderPattern {
        HeaderPattern::String(StringMatcher::new(pattern, ignore_case))
    }

    fn patterns() -> Vec<HeaderPattern> {
        let regex = Regex::new(".*").unwrap();
        vec![
            string(StringPattern::Exact("ab".into()), false),
            string(StringPattern::Prefix("a".into()), false),
            HeaderPattern::Present(true),
            HeaderPattern::Present(false),
            HeaderPattern::Range { start: -10, end: 6 },
            string(StringPattern::Regex(regex), false),
            string(StringPattern::Exact("a,b".into()), false),
            string(StringPattern::Exact("".into()), false),
            string(StringPattern::Exact("aB".into()), true),
            string(StringPattern::Suffix("b".into()), false),
        ]
    }

    /// What Envoy made of [`REQUESTS`]: a line a pattern, four columns for
    /// inverted or not, and missing ones taken as empty or not.
    const VERDICTS: &str = "\
        NNYNNNNNNN NNYNNNNNNN NYNYYYYYYY YYNYYYYYYY
        NNYNYNNNNN NNYNYNNNNN NYNYNYYYYY YYNYNYYYYY
        NYYYYYYYYY YYYYYYYYYY YNNNNNNNNN NNNNNNNNNN
        YNNNNNNNNN NNNNNNNNNN NYYYYYYYYY YYYYYYYYYY
        NNNYNNYYYN NNNYNNYYYN NYYNYYNNNY YYYNYYNNNY
        NYYYYYYYYY YYYYYYYYYY NNNNNNNNNN NNNNNNNNNN
        NNNNNNNNNN NNNNNNNNNN NYYYYYYYYY YYYYYYYYYY
        NYNNNNNNNN YYNNNNNNNN NNYYYYYYYY NNYYYYYYYY
        NNYNNYNNNN NNYNNYNNNN NYNYYNYYYY YYNYYNYYYY
        NNYNYNNNNN NNYNYNNNNN NYNYNYYYYY YYNYNYYYYY";

    fn verdicts(matcher: &HeaderMatcher) -> String {
        let name = HeaderName::from_static("x");
        let verdict = |values: &&[&'static str]| {
            let mut head = RequestHead::new(Method::GET, "/");
            for value in *values {
                let value = HeaderValue::from_static(value);
                head.headers.append(name.clone(), value);
            }
            let matches = matcher.matches_request(&head);
            assert_eq!(matcher.matches_headers(&head.headers), matches);
            if matches { 'Y' } else { 'N' }
        };
        REQUESTS.iter().map(verdict).collect()
    }

    #[test]
    fn headers_match_as_in_envoy() {
        for (pattern, line) in patterns().into_iter().zip(VERDICTS.lines()) {
            for (column, expected) in line.split_whitespace().enumerate() {
                let matcher = HeaderMatcher {
                    key: HeaderKey::parse("x").unwrap(),
                    pattern: pattern.clone(),
                    invert: column >= 2,
                    treat_missing_as_empty: column % 2 == 1,
                };
                assert_eq!(verdicts(&matcher), expected, "{matcher:?}");
            }
        }
    }

    #[test]
    fn pseudo_headers_match() {
        let head = RequestHead::new(Method::GET, "/path");
        let pattern = string(StringPattern::Prefix("/pa".into()), false);
        let matches = |name, pattern: &HeaderPattern| {
            HeaderMatcher::new(HeaderKey::parse(name).unwrap(), pattern.clone())
                .matches_request(&head)
        };
        assert!(matches(":path", &pattern) && !matches(":authority", &pattern));
        assert!(matches("host", &HeaderPattern::Present(false)));
        let matcher = HeaderMatcher::new(
            HeaderKey::Status,
            HeaderPattern::Range {
                start: 200,
                end: 300,
            },
        );
        assert!(matcher.matches_response(&ResponseHead::new(http::StatusCode::OK)));
        assert!(!matcher.matches_request(&head));
    }

    #[test]
    fn parameters_are_compared_as_they_are_written() {
        let paths = [
            "/",
            "/?q",
            "/?q=",
            "/?q=a%20b",
            "/?q=x&q=a%20b",
            "/?%71=a%20b",
            "/?q=&q=a",
        ];
        let exact = |text| QueryParameterPattern::String(StringMatcher::exact(text));
        for (pattern, expected) in [
            (exact("a b"), "NNNNNNN"),
            (exact("a%20b"), "NNNYNNN"),
            (exact(""), "NYYNNNY"),
            (QueryParameterPattern::Present(true), "NYYYYNY"),
            (QueryParameterPattern::Present(false), "YNNNNYN"),
        ] {
            let matcher = QueryParameterMatcher {
                name: "q".into(),
                pattern,
            };
            let verdict = |path: &&'static str| {
                let head = RequestHead::new(Method::GET, *path);
                if matcher.matches(&head) { 'Y' } else { 'N' }
            };
            let verdicts: String = paths.iter().map(verdict).collect();
            assert_eq!(verdicts, expected, "{matcher:?}");
        }
    }

    #[test]
    fn case_is_ignored_in_every_form_but_the_expression() {
        let matches =
            |pattern, value: &str| StringMatcher::new(pattern, true).matches(value.as_bytes());
        assert!(matches(StringPattern::Prefix("aB".into()), "Abc"));
        assert!(matches(StringPattern::Suffix("Bc".into()), "abC"));
        assert!(matches(StringPattern::Contains("B".into()), "abc"));
        assert!(!matches(StringPattern::Contains("d".into()), "abc"));
        let regex = Regex::new("a").unwrap();
        assert!(!matches(StringPattern::Regex(regex), "A"));
    }
}
