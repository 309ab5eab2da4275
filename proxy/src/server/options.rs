//! The command line: Envoy's flags with Envoy's spelling and meaning.
//!
//! What was typed ([`LowArgs`]) is apart from what is ready to use ([`Options`]).
//! Flags that have no meaning here are accepted, and named in
//! [`Options::without_effect`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use super::logging::COMPONENTS;
use crate::version;

/// How a flag is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Alone.
    Switch,
    /// With a text.
    Text,
    /// With a number from 0 to 4,294,967,295.
    Number,
}

/// One flag: its name, its letter, how it is written, whether it has an effect,
/// and what it is for.
struct Flag(&'static str, Option<char>, Kind, bool, &'static str);

/// Envoy 1.40's flags in the order of its `--help`, and ours at the end.
#[rustfmt::skip]
const FLAGS: &[Flag] = &[
    Flag("stats-tag", None, Kind::Text, true, "A tag NAME:VALUE on every stat; may be given several times"),
    Flag("enable-core-dump", None, Kind::Switch, true, "Allow core dumps"),
    Flag("socket-mode", None, Kind::Text, false, "Mode of the hot restart socket"),
    Flag("socket-path", None, Kind::Text, false, "Path of the hot restart socket"),
    Flag("disable-extensions", None, Kind::Text, false, "Extensions to leave out"),
    Flag("cpuset-threads", None, Kind::Switch, true, "As many workers as the process may use cores"),
    Flag("enable-mutex-tracing", None, Kind::Switch, false, "Trace contention"),
    Flag("disable-hot-restart", None, Kind::Switch, false, "There is no hot restart"),
    Flag("mode", None, Kind::Text, true, "serve (default), validate or init_only"),
    Flag("parent-shutdown-time-s", None, Kind::Number, false, "Hot restart: life of the parent"),
    Flag("drain-strategy", None, Kind::Text, true, "gradual (default) or immediate"),
    Flag("drain-time-s", None, Kind::Number, true, "Time of a drain, seconds; default 600"),
    Flag("file-flush-min-size-kb", None, Kind::Number, true, "Flush an access log over this size; default 64"),
    Flag("file-flush-interval-msec", None, Kind::Number, true, "Flush access logs this often; default 10000"),
    Flag("service-zone", None, Kind::Text, true, "Zone of the node"),
    Flag("service-node", None, Kind::Text, true, "Id of the node"),
    Flag("service-cluster", None, Kind::Text, true, "Cluster of the node"),
    Flag("hot-restart-version", None, Kind::Switch, true, "Print the hot restart version and end"),
    Flag("restart-epoch", None, Kind::Number, false, "Hot restart: epoch"),
    Flag("log-path", None, Kind::Text, true, "Write the log to this file"),
    Flag("enable-fine-grain-logging", None, Kind::Switch, false, "Log levels by file"),
    Flag("log-format-escaped", None, Kind::Switch, true, "Escape what is logged"),
    Flag("log-format", None, Kind::Text, true, "Pattern of a log line"),
    Flag("component-log-level", None, Kind::Text, true, "Levels by component: upstream:debug,http:trace"),
    Flag("log-level", Some('l'), Kind::Text, true, "trace, debug, info (default), warning, error, critical or off"),
    Flag("local-address-ip-version", None, Kind::Text, true, "v4 (default) or v6"),
    Flag("admin-address-path", None, Kind::Text, true, "Write the admin address to this file"),
    Flag("log-stacktrace-single-entry", None, Kind::Switch, false, "One entry a stack trace"),
    Flag("skip-deprecated-logs", None, Kind::Switch, false, "Do not log deprecated fields"),
    Flag("ignore-unknown-dynamic-fields", None, Kind::Switch, false, "Do not count unknown fields of xDS"),
    Flag("reject-unknown-dynamic-fields", None, Kind::Switch, true, "Refuse unknown fields of xDS"),
    Flag("allow-unknown-static-fields", None, Kind::Switch, true, "Take unknown fields of the bootstrap"),
    Flag("allow-unknown-fields", None, Kind::Switch, true, "The same; deprecated"),
    Flag("config-yaml", None, Kind::Text, true, "Bootstrap in YAML, merged over the file"),
    Flag("config-path", Some('c'), Kind::Text, true, "Path of the bootstrap"),
    Flag("concurrency", None, Kind::Number, true, "Number of workers; default all cores"),
    Flag("base-id-path", None, Kind::Text, false, "Hot restart: file for the base id"),
    Flag("skip-hot-restart-parent-stats", None, Kind::Switch, false, "Hot restart: no stats of the parent"),
    Flag("skip-hot-restart-on-no-parent", None, Kind::Switch, false, "Hot restart: go on without a parent"),
    Flag("use-dynamic-base-id", None, Kind::Switch, false, "Hot restart: choose the base id"),
    Flag("base-id", None, Kind::Number, false, "Hot restart: base id"),
    Flag("version", None, Kind::Switch, true, "Print the version and end"),
    Flag("help", Some('h'), Kind::Switch, true, "Print this and end"),
    Flag("shutdown-timeout-s", None, Kind::Number, true, "Longest wait for calls under way after SIGTERM, seconds; default 10"),
    Flag("grpc-max-methods", None, Kind::Number, true, "Most gRPC methods with labels of their own; default 512, others are _overflow"),
];

/// What was typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LowArgs {
    values: BTreeMap<&'static str, Vec<String>>,
}

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

impl Flag {
    /// How errors call it.
    fn spelling(&self) -> String {
        match self.1 {
            Some(letter) => format!("-{letter} (--{})", self.0),
            None => format!("(--{})", self.0),
        }
    }

    /// How the usage block shows it.
    fn brief(&self) -> String {
        let name = match self.1 {
            Some(letter) => format!("-{letter}"),
            None => format!("--{}", self.0),
        };
        let repeated = if self.0 == "stats-tag" { " ..." } else { "" };
        format!("[{name}{}]{repeated}", self.2.value())
    }
}

impl Kind {
    fn value(self) -> &'static str {
        match self {
            Self::Switch => "",
            Self::Text => " <string>",
            Self::Number => " <uint32_t>",
        }
    }
}

impl LowArgs {
    /// Reads the arguments, without the program's name.
    ///
    /// # Errors
    /// An unknown flag, or a value that is missing or malformed, in Envoy's
    /// words.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        use lexopt::Arg;
        let mut parser = lexopt::Parser::from_args(args);
        let mut low = Self::default();
        while let Some(arg) = parser.next().map_err(|e| e.to_string())? {
            let found = match arg {
                Arg::Long(name) => FLAGS
                    .iter()
                    .find(|f| f.0 == name)
                    .ok_or(format!("--{name}")),
                Arg::Short(letter) => FLAGS
                    .iter()
                    .find(|f| f.1 == Some(letter))
                    .ok_or(format!("-{letter}")),
                Arg::Value(value) => Err(value.to_string_lossy().into_owned()),
            };
            let flag =
                found.map_err(|name| parse_error(&name, "Couldn't find match for argument"))?;
            let Flag(name, _, kind, ..) = flag;
            let text = match kind {
                Kind::Switch => String::new(),
                Kind::Text | Kind::Number => {
                    let value = parser.value().map_err(|_| {
                        parse_error(&flag.spelling(), "Missing a value for this argument!")
                    })?;
                    value.to_string_lossy().into_owned()
                }
            };
            if *kind == Kind::Number && text.parse::<u32>().is_err() {
                let why = format!("Couldn't read argument value from string '{text}'");
                return Err(parse_error(&flag.spelling(), &why));
            }
            let values = low.values.entry(name).or_default();
            if !values.is_empty() && *name != "stats-tag" {
                return Err(parse_error(&flag.spelling(), "Argument already set!"));
            }
            values.push(text);
        }
        Ok(low)
    }

    /// The value of a flag as it was typed.
    pub fn text(&self, name: &str) -> Option<&String> {
        self.values.get(name)?.first()
    }

    /// The number that a flag was given, or its default.
    pub fn number(&self, name: &str, default: u32) -> u32 {
        self.text(name)
            .and_then(|n| n.parse().ok())
            .unwrap_or(default)
    }

    /// Whether a flag was given.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }
}

fn parse_error(argument: &str, why: &str) -> String {
    format!(
        "PARSE ERROR: Argument: {argument}\n             {why}\n\nBrief USAGE: \n{}\n\n\
         For complete USAGE and HELP type: \n   outrigger --help\n\n{argument} -- {why}",
        usage()
    )
}

/// Every flag once, in lines of at most 75 characters.
fn usage() -> String {
    const INDENT: &str = "              ";
    let flags: Vec<String> = FLAGS.iter().map(Flag::brief).collect();
    let mut text = String::from("   outrigger ");
    let mut width = text.len();
    for word in flags.join(" ").split(' ') {
        if width + 1 + word.len() > 75 {
            text.push('\n');
            text += INDENT;
            width = INDENT.len();
        } else {
            text.push(' ');
            width += 1;
        }
        text += word;
        width += word.len();
    }
    text
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

fn help() -> String {
    let mut text = format!("\nUSAGE: \n\n{}\n\nWhere: \n", usage());
    for Flag(name, letter, kind, effect, purpose) in FLAGS {
        let value = kind.value();
        let short = letter
            .map(|l| format!("-{l}{value},  "))
            .unwrap_or_default();
        let note = if *effect {
            ""
        } else {
            " (accepted without effect)"
        };
        // Writing to a string does not fail.
        let _ = write!(text, "\n   {short}--{name}{value}\n     {purpose}{note}\n");
    }
    text
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
            without_effect: FLAGS
                .iter()
                .filter(|f| !f.3 && low.has(f.0))
                .map(|f| f.0)
                .collect(),
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
    let all = low.values.get("stats-tag").map_or(&[][..], Vec::as_slice);
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
    fn takes_a_value_after_an_equals_sign() {
        assert_eq!(
            options("--config-path=a.yaml --mode=validate").mode,
            Mode::Validate
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
