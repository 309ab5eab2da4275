//! A proxy as a child process: started on a bootstrap, asked over its admin address, ended.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A running proxy; dropping it kills it.
pub struct Proxy {
    child: Child,
    admin: u16,
    log: PathBuf,
}

/// What a finished run of a binary gave.
#[derive(Debug)]
pub struct Finished {
    /// Exit status.
    pub status: ExitStatus,
    /// Standard output and error together.
    pub output: String,
}

/// How long a proxy may take to become ready.
const READY: Duration = Duration::from_secs(15);

impl Proxy {
    /// Starts `binary` on the bootstrap file and waits until it is ready; `dir` gets its
    /// standard error.
    ///
    /// # Errors
    /// A text with the end of its log when it does not become ready.
    pub async fn start(
        binary: &Path,
        bootstrap: &Path,
        admin: u16,
        args: &[String],
        dir: &Path,
    ) -> Result<Self, String> {
        let mut proxy = Self::launch(binary, bootstrap, admin, args, dir)?;
        proxy.until_ready().await?;
        Ok(proxy)
    }

    /// Starts `binary` without waiting: a proxy that waits for its control plane is not ready.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch(
        binary: &Path,
        bootstrap: &Path,
        admin: u16,
        args: &[String],
        dir: &Path,
    ) -> Result<Self, String> {
        let log = dir.join("stderr");
        let stderr = File::create(&log).map_err(|e| e.to_string())?;
        let child = Command::new(binary)
            .arg("-c")
            .arg(bootstrap)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .map_err(|e| format!("{}: {e}", binary.display()))?;
        Ok(Self { child, admin, log })
    }

    /// Waits until `/ready` says LIVE.
    ///
    /// # Errors
    /// A text with the end of its log when it does not become ready.
    pub async fn until_ready(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + READY;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("ended at start, {status}\n{}", self.log_tail()));
            }
            if let Ok((200, _)) = self.admin("GET", "/ready").await {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(format!("not ready after {READY:?}\n{}", self.log_tail()))
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process has ended by itself, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The last lines it logged.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Asks the admin address: status and body.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn admin(&self, method: &str, path: &str) -> io::Result<(u16, String)> {
        admin(self.admin, method, path).await
    }

    /// Counters and gauges by name, from the text form of `/stats`.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn stats(&self) -> io::Result<Vec<(String, u64)>> {
        let (_, body) = self.admin("GET", "/stats").await?;
        let line = |line: &str| {
            let (name, value) = line.rsplit_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Ok(body.lines().filter_map(line).collect())
    }

    /// Ends the process at once.
    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What an admin page answered.
#[derive(Debug)]
pub struct AdminAnswer {
    /// Its status.
    pub status: u16,
    /// Its content type; empty without one.
    pub content_type: String,
    /// Its body.
    pub body: String,
}

/// One request to an admin port: status and body.
///
/// # Errors
/// What the socket says, or an answer that is no HTTP.
pub async fn admin(port: u16, method: &str, path: &str) -> io::Result<(u16, String)> {
    let answer = ask(port, method, path, None).await?;
    Ok((answer.status, answer.body))
}

/// One request to an admin port, with a form as body if there is one.
///
/// # Errors
/// What the socket says, or an answer that is no HTTP.
pub async fn ask(
    port: u16,
    method: &str,
    path: &str,
    form: Option<&str>,
) -> io::Result<AdminAnswer> {
    let kind = form.map_or(
        "",
        |_| "content-type: application/x-www-form-urlencoded\r\n",
    );
    let form = form.unwrap_or("");
    let ask = async {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: admin\r\n{kind}content-length: {}\r\nconnection: close\r\n\r\n{form}",
            form.len()
        );
        socket.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        socket.read_to_end(&mut bytes).await?;
        Ok::<_, io::Error>(bytes)
    };
    let bytes = tokio::time::timeout(Duration::from_secs(5), ask)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or_else(|| io::Error::other("no answer"))?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(0);
    let field = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
            .unwrap_or_default()
    };
    Ok(AdminAnswer {
        status,
        body: match field("transfer-encoding").as_str() {
            "chunked" => unchunk(body),
            _ => body.to_owned(),
        },
        content_type: field("content-type"),
    })
}

fn unchunk(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        match rest.get(..size) {
            Some(chunk) if size > 0 => out.push_str(chunk),
            _ => break,
        }
        body = rest.get(size + 2..).unwrap_or("");
    }
    out
}

/// Runs a binary to its end.
///
/// # Errors
/// When it cannot be started or does not end within eight seconds.
pub async fn finish(binary: &Path, args: &[String]) -> io::Result<Finished> {
    let run = tokio::process::Command::new(binary)
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(8), run)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let text = [output.stdout, output.stderr].concat();
    Ok(Finished {
        status: output.status,
        output: String::from_utf8_lossy(&text).into_owned(),
    })
}
