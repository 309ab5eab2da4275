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

use super::options::Options;

/// Envoy's default pattern.
const DEFAULT_FORMAT: &str = "[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v";

static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    levels: Mutex<Levels>,
    filter: reload::Handle<Targets, Registry>,
    sink: Sink,
}

#[derive(Clone)]
struct Levels {
    default: LevelFilter,
    components: Vec<(String, LevelFilter)>,
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
    let components = options
        .component_log_levels
        .iter()
        .map(|(name, level)| (name.clone(), filter_of(level)))
        .collect();
    let levels = Levels {
        default: filter_of(&options.log_level),
        components,
    };
    let (filter, handle) = reload::Layer::new(levels.targets());
    let lines = Lines {
        pattern: options
            .log_format
            .clone()
            .unwrap_or_else(|| DEFAULT_FORMAT.to_owned()),
        escaped: options.log_format_escaped,
    };
    if LOG
        .set(Log {
            levels: Mutex::new(levels),
            filter: handle,
            sink,
        })
        .is_err()
    {
        return Ok(());
    }
    let subscriber = Registry::default().with(lines.with_filter(filter));
    // Only the first call gets here.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
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

/// Sets the level of a component, or of all.
///
/// # Errors
/// When the level is none.
pub fn set_level(component: Option<&str>, level: &str) -> Result<(), String> {
    let Some(log) = LOG.get() else { return Ok(()) };
    let filter = match level {
        "trace" | "debug" | "info" | "warning" | "warn" | "error" | "critical" | "off" => {
            filter_of(level)
        }
        _ => return Err(format!("error: unknown logger level '{level}'")),
    };
    let mut levels = log.levels.lock();
    match component {
        None => {
            levels.default = filter;
            levels.components.clear();
        }
        Some(name) => {
            levels.components.retain(|(n, _)| n != name);
            levels.components.push((name.to_owned(), filter));
        }
    }
    // The subscriber lives as long as the process.
    let _ = log.filter.reload(levels.targets());
    Ok(())
}

/// The level of a component, in Envoy's words.
pub fn level(component: &str) -> &'static str {
    let Some(log) = LOG.get() else { return "info" };
    let levels = log.levels.lock();
    let own = levels
        .components
        .iter()
        .find(|(n, _)| n == component)
        .map(|(_, l)| *l);
    match own.unwrap_or(levels.default) {
        LevelFilter::TRACE => "trace",
        LevelFilter::DEBUG => "debug",
        LevelFilter::INFO => "info",
        LevelFilter::WARN => "warning",
        LevelFilter::ERROR => "error",
        _ => "off",
    }
}

fn open(path: &PathBuf) -> Result<File, String> {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|e| format!("Failed to open log-file '{}': {e}", path.display()))
}

/// The nearest of ours: critical is an error here.
fn filter_of(level: &str) -> LevelFilter {
    match level {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "warning" | "warn" => LevelFilter::WARN,
        "error" | "critical" => LevelFilter::ERROR,
        "off" => LevelFilter::OFF,
        _ => LevelFilter::INFO,
    }
}

impl Levels {
    /// Libraries log no more than warnings, whatever is asked of the proxy.
    fn targets(&self) -> Targets {
        let mut targets = Targets::new().with_default(self.default);
        for library in [
            "h2",
            "hyper",
            "hickory_resolver",
            "hickory_proto",
            "tonic",
            "tower",
        ] {
            targets = targets.with_target(library, self.default.min(LevelFilter::WARN));
        }
        for (name, level) in &self.components {
            targets = targets.with_target(name.clone(), *level);
        }
        targets
    }
}

/// Writes events as lines of a pattern.
struct Lines {
    pattern: String,
    escaped: bool,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut message = Message::default();
        event.record(&mut message);
        let text = message.finish();
        let text = if self.escaped {
            text.escape_debug().to_string()
        } else {
            text
        };
        let mut line = render(&self.pattern, event, &text, SystemTime::now());
        line.push('\n');
        match LOG.get().map(|log| &log.sink) {
            // There is nowhere to say that the log cannot be written.
            Some(Sink::File(_, file)) => drop(file.lock().write_all(line.as_bytes())),
            _ => drop(std::io::stderr().lock().write_all(line.as_bytes())),
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

fn render(pattern: &str, event: &Event<'_>, text: &str, now: SystemTime) -> String {
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
            'n' => write!(line, "{}", meta.target()),
            'g' | 's' => write!(line, "{}", meta.file().unwrap_or("")),
            '#' => write!(line, "{}", meta.line().unwrap_or(0)),
            'v' | '_' | 'j' => write!(line, "{text}"),
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
