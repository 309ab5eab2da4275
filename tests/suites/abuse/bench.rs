//! The proxy under abuse, with what is measured of it, and a neighbour who goes on calling.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use integration_tests::exchange::Exchange;
use integration_tests::h1::{self, Reader};
use integration_tests::h2::conn::{Conn, Options};
use integration_tests::h2::frame::{self, Frame};
use integration_tests::lab::{Lab, Setup};
use integration_tests::parity::template::Config;
use integration_tests::upstream::Protocol;
use integration_tests::values::Fields;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::backend;

/// Bytes of a mebibyte.
pub const MB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(10);

/// The proxy, in front of a server of HTTP/1 (`/...`) and one of HTTP/2 (`/...` with
/// `x-h2: 1`).
pub struct Bench {
    /// The process.
    pub lab: Lab,
    baseline: u64,
}

impl Bench {
    /// Starts it with what `yaml` says beside the routes, in the form of a parity case's
    /// `config`.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn start(yaml: &str) -> Result<Self, String> {
        Self::with(yaml, Setup::default()).await
    }

    /// The same, where `setup` says more than what is configured and what is behind it.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn with(yaml: &str, setup: Setup) -> Result<Self, String> {
        let value: Value = serde_yaml_ng::from_str(yaml).map_err(|e| e.to_string())?;
        let mut config: Config = match value {
            Value::Null => Config::default(),
            value => serde_json::from_value(value).map_err(|e| e.to_string())?,
        };
        config.routes.get_or_insert_with(routes);
        let log = "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n";
        config.log_format.get_or_insert_with(|| log.to_owned());
        let mut upstreams = Vec::new();
        let backends = [
            ("a", Protocol::H1, false),
            ("b", Protocol::H2, false),
            ("deaf", Protocol::H2, true),
        ];
        for (name, protocol, deaf) in backends {
            let port = backend::start(protocol, deaf)
                .await
                .map_err(|e| e.to_string())?;
            upstreams.push((name.to_owned(), protocol, port));
        }
        let setup = Setup {
            config,
            upstreams,
            ..setup
        };
        let lab = Lab::with(setup).await?;
        let mut bench = Self { lab, baseline: 0 };
        // What is made at the first use is there before the abuse begins.
        for caller in bench.callers().await? {
            caller.call(false).await?;
            caller.call(true).await?;
            caller.leave().await;
        }
        bench.baseline = bench.lab.resident()?;
        Ok(bench)
    }

    /// A connection to the proxy.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn connect(&self) -> io::Result<TcpStream> {
        connect(self.lab.listener).await
    }

    /// A connection of HTTP/2 that reads what comes; with `hold` it grants no window.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn connect_h2(&self, hold: bool) -> io::Result<Conn> {
        let options = Options {
            hold_windows: hold,
            ..Options::default()
        };
        Conn::start(self.connect().await?, options).await
    }

    /// A connection of HTTP/2 of which only the first words were said.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn connect_raw_h2(&self) -> io::Result<TcpStream> {
        let mut socket = self.connect().await?;
        socket.write_all(frame::PREFACE).await?;
        let settings = Frame::new(frame::SETTINGS, 0, 0, Vec::new());
        socket.write_all(&settings.bytes()).await?;
        Ok(socket)
    }

    /// Two neighbours, one of each version.
    async fn callers(&self) -> Result<[Neighbour; 2], String> {
        let h2 = self.connect_h2(false).await.map_err(|e| e.to_string())?;
        Ok([Neighbour::H1(self.lab.listener), Neighbour::H2(h2)])
    }

    /// Fails when the process holds more than `bound` bytes over what it held before.
    ///
    /// # Errors
    /// How much it holds.
    pub fn holds_at_most(&self, bound: u64) -> Result<(), String> {
        let now = self.lab.resident()?;
        let more = now.saturating_sub(self.baseline);
        if more <= bound {
            return Ok(());
        }
        Err(format!(
            "{} MB over {} MB, where {} MB are allowed",
            more / MB,
            self.baseline / MB,
            bound / MB
        ))
    }

    /// Waits until a stat has at least this value.
    ///
    /// # Errors
    /// What it has instead.
    pub async fn counts(&self, stat: &str, at_least: u64) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stats = self.lab.stats().await?;
            let value = stats.get(stat).copied().unwrap_or(0);
            if value >= at_least {
                return Ok(());
            }
            if Instant::now() > deadline {
                let others = stats.iter().filter(|(_, n)| **n > 0);
                let others = others.filter(|(name, _)| name.starts_with("http2."));
                let others: Vec<String> = others.map(|(name, n)| format!("{name}: {n}")).collect();
                return Err(format!(
                    "{stat} is {value}, not {at_least}; there is {}",
                    others.join(", ")
                ));
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// Waits until nothing is under way any more: the process lives, all gauges of
    /// streams and of downstream connections are zero, and no filter panicked.
    ///
    /// # Errors
    /// What is left.
    pub async fn is_clean(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(how) = self.lab.ended() {
                return Err(format!("the process ended, {how}"));
            }
            let stats = self.lab.stats().await?;
            let busy = |name: &str| {
                let pooled = name.contains("upstream_cx_");
                let own = name.contains("admin") || name.starts_with("listener_manager");
                name.ends_with("_active") && !pooled && !own
            };
            let left = stats.iter().filter(|(name, n)| busy(name) && **n > 0);
            let mut left: Vec<String> = left.map(|(name, n)| format!("{name}: {n}")).collect();
            let panics = "http.ingress_http.downstream_rq_filter_panic";
            left.extend(
                (stats.get(panics).copied().unwrap_or(0) > 0).then(|| "a panic".to_owned()),
            );
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "left: {}\n{}",
                    left.join(", "),
                    self.lab.log_tail()
                ));
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// Begins to call as a neighbour does, on connections of its own, both upstreams in turn.
    ///
    /// # Errors
    /// When it cannot connect.
    pub async fn neighbours(&self) -> Result<Neighbours, String> {
        self.neighbours_of(true).await
    }

    /// The same, without calls to the upstream of HTTP/2, whose one connection, and its
    /// window, all share.
    ///
    /// # Errors
    /// When it cannot connect.
    pub async fn neighbours_of_h1(&self) -> Result<Neighbours, String> {
        self.neighbours_of(false).await
    }

    async fn neighbours_of(&self, both: bool) -> Result<Neighbours, String> {
        let shared = Arc::new(Calling::default());
        let tasks = self.callers().await?.map(|neighbour| {
            let shared = shared.clone();
            tokio::spawn(async move {
                let mut to_h2 = false;
                while !shared.stop.load(Ordering::Relaxed) {
                    neighbour.call(to_h2).await?;
                    to_h2 = both && !to_h2;
                    shared.calls.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                neighbour.leave().await;
                Ok(())
            })
        });
        Ok(Neighbours { shared, tasks })
    }
}

async fn connect(port: u16) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

fn routes() -> Vec<Value> {
    let h2 = json!([{"name": "x-h2", "present_match": true}]);
    let to = |cluster: &str| json!({"cluster": cluster, "timeout": "0s"});
    vec![
        json!({"match": {"prefix": "/deaf", "headers": h2}, "route": to("deaf")}),
        json!({"match": {"prefix": "/", "headers": h2}, "route": to("b")}),
        json!({"match": {"prefix": "/"}, "route": to("a")}),
    ]
}

/// The head of a request over HTTP/2.
#[must_use]
pub fn head_h2(method: &str, path: &str, to_h2: bool) -> Fields {
    let mut fields = Fields::default();
    fields.push(":method", method);
    fields.push(":scheme", "http");
    fields.push(":authority", "abuse.test");
    fields.push(":path", path);
    if to_h2 {
        fields.push("x-h2", "1");
    }
    fields
}

/// The head of a request over HTTP/1; `more` are lines of it.
#[must_use]
pub fn head_h1(method: &str, path: &str, to_h2: bool, more: &str) -> Vec<u8> {
    let by = if to_h2 { "x-h2: 1\r\n" } else { "" };
    format!("{method} {path} HTTP/1.1\r\nhost: abuse.test\r\n{by}{more}\r\n").into_bytes()
}

/// Somebody who only wants to be served.
enum Neighbour {
    H1(u16),
    H2(Conn),
}

impl Neighbour {
    async fn leave(&self) {
        if let Self::H2(conn) = self {
            conn.shut().await;
        }
    }

    async fn call(&self, to_h2: bool) -> Result<(), String> {
        let (status, body) = tokio::time::timeout(PATIENCE, self.exchange(to_h2))
            .await
            .map_err(|_| "a neighbour's call takes too long")?
            .map_err(|e| format!("a neighbour's call: {e}"))?;
        match (status, body.as_slice()) {
            (200, b"ok") => Ok(()),
            _ => Err(format!("a neighbour got {status}")),
        }
    }

    async fn exchange(&self, to_h2: bool) -> io::Result<(u16, Vec<u8>)> {
        match self {
            Self::H1(port) => {
                let (read, mut write) = connect(*port).await?.into_split();
                write
                    .write_all(&head_h1("GET", "/answer", to_h2, ""))
                    .await?;
                let mut reader = Reader::new(read);
                let head = reader.head().await?.unwrap_or_default();
                let exchange = Exchange::new();
                let framing = h1::response_framing(&head, "GET");
                reader.body(framing, &exchange).await?;
                Ok((head.status(), exchange.seen().body))
            }
            Self::H2(conn) => {
                let (stream, exchange) = conn.open();
                let head = head_h2("GET", "/answer", to_h2);
                conn.headers(stream, &head, true).await?;
                exchange
                    .until(PATIENCE, |seen| seen.ended || seen.broken.is_some())
                    .await;
                let seen = exchange.seen();
                Ok((seen.head.unwrap_or_default().status(), seen.body))
            }
        }
    }
}

#[derive(Default)]
struct Calling {
    stop: AtomicBool,
    calls: AtomicUsize,
}

/// Neighbours who call until they are asked how it went.
pub struct Neighbours {
    shared: Arc<Calling>,
    tasks: [JoinHandle<Result<(), String>>; 2],
}

impl Neighbours {
    /// Ends the calls, of which there were some by then.
    ///
    /// # Errors
    /// The first that failed.
    pub async fn were_served(self) -> Result<(), String> {
        const ENOUGH: usize = 20;
        let calls = || self.shared.calls.load(Ordering::Relaxed);
        while calls() < ENOUGH && !self.tasks.iter().any(JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.shared.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.map_err(|e| e.to_string())??;
        }
        Ok(())
    }
}
