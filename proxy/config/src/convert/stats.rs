//! Tags and the matcher of stats (`StatsConfig`).

use super::Result;
use super::matcher::{string, string_list};
use super::path::{Within, bool_or, each, refuse, required};
use crate::ir::{StatsConfig, StatsMatcherConfig, TagSpecifierConfig};
use crate::matcher::StringMatcher;
use crate::pb::envoy::config::metrics::v3 as pb;

/// Converts the stats configuration; without one, Envoy's default tags are used.
pub(super) fn stats_config(message: Option<pb::StatsConfig>) -> Result<StatsConfig> {
    let pb::StatsConfig {
        stats_tags,
        use_all_default_tags,
        stats_matcher,
        histogram_bucket_settings,
        allow_default_tag_overrides: _,
    } = message.unwrap_or_default();
    Ok(StatsConfig {
        tags: each("stats_tags", stats_tags, tag)?,
        use_all_default_tags: bool_or(use_all_default_tags, true),
        matcher: matcher(stats_matcher).within("stats_matcher")?,
        histogram_buckets: each(
            "histogram_bucket_settings",
            histogram_bucket_settings,
            buckets,
        )?,
    })
}

fn tag(message: pb::TagSpecifier) -> Result<TagSpecifierConfig> {
    use pb::tag_specifier::TagValue;
    let pb::TagSpecifier {
        tag_name,
        tag_value,
    } = message;
    let name = tag_name.into();
    Ok(match tag_value {
        Some(TagValue::FixedValue(value)) => TagSpecifierConfig::Fixed {
            name,
            value: value.into(),
        },
        Some(TagValue::Regex(regex)) => TagSpecifierConfig::Regex {
            name,
            regex: regex.into(),
        },
        None => TagSpecifierConfig::Regex {
            name,
            regex: "".into(),
        },
    })
}

fn matcher(message: Option<pb::StatsMatcher>) -> Result<StatsMatcherConfig> {
    use pb::stats_matcher::StatsMatcher as Kind;
    let Some(pb::StatsMatcher { stats_matcher }) = message else {
        return Ok(StatsMatcherConfig::All);
    };
    Ok(match required("stats_matcher", stats_matcher)? {
        Kind::RejectAll(true) => StatsMatcherConfig::None,
        Kind::RejectAll(false) => StatsMatcherConfig::All,
        Kind::InclusionList(list) => {
            StatsMatcherConfig::Inclusion(string_list(list).within("inclusion_list")?)
        }
        Kind::ExclusionList(list) => {
            StatsMatcherConfig::Exclusion(string_list(list).within("exclusion_list")?)
        }
    })
}

/// Bounds of buckets, each above the one before.
fn buckets(message: pb::HistogramBucketSettings) -> Result<(StringMatcher, Vec<f64>)> {
    let pb::HistogramBucketSettings {
        r#match,
        buckets,
        bins: _,
    } = message;
    let of = string(required("match", r#match)?).within("match")?;
    if buckets.is_empty() {
        return refuse("buckets", "value must contain at least 1 item(s)");
    }
    let rising = buckets.windows(2).all(|pair| pair[0] < pair[1]);
    if !rising
        || buckets
            .iter()
            .any(|bound| !bound.is_finite() || *bound <= 0.0)
    {
        return refuse(
            "buckets",
            "values must be unique, rising and greater than 0",
        );
    }
    Ok((of, buckets))
}
