//! The demo as a whole: run with a real proxy, with one that cannot run, and ended by a signal.
//!
//! The proxy is `$DEMO_PROXY`, or the `outrigger` beside the demo's executable. Without either these
//! tests are skipped, except where `CI` is set.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const DEMO: &str = env!("CARGO_BIN_EXE_outrigger-demo");

fn proxy() -> Option<PathBuf> {
    let given = std::env::var_os("DEMO_PROXY").map(PathBuf::from);
    let proxy = given.unwrap_or_else(|| Path::new(DEMO).with_file_name("outrigger"));
    if proxy.is_file() {
        return Some(proxy);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "there is no proxy at {}",
        proxy.display()
    );
    eprintln!("skipped: there is no proxy at {}", proxy.display());
    None
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn a_run_loses_no_call_and_tells_each_step() {
    let Some(proxy) = proxy() else { return };
    let output = Command::new(DEMO)
        .args(["--for", "12s", "--proxy"])
        .arg(proxy)
        .output()
        .unwrap();
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    for sentence in [
        "Calls: ",
        "Retries: ",
        "Weights: ",
        "Breaker: ",
        "Killed: ",
        "xDS: ",
        "Cost: ",
    ] {
        assert!(
            text.contains(&format!("\n  {sentence}")),
            "{sentence} in {text}"
        );
    }
    assert!(
        text.contains(", 0 lost.") && text.contains("it was seen open, and closed after"),
        "{text}"
    );
    assert!(
        !text.contains('\u{1b}'),
        "output that is no terminal's is plain: {text}"
    );
}

#[test]
fn a_proxy_that_ends_is_reported() {
    let output = Command::new(DEMO)
        .args(["--proxy", "/bin/false"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("the proxy ended with exit status: 1"),
        "{}",
        text(&output)
    );
}

#[test]
fn a_signal_ends_the_proxy_too() {
    let Some(proxy) = proxy() else { return };
    let mut demo = Command::new(DEMO)
        .arg("--proxy")
        .arg(proxy)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = proxy_pid(&mut demo);
    assert!(is_alive(pid));
    Command::new("kill")
        .args(["-TERM", &demo.id().to_string()])
        .status()
        .unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(1));
    let begin = Instant::now();
    while is_alive(pid) && begin.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!is_alive(pid), "process {pid} outlived the demo");
}

/// Reads the process of the proxy from what the demo prints at its start.
fn proxy_pid(demo: &mut Child) -> u32 {
    let lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let line = lines
        .map(Result::unwrap)
        .find(|l| l.starts_with("proxy "))
        .expect("the demo names its proxy");
    line.rsplit("process ")
        .next()
        .and_then(|p| p.trim_end_matches(')').parse().ok())
        .expect(&line)
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}/stat")).exists()
}
