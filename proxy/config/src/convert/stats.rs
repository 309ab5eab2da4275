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
        )?
        .into_iter()
        .filter(|(_, buckets)| !buckets.is_empty())
        .collect(),
    })
}

fn tag(message: pb::TagSpecifier) -> Result<TagSpecifierConfig> {
    use pb::tag_specifier::TagValue;
    let pb::TagSpecifier {
        tag_name,
        tag_value,
    } = message;
    if tag_name.is_empty() {
        return refuse("tag_name", "cannot be empty");
    }
    let regex = match tag_value {
        Some(TagValue::FixedValue(value)) => {
            return Ok(TagSpecifierConfig::Fixed {
                name: tag_name.into(),
                value: value.into(),
            });
        }
        Some(TagValue::Regex(regex)) => regex,
        None => String::new(),
    };
    compiles(&tag_name, &regex)?;
    Ok(TagSpecifierConfig::Regex {
        name: tag_name.into(),
        regex: regex.into(),
    })
}

/// Whether stats can be made with such a tag.
fn compiles(name: &str, regex: &str) -> Result<()> {
    let tag = outrigger_stats::TagSpecifier::Regex {
        name: name.to_owned(),
        regex: regex.to_owned(),
    };
    let config = outrigger_stats::StatsConfig {
        tags: vec![tag],
        use_all_default_tags: false,
        ..outrigger_stats::StatsConfig::default()
    };
    match outrigger_stats::Store::new(config) {
        Ok(_) => Ok(()),
        Err(error) => refuse("regex", error.to_string()),
    }
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

/// Bounds of buckets, in rising order.
fn buckets(message: pb::HistogramBucketSettings) -> Result<(StringMatcher, Vec<f64>)> {
    let pb::HistogramBucketSettings {
        r#match,
        mut buckets,
        bins: _,
    } = message;
    let of = string(required("match", r#match)?).within("match")?;
    buckets.sort_by(f64::total_cmp);
    Ok((of, buckets))
}
