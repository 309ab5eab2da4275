//! The process's own log, in Envoy's format: spdlog's patterns, levels by
//! component (the target of an event), changeable while it runs.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::{Registry, reload};

use outrigger_config::ir::LogFormatConfig;

use super::options::Options;

/// Envoy's default pattern.
pub const DEFAULT_FORMAT: &str = "[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v";

/// Envoy 1.40's components, in the order in which `/logging` lists them.
#[rustfmt::skip]
pub const COMPONENTS: &[&str] = &[
    "a2a", "admin", "ai_protocol_manager", "alternate_protocols_cache", "aws", "assert",
    "backtrace", "basic_auth", "cache_filter", "client", "config", "connection", "conn_handler",
    "compression", "credential_injector", "decompression", "dns", "dubbo", "envoy_bug",
    "ext_authz", "ext_proc", "rocketmq", "file", "filter", "forward_proxy", "geolocation",
    "grpc", "happy_eyeballs", "hc", "health_checker", "http", "http2", "hystrix", "init", "io",
    "jwt", "json_rpc", "kafka", "key_value_store", "lua", "local_rate_limit", "main", "matcher",
    "mcp", "misc", "mongo", "multi_connection", "notification", "oauth2", "quic", "quic_stream",
    "pool", "rate_limit_quota", "rbac", "rds", "redis", "router", "runtime", "stats", "secret",
    "sse", "tap", "testing", "thrift", "tracing", "upstream", "udp", "wasm", "websocket",
    "golang", "stats_sinks", "dynamic_modules", "ip_tagging",
];

/// Modules whose events name no component, and the one that they belong to.
const MODULES: &[(&str, &str)] = &[
    ("outrigger::access_log", "file"),
    ("outrigger::admin", "admin"),
    ("outrigger::http", "http"),
    ("outrigger::listener", "conn_handler"),
    ("outrigger::network", "connection"),
    ("outrigger::router", "router"),
    ("outrigger::runtime", "runtime"),
    ("outrigger::server", "main"),
    ("outrigger::snapshot", "config"),
    ("outrigger::upstream", "upstream"),
    ("outrigger::xds", "config"),
    ("xds_client", "config"),
];

/// Levels, from the one that logs most, and the filter of each. No event is critical.
const LEVELS: &[(&str, LevelFilter)] = &[
    ("trace", LevelFilter::TRACE),
    ("debug", LevelFilter::DEBUG),
    ("info", LevelFilter::INFO),
    ("warning", LevelFilter::WARN),
    ("error", LevelFilter::ERROR),
    ("critical", LevelFilter::OFF),
    ("off", LevelFilter::OFF),
];

static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    levels: Mutex<Levels>,
    filter: reload::Handle<Targets, Registry>,
    format: Mutex<Format>,
    escaped: bool,
    sink: Sink,
}

/// Levels by name.
#[derive(Clone)]
struct Levels {
    default: &'static str,
    components: Vec<(&'static str, &'static str)>,
}

/// How a line is written.
#[derive(Clone, Debug)]
enum Format {
    /// A pattern.
    Text(String),
    /// An object of patterns.
    Json(Vec<(String, String)>),
}

/// Where lines go.
enum Sink {
    Stderr,
    File(PathBuf, Mutex<File>),
}

/// Begins to log.
///
/// # Errors
/// When the file of `--log-path` cannot be opened.
pub fn init(options: &Options) -> Result<(), String> {
    let sink = match &options.log_path {
        None => Sink::Stderr,
        Some(path) => Sink::File(path.clone(), Mutex::new(open(path)?)),
    };
    let components = options.component_log_levels.iter();
    let levels = Levels {
        default: level_named(&options.log_level).unwrap_or("info"),
        components: components
            .filter_map(|(name, level)| Some((component_named(name)?, level_named(level)?)))
            .collect(),
    };
    let pattern = options.log_format.as_deref().unwrap_or(DEFAULT_FORMAT);
    let (filter, handle) = reload::Layer::new(levels.targets());
    let log = Log {
        levels: Mutex::new(levels),
        filter: handle,
        format: Mutex::new(Format::Text(pattern.to_owned())),
        escaped: options.log_format_escaped,
        sink,
    };
    // Only the first call gets any further.
    if LOG.set(log).is_ok() {
        let subscriber = Registry::default().with(Lines.with_filter(filter));
        let _ = tracing::subscriber::set_global_default(subscriber);
    }
    Ok(())
}

/// Writes lines as the bootstrap says (`application_log_config`).
pub fn set_format(config: &LogFormatConfig) {
    let Some(log) = LOG.get() else { return };
    *log.format.lock() = match config {
        LogFormatConfig::Text(pattern) => Format::Text(pattern.to_string()),
        LogFormatConfig::Json(patterns) => Format::Json(
            patterns
                .iter()
                .map(|(key, pattern)| (key.to_string(), pattern.to_string()))
                .collect(),
        ),
    };
}

/// Opens the log file anew, after it was moved away.
pub fn reopen() {
    if let Some(Log {
        sink: Sink::File(path, file),
        ..
    }) = LOG.get()
    {
        match open(path) {
            Ok(new) => *file.lock() = new,
            Err(error) => {
                tracing::warn!(target: "main", error, "the log file cannot be opened anew")
            }
        }
    }
}

/// Whether there is a level of that name.
pub fn is_level(name: &str) -> bool {
    LEVELS.iter().any(|(level, _)| *level == name)
}

/// Sets the level of a component, or of all.
///
/// # Errors
/// When there is no such level, or no such component.
pub fn set_levels(component: Option<&str>, level: &str) -> Result<(), &'static str> {
    let level = level_named(level)
        .filter(|l| *l == level)
        .ok_or("unknown logger level")?;
    let component = match component {
        Some(name) => Some(component_named(name).ok_or("unknown logger name")?),
        None => None,
    };
    let Some(log) = LOG.get() else { return Ok(()) };
    let mut levels = log.levels.lock();
    match component {
        None => {
            levels.default = level;
            levels.components.clear();
        }
        Some(name) => {
            levels.components.retain(|(n, _)| *n != name);
            levels.components.push((name, level));
        }
    }
    // The subscriber lives as long as the process.
    let _ = log.filter.reload(levels.targets());
    Ok(())
}

/// The level of a component, in Envoy's words.
pub fn level(component: &str) -> &'static str {
    LOG.get()
        .map_or("info", |log| log.levels.lock().of(component))
}

fn component_named(name: &str) -> Option<&'static str> {
    COMPONENTS.iter().find(|c| **c == name).copied()
}

/// The level's own name; `warn` is short for `warning`.
fn level_named(name: &str) -> Option<&'static str> {
    let name = if name == "warn" { "warning" } else { name };
    LEVELS.iter().map(|(l, _)| *l).find(|l| *l == name)
}

fn open(path: &PathBuf) -> Result<File, String> {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|e| format!("Failed to open log-file '{}': {e}", path.display()))
}

fn filter_of(level: &str) -> LevelFilter {
    let found = LEVELS.iter().find(|(name, _)| *name == level);
    found.map_or(LevelFilter::INFO, |(_, filter)| *filter)
}

impl Levels {
    fn of(&self, component: &str) -> &'static str {
        let own = self.components.iter().find(|(name, _)| *name == component);
        own.map_or(self.default, |(_, level)| *level)
    }

    /// Every component and its modules. Libraries log no more than warnings,
    /// whatever is asked of the proxy.
    fn targets(&self) -> Targets {
        let default = filter_of(self.default);
        let libraries = ["h2", "hickory_resolver", "hickory_proto", "tonic", "tower"];
        let libraries = libraries.map(|name| (name, default.min(LevelFilter::WARN)));
        let components = COMPONENTS.iter().map(|c| (*c, filter_of(self.of(c))));
        let modules = MODULES.iter().map(|(m, c)| (*m, filter_of(self.of(c))));
        Targets::new()
            .with_default(default)
            .with_targets(libraries)
            .with_targets(components)
            .with_targets(modules)
    }
}

/// The component of an event.
fn component_of(target: &str) -> &str {
    if COMPONENTS.contains(&target) {
        return target;
    }
    let module = MODULES.iter().find(|(m, _)| target.starts_with(m));
    module.map_or("misc", |(_, component)| *component)
}

/// Writes events as lines.
struct Lines;

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(log) = LOG.get() else { return };
        let mut message = Message::default();
        event.record(&mut message);
        let mut text = message.finish();
        if log.escaped {
            text = text.escape_debug().to_string();
        }
        let format = log.format.lock().clone();
        let mut line = format.line(event, &text, SystemTime::now());
        line.push('\n');
        match &log.sink {
            // There is nowhere to say that the log cannot be written.
            Sink::File(_, file) => drop(file.lock().write_all(line.as_bytes())),
            Sink::Stderr => drop(std::io::stderr().lock().write_all(line.as_bytes())),
        }
    }
}

impl Format {
    fn line(&self, event: &Event<'_>, text: &str, now: SystemTime) -> String {
        let escape = |text: &str| {
            let quoted = serde_json::Value::from(text).to_string();
            quoted[1..quoted.len() - 1].to_owned()
        };
        match self {
            Self::Text(pattern) => render(pattern, event, text, &escape(text), now),
            Self::Json(patterns) => {
                let member = |(key, pattern): &(String, String)| {
                    // The value is escaped as a whole.
                    let value = render(pattern, event, text, text, now);
                    (key.clone(), value.into())
                };
                let object: serde_json::Map<_, _> = patterns.iter().map(member).collect();
                serde_json::Value::Object(object).to_string()
            }
        }
    }
}

/// The message, then the fields as `name=value`.
#[derive(Default)]
struct Message {
    text: String,
    fields: String,
}

impl Message {
    fn finish(self) -> String {
        self.text + &self.fields
    }
}

impl Visit for Message {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.text, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

/// A pattern with its flags replaced; `json` is the text for `%j`.
fn render(pattern: &str, event: &Event<'_>, text: &str, json: &str, now: SystemTime) -> String {
    let meta = event.metadata();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let date = Date::of(since);
    let mut line = String::with_capacity(pattern.len() + text.len() + 32);
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            line.push(c);
            continue;
        }
        let Some(flag) = chars.next() else { break };
        let _ = match flag {
            'Y' => write!(line, "{:04}", date.year),
            'm' => write!(line, "{:02}", date.month),
            'd' => write!(line, "{:02}", date.day),
            'T' => write!(
                line,
                "{:02}:{:02}:{:02}",
                date.hour, date.minute, date.second
            ),
            'H' => write!(line, "{:02}", date.hour),
            'M' => write!(line, "{:02}", date.minute),
            'S' => write!(line, "{:02}", date.second),
            'e' => write!(line, "{:03}", since.subsec_millis()),
            'f' => write!(line, "{:06}", since.subsec_micros()),
            'F' => write!(line, "{:09}", since.subsec_nanos()),
            'E' => write!(line, "{}", since.as_secs()),
            'z' => write!(line, "+00:00"),
            't' => write!(line, "{}", thread_id()),
            'P' => write!(line, "{}", std::process::id()),
            'l' => write!(line, "{}", level_word(*meta.level())),
            'L' => write!(
                line,
                "{}",
                &level_word(*meta.level())[..1].to_ascii_uppercase()
            ),
            'n' => write!(line, "{}", component_of(meta.target())),
            'g' | 's' => write!(line, "{}", meta.file().unwrap_or("")),
            '#' => write!(line, "{}", meta.line().unwrap_or(0)),
            'v' => write!(line, "{text}"),
            '_' => write!(line, "{}", text.replace('\n', "\\n")),
            'j' => write!(line, "{json}"),
            '%' => write!(line, "%"),
            other => write!(line, "%{other}"),
        };
    }
    line
}

fn level_word(level: Level) -> &'static str {
    match level {
        Level::TRACE => "trace",
        Level::DEBUG => "debug",
        Level::INFO => "info",
        Level::WARN => "warning",
        Level::ERROR => "error",
    }
}

/// The kernel's id of the thread; the process's own stands for it where it
/// cannot be told.
fn thread_id() -> u64 {
    let link = std::fs::read_link("/proc/thread-self").ok();
    let id = link
        .as_ref()
        .and_then(|l| l.file_name())
        .and_then(|n| n.to_str()?.parse().ok());
    id.unwrap_or_else(|| u64::from(std::process::id()))
}

/// A date in UTC.
#[derive(Debug, PartialEq, Eq)]
struct Date {
    year: i64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Date {
    /// By the civil calendar, counted in eras of 400 years from March.
    fn of(since: Duration) -> Self {
        let seconds = since.as_secs();
        let days = seconds / 86_400 + 719_468;
        let era = days / 146_097;
        let day_of_era = days % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 {
            shifted + 3
        } else {
            shifted - 9
        };
        let year =
            i64::try_from(year_of_era + era * 400).unwrap_or(i64::MAX) + i64::from(month <= 2);
        Self {
            year,
            month,
            day: day_of_year - (153 * shifted + 2) / 5 + 1,
            hour: seconds / 3600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_belongs_to_a_component_of_envoy() {
        assert_eq!(component_of("upstream"), "upstream");
        assert_eq!(component_of("outrigger::listener::worker"), "conn_handler");
        assert_eq!(component_of("some_library"), "misc");
        for (_, component) in MODULES {
            assert!(COMPONENTS.contains(component), "{component}");
        }
    }

    #[test]
    fn a_component_has_its_own_level() {
        let levels = Levels {
            default: "info",
            components: vec![("http", "trace"), ("router", "critical")],
        };
        let targets = levels.targets();
        let on = |target, level: Level| targets.would_enable(target, &level);
        assert!(on("http", Level::TRACE) && on("outrigger::http::stream", Level::TRACE));
        assert!(!on("http2", Level::DEBUG) && on("http2", Level::INFO));
        assert!(!on("router", Level::ERROR));
        assert!(!on("h2::codec", Level::INFO) && on("h2::codec", Level::WARN));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, wanted) in [
            (0, (1970, 1, 1)),
            (951_782_400, (2000, 2, 29)),
            (1_709_164_800, (2024, 2, 29)),
            (4_107_542_400, (2100, 3, 1)),
        ] {
            let date = Date::of(Duration::from_secs(seconds));
            assert_eq!((date.year, date.month, date.day), wanted);
        }
        let date = Date::of(Duration::from_secs(86_399));
        assert_eq!((date.hour, date.minute, date.second), (23, 59, 59));
    }
}
