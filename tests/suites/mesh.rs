//! A real Istio mesh (`tests/mesh`): the sidecars are injected by istiod's webhook, started by
//! pilot-agent and programmed by istiod, behind its iptables rules, with mTLS.
//!
//! Takes root, Go and, the first time, some ten minutes to build the peers, which are kept
//! outside the repository: `OUTRIGGER_MESH` says where, `/var/tmp/outrigger-mesh` by default,
//! for the users of the pods must be able to read them. A scenario that fails runs once more.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

use integration_tests::peers;
use libtest_mimic::{Arguments, Failed, Trial};

/// How a mesh comes up and what checks it, the fewest checks that there are, and the one that
/// may fail.
struct Scenario {
    name: &'static str,
    up: &'static [&'static str],
    checked_by: &'static [&'static str],
    checks: usize,
    may_fail: Option<&'static str>,
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "the_default_configuration_of_istiod",
        up: &[],
        checked_by: &["demo", "--seconds", "10"],
        checks: 25,
        // Istio's own metrics are not reported yet.
        may_fail: Some("istio_requests_total of the client"),
    },
    Scenario {
        name: "envoy_as_the_client",
        up: &["--stock"],
        checked_by: &["demo", "--envoy", "client", "--seconds", "10"],
        checks: 24,
        may_fail: None,
    },
    Scenario {
        name: "from_envoy_to_us_and_back_by_annotation",
        up: &["--stock", "--swap"],
        checked_by: &["swap"],
        checks: 8,
        may_fail: None,
    },
    Scenario {
        name: "envoy_as_the_server",
        up: &["--stock"],
        checked_by: &["demo", "--envoy", "server", "--seconds", "10"],
        checks: 24,
        may_fail: None,
    },
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // There is one network and one set of ports.
    arguments.test_threads = Some(1);
    if arguments.list {
        return libtest_mimic::run(&arguments, trials(Path::new(""))).exit_code();
    }
    match prepare() {
        Ok(tools) => libtest_mimic::run(&arguments, trials(&tools)).exit_code(),
        Err(why) => peers::missing("mesh", &why),
    }
}

fn trials(tools: &Path) -> Vec<Trial> {
    let trial = |scenario: &'static Scenario| {
        let tools = tools.to_owned();
        Trial::test(scenario.name, move || {
            let first = scenario.run(&tools);
            let outcome = first.or_else(|_| scenario.run(&tools));
            outcome.map_err(Failed::from)
        })
    };
    SCENARIOS.iter().map(trial).collect()
}

/// Where the peers are, which are built if need be, with the proxy under test beside them.
fn prepare() -> Result<PathBuf, String> {
    peers::system("go")?;
    let who = output(Command::new("id").arg("-u"))?;
    if text(&who).trim() != "0" {
        return Err("a mesh takes root".to_owned());
    }
    let tools = std::env::var_os("OUTRIGGER_MESH")
        .map_or_else(|| PathBuf::from("/var/tmp/outrigger-mesh"), PathBuf::from);
    let lab = tools.join("lab");
    std::fs::create_dir_all(&lab).map_err(|e| e.to_string())?;
    let source = peers::repository().join("tests/mesh");
    run(Command::new("cp").arg("-r").arg(source.join(".")).arg(&lab))?;
    let template = peers::repository().join("deploy/istio/operator.yaml");
    std::fs::copy(template, lab.join("operator.yaml")).map_err(|e| e.to_string())?;
    run(Command::new(lab.join("build")).env("LAB_TOOLS", &tools))?;
    let proxy = peers::subject()?;
    // In two steps: one that runs cannot be written over.
    let copy = tools.join("outrigger.new");
    std::fs::copy(proxy, &copy).map_err(|e| e.to_string())?;
    std::fs::rename(copy, tools.join("outrigger")).map_err(|e| e.to_string())?;
    Ok(tools)
}

fn output(command: &mut Command) -> Result<Output, String> {
    command.output().map_err(|e| e.to_string())
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = output(command)?;
    if output.status.success() {
        return Ok(text(&output));
    }
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{command:?}: {}{error}", text(&output)))
}

impl Scenario {
    fn run(&self, tools: &Path) -> Result<(), String> {
        let outcome = self.bring_up(tools).and_then(|()| self.check(tools));
        let down = run(lab(tools).arg("down"));
        outcome.and(down.map(drop))
    }

    fn bring_up(&self, tools: &Path) -> Result<(), String> {
        run(lab(tools).arg("up").args(self.up)).map(drop)
    }

    /// Runs the checks, whose lines say what passes and what fails.
    fn check(&self, tools: &Path) -> Result<(), String> {
        let checks = output(lab(tools).args(self.checked_by))?;
        let report = text(&checks);
        let of = |verdict: &str| {
            let lines = report.lines().filter_map(|line| line.strip_prefix(verdict));
            lines.map(str::trim).collect::<Vec<_>>()
        };
        let (passed, failed) = (of("PASS "), of("FAIL "));
        let unexpected = |line: &&&str| self.may_fail.is_none_or(|may| !line.starts_with(may));
        if failed.iter().any(|line| unexpected(&line)) || passed.len() + failed.len() < self.checks
        {
            let error = String::from_utf8_lossy(&checks.stderr).into_owned();
            return Err(format!("{report}{error}"));
        }
        Ok(())
    }
}

/// A command of the lab, with its environment.
fn lab(tools: &Path) -> Command {
    let mut command = Command::new("bash");
    command
        .args(["-c", ". \"$0\"/env && exec \"$0\"/lab/lab.py \"$@\""])
        .arg(tools)
        .env("LAB_PROXY", tools.join("outrigger"));
    command
}
