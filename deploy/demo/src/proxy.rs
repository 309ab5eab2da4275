//! The proxy as a process of its own: found or built, started, measured, ended.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::admin;

/// The bootstrap, with the ports of its text.
const BOOTSTRAP: &str = include_str!("../bootstrap.yaml");
const ADMIN_IN_TEXT: &str = "15000";
const CONTROL_PLANE_IN_TEXT: &str = "18000";
/// A proxy that is not ready by then has failed.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How often its end is looked for after it was killed, 5 ms apart.
const END_CHECKS: usize = 200;
/// Lines of its log that are shown when it fails.
const SHOWN_LOG_LINES: usize = 12;

/// Finds the binary: the one that was given; else the one that cargo builds now, if cargo runs the
/// demo; else the one beside the demo's executable.
pub async fn find(given: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(path) = given {
        return if path.is_file() {
            Ok(path.to_owned())
        } else {
            Err(format!("{}: no such file", path.display()))
        };
    }
    let exe = std::env::current_exe().map_err(|e| e.to_string())?;
    let dir = exe
        .parent()
        .ok_or("the demo's executable has no directory")?;
    let beside = dir.join("outrigger");
    if let Some(cargo) = std::env::var_os("CARGO") {
        build(Path::new(&cargo), dir).await?;
    }
    if beside.is_file() {
        return Ok(beside);
    }
    Err(format!(
        "there is no outrigger beside {}; build it (cargo build -p outrigger) or give --proxy PATH",
        exe.display()
    ))
}

/// Builds the proxy with the profile the demo was built with.
async fn build(cargo: &Path, dir: &Path) -> Result<(), String> {
    println!("building outrigger (the first build takes some minutes) ...");
    let built = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--package",
            "outrigger",
            "--bin",
            "outrigger",
        ])
        .args(profile(dir))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .kill_on_drop(true)
        .status()
        .await
        .map_err(|e| format!("{} cannot be run: {e}", cargo.display()))?;
    if built.success() {
        Ok(())
    } else {
        Err("outrigger does not build; see above".to_owned())
    }
}

/// The options of cargo that name the profile whose directory this is.
fn profile(dir: &Path) -> Vec<String> {
    match dir.file_name().and_then(|n| n.to_str()) {
        None | Some("debug") => Vec::new(),
        Some(name) => vec!["--profile".to_owned(), name.to_owned()],
    }
}

/// Whether the binary stands where cargo puts what it builds without optimisation.
fn is_debug_build(binary: &Path) -> bool {
    binary
        .parent()
        .and_then(Path::file_name)
        .is_some_and(|dir| dir == "debug")
}

/// Ports that are free now. Kept bound until all are known, so that they differ.
pub fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// A running proxy. It ends when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    pid: u32,
    dir: TempDir,
    /// What it calls itself: the name of its binary.
    pub name: String,
    /// It was built without optimisation, so what it costs says little.
    pub debug_build: bool,
    /// Its admin pages.
    pub admin: SocketAddr,
    /// The listener that the control plane gives it.
    pub listener: SocketAddr,
}

impl Proxy {
    /// Starts the binary with the demo's bootstrap.
    pub fn start(
        binary: &Path,
        control_plane: SocketAddr,
        admin: u16,
        listener: u16,
    ) -> Result<Self, String> {
        let dir = tempfile::Builder::new()
            .prefix("outrigger-demo-")
            .tempdir()
            .map_err(|e| e.to_string())?;
        let child = spawn(binary, dir.path(), &bootstrap(admin, control_plane.port()));
        let child = child.map_err(|e| format!("{} cannot be run: {e}", binary.display()))?;
        let name = binary
            .file_name()
            .map_or_else(|| "proxy".into(), |n| n.to_string_lossy().into_owned());
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let pid = child.id().ok_or("the proxy has no process id")?;
        Ok(Self {
            child,
            pid,
            dir,
            name,
            debug_build: is_debug_build(binary),
            admin: local(admin),
            listener: local(listener),
        })
    }

    /// Waits until it is ready and its listener accepts.
    pub async fn wait_until_ready(&mut self) -> Result<(), String> {
        let begin = Instant::now();
        let mut last = String::new();
        while begin.elapsed() < START_LIMIT {
            self.check()?;
            match admin::get(self.admin, "/ready").await {
                Ok(_) if TcpStream::connect(self.listener).await.is_ok() => return Ok(()),
                Ok(_) => last = "ready, but its listener does not accept".to_owned(),
                Err(error) => last = error,
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err(format!(
            "the proxy is not ready after {START_LIMIT:?}: {last}\n{}",
            self.log_end()
        ))
    }

    /// An error if the process has ended.
    pub fn check(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("the proxy ended with {status}\n{}", self.log_end())),
            Err(error) => Err(format!("the proxy cannot be watched: {error}")),
        }
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it costs now.
    pub fn cost(&self) -> Cost {
        Cost {
            cpu: cpu_time(self.pid),
            rss: rss(self.pid),
        }
    }

    /// The last lines it logged.
    fn log_end(&self) -> String {
        let log = fs::read(self.dir.path().join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LOG_LINES)..].join("\n")
    }
}

impl Drop for Proxy {
    /// Kills it and waits for its end, so that nothing is left behind.
    fn drop(&mut self) {
        let _ended_already = self.child.start_kill();
        for _ in 0..END_CHECKS {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn bootstrap(admin: u16, control_plane: u16) -> String {
    BOOTSTRAP
        .replace(ADMIN_IN_TEXT, &admin.to_string())
        .replace(CONTROL_PLANE_IN_TEXT, &control_plane.to_string())
}

fn spawn(binary: &Path, dir: &Path, bootstrap: &str) -> io::Result<Child> {
    let config = dir.join("bootstrap.yaml");
    fs::write(&config, bootstrap)?;
    let log = fs::File::create(dir.join("log"))?;
    Command::new(binary)
        .arg("-c")
        .arg(&config)
        .args([
            "--concurrency",
            "2",
            "-l",
            "warning",
            "--disable-hot-restart",
        ])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
}

/// What the process has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// CPU time of all threads since the start.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub rss: u64,
}

/// The scheduler's count of nanoseconds on a core, summed over the threads.
fn cpu_time(pid: u32) -> Duration {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Duration::ZERO;
    };
    let nanos = |path: PathBuf| {
        let text = fs::read_to_string(path.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(tasks.flatten().filter_map(|t| nanos(t.path())).sum())
}

fn rss(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|l| {
        l.strip_prefix("VmRSS:")?
            .split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
    });
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bootstrap_gets_both_ports() {
        let text = bootstrap(1234, 5678);
        assert_eq!(
            (text.matches("1234").count(), text.matches("5678").count()),
            (1, 1)
        );
        assert!(!text.contains(ADMIN_IN_TEXT) && !text.contains(CONTROL_PLANE_IN_TEXT));
    }

    #[test]
    fn the_profile_is_that_of_the_directory() {
        assert!(profile(Path::new("/t/debug")).is_empty());
        assert_eq!(profile(Path::new("/t/release")), ["--profile", "release"]);
        assert_eq!(profile(Path::new("/t/dist")), ["--profile", "dist"]);
    }

    #[test]
    fn a_debug_build_is_known_by_its_directory() {
        assert!(is_debug_build(Path::new("/t/debug/outrigger")));
        assert!(!is_debug_build(Path::new("/t/release/outrigger")));
        assert!(!is_debug_build(Path::new("outrigger")));
    }

    #[test]
    fn this_process_costs_something() {
        assert!(rss(std::process::id()) > 0);
    }
}
