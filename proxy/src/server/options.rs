//! The command line: Envoy's flags with Envoy's spelling and meaning.
//!
//! What was typed ([`LowArgs`]) is apart from what is ready to use ([`Options`]).
//! Flags that have no meaning here are accepted, and named in
//! [`Options::without_effect`].

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub use super::args::LowArgs;
use super::args::help;
use super::logging::COMPONENTS;
use crate::version;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// Serve.
    #[default]
    Serve,
    /// Check the configuration and end.
    Validate,
    /// Start, and end once everything is initialised.
    InitOnly,
}

/// How fast a drain asks connections to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DrainStrategy {
    /// More and more of them over the drain time.
    #[default]
    Gradual,
    /// All from the start.
    Immediate,
}

/// What the process is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `-c`
    pub config_path: Option<PathBuf>,
    /// `--config-yaml`
    pub config_yaml: Option<String>,
    /// `--mode`
    pub mode: Mode,
    /// `--concurrency`, or the number of cores.
    pub concurrency: usize,
    /// `-l`
    pub log_level: String,
    /// `--component-log-level`, by component.
    pub component_log_levels: Vec<(String, String)>,
    /// `--log-format`
    pub log_format: Option<String>,
    /// `--log-format-escaped`
    pub log_format_escaped: bool,
    /// `--log-path`
    pub log_path: Option<PathBuf>,
    /// `--drain-time-s`
    pub drain_time: Duration,
    /// `--drain-strategy`
    pub drain_strategy: DrainStrategy,
    /// `--shutdown-timeout-s`
    pub shutdown_timeout: Duration,
    /// `--grpc-max-methods`
    pub grpc_max_methods: usize,
    /// `--file-flush-interval-msec`
    pub file_flush_interval: Duration,
    /// `--file-flush-min-size-kb`, in bytes.
    pub file_flush_min_size: usize,
    /// `--service-node`
    pub service_node: Option<String>,
    /// `--service-cluster`
    pub service_cluster: Option<String>,
    /// `--service-zone`
    pub service_zone: Option<String>,
    /// `--local-address-ip-version v6`
    pub ipv6: bool,
    /// `--admin-address-path`
    pub admin_address_path: Option<PathBuf>,
    /// `--allow-unknown-static-fields`
    pub allow_unknown_static_fields: bool,
    /// `--reject-unknown-dynamic-fields`
    pub reject_unknown_dynamic_fields: bool,
    /// `--stats-tag`
    pub stats_tags: Vec<(String, String)>,
    /// What was typed, for those who show it.
    pub typed: LowArgs,
    /// Flags that were given and have no effect.
    pub without_effect: Vec<&'static str>,
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// To run.
    Run(Box<Options>),
    /// To print a text and end.
    Print(String),
    /// To print a text where errors go, and end without one: Envoy does so with the
    /// version of hot restart.
    Report(String),
}

/// Reads the command line.
///
/// # Errors
/// The message to print before the process ends with 1.
pub fn read(args: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let low = LowArgs::parse(args)?;
    if low.has("help") {
        return Ok(Command::Print(help()));
    }
    if low.has("version") {
        return Ok(Command::Print(format!(
            "\noutrigger  version: {}\n",
            version::full()
        )));
    }
    if low.has("hot-restart-version") {
        return Ok(Command::Report("disabled".to_owned()));
    }
    Options::new(&low).map(|options| Command::Run(Box::new(options)))
}

const LEVELS: &[&str] = &[
    "trace", "debug", "info", "warning", "warn", "error", "critical", "off",
];

impl Options {
    /// Makes what was typed ready to use.
    ///
    /// # Errors
    /// A value that means nothing, in words for the user.
    pub fn new(low: &LowArgs) -> Result<Self, String> {
        let log_level = low.text("log-level").map_or("info", String::as_str);
        if !LEVELS.contains(&log_level) {
            return Err(format!("error: invalid log level specified '{log_level}'"));
        }
        refuse_contradictions(low)?;
        let own = |name| low.text(name).cloned();
        let milliseconds = low.number("file-flush-interval-msec", 10_000);
        Ok(Self {
            config_path: own("config-path").map(PathBuf::from),
            config_yaml: own("config-yaml"),
            mode: choice(
                low,
                "mode",
                "mode",
                &[
                    ("serve", Mode::Serve),
                    ("validate", Mode::Validate),
                    ("init_only", Mode::InitOnly),
                ],
            )?,
            concurrency: concurrency(low),
            log_level: log_level.to_owned(),
            component_log_levels: component_levels(low.text("component-log-level"))?,
            log_format: own("log-format"),
            log_format_escaped: low.has("log-format-escaped"),
            log_path: own("log-path").map(PathBuf::from),
            drain_time: Duration::from_secs(low.number("drain-time-s", 600).into()),
            drain_strategy: choice(
                low,
                "drain-strategy",
                "drain-strategy",
                &[
                    ("gradual", DrainStrategy::Gradual),
                    ("immediate", DrainStrategy::Immediate),
                ],
            )?,
            shutdown_timeout: Duration::from_secs(low.number("shutdown-timeout-s", 10).into()),
            grpc_max_methods: low.number("grpc-max-methods", 512) as usize,
            file_flush_interval: Duration::from_millis(milliseconds.into()),
            file_flush_min_size: low.number("file-flush-min-size-kb", 64) as usize * 1024,
            service_node: own("service-node"),
            service_cluster: own("service-cluster"),
            service_zone: own("service-zone"),
            ipv6: choice(
                low,
                "local-address-ip-version",
                "IP address version",
                &[("v4", false), ("v6", true)],
            )?,
            admin_address_path: own("admin-address-path").map(PathBuf::from),
            allow_unknown_static_fields: low.has("allow-unknown-static-fields")
                || low.has("allow-unknown-fields"),
            reject_unknown_dynamic_fields: low.has("reject-unknown-dynamic-fields"),
            stats_tags: stats_tags(low)?,
            typed: low.clone(),
            without_effect: low.without_effect(),
        })
    }
}

fn refuse_contradictions(low: &LowArgs) -> Result<(), String> {
    if low.has("enable-fine-grain-logging") && low.has("component-log-level") {
        return Err(
            "error: --component-log-level will not work with --enable-fine-grain-logging"
                .to_owned(),
        );
    }
    let epoch = low.number("restart-epoch", 0);
    if low.has("use-dynamic-base-id") && epoch > 0 {
        return Err(format!(
            "error: cannot use --restart-epoch={epoch} with --use-dynamic-base-id"
        ));
    }
    Ok(())
}

/// One of a few words; the first is the default. `what` is what errors call it.
fn choice<T: Copy>(
    low: &LowArgs,
    name: &str,
    what: &str,
    words: &[(&str, T)],
) -> Result<T, String> {
    let Some(typed) = low.text(name) else {
        return Ok(words[0].1);
    };
    let found = words.iter().find(|(word, _)| word == typed);
    found
        .map(|(_, value)| *value)
        .ok_or_else(|| format!("error: unknown {what} '{typed}'"))
}

/// At least one worker; 0 counts as one, as in Envoy.
fn concurrency(low: &LowArgs) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match low.text("concurrency") {
        Some(_) => (low.number("concurrency", 1) as usize).max(1),
        None => cores,
    }
}

fn component_levels(list: Option<&String>) -> Result<Vec<(String, String)>, String> {
    let Some(list) = list.filter(|l| !l.is_empty()) else {
        return Ok(Vec::new());
    };
    let parse = |item: &str| {
        let (component, level) = item
            .split_once(':')
            .filter(|(_, level)| !level.contains(':'))
            .ok_or_else(|| {
                format!("error: component log level not correctly specified '{item}'")
            })?;
        if !LEVELS.contains(&level) {
            return Err(format!("error: invalid log level specified '{level}'"));
        }
        if !COMPONENTS.contains(&component) {
            return Err(format!("error: invalid component specified '{component}'"));
        }
        Ok((component.to_owned(), level.to_owned()))
    };
    list.split(',').map(parse).collect()
}

fn stats_tags(low: &LowArgs) -> Result<Vec<(String, String)>, String> {
    let all = low.texts("stats-tag");
    let parse = |tag: &String| {
        let (name, value) = tag
            .split_once(':')
            .ok_or_else(|| format!("error: misformatted stats-tag '{tag}'"))?;
        let named = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric());
        let valued = !value.is_empty() && !value.contains('.');
        for (text, valid) in [(name, named), (value, valued)] {
            if !valid {
                return Err(format!(
                    "error: misformatted stats-tag '{tag}' contains invalid char in '{text}'"
                ));
            }
        }
        Ok((name.to_owned(), value.to_owned()))
    };
    all.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Command, String> {
        read(line.split_whitespace().map(OsString::from))
    }

    fn options(line: &str) -> Options {
        match run(line) {
            Ok(Command::Run(options)) => *options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_value_stands_alone() {
        for glued in ["--concurrency=2", "-c=a.yaml", "-ca.yaml", "-linfo"] {
            let error = run(glued).unwrap_err();
            let end = format!("{glued} -- Couldn't find match for argument");
            assert!(error.ends_with(&end), "{error}");
        }
        let o = options("-c a.yaml - --concurrency 3 -- --concurrency x");
        assert_eq!((o.concurrency, o.config_path), (3, Some("a.yaml".into())));
        assert!(run("-c").unwrap_err().contains("Missing a value"));
    }

    #[test]
    fn takes_what_pilot_agent_passes() {
        let o = options(
            "-c etc/istio/proxy/envoy-rev.json --drain-time-s 45 --drain-strategy immediate \
             --local-address-ip-version v4 --file-flush-interval-msec 1000 --disable-hot-restart \
             --allow-unknown-static-fields -l warning --component-log-level misc:error \
             --skip-deprecated-logs --concurrency 2",
        );
        assert_eq!(o.config_path, Some("etc/istio/proxy/envoy-rev.json".into()));
        assert_eq!(o.drain_time, Duration::from_secs(45));
        assert_eq!(o.drain_strategy, DrainStrategy::Immediate);
        assert_eq!(
            o.component_log_levels,
            [("misc".to_owned(), "error".to_owned())]
        );
        assert_eq!((o.concurrency, o.allow_unknown_static_fields), (2, true));
        assert_eq!(
            o.without_effect,
            ["disable-hot-restart", "skip-deprecated-logs"]
        );
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for (line, says) in [
            ("--bogus", "--bogus"),
            (
                "--concurrency x",
                "Couldn't read argument value from string 'x'",
            ),
            ("--concurrency", "Missing a value"),
            ("stray", "stray"),
            ("-c a -c b", "already set"),
            ("--mode sing", "unknown mode 'sing'"),
            ("-l loud", "error: invalid log level specified 'loud'"),
            (
                "-c",
                "Argument: -c (--config-path)\n             Missing a value",
            ),
            (
                "--component-log-level nope:info",
                "error: invalid component specified 'nope'",
            ),
            (
                "--component-log-level http:loud",
                "error: invalid log level specified 'loud'",
            ),
            (
                "--component-log-level http:info:x",
                "not correctly specified 'http:info:x'",
            ),
            (
                "--component-log-level misc:error,",
                "not correctly specified ''",
            ),
            (
                "--local-address-ip-version v5",
                "error: unknown IP address version 'v5'",
            ),
            ("--stats-tag a", "error: misformatted stats-tag 'a'"),
            ("--stats-tag a.b:c", "contains invalid char in 'a.b'"),
            ("--stats-tag a:b.c", "contains invalid char in 'b.c'"),
            (
                "--enable-fine-grain-logging --component-log-level http:info",
                "error: --component-log-level will not work with",
            ),
            (
                "--use-dynamic-base-id --restart-epoch 1",
                "error: cannot use --restart-epoch=1 with --use-dynamic-base-id",
            ),
        ] {
            let error = run(line).unwrap_err();
            assert!(error.contains(says), "{line}: {error}");
        }
    }

    #[test]
    fn knows_every_component_of_envoy() {
        let all: Vec<String> = COMPONENTS.iter().map(|c| format!("{c}:off")).collect();
        let o = options(&format!("--component-log-level {}", all.join(",")));
        assert_eq!(o.component_log_levels.len(), COMPONENTS.len());
    }

    #[test]
    fn an_error_shows_every_flag_in_lines_that_fit() {
        let error = run("--bogus").unwrap_err();
        assert!(error.lines().all(|line| line.len() <= 75), "{error}");
        let joined: Vec<&str> = error.split_whitespace().collect();
        assert!(
            joined
                .join(" ")
                .contains("[--stats-tag <string>] ... [--enable-core-dump]")
        );
        assert!(error.ends_with("--bogus -- Couldn't find match for argument"));
    }
}
