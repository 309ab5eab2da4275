//! From the bootstrap's stats configuration to that of the stats package.

use outrigger_config::ir::{self, StatsMatcherConfig, TagSpecifierConfig};
use outrigger_config::matcher::{StringMatcher, StringPattern};
use outrigger_stats::{
    BucketSettings, ConfigError, NameMatcher, NamePattern, StatsConfig, StatsMatcher, TagSpecifier,
};

/// The configuration of the store; `tags` are fixed ones of the command line.
///
/// # Errors
/// A regex that the stats package does not take.
pub fn of(config: &ir::StatsConfig, tags: &[(String, String)]) -> Result<StatsConfig, ConfigError> {
    let fixed = tags.iter().map(|(name, value)| TagSpecifier::Fixed {
        name: name.clone(),
        value: value.clone(),
    });
    let configured = config.tags.iter().map(|tag| match tag {
        TagSpecifierConfig::Regex { name, regex } => TagSpecifier::Regex {
            name: name.to_string(),
            regex: regex.to_string(),
        },
        TagSpecifierConfig::Fixed { name, value } => TagSpecifier::Fixed {
            name: name.to_string(),
            value: value.to_string(),
        },
    });
    let buckets = config.histogram_buckets.iter().map(|(matcher, bounds)| {
        Ok(BucketSettings {
            matcher: name_matcher(matcher)?,
            bounds: bounds.clone(),
        })
    });
    Ok(StatsConfig {
        tags: fixed.chain(configured).collect(),
        use_all_default_tags: config.use_all_default_tags,
        matcher: matcher(&config.matcher)?,
        histogram_buckets: buckets.collect::<Result<_, ConfigError>>()?,
        ..StatsConfig::default()
    })
}

fn matcher(config: &StatsMatcherConfig) -> Result<StatsMatcher, ConfigError> {
    let all = |list: &[StringMatcher]| list.iter().map(name_matcher).collect::<Result<_, _>>();
    Ok(match config {
        StatsMatcherConfig::All => StatsMatcher::All,
        StatsMatcherConfig::None => StatsMatcher::None,
        StatsMatcherConfig::Inclusion(list) => StatsMatcher::Inclusion(all(list)?),
        StatsMatcherConfig::Exclusion(list) => StatsMatcher::Exclusion(all(list)?),
    })
}

fn name_matcher(matcher: &StringMatcher) -> Result<NameMatcher, ConfigError> {
    let pattern = match matcher.pattern() {
        StringPattern::Exact(text) => NamePattern::Exact(text.to_string()),
        StringPattern::Prefix(text) => NamePattern::Prefix(text.to_string()),
        StringPattern::Suffix(text) => NamePattern::Suffix(text.to_string()),
        StringPattern::Contains(text) => NamePattern::Contains(text.to_string()),
        StringPattern::Regex(regex) => return NameMatcher::regex(regex.as_str()),
    };
    Ok(NameMatcher {
        pattern,
        ignore_case: matcher.ignore_case(),
    })
}
