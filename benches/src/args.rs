//! The command line of the side-by-side harness.

use std::path::PathBuf;
use std::time::Duration;

/// What `--help` prints.
pub const HELP: &str = "\
Usage: cargo side-by-side [OPTIONS]

  --quick              shorter windows: an answer in seconds, for a developer at work
  --row NAME           only rows whose name begins so (may be repeated)
  --list               name the rows and end
  --rounds N           rounds per row, the median counts (default 5, with --quick 3)
  --seconds S          measured seconds per round (default 4, with --quick 1)
  --proxy PATH         the outrigger binary (default: built now, with the bench profile)
  --envoy PATH         the envoy binary (default: $ENVOY_BIN, the tests' cache, envoy on PATH)
  --also NAME=PATH     one more binary that takes Envoy's configuration (may be repeated)
  --only NAME          only this subject (may be repeated)
  --write              write benches/RESULTS.md
";

/// What was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Args {
    /// Print [`HELP`] and end.
    pub help: bool,
    /// Name the rows and end.
    pub list: bool,
    /// Prefixes of row names; all rows if empty.
    pub rows: Vec<String>,
    /// Names of subjects; all if empty.
    pub only: Vec<String>,
    /// Rounds per row.
    pub rounds: usize,
    /// Measured time per round.
    pub window: Duration,
    /// Time before the window, in which connections are made and caches fill.
    pub warm_up: Duration,
    /// The outrigger binary.
    pub proxy: Option<PathBuf>,
    /// The envoy binary.
    pub envoy: Option<PathBuf>,
    /// More Envoy-shaped binaries: name and path.
    pub also: Vec<(String, PathBuf)>,
    /// Write `RESULTS.md`.
    pub write: bool,
}

impl Args {
    /// Reads the arguments that follow the program's name.
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut args: Vec<String> = args.into_iter().collect();
        let quick = args.iter().any(|a| a == "--quick");
        // Cargo passes --bench to every bench it runs.
        args.retain(|a| a != "--quick" && a != "--bench");
        let mut parsed = Self::defaults(quick);
        let mut rest = args.into_iter();
        while let Some(flag) = rest.next() {
            parsed.take(&flag, &mut rest)?;
        }
        if parsed.write && !parsed.rows.is_empty() {
            return Err("--write writes the whole table: leave --row out".to_owned());
        }
        Ok(parsed)
    }

    fn defaults(quick: bool) -> Self {
        let (rounds, window, warm_up) = if quick {
            (3, 1_000, 400)
        } else {
            (5, 4_000, 1_500)
        };
        Self {
            help: false,
            list: false,
            rows: Vec::new(),
            only: Vec::new(),
            rounds,
            window: Duration::from_millis(window),
            warm_up: Duration::from_millis(warm_up),
            proxy: None,
            envoy: None,
            also: Vec::new(),
            write: false,
        }
    }

    fn take(&mut self, flag: &str, rest: &mut impl Iterator<Item = String>) -> Result<(), String> {
        let mut value = || rest.next().ok_or_else(|| format!("{flag} needs a value"));
        match flag {
            "--help" | "-h" => self.help = true,
            "--list" => self.list = true,
            "--write" => self.write = true,
            "--row" => self.rows.push(value()?),
            "--only" => self.only.push(value()?),
            "--rounds" => self.rounds = number(flag, &value()?)?.max(1.0) as usize,
            "--seconds" => {
                self.window = Duration::from_secs_f64(number(flag, &value()?)?.clamp(0.1, 600.0))
            }
            "--proxy" => self.proxy = Some(value()?.into()),
            "--envoy" => self.envoy = Some(value()?.into()),
            "--also" => {
                let pair = value()?;
                let (name, path) = pair.split_once('=').ok_or("--also needs NAME=PATH")?;
                self.also.push((name.to_owned(), path.into()));
            }
            other => return Err(format!("unknown option {other}\n\n{HELP}")),
        }
        Ok(())
    }
}

fn number(flag: &str, text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|n: &f64| n.is_finite())
        .ok_or_else(|| format!("{flag} needs a number, not {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn an_explicit_figure_wins_over_quick() {
        let args = parse("--rounds 7 --quick --row grpc --bench").unwrap();
        assert_eq!((args.rounds, args.window), (7, Duration::from_secs(1)));
        assert_eq!(args.rows, ["grpc"]);
    }

    #[test]
    fn says_what_is_wrong() {
        assert!(
            parse("--rows x")
                .unwrap_err()
                .contains("unknown option --rows")
        );
        assert!(
            parse("--rounds many")
                .unwrap_err()
                .contains("needs a number")
        );
        assert!(parse("--row").unwrap_err().contains("needs a value"));
        assert!(
            parse("--write --row x")
                .unwrap_err()
                .contains("whole table")
        );
    }
}
