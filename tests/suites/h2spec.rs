//! h2spec's cases on Envoy and on the proxy under test, side by side.
//!
//! `docs/h2spec.md` lists where the two differ; `H2SPEC_WRITE=1` writes it anew.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use integration_tests::lab::{self, Server};
use integration_tests::{peers, ports};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};

/// Seconds after which h2spec takes silence for an answer.
const PATIENCE: &str = "2";

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let installed = peers::go("h2spec", peers::H2SPEC)
        .and_then(|h2spec| Ok((h2spec, peers::envoy()?, peers::subject()?)));
    let programs = match installed {
        Ok(programs) => programs,
        Err(e) => return peers::missing("h2spec", &e),
    };
    if arguments.list {
        return libtest_mimic::run(&arguments, trials(None)).exit_code();
    }
    match Comparison::run(&programs) {
        Ok(found) => libtest_mimic::run(&arguments, trials(Some(&found))).exit_code(),
        Err(e) => {
            eprintln!("h2spec: {e}");
            ExitCode::FAILURE
        }
    }
}

fn trials(found: Option<&Comparison>) -> Vec<Trial> {
    let new = found.map(|f| f.fails_alone().join("\n"));
    let document = found.map(Comparison::document);
    let passed = found.map(Comparison::passed);
    vec![
        Trial::test("no_case_fails_that_envoy_passes", move || {
            match new.as_deref() {
                None | Some("") => Ok(()),
                Some(cases) => Err(Failed::from(format!("fails alone:\n{cases}"))),
            }
        }),
        Trial::test("the_document_lists_what_envoy_fails", move || {
            let (Some(document), Some(passed)) = (document, passed) else {
                return Ok(());
            };
            listed(&document, &passed).map_err(Failed::from)
        }),
    ]
}

/// Verdicts by case.
type Verdicts = BTreeMap<String, bool>;

/// What both did with every case.
struct Comparison {
    envoy: Verdicts,
    subject: Verdicts,
}

impl Comparison {
    fn run((h2spec, envoy, subject_binary): &(PathBuf, PathBuf, PathBuf)) -> Result<Self, String> {
        let (envoy, subject) = std::thread::scope(|scope| {
            let envoy = scope.spawn(|| verdicts(h2spec, envoy));
            let subject = verdicts(h2spec, subject_binary);
            (envoy.join(), subject)
        });
        let envoy = envoy.map_err(|_| "the run on Envoy panicked")??;
        let subject = subject?;
        if envoy.len() != subject.len() || envoy.len() < 100 {
            let (a, b) = (envoy.len(), subject.len());
            return Err(format!("h2spec ran {a} cases on Envoy and {b} here"));
        }
        let mut found = Self { envoy, subject };
        let passed = found.passed();
        if !found.fails_alone().is_empty() || !stale(&document_on_disk()?, &passed).is_empty() {
            // Some cases are a matter of what comes first: one that fails has to fail twice.
            for (case, passed) in verdicts(h2spec, subject_binary)? {
                *found.subject.entry(case).or_default() |= passed;
            }
        }
        Ok(found)
    }

    fn those(&self, envoy: bool, subject: bool) -> Vec<&str> {
        let cases = self.envoy.iter().filter(|(_, passed)| **passed == envoy);
        cases
            .map(|(case, _)| &**case)
            .filter(|case| self.subject.get(*case) == Some(&subject))
            .collect()
    }

    fn fails_alone(&self) -> Vec<&str> {
        self.those(true, false)
    }

    fn passed(&self) -> Vec<String> {
        let passed = self.subject.iter().filter(|(_, passed)| **passed);
        passed.map(|(case, _)| case.clone()).collect()
    }

    /// The text of `docs/h2spec.md`.
    fn document(&self) -> String {
        let passed = |verdicts: &Verdicts| verdicts.values().filter(|passed| **passed).count();
        let mut text = format!(
            "# h2spec beside Envoy\n\nWritten by `H2SPEC_WRITE=1 cargo test -p integration-tests --test h2spec`.\n\n\
             Of {} cases Outrigger passes {}, Envoy {}.\n",
            self.envoy.len(),
            passed(&self.subject),
            passed(&self.envoy)
        );
        let lists = [
            ("Envoy fails and Outrigger passes", self.those(false, true)),
            ("Both fail", self.those(false, false)),
        ];
        for (title, cases) in lists {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n## {title}\n\n");
            for case in cases {
                let _ = writeln!(text, "- {case}");
            }
        }
        text
    }
}

/// Whether this side passes every case of which the document on disk says so. That Envoy fails them
/// was seen when it was written; some it fails only at times.
fn listed(document: &str, passed: &[String]) -> Result<(), String> {
    if std::env::var_os("H2SPEC_WRITE").is_some() {
        return std::fs::write(path(), document).map_err(|e| e.to_string());
    }
    let text = document_on_disk()?;
    let stale = stale(&text, passed);
    match stale.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "docs/h2spec.md lists what is so no more:\n{}",
            stale.join("\n")
        )),
    }
}

fn path() -> PathBuf {
    peers::repository().join("docs/h2spec.md")
}

fn document_on_disk() -> Result<String, String> {
    let path = path();
    std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))
}

/// What the document lists as passed here, and is not.
fn stale<'a>(text: &'a str, passed: &[String]) -> Vec<&'a str> {
    text.lines()
        .skip_while(|line| !line.starts_with("## Envoy fails"))
        .take_while(|line| !line.starts_with("## Both"))
        .filter_map(|line| line.strip_prefix("- "))
        .filter(|case| !passed.iter().any(|passed| passed == case))
        .collect()
}

/// Runs all cases on a proxy.
fn verdicts(h2spec: &Path, proxy: &Path) -> Result<Verdicts, String> {
    let (port, admin) = (ports::free(), ports::free());
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let file = dir.path().join("bootstrap.json");
    std::fs::write(&file, bootstrap(port, admin).to_string()).map_err(|e| e.to_string())?;
    let mut command = Command::new(proxy);
    command.args(["--disable-hot-restart", "--concurrency", "1", "-l", "error"]);
    let _proxy = Server::start(command.arg("-c").arg(&file), port)?;
    let report = dir.path().join("report.xml");
    let mut command = Command::new(h2spec);
    command
        .args(["-p", &port.to_string(), "-o", PATIENCE, "-j"])
        .arg(&report);
    // It ends with a failure when a case fails: the report tells which.
    let _ = lab::run(&mut command, Duration::from_secs(400));
    let report = std::fs::read(&report).map_err(|e| format!("no report of h2spec: {e}"))?;
    Ok(read(&String::from_utf8_lossy(&report)))
}

/// A listener that answers everything itself, and closes what it refuses soon.
fn bootstrap(port: u16, admin: u16) -> Value {
    let address = |port| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let route = json!({"match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": "a body of some length"}}});
    let router = json!({"name": "router", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}});
    let hcm = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "h2spec", "delayed_close_timeout": "0.1s", "http_filters": [router],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]}});
    json!({"admin": {"address": address(admin)}, "static_resources": {"listeners": [
        {"name": "h2spec", "address": address(port),
         "filter_chains": [{"filters": [{"name": "hcm", "typed_config": hcm}]}]}]}})
}

/// The verdicts of a report. It is read as text: names in it may hold what XML does not allow.
fn read(report: &str) -> Verdicts {
    let mut verdicts = Verdicts::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for case in report.split("<testcase ").skip(1) {
        let (Some(package), Some(title)) = (value(case, "package"), value(case, "classname"))
        else {
            continue;
        };
        let number = counts.entry(package).or_default();
        *number += 1;
        let passed = !case.contains("<failure") && !case.contains("<error");
        verdicts.insert(format!("{package} {number}: {}", plain(title)), passed);
    }
    verdicts
}

/// The value of an attribute.
fn value<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = tag.split_once(&format!("{name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

fn plain(text: &str) -> String {
    text.replace("&#34;", "\"").replace("&amp;", "&")
}
