//! The queries of `/stats` and `/stats/prometheus`.

use regex::Regex;

use crate::snapshot::Row;
use crate::store::Store;

/// Media type of the text forms.
const TEXT: &str = "text/plain; charset=UTF-8";

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Value of `content-type`.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

impl Rendered {
    pub(crate) fn text(body: String) -> Self {
        Self {
            content_type: TEXT,
            body,
        }
    }
}

/// Why a query is refused: the body of a 400.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryError(pub String);

impl std::fmt::Display for QueryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for QueryError {}

/// How an answer of `/stats` is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Lines of text.
    #[default]
    Text,
    /// JSON.
    Json,
    /// As `/stats/prometheus` does.
    Prometheus,
    /// A page that shows the text (`html` and `active-html`).
    Html,
}

/// How histograms are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BucketMode {
    /// Percentiles, which for `/stats/prometheus` are not the default.
    #[default]
    Summary,
    /// Buckets, each with all that lies below its bound.
    Cumulative,
    /// Buckets, each with its own samples.
    Disjoint,
    /// Every bin that holds samples, and the percentiles.
    Detailed,
}

/// The kinds of stats to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TypeFilter {
    /// All.
    #[default]
    All,
    /// Counters.
    Counters,
    /// Gauges.
    Gauges,
    /// Histograms.
    Histograms,
    /// Text readouts.
    TextReadouts,
}

/// Which names to show.
#[derive(Clone, Debug, Default)]
pub(crate) struct NameFilter {
    regex: Option<Regex>,
    invert: bool,
    nothing: bool,
}

impl NameFilter {
    fn parse(params: &Params) -> Result<Self, QueryError> {
        let regex = match params.get("filter") {
            None | Some("") => None,
            Some(text) => Some(Regex::new(text).map_err(|error| {
                let error = error.to_string();
                let reason = error
                    .lines()
                    .last()
                    .unwrap_or("")
                    .trim_start_matches("error: ");
                QueryError(format!("Invalid re2 regex: {reason}"))
            })?),
        };
        Ok(Self {
            regex,
            invert: params.get("invert_filter").is_some(),
            nothing: false,
        })
    }

    fn of(&self, outside: &dyn Fn() -> Vec<Row>) -> Vec<Row> {
        let mut rows = outside();
        rows.retain(|row| self.accepts(&row.name));
        rows
    }

    pub(crate) fn accepts(&self, name: &str) -> bool {
        let found = self
            .regex
            .as_ref()
            .is_none_or(|regex| regex.is_match(name) != self.invert);
        found && !self.nothing
    }
}

/// A query of `/stats`.
#[derive(Clone, Debug, Default)]
pub struct StatsQuery {
    /// Only what was ever written.
    pub used_only: bool,
    /// How the answer is written.
    pub format: Format,
    /// How histograms are shown.
    pub buckets: BucketMode,
    /// Which kinds.
    pub types: TypeFilter,
    pub(crate) names: NameFilter,
    /// The same as a query of `/stats/prometheus`, where that is the format.
    prometheus: Option<PrometheusQuery>,
}

impl StatsQuery {
    /// Reads the query of the address, without its `?`. Parameters it does not know are
    /// let be, as Envoy does.
    ///
    /// # Errors
    /// A value is none that Envoy takes, or the filter is no regex; the text is Envoy's.
    pub fn parse(query: &str) -> Result<Self, QueryError> {
        let params = Params::parse(query);
        let usage = |text: &str| Err(QueryError(format!("usage: /stats?{text}\n")));
        if params.get("format") == Some("prometheus") {
            return Ok(Self {
                format: Format::Prometheus,
                prometheus: Some(PrometheusQuery::parse(query)?),
                ..Self::default()
            });
        }
        let buckets = match params.get("histogram_buckets") {
            None | Some("" | "none" | "summary") => BucketMode::Summary,
            Some("cumulative") => BucketMode::Cumulative,
            Some("disjoint") => BucketMode::Disjoint,
            Some("detailed") => BucketMode::Detailed,
            Some(_) => {
                return usage(
                    "histogram_buckets=(cumulative|disjoint|detailed|summary|prometheusnative)",
                );
            }
        };
        let mut names = NameFilter::parse(&params)?;
        let types = match params.get("type") {
            None | Some("All") => TypeFilter::All,
            Some("Counters") => TypeFilter::Counters,
            Some("Gauges") => TypeFilter::Gauges,
            Some("Histograms") => TypeFilter::Histograms,
            Some("TextReadouts") => TypeFilter::TextReadouts,
            Some(_) => return Err(QueryError("invalid &type= param".into())),
        };
        let format = match params.get("format") {
            None | Some("text") => Format::Text,
            Some("json") => Format::Json,
            Some("html" | "active-html") => Format::Html,
            Some(_) => return usage("format=(html|active-html|json|prometheus|text)\n"),
        };
        match params.get("hidden") {
            None | Some("include" | "exclude") => {}
            // None of our stats is hidden.
            Some("only") => names.nothing = true,
            Some(_) => return usage("hidden=(include|only|exclude)\n"),
        }
        let used_only = params.get("usedonly").is_some();
        Ok(Self {
            used_only,
            format,
            buckets,
            types,
            names,
            prometheus: None,
        })
    }

    pub(crate) fn render(&self, store: &Store, outside: &dyn Fn() -> Vec<Row>) -> Rendered {
        if let Some(query) = &self.prometheus {
            return query.render(store, outside);
        }
        let mut snapshot = store.snapshot(&|name| self.names.accepts(name), false);
        snapshot.outside = self.names.of(outside);
        snapshot.retain(self.types, self.used_only);
        match self.format {
            Format::Json => Rendered {
                content_type: "application/json",
                body: crate::json::render(&snapshot, self.buckets),
            },
            Format::Html => Rendered {
                content_type: "text/html; charset=UTF-8",
                body: crate::text::html(&crate::text::render(&snapshot, self.buckets)),
            },
            Format::Text | Format::Prometheus => {
                Rendered::text(crate::text::render(&snapshot, self.buckets))
            }
        }
    }
}

/// A query of `/stats/prometheus`.
#[derive(Clone, Debug, Default)]
pub struct PrometheusQuery {
    /// Only what was ever written.
    pub used_only: bool,
    /// Text readouts too, as gauges of zero whose text is a label.
    pub text_readouts: bool,
    /// Histograms as summaries of the last interval, not as buckets.
    pub summary: bool,
    pub(crate) names: NameFilter,
}

impl PrometheusQuery {
    /// Reads the query of the address, without its `?`.
    ///
    /// # Errors
    /// The histograms' mode is none that this form has, or the filter is no regex.
    pub fn parse(query: &str) -> Result<Self, QueryError> {
        let params = Params::parse(query);
        let names = NameFilter::parse(&params)?;
        let refuse = |text: &str| Err(QueryError(text.into()));
        let summary = match params.get("histogram_buckets") {
            None | Some("" | "cumulative") => false,
            Some("none" | "summary") => true,
            Some("detailed" | "disjoint") => {
                return refuse("unsupported prometheus histogram bucket mode");
            }
            Some("prometheusnative") => {
                return refuse(
                    "unsupported prometheusnative histogram type when not using protobuf exposition format",
                );
            }
            Some(_) => {
                return refuse(
                    "usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary|prometheusnative)\n",
                );
            }
        };
        let used_only = params.get("usedonly").is_some();
        let text_readouts = params.get("text_readouts").is_some();
        Ok(Self {
            used_only,
            text_readouts,
            summary,
            names,
        })
    }

    pub(crate) fn render(&self, store: &Store, outside: &dyn Fn() -> Vec<Row>) -> Rendered {
        let mut snapshot = store.snapshot(&|name| self.names.accepts(name), true);
        snapshot.outside = self.names.of(outside);
        snapshot.retain(TypeFilter::All, self.used_only);
        let mut body = crate::prometheus::render(&snapshot, self);
        for family in store.families() {
            if self.names.accepts(family.options.name) {
                family.render(&mut body, false);
            }
        }
        Rendered::text(body)
    }
}

/// The parameters of a query, decoded.
struct Params(Vec<(String, String)>);

impl Params {
    fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let split = |pair: &str| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        };
        Self(pairs.map(split).collect())
    }

    /// The first value of a parameter.
    fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }
}

/// Undoes percent-encoding.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], byte) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
