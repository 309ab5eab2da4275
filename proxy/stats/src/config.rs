//! What of the bootstrap's `stats_config` concerns stats, as plain data.

use regex::Regex;

/// Configuration of a [`Store`](crate::Store); the default is Envoy's.
#[derive(Clone, Debug)]
pub struct StatsConfig {
    /// Tag specifiers, in order (`stats_tags`).
    pub tags: Vec<TagSpecifier>,
    /// Extract Envoy's default tags too. Default true.
    pub use_all_default_tags: bool,
    /// Which stats exist.
    pub matcher: StatsMatcher,
    /// Buckets of histograms, the first that matches (`histogram_bucket_settings`).
    pub histogram_buckets: Vec<BucketSettings>,
    /// Most names that one scope takes at run time. Default 4096.
    pub max_dynamic_names: usize,
    /// Most label sets that one family takes. Default 512.
    pub max_label_sets: usize,
}

impl Default for StatsConfig {
    fn default() -> Self {
        Self {
            tags: Vec::new(),
            use_all_default_tags: true,
            matcher: StatsMatcher::All,
            histogram_buckets: Vec::new(),
            max_dynamic_names: 4096,
            max_label_sets: 512,
        }
    }
}

/// One tag (`TagSpecifier`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagSpecifier {
    /// Its value is found by an ECMAScript regex: the first group is taken out of the
    /// name, the second (or the first, if there is one only) is the value.
    Regex {
        /// Name of the tag.
        name: String,
        /// The regex; empty for the default of that name.
        regex: String,
    },
    /// Every stat has it.
    Fixed {
        /// Name of the tag.
        name: String,
        /// Its value.
        value: String,
    },
}

/// Which stats exist (`StatsMatcher`).
#[derive(Clone, Debug, Default)]
pub enum StatsMatcher {
    /// All of them.
    #[default]
    All,
    /// None.
    None,
    /// Those that one of these matches.
    Inclusion(Vec<NameMatcher>),
    /// Those that none of these matches.
    Exclusion(Vec<NameMatcher>),
}

impl StatsMatcher {
    /// Whether the stat of this name exists.
    pub fn accepts(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Inclusion(list) => list.iter().any(|matcher| matcher.matches(name)),
            Self::Exclusion(list) => !list.iter().any(|matcher| matcher.matches(name)),
        }
    }
}

/// Matches the full name of a stat (`StringMatcher`).
#[derive(Clone, Debug)]
pub struct NameMatcher {
    /// What to look for.
    pub pattern: NamePattern,
    /// Compare ASCII letters without their case; regexes do not heed it.
    pub ignore_case: bool,
}

/// The pattern of a [`NameMatcher`].
#[derive(Clone, Debug)]
pub enum NamePattern {
    /// The whole name.
    Exact(String),
    /// Its beginning.
    Prefix(String),
    /// Its end.
    Suffix(String),
    /// Any part of it.
    Contains(String),
    /// A regex that the whole name must match.
    Regex(Regex),
}

impl NameMatcher {
    /// A matcher that heeds case.
    pub fn new(pattern: NamePattern) -> Self {
        Self {
            pattern,
            ignore_case: false,
        }
    }

    /// A matcher for names that match the whole of `regex`.
    ///
    /// # Errors
    /// The regex is malformed.
    pub fn regex(regex: &str) -> Result<Self, ConfigError> {
        let full = Regex::new(&format!("^(?:{regex})$")).map_err(|error| ConfigError::Regex {
            regex: regex.into(),
            reason: error.to_string(),
        })?;
        Ok(Self::new(NamePattern::Regex(full)))
    }

    /// Whether it matches `name`.
    pub fn matches(&self, name: &str) -> bool {
        if self.ignore_case && !matches!(self.pattern, NamePattern::Regex(_)) {
            return self.pattern.lower().matches(&name.to_ascii_lowercase());
        }
        self.pattern.matches(name)
    }
}

impl NamePattern {
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(text) => name == text,
            Self::Prefix(text) => name.starts_with(text.as_str()),
            Self::Suffix(text) => name.ends_with(text.as_str()),
            Self::Contains(text) => name.contains(text.as_str()),
            Self::Regex(regex) => regex.is_match(name),
        }
    }

    fn lower(&self) -> Self {
        match self {
            Self::Exact(text) => Self::Exact(text.to_ascii_lowercase()),
            Self::Prefix(text) => Self::Prefix(text.to_ascii_lowercase()),
            Self::Suffix(text) => Self::Suffix(text.to_ascii_lowercase()),
            Self::Contains(text) => Self::Contains(text.to_ascii_lowercase()),
            Self::Regex(regex) => Self::Regex(regex.clone()),
        }
    }
}

/// Buckets of the histograms whose name matches (`HistogramBucketSettings`).
#[derive(Clone, Debug)]
pub struct BucketSettings {
    /// Which histograms.
    pub matcher: NameMatcher,
    /// Upper bounds, ascending.
    pub bounds: Vec<f64>,
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// A regex is malformed.
    Regex {
        /// The regex.
        regex: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A tag has no regex and there is no default of its name.
    NoDefault {
        /// Name of the tag.
        name: String,
    },
    /// A tag's regex has no group to take out of the name.
    NoGroup {
        /// Name of the tag.
        name: String,
        /// The regex.
        regex: String,
    },
    /// The bounds of a histogram's buckets are none, not positive, or do not ascend.
    Buckets,
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Regex { regex, reason } => write!(f, "invalid regex '{regex}': {reason}"),
            Self::NoDefault { name } => write!(
                f,
                "No regex specified for tag specifier and no default regex for name: '{name}'"
            ),
            Self::NoGroup { name, regex } => {
                write!(f, "the regex of tag '{name}' has no group: '{regex}'")
            }
            Self::Buckets => {
                f.write_str("histogram_bucket_settings.buckets must be positive and ascend")
            }
        }
    }
}

impl std::error::Error for ConfigError {}

impl StatsConfig {
    /// Checks what the types do not say.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let ascends = |bounds: &[f64]| {
            !bounds.is_empty()
                && bounds[0] > 0.0
                && bounds.iter().all(|bound| bound.is_finite())
                && bounds.windows(2).all(|pair| pair[0] < pair[1])
        };
        match self
            .histogram_buckets
            .iter()
            .all(|setting| ascends(&setting.bounds))
        {
            true => Ok(()),
            false => Err(ConfigError::Buckets),
        }
    }
}
