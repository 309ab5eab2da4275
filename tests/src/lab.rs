//! A proxy in front of one gRPC or HTTP server, for suites that bring real clients.
//!
//! Everything that waits here waits on a child process, on the thread of one test.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::parity::template::{self, Config};
use crate::proxy::Proxy;
use crate::upstream::{Protocol, Script};
use crate::{peers, ports};

/// A running proxy with one listener and one route, without a timeout, to one cluster.
pub struct Lab {
    /// The port that clients connect to.
    pub listener: u16,
    /// The port of the admin address.
    pub admin: u16,
    proxy: Proxy,
    dir: TempDir,
}

impl Lab {
    /// Starts the proxy under test in front of the server on `upstream`.
    ///
    /// # Errors
    /// When it cannot be had or does not become ready.
    pub async fn start(upstream: u16, protocol: Protocol) -> Result<Self, String> {
        let config = Config {
            route: json!({"timeout": "0s"}),
            hcm: json!({"upgrade_configs": [{"upgrade_type": "websocket"}]}),
            ..Config::default()
        };
        let script = Script {
            protocol,
            ..Script::default()
        };
        let bootstrap = config.bootstrap(&BTreeMap::from([("a".to_owned(), script)]))?;
        let (listener, admin) = (ports::free(), ports::free());
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let log = dir.path().join("access.log");
        let values = [
            ("listener.a", listener.to_string()),
            ("admin", admin.to_string()),
            ("upstream.a", upstream.to_string()),
            ("log", log.to_string_lossy().into_owned()),
        ];
        let values = values.map(|(name, value)| (name.to_owned(), value)).into();
        let file = dir.path().join("bootstrap.yaml");
        let text = template::fill(&bootstrap.to_string(), &values);
        std::fs::write(&file, text).map_err(|e| e.to_string())?;
        let args = [
            "--disable-hot-restart",
            "--concurrency",
            "2",
            "-l",
            "warning",
        ];
        let args = args.map(str::to_owned);
        let binary = peers::subject()?;
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
