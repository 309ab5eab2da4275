//! The command line of the demo.

use std::path::PathBuf;
use std::time::Duration;

/// What `--help` prints.
pub const HELP: &str = "\
Usage: cargo demo [OPTIONS]

  --for TIME      how long the story runs, such as 30s or 2m (default 30s, at least 8s)
  --keep          keep everything running after the summary, until Ctrl-C
  --rate N        calls a second of the client (default 200)
  --proxy PATH    the proxy's binary (default: outrigger, built first if cargo runs the demo)
  --plain         plain output, as when standard output is not a terminal
";

/// The steps need this much time.
const SHORTEST: Duration = Duration::from_secs(8);
/// The client is one process: above this it would measure itself.
const FASTEST: u32 = 5_000;

/// What was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Args {
    /// Print [`HELP`] and end.
    pub help: bool,
    /// How long the story runs.
    pub duration: Duration,
    /// Keep running after the summary.
    pub keep: bool,
    /// Calls a second.
    pub rate: u32,
    /// The proxy's binary.
    pub proxy: Option<PathBuf>,
    /// Plain output.
    pub plain: bool,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            help: false,
            duration: Duration::from_secs(30),
            keep: false,
            rate: 200,
            proxy: None,
            plain: false,
        }
    }
}

impl Args {
    /// Reads the arguments that follow the program's name.
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut parsed = Self::default();
        let mut rest = args.into_iter();
        while let Some(flag) = rest.next() {
            let mut value = || rest.next().ok_or_else(|| format!("{flag} needs a value"));
            match flag.as_str() {
                "--help" | "-h" => parsed.help = true,
                "--keep" => parsed.keep = true,
                "--plain" => parsed.plain = true,
                "--for" => parsed.duration = duration(&value()?)?,
                "--rate" => parsed.rate = rate(&value()?)?,
                "--proxy" => parsed.proxy = Some(value()?.into()),
                other => return Err(format!("unknown option {other}\n\n{HELP}")),
            }
        }
        Ok(parsed)
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix('m') {
        Some(minutes) => (minutes, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let seconds = number
        .parse::<u32>()
        .map_err(|_| format!("--for needs a time such as 30s or 2m, not {text}"))?;
    let duration = Duration::from_secs(u64::from(seconds) * unit);
    if duration < SHORTEST {
        return Err(format!(
            "--for needs at least {SHORTEST:?}: the story has five steps"
        ));
    }
    Ok(duration)
}

fn rate(text: &str) -> Result<u32, String> {
    let valid = text.parse().ok().filter(|n| (20..=FASTEST).contains(n));
    valid.ok_or_else(|| format!("--rate needs a number from 20 to {FASTEST}, not {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn reads_times() {
        assert_eq!(
            parse("--for 12s").unwrap().duration,
            Duration::from_secs(12)
        );
        assert_eq!(
            parse("--for 2m").unwrap().duration,
            Duration::from_secs(120)
        );
        assert!(parse("--for 3s").unwrap_err().contains("at least 8s"));
        assert!(parse("--for soon").unwrap_err().contains("not soon"));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert!(
            parse("--fast")
                .unwrap_err()
                .starts_with("unknown option --fast")
        );
        assert!(parse("--rate 1").is_err());
    }
}
