//! Strings, header fields, query parameters and shares.

use filter_api::{ConfigError, FractionalPercent, RuntimeFraction};
use outrigger_types::HeaderKey;

use super::Result;
use super::path::{Within, each, optional, refuse, required, unknown_enum};
use crate::ir::RegexRewrite;
use crate::matcher::{
    HeaderMatcher, HeaderPattern, QueryParameterMatcher, QueryParameterPattern, StringMatcher,
    StringPattern,
};
use crate::pb::envoy::config::core::v3 as core;
use crate::pb::envoy::config::route::v3 as pb;
use crate::pb::envoy::r#type::matcher::v3 as matchers;
use crate::pb::envoy::r#type::v3 as types;
use crate::re2::Regex;

/// An expression of RE2. The engine cannot be chosen and the size of a program
/// is limited for the whole process, so `engine_type` has no effect.
pub(super) fn regex(message: matchers::RegexMatcher) -> Result<Regex> {
    let matchers::RegexMatcher {
        regex,
        engine_type: _,
    } = message;
    if regex.is_empty() {
        return refuse("regex", "value length must be at least 1 characters");
    }
    Regex::new(&regex).map_err(|reason| ConfigError::field("regex", reason))
}

/// An expression and what replaces its matches.
pub(super) fn regex_rewrite(message: matchers::RegexMatchAndSubstitute) -> Result<RegexRewrite> {
    let matchers::RegexMatchAndSubstitute {
        pattern,
        substitution,
    } = message;
    let pattern = regex(required("pattern", pattern)?).within("pattern")?;
    let substitution = pattern
        .substitution(&substitution)
        .map_err(|reason| ConfigError::field("substitution", reason))?;
    Ok(RegexRewrite {
        pattern,
        substitution,
    })
}

/// A matcher of strings.
///
/// # Errors
/// For a pattern that is refused, with its path.
pub fn string(message: matchers::StringMatcher) -> Result<StringMatcher> {
    use matchers::string_matcher::MatchPattern;
    let matchers::StringMatcher {
        ignore_case,
        match_pattern,
    } = message;
    let pattern = match required("match_pattern", match_pattern)? {
        MatchPattern::Exact(text) => StringPattern::Exact(text.into()),
        MatchPattern::Prefix(text) => StringPattern::Prefix(text.into()),
        MatchPattern::Suffix(text) => StringPattern::Suffix(text.into()),
        MatchPattern::Contains(text) => StringPattern::Contains(text.into()),
        MatchPattern::SafeRegex(_) if ignore_case => {
            return refuse("ignore_case", "has no effect for safe_regex");
        }
        MatchPattern::SafeRegex(message) => {
            StringPattern::Regex(regex(message).within("safe_regex")?)
        }
        MatchPattern::Custom(_) => return refuse("custom", "is not supported"),
    };
    Ok(StringMatcher::new(pattern, ignore_case))
}

/// A list of strings, any of which may match.
pub(super) fn string_list(message: matchers::ListStringMatcher) -> Result<Vec<StringMatcher>> {
    let matchers::ListStringMatcher { patterns } = message;
    each("patterns", patterns, string)
}

/// A header field.
pub(super) fn header(message: pb::HeaderMatcher) -> Result<HeaderMatcher> {
    let pb::HeaderMatcher {
        name,
        invert_match,
        treat_missing_header_as_empty,
        header_match_specifier,
    } = message;
    let Some(key) = HeaderKey::parse(&name) else {
        return refuse("name", format!("\"{name}\" is no header name"));
    };
    Ok(HeaderMatcher {
        key,
        pattern: header_pattern(header_match_specifier)?,
        invert: invert_match,
        treat_missing_as_empty: treat_missing_header_as_empty,
    })
}

fn header_pattern(
    specifier: Option<pb::header_matcher::HeaderMatchSpecifier>,
) -> Result<HeaderPattern> {
    use pb::header_matcher::HeaderMatchSpecifier as Match;
    let of = |pattern: StringPattern| HeaderPattern::String(StringMatcher::new(pattern, false));
    Ok(match specifier {
        None => HeaderPattern::Present(true),
        Some(Match::PresentMatch(present)) => HeaderPattern::Present(present),
        Some(Match::RangeMatch(types::Int64Range { start, end })) => {
            HeaderPattern::Range { start, end }
        }
        Some(Match::StringMatch(message)) => {
            HeaderPattern::String(string(message).within("string_match")?)
        }
        Some(Match::ExactMatch(text)) => of(StringPattern::Exact(text.into())),
        Some(Match::PrefixMatch(text)) => of(StringPattern::Prefix(text.into())),
        Some(Match::SuffixMatch(text)) => of(StringPattern::Suffix(text.into())),
        Some(Match::ContainsMatch(text)) => of(StringPattern::Contains(text.into())),
        Some(Match::SafeRegexMatch(message)) => of(StringPattern::Regex(
            regex(message).within("safe_regex_match")?,
        )),
    })
}

/// A list of header fields. `name` is the field that holds it.
///
/// # Errors
/// The first matcher that is refused.
pub fn headers(name: &str, list: Vec<pb::HeaderMatcher>) -> Result<Vec<HeaderMatcher>> {
    each(name, list, header)
}

/// A query parameter.
pub(super) fn query_parameter(message: pb::QueryParameterMatcher) -> Result<QueryParameterMatcher> {
    use pb::query_parameter_matcher::QueryParameterMatchSpecifier as Match;
    let pb::QueryParameterMatcher {
        name,
        query_parameter_match_specifier,
    } = message;
    if name.is_empty() {
        return refuse("name", "value length must be at least 1 characters");
    }
    let pattern = match query_parameter_match_specifier {
        None => QueryParameterPattern::Present(true),
        Some(Match::PresentMatch(present)) => QueryParameterPattern::Present(present),
        Some(Match::StringMatch(message)) => {
            QueryParameterPattern::String(string(message).within("string_match")?)
        }
    };
    Ok(QueryParameterMatcher {
        name: name.into(),
        pattern,
    })
}

/// A share of a whole.
///
/// # Errors
/// If the denominator is none of Envoy's.
pub fn fraction(message: types::FractionalPercent) -> Result<FractionalPercent> {
    use types::fractional_percent::DenominatorType;
    let types::FractionalPercent {
        numerator,
        denominator,
    } = message;
    let denominator = match DenominatorType::try_from(denominator) {
        Ok(DenominatorType::Hundred) => 100,
        Ok(DenominatorType::TenThousand) => 10_000,
        Ok(DenominatorType::Million) => 1_000_000,
        Err(_) => return unknown_enum("denominator", denominator),
    };
    Ok(FractionalPercent {
        numerator,
        denominator,
    })
}

/// A share that runtime may override.
pub(super) fn runtime_fraction(message: core::RuntimeFractionalPercent) -> Result<RuntimeFraction> {
    let core::RuntimeFractionalPercent {
        default_value,
        runtime_key,
    } = message;
    let default = required("default_value", default_value)?;
    Ok(RuntimeFraction {
        default: fraction(default).within("default_value")?,
        key: runtime_key.into(),
    })
}

/// A share that need not be there, of the field `name`.
///
/// # Errors
/// For a value that is refused, with its path.
pub fn optional_runtime_fraction(
    name: &str,
    message: Option<core::RuntimeFractionalPercent>,
) -> Result<Option<RuntimeFraction>> {
    optional(name, message, runtime_fraction)
}

/// A percentage.
pub(super) fn percent(name: &str, message: Option<types::Percent>, default: f64) -> Result<f64> {
    let Some(types::Percent { value }) = message else {
        return Ok(default);
    };
    if (0.0..=100.0).contains(&value) {
        Ok(value)
    } else {
        refuse(name, "value must be between 0 and 100")
    }
}
