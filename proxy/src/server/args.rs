//! The syntax of the command line: Envoy's flags with Envoy's spelling. What they mean
//! is in [`options`](super::options).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;

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

impl Flag {
    fn is_spelled(&self, arg: &str) -> bool {
        let mut chars = arg.chars();
        let short = chars.next() == Some('-') && chars.next() == self.1 && chars.next().is_none();
        arg.strip_prefix("--") == Some(self.0) || self.1.is_some() && short
    }

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
        let mut args = args.into_iter();
        let mut low = Self::default();
        while let Some(arg) = args.next() {
            let arg = arg.to_string_lossy();
            // As in Envoy a value stands alone, and what comes after `--` is not read.
            if matches!(&*arg, "--" | "--ignore_rest") {
                break;
            }
            if arg == "-" {
                continue;
            }
            let flag = FLAGS
                .iter()
                .find(|flag| flag.is_spelled(&arg))
                .ok_or_else(|| parse_error(&arg, "Couldn't find match for argument"))?;
            let Flag(name, _, kind, ..) = flag;
            let text = match kind {
                Kind::Switch => String::new(),
                Kind::Text | Kind::Number => {
                    let value = args.next().ok_or_else(|| {
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

    /// The flags that were given and have no effect.
    pub(super) fn without_effect(&self) -> Vec<&'static str> {
        let given = FLAGS.iter().filter(|f| !f.3 && self.has(f.0));
        given.map(|f| f.0).collect()
    }

    /// The value of a flag as it was typed.
    pub fn text(&self, name: &str) -> Option<&String> {
        self.values.get(name)?.first()
    }

    /// All values of a flag that may be given more than once.
    pub(super) fn texts(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
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

/// The whole help.
pub(super) fn help() -> String {
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
