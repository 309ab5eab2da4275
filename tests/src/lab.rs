//! A proxy in front of one gRPC or HTTP server, for suites that bring real clients.
//!
//! Everything that waits here waits on a child process, on the thread of one test.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::parity::template::{self, Config};
use crate::proxy::Proxy;
use crate::upstream::{Protocol, Script};
use crate::{peers, ports};

/// A running proxy with one listener.
pub struct Lab {
    /// The port that clients connect to.
    pub listener: u16,
    /// The port of the admin address.
    pub admin: u16,
    proxy: Proxy,
    dir: TempDir,
}

/// What the proxy of a lab is started with.
#[derive(Debug, Default)]
pub struct Setup {
    /// The bootstrap.
    pub config: Config,
    /// The servers behind it: name of the cluster, protocol and port.
    pub upstreams: Vec<(String, Protocol, u16)>,
    /// Most descriptors that the process may have open.
    pub open_files: Option<u32>,
    /// More arguments of the command line.
    pub args: Vec<String>,
}

impl Lab {
    /// Starts the proxy under test in front of the server on `upstream`, with one route,
    /// without a timeout.
    ///
    /// # Errors
    /// When it cannot be had or does not become ready.
    pub async fn start(upstream: u16, protocol: Protocol) -> Result<Self, String> {
        let config = Config {
            route: json!({"timeout": "0s"}),
            hcm: json!({"upgrade_configs": [{"upgrade_type": "websocket"}]}),
            ..Config::default()
        };
        let upstreams = vec![("a".to_owned(), protocol, upstream)];
        Self::with(Setup {
            config,
            upstreams,
            ..Setup::default()
        })
        .await
    }

    /// Starts the proxy under test.
    ///
    /// # Errors
    /// When it cannot be had or does not become ready.
    pub async fn with(setup: Setup) -> Result<Self, String> {
        let script = |protocol| Script {
            protocol,
            ..Script::default()
        };
        let named = setup.upstreams.iter();
        let scripts: BTreeMap<String, Script> = named
            .map(|(name, protocol, _)| (name.clone(), script(*protocol)))
            .collect();
        let bootstrap = setup.config.bootstrap(&scripts)?;
        let (listener, admin) = (ports::free(), ports::free());
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let mut values = BTreeMap::from([
            ("listener.a".to_owned(), listener.to_string()),
            ("admin".to_owned(), admin.to_string()),
            (
                "log".to_owned(),
                access_log(dir.path()).to_string_lossy().into_owned(),
            ),
        ]);
        for (name, _, port) in &setup.upstreams {
            values.insert(format!("upstream.{name}"), port.to_string());
        }
        let file = dir.path().join("bootstrap.yaml");
        let text = template::fill(&bootstrap.to_string(), &values);
        std::fs::write(&file, text).map_err(|e| e.to_string())?;
        let args = [
            "--disable-hot-restart",
            "--concurrency",
            "2",
            "-l",
            "warning",
            "--file-flush-interval-msec",
            "20",
        ];
        let args: Vec<String> = args
            .map(str::to_owned)
            .into_iter()
            .chain(setup.args)
            .collect();
        let binary = peers::subject()?;
        let binary = match setup.open_files {
            Some(limit) => limited(&binary, limit, dir.path())?,
            None => binary,
        };
        let proxy = Proxy::start(&binary, &file, admin, &args, dir.path()).await?;
        Ok(Self {
            listener,
            admin,
            proxy,
            dir,
        })
    }

    /// What the proxy logged last, for the report of a failure.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.proxy.log_tail()
    }

    /// Where the proxy's files are.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_path_buf()
    }

    /// The lines of the access log so far.
    #[must_use]
    pub fn access_log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(access_log(self.dir.path())).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Counters and gauges by name.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn stats(&self) -> Result<BTreeMap<String, u64>, String> {
        let stats = self.proxy.stats().await.map_err(|e| e.to_string())?;
        Ok(stats.into_iter().collect())
    }

    /// An admin page.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn page(&self, path: &str) -> Result<String, String> {
        let answer = self.proxy.admin("GET", path).await;
        answer.map(|(_, body)| body).map_err(|e| e.to_string())
    }

    /// Resident memory of the process, bytes.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resident(&self) -> Result<u64, String> {
        const PAGE: u64 = 4096;
        let pages = self.proc("statm", 1)?;
        Ok(pages * PAGE)
    }

    /// Processor time that the process has used, in ticks of a hundredth of a second.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu_ticks(&self) -> Result<u64, String> {
        Ok(self.proc("stat", 13)? + self.proc("stat", 14)?)
    }

    /// A number of a file of `/proc/PID`.
    fn proc(&self, file: &str, field: usize) -> Result<u64, String> {
        let path = format!("/proc/{}/{file}", self.proxy.pid());
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        let value = text
            .split(' ')
            .nth(field)
            .and_then(|v| v.trim().parse().ok());
        value.ok_or_else(|| format!("{path}: no field {field}"))
    }

    /// How the process ended, if it did.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.proxy.ended()?;
        Some(format!("{status}\n{}", self.proxy.log_tail()))
    }
}

fn access_log(dir: &Path) -> PathBuf {
    dir.join("access.log")
}

/// A program that becomes `binary` with a limit of descriptors.
fn limited(binary: &Path, open_files: u32, dir: &Path) -> Result<PathBuf, String> {
    let file = dir.join("limited");
    let text = format!(
        "#!/bin/sh\nulimit -n {open_files}\nexec '{}' \"$@\"\n",
        binary.display()
    );
    std::fs::write(&file, text)
        .and_then(|()| std::fs::set_permissions(&file, Permissions::from_mode(0o755)))
        .map_err(|e| e.to_string())?;
    Ok(file)
}

/// A server as a child process; dropping it kills it.
pub struct Server(Child);

impl Server {
    /// Starts `command` and waits until `port` takes connections.
    ///
    /// # Errors
    /// When it cannot be started or does not listen in time.
    #[allow(
        clippy::disallowed_methods,
        reason = "a test's own thread, no runtime on it"
    )]
    pub fn start(command: &mut Command, port: u16) -> Result<Self, String> {
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut server = Self(command.spawn().map_err(|e| e.to_string())?);
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(server);
            }
            if let Ok(Some(status)) = server.0.try_wait() {
                return Err(format!("the server ended, {status}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(format!("nothing listens on {port}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Runs a client to its end.
///
/// # Errors
/// Its output, when it fails or takes longer than `limit`.
#[allow(
    clippy::disallowed_methods,
    reason = "a test's own thread, no runtime on it"
)]
pub fn run(command: &mut Command, limit: Duration) -> Result<String, String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let path = dir.path().join("output");
    let file = std::fs::File::create(&path).map_err(|e| e.to_string())?;
    let copy = file.try_clone().map_err(|e| e.to_string())?;
    let child = command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(copy)
        .spawn();
    let mut child = Server(child.map_err(|e| format!("{command:?}: {e}"))?);
    let deadline = Instant::now() + limit;
    let output = || String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned();
    while Instant::now() < deadline {
        match child.0.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(output()),
            Ok(Some(status)) => return Err(format!("{status}\n{}", output())),
            Ok(None) => std::thread::sleep(Duration::from_millis(20)),
            Err(e) => return Err(e.to_string()),
        }
    }
    Err(format!("still running after {limit:?}\n{}", output()))
}
