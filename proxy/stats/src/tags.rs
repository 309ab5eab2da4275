//! Tag extraction: which parts of a stat's name are tags.
//!
//! An extractor marks a part of the name to take out and finds a value. All of them look
//! at the whole name, and what they marked is taken out at the end, so their order
//! matters only for the order of the labels: first those that no first token of the name
//! selects, tags with a fixed value among them, then those that it does.

use std::sync::Arc;

use ahash::AHashMap;

use crate::config::{ConfigError, StatsConfig, TagSpecifier};

/// A stat's family and labels, as Prometheus has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extracted {
    /// The name without its tags.
    pub(crate) name: Arc<str>,
    /// `tag="value"` pairs, with commas.
    pub(crate) labels: Arc<str>,
}

/// A name without its tags, and the tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tagged {
    pub(crate) name: String,
    pub(crate) tags: Vec<(Arc<str>, String)>,
}

/// Envoy's default tags: name and how to find it.
#[derive(Clone, Copy, Debug)]
enum Default_ {
    /// Tokens between dots: `*` is any, `$` the value, `**` all the rest.
    Tokens(&'static str),
    /// A regex, with the placeholders of [`expand`]; text the name must contain; and a
    /// value that is no tag.
    Regex(&'static str, &'static str, &'static str),
}

use Default_::{Regex as R, Tokens as T};

/// The default tags, the most specific first.
const DEFAULTS: &[(&str, Default_)] = &[
    ("envoy.response_code", R(r"_rq(_(\d{3}))$", "_rq_", "")),
    ("envoy.response_code_class", R(r"_rq_((\d))xx$", "_rq_", "")),
    (
        "envoy.dynamo_partition_id",
        R(
            r"^http\.<V>\.dynamodb\.table\.<V>\.capacity\.<V>(\.__partition_id=(\w{7}))$",
            ".dynamodb.table.",
            "",
        ),
    ),
    (
        "envoy.dynamo_operation",
        R(
            r"^http\.<V>\.dynamodb.(?:operation|table\.<V>\.capacity)(\.(<V>))(?:\.|$)",
            ".dynamodb.",
            "",
        ),
    ),
    (
        "envoy.mongo_callsite",
        T("mongo.*.collection.*.callsite.$.query.**"),
    ),
    (
        "envoy.dynamo_table",
        R(
            r"^http\.<V>\.dynamodb.(?:table|error)\.((<V>)\.)",
            ".dynamodb.",
            "",
        ),
    ),
    (
        "envoy.mongo_collection",
        T("mongo.*.collection.$.**.query.*"),
    ),
    ("envoy.mongo_cmd", T("mongo.*.cmd.$.**")),
    ("envoy.grpc_bridge_method", T("cluster.*.grpc.*.$.**")),
    ("envoy.http_user_agent", T("http.*.user_agent.$.**")),
    ("envoy.virtual_cluster", T("vhost.*.vcluster.$.**")),
    ("envoy.fault_downstream_cluster", T("http.*.fault.$.**")),
    (
        "envoy.ssl_cipher",
        R(
            r"^listener\..*?\.ssl\.ciphers(\.([\w-]+))$",
            ".ssl.ciphers.",
            "",
        ),
    ),
    (
        "envoy.ssl_curve",
        R(
            r"^(?:listener|cluster)\..*?\.ssl\.curves(\.([\w-]+))$",
            ".ssl.curves.",
            "",
        ),
    ),
    (
        "envoy.ssl_sigalg",
        R(
            r"^(?:listener|cluster)\..*?\.ssl\.sigalgs(\.([\w-]+))$",
            ".ssl.sigalgs.",
            "",
        ),
    ),
    (
        "envoy.ssl_version",
        R(
            r"^(?:listener|cluster)\..*?\.ssl\.versions(\.(TLSv\d\.\d))$",
            ".ssl.versions.",
            "",
        ),
    ),
    (
        "cipher_suite",
        R(
            r"^cluster\.<V>\.ssl\.ciphers(\.([\w-]+))$",
            ".ssl.ciphers.",
            "",
        ),
    ),
    ("envoy.grpc_bridge_service", T("cluster.*.grpc.$.**")),
    ("envoy.tcp_prefix", T("tcp.$.**")),
    ("envoy.udp_prefix", T("udp.$.**")),
    ("envoy.clientssl_prefix", T("auth.clientssl.$.**")),
    ("envoy.ratelimit_prefix", T("ratelimit.$.**")),
    ("envoy.cluster_name", T("cluster.$.**")),
    (
        "envoy.http_conn_manager_prefix",
        R(r"^listener\..*?\.http\.((<V>)\.)", ".http.", ""),
    ),
    ("envoy.ext_authz_prefix", T("cluster.*.ext_authz.$.**")),
    ("envoy.ext_authz_prefix", T("http.*.ext_authz.$.**")),
    ("envoy.http_conn_manager_prefix", T("http.$.**")),
    (
        "envoy.worker_id",
        R(
            r"^(?:listener\.(?:<A>|<V>)|server|listener_manager|thread_local_cluster_manager)\.worker_((\d+)\.)",
            "",
            "",
        ),
    ),
    (
        "envoy.listener_address",
        R(r"^listener\.((<A>|<V>)\.)", "", "admin"),
    ),
    ("envoy.virtual_host", T("vhost.$.**")),
    ("envoy.mongo_prefix", T("mongo.$.**")),
    (
        "envoy.rds_route_config",
        R(r"^http\.<V>\.rds\.(([\w\-.]+)\.)\w+?$", ".rds.", ""),
    ),
    (
        "envoy.scoped_rds_config",
        R(
            r"^http\.<V>\.scoped_rds\.(([\w\-./]+)\.)\w+?$",
            ".scoped_rds.",
            "",
        ),
    ),
    ("envoy.route", T("vhost.*.route.$.**")),
    ("envoy.thrift_prefix", T("thrift.$.**")),
    ("envoy.redis_prefix", T("redis.$.**")),
    ("envoy.google_grpc_client_prefix", T("grpc.$.**")),
    (
        "envoy.local_http_ratelimit_prefix",
        T("$.http_local_rate_limit.**"),
    ),
    (
        "envoy.local_network_ratelimit_prefix",
        T("local_rate_limit.$.**"),
    ),
    (
        "envoy.local_listener_ratelimit_prefix",
        T("listener_local_ratelimit.$.**"),
    ),
    ("envoy.dns_filter_prefix", T("dns_filter.$.**")),
    ("envoy.connection_limit_prefix", T("connection_limit.$.**")),
    ("envoy.rbac_prefix", T("$.rbac.**")),
    (
        "envoy.rbac_http_prefix",
        R(r"^http\.<V>\.rbac\.((<V>)\.).*?", "", "policy"),
    ),
    (
        "envoy.rbac_policy_name",
        R(
            r"^http\.<V>\.rbac\.(?:<V>\.)?policy\.((<V>)\.)(allowed|shadow_allowed|denied|shadow_denied)$",
            "",
            "",
        ),
    ),
    (
        "envoy.proxy_protocol_version",
        R(
            r"^proxy_proto\.((?:<V>\.)?versions\.v(\d)\.)\w+$",
            "proxy_proto.",
            "",
        ),
    ),
    (
        "envoy.proxy_protocol_prefix",
        R(r"^proxy_proto\.((<V>)\.).+$", "proxy_proto.", "versions"),
    ),
    (
        "envoy.tls_certificate",
        R(
            r"^(?:listener|cluster)\..*?\.ssl\.certificate\.((<V>)\.).*$",
            ".ssl.certificate.",
            "",
        ),
    ),
    ("envoy.xds_resource_name", R(r"^sds\.((<V>)\.).+", "", "")),
    (
        "envoy.health_check_name",
        R(
            r"^cluster\.<V>\.health_check(\.name\.(<V>))\..+",
            ".health_check.",
            "",
        ),
    ),
];

/// Fills the placeholders of a default regex: `<V>` a token, `<A>` an address and port.
fn expand(regex: &str) -> String {
    let address = r"(?:(?:\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[[a-fA-F_\d]+\])_\d+)";
    regex.replace("<V>", r"[^\.]+").replace("<A>", address)
}

/// How an extractor finds its tag.
#[derive(Debug)]
enum Finder {
    Tokens(&'static str),
    Regex {
        regex: Box<regex::bytes::Regex>,
        substring: &'static str,
        except: &'static str,
    },
    /// With look-ahead or back-references.
    Backtracking(Box<fancy_regex::Regex>),
    /// Of every name, without a part of it.
    Fixed(String),
}

#[derive(Debug)]
struct Extractor {
    name: Arc<str>,
    finder: Finder,
}

/// A part to take out and a value, both as byte ranges.
type Ranges = ((usize, usize), (usize, usize));

/// The part of a name to take out as a byte range, and the value.
type Found<'a> = ((usize, usize), &'a str);

impl Extractor {
    fn default(name: &str, how: Default_) -> Result<Self, ConfigError> {
        let finder = match how {
            T(pattern) => Finder::Tokens(pattern),
            R(regex, substring, except) => Finder::Regex {
                regex: Box::new(
                    compile(&expand(regex)).map_err(|reason| ConfigError::Regex {
                        regex: regex.into(),
                        reason,
                    })?,
                ),
                substring,
                except,
            },
        };
        Ok(Self {
            name: name.into(),
            finder,
        })
    }

    fn custom(name: &str, regex: &str) -> Result<Self, ConfigError> {
        let bad = |reason| ConfigError::Regex {
            regex: regex.into(),
            reason,
        };
        let (finder, groups) = match compile(regex) {
            Ok(plain) => {
                let groups = plain.captures_len();
                (
                    Finder::Regex {
                        regex: Box::new(plain),
                        substring: "",
                        except: "",
                    },
                    groups,
                )
            }
            Err(_) => {
                let fancy = fancy_regex::RegexBuilder::new(regex)
                    .backtrack_limit(100_000)
                    .build()
                    .map_err(|error| bad(error.to_string()))?;
                let groups = fancy.captures_len();
                (Finder::Backtracking(Box::new(fancy)), groups)
            }
        };
        match groups {
            0 | 1 => Err(ConfigError::NoGroup {
                name: name.into(),
                regex: regex.into(),
            }),
            _ => Ok(Self {
                name: name.into(),
                finder,
            }),
        }
    }

    /// The first token that a name must have for this to match, if that is known.
    fn first_token(&self) -> Option<String> {
        match &self.finder {
            Finder::Tokens(pattern) => {
                let first = pattern.split('.').next().unwrap_or("");
                (!matches!(first, "*" | "$" | "**")).then(|| first.to_owned())
            }
            Finder::Regex { regex, .. } => literal_prefix(regex.as_str()),
            Finder::Backtracking(regex) => literal_prefix(regex.as_str()),
            Finder::Fixed(_) => None,
        }
    }

    fn find<'a>(&'a self, name: &'a str) -> Option<Found<'a>> {
        if let Finder::Fixed(value) = &self.finder {
            return Some(((0, 0), value));
        }
        let (whole, value) = self.find_part(name)?;
        Some((whole, &name[value.0..value.1]))
    }

    fn find_part(&self, name: &str) -> Option<Ranges> {
        match &self.finder {
            Finder::Fixed(_) => None,
            Finder::Tokens(pattern) => find_tokens(pattern, name),
            Finder::Regex {
                regex,
                substring,
                except,
            } => {
                if !name.contains(substring) {
                    return None;
                }
                let captures = regex.captures(name.as_bytes())?;
                let whole = captures.get(1)?;
                let value = captures.get(2).unwrap_or(whole);
                if !except.is_empty() && value.as_bytes() == except.as_bytes() {
                    return None;
                }
                Some(((whole.start(), whole.end()), (value.start(), value.end())))
            }
            Finder::Backtracking(regex) => {
                // Over the limit of backtracking counts as no match.
                let captures = regex.captures(name).ok()??;
                let whole = captures.get(1)?;
                let value = captures.get(2).unwrap_or(whole);
                Some(((whole.start(), whole.end()), (value.start(), value.end())))
            }
        }
    }
}

fn compile(regex: &str) -> Result<regex::bytes::Regex, String> {
    // ECMAScript's classes are those of ASCII.
    regex::bytes::RegexBuilder::new(regex)
        .unicode(false)
        .build()
        .map_err(|error| error.to_string())
}

/// The first token of the names a regex can match: `^word\.` or `^word(?=\.)`.
fn literal_prefix(regex: &str) -> Option<String> {
    let rest = regex.strip_prefix('^')?;
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
    let (word, after) = rest.split_at(end);
    let dot = after.starts_with(r"\.") || after.starts_with(r"(?=\.)") || after == "$";
    (!word.is_empty() && dot).then(|| word.to_owned())
}

/// Matches `name` against a pattern of tokens.
fn find_tokens(pattern: &str, name: &str) -> Option<Ranges> {
    let pattern: smallvec::SmallVec<[&str; 8]> = pattern.split('.').collect();
    let mut value = None;
    match_tokens(&pattern, name, 0, &mut value).then_some(())?;
    let (start, end) = value?;
    // The dot after the value goes with it; at the end of the name the one before does.
    let whole = if end < name.len() {
        (start, end + 1)
    } else {
        (start.saturating_sub(1), end)
    };
    Some((whole, (start, end)))
}

/// Matches the tokens of `name` from byte `at` on.
fn match_tokens(
    pattern: &[&str],
    name: &str,
    at: usize,
    value: &mut Option<(usize, usize)>,
) -> bool {
    let Some((token, rest)) = pattern.split_first() else {
        return at > name.len();
    };
    if *token == "**" {
        return skip_tokens(rest, name, at, value);
    }
    let Some(text) = name.get(at..) else {
        return false;
    };
    let end = at + text.find('.').unwrap_or(text.len());
    match *token {
        "$" => *value = Some((at, end)),
        "*" => {}
        literal if literal == &name[at..end] => {}
        _ => return false,
    }
    match_tokens(rest, name, end + 1, value)
}

/// Matches `pattern` after any number of tokens.
fn skip_tokens(
    pattern: &[&str],
    name: &str,
    mut at: usize,
    value: &mut Option<(usize, usize)>,
) -> bool {
    if pattern.is_empty() {
        return true;
    }
    loop {
        if match_tokens(pattern, name, at, value) {
            return true;
        }
        let Some(dot) = name.get(at..).and_then(|text| text.find('.')) else {
            return false;
        };
        at += dot + 1;
    }
}

/// Finds the tags of names.
#[derive(Debug, Default)]
pub(crate) struct TagProducer {
    anywhere: Vec<Extractor>,
    by_first_token: AHashMap<String, Vec<Extractor>>,
}

impl TagProducer {
    pub(crate) fn new(config: &StatsConfig) -> Result<Self, ConfigError> {
        let mut producer = Self::default();
        if config.use_all_default_tags {
            for (name, how) in DEFAULTS {
                producer.add(Extractor::default(name, *how)?);
            }
        }
        for tag in &config.tags {
            match tag {
                TagSpecifier::Fixed { name, value } => {
                    producer.anywhere.push(Extractor {
                        name: name.as_str().into(),
                        finder: Finder::Fixed(value.clone()),
                    });
                }
                TagSpecifier::Regex { name, regex } if regex.is_empty() => {
                    producer.add_defaults(name)?;
                }
                TagSpecifier::Regex { name, regex } => {
                    producer.add(Extractor::custom(name, regex)?);
                }
            }
        }
        Ok(producer)
    }

    fn add(&mut self, extractor: Extractor) {
        match extractor.first_token() {
            None => self.anywhere.push(extractor),
            Some(token) => self
                .by_first_token
                .entry(token)
                .or_default()
                .push(extractor),
        }
    }

    /// Adds the default extractors of one tag.
    fn add_defaults(&mut self, tag: &str) -> Result<(), ConfigError> {
        let mut found = false;
        for (name, how) in DEFAULTS.iter().filter(|(name, _)| *name == tag) {
            self.add(Extractor::default(name, *how)?);
            found = true;
        }
        found
            .then_some(())
            .ok_or_else(|| ConfigError::NoDefault { name: tag.into() })
    }

    /// Takes the tags out of `name`.
    pub(crate) fn produce(&self, name: &str) -> Tagged {
        let mut tags: Vec<(Arc<str>, String)> = Vec::new();
        let mut removed = vec![false; name.len()];
        let first = name.split('.').next().unwrap_or("");
        let selected = self
            .by_first_token
            .get(first)
            .map_or(&[][..], Vec::as_slice);
        for extractor in self.anywhere.iter().chain(selected) {
            let Some((whole, value)) = extractor.find(name) else {
                continue;
            };
            // The first extractor of a name wins.
            if tags.iter().any(|(tag, _)| *tag == extractor.name) {
                continue;
            }
            removed[whole.0..whole.1].fill(true);
            tags.push((Arc::clone(&extractor.name), value.to_owned()));
        }
        let kept = name
            .char_indices()
            .filter(|(at, _)| !removed[*at])
            .map(|(_, c)| c);
        Tagged {
            name: kept.collect(),
            tags,
        }
    }
}
