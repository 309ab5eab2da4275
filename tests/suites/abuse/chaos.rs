//! Clients that misbehave at random against upstreams that misbehave at random, from a seed:
//! whatever they do, the process lives, every request is logged once, and nothing is left.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use integration_tests::exchange::Exchange;
use integration_tests::h1::{self, Reader};
use libtest_mimic::Trial;
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::backend::Behaviour;
use crate::bench::{Bench, MB, head_h1, head_h2};
use crate::{Outcome, trial};

const CLIENTS: u64 = 8;
/// Connections of a client.
const TURNS: u64 = 40;
/// What all of it may hold at its end, bytes.
const HELD: u64 = 48 * MB;
const PATIENCE: Duration = Duration::from_millis(700);

/// Retries, short timeouts, small buffers, and breakers that show what remains.
const CONFIG: &str = r#"
listener: {per_connection_buffer_limit_bytes: 65536}
cluster:
  per_connection_buffer_limit_bytes: 65536
  circuit_breakers: {thresholds: [{track_remaining: true, max_retries: 50}]}
hcm:
  stream_idle_timeout: 1s
  request_headers_timeout: 1s
  delayed_close_timeout: 0.1s
routes:
- match: {prefix: /, headers: [{name: x-h2, present_match: true}]}
  route:
    cluster: b
    timeout: 0.6s
    retry_policy: {retry_on: "5xx,reset,connect-failure,refused-stream", num_retries: 2, per_try_timeout: 0.2s, retry_back_off: {base_interval: 0.005s}}
- match: {prefix: /}
  route:
    cluster: a
    timeout: 0.6s
    retry_policy: {retry_on: "5xx,reset,connect-failure,refused-stream", num_retries: 2, per_try_timeout: 0.2s, retry_back_off: {base_interval: 0.005s}}
"#;

pub fn trials() -> Vec<Trial> {
    let seeds = match std::env::var("ABUSE_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
    {
        Some(seed) => vec![seed],
        None => vec![1, 2],
    };
    let of = |seed: u64| trial(&format!("chaos/seed_{seed}"), move || chaos(seed));
    seeds.into_iter().map(of).collect()
}

/// Numbers from a seed (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        let at = usize::try_from(self.next()).unwrap_or(0) % of.len();
        of[at]
    }
}

/// What a client does once its request is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Waits for the answer.
    Waits,
    /// Reads the answer slowly.
    ReadsSlowly,
    /// Resets stream or connection after a moment.
    Resets,
    /// Ends its side after a moment.
    HalfCloses,
    /// Stops in the middle of its body for a while, then goes away.
    Stalls,
    /// Sends several requests at once.
    Pipelines,
}

const MANNERS: [Manner; 8] = [
    Manner::Waits,
    Manner::Waits,
    Manner::Waits,
    Manner::ReadsSlowly,
    Manner::Resets,
    Manner::HalfCloses,
    Manner::Stalls,
    Manner::Pipelines,
];

/// One client, and what it knows of its requests.
struct Client {
    bench: Arc<Bench>,
    random: Random,
    name: u64,
    asked: u64,
    /// Paths of requests that the proxy must have seen whole: their answer began.
    answered: Arc<Mutex<Vec<String>>>,
}

async fn chaos(seed: u64) -> Outcome {
    let outcome = run(seed).await;
    outcome.map_err(|e| format!("ABUSE_SEED={seed}: {e}"))
}

async fn run(seed: u64) -> Outcome {
    let bench = Arc::new(Bench::start(CONFIG).await?);
    let answered = Arc::new(Mutex::new(Vec::new()));
    let mut clients = JoinSet::new();
    for name in 0..CLIENTS {
        let mut client = Client {
            bench: bench.clone(),
            random: Random((seed << 8 | name).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            name,
            asked: 0,
            answered: answered.clone(),
        };
        clients.spawn(async move {
            for _ in 0..TURNS {
                client.turn().await;
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.map_err(|e| e.to_string())?;
    }
    let mut bench = Arc::into_inner(bench).ok_or("a client holds on to the proxy")?;
    bench.is_clean().await?;
    breakers_are_whole(&bench).await?;
    bench.holds_at_most(HELD)?;
    let answered = answered.lock().clone();
    every_request_is_logged_once(&bench, &answered).await?;
    bench.neighbours().await?.were_served().await?;
    bench.is_clean().await
}

/// What remains of every breaker is what it began with. Connections stay in their pools.
async fn breakers_are_whole(bench: &Bench) -> Outcome {
    let stats = bench.lab.stats().await?;
    let expected = [
        ("remaining_rq", 1024),
        ("remaining_pending", 1024),
        ("remaining_retries", 50),
    ];
    for cluster in ["a", "b"] {
        for (name, whole) in expected {
            let name = format!("cluster.{cluster}.circuit_breakers.default.{name}");
            let now = stats.get(&name).copied();
            if now != Some(whole) {
                return Err(format!("{name} is {now:?}, not {whole}"));
            }
        }
    }
    Ok(())
}

async fn every_request_is_logged_once(bench: &Bench, answered: &[String]) -> Outcome {
    // The log is written a moment after the end of a stream.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    let lines = bench.lab.access_log();
    for line in &lines {
        let path = line.split(' ').next().unwrap_or("");
        *times.entry(path.to_owned()).or_default() += 1;
    }
    let twice = times
        .iter()
        .find(|(path, n)| path.contains("/c") && **n != 1);
    if let Some((path, n)) = twice {
        return Err(format!("{path} was logged {n} times"));
    }
    if let Some(path) = answered.iter().find(|path| !times.contains_key(*path)) {
        return Err(format!("{path} was answered and not logged"));
    }
    let total = bench.lab.stats().await?;
    let total = total.get("http.ingress_http.downstream_rq_total").copied();
    match total == u64::try_from(lines.len()).ok() {
        true if answered.len() > 100 => Ok(()),
        true => Err(format!("only {} answers", answered.len())),
        false => Err(format!("{total:?} requests, {} lines", lines.len())),
    }
}

impl Client {
    /// A path that nobody else asks for; its first segment is what the upstream does.
    fn path(&mut self) -> String {
        let behaviour = self.random.one_of(&Behaviour::RANDOM);
        self.asked += 1;
        format!("/{}/c{}-{}", behaviour.word(), self.name, self.asked)
    }

    /// One connection, with some requests. What becomes of it is the proxy's to say: an
    /// error here is nothing but a connection that has ended.
    async fn turn(&mut self) {
        let manner = self.random.one_of(&MANNERS);
        let to_h2 = self.random.below(2) == 0;
        let turn = async {
            match self.random.below(2) {
                0 => self.turn_h1(manner, to_h2).await,
                _ => self.turn_h2(manner, to_h2).await,
            }
        };
        drop(turn.await);
    }

    fn body(&mut self) -> Vec<u8> {
        let size = self.random.one_of(&[0usize, 1, 1000, 70_000, 400_000]);
        vec![b'x'; size]
    }

    fn moment(&mut self) -> Duration {
        Duration::from_millis(self.random.below(40))
    }

    async fn turn_h1(&mut self, manner: Manner, to_h2: bool) -> io::Result<()> {
        let (read, mut write) = self.bench.connect().await?.into_split();
        let mut reader = Reader::new(read);
        let requests = if manner == Manner::Pipelines { 4 } else { 1 };
        let mut paths = Vec::new();
        for _ in 0..requests {
            let path = self.path();
            let body = self.body();
            let length = format!("content-length: {}\r\n", body.len());
            let mut bytes = head_h1("POST", &path, to_h2, &length);
            bytes.extend(&body);
            if manner == Manner::Stalls {
                bytes.truncate(bytes.len() / 2);
            }
            paths.push(path);
            // An early answer may end the connection in the middle of a body.
            match tokio::time::timeout(PATIENCE, write.write_all(&bytes)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => break,
            }
        }
        tokio::time::sleep(self.moment()).await;
        match manner {
            Manner::Resets => {
                let socket: &TcpStream = write.as_ref();
                return SockRef::from(socket).set_linger(Some(Duration::ZERO));
            }
            Manner::HalfCloses => write.shutdown().await?,
            Manner::Stalls => tokio::time::sleep(PATIENCE / 4).await,
            Manner::ReadsSlowly => tokio::time::sleep(PATIENCE / 3).await,
            Manner::Waits | Manner::Pipelines => {}
        }
        for path in paths {
            let head = tokio::time::timeout(PATIENCE * 2, reader.head()).await;
            let Ok(Ok(Some(head))) = head else {
                break;
            };
            // The head of one that stalls may not have come whole: then its path is not known.
            if manner != Manner::Stalls {
                self.answered.lock().push(path);
            }
            let framing = h1::response_framing(&head, "POST");
            let seen = Exchange::new();
            let body = reader.body(framing, &seen);
            if !matches!(tokio::time::timeout(PATIENCE * 2, body).await, Ok(Ok(true))) {
                break;
            }
        }
        Ok(())
    }

    async fn turn_h2(&mut self, manner: Manner, to_h2: bool) -> io::Result<()> {
        if self.random.below(8) == 0 {
            return self.nonsense_h2().await;
        }
        let conn = self.bench.connect_h2(manner == Manner::ReadsSlowly).await?;
        let requests = if manner == Manner::Pipelines { 12 } else { 2 };
        let mut streams = Vec::new();
        for _ in 0..requests {
            let path = self.path();
            let body = self.body();
            let (stream, exchange) = conn.open();
            let head = head_h2("POST", &path, to_h2);
            conn.headers(stream, &head, body.is_empty()).await?;
            let ends = manner != Manner::Stalls;
            if !body.is_empty() {
                let sent = conn.data(stream, &body, ends);
                tokio::time::timeout(PATIENCE / 4, sent).await.ok();
            }
            streams.push((path, stream, exchange));
        }
        tokio::time::sleep(self.moment()).await;
        match manner {
            Manner::Resets => {
                for (_, stream, _) in &streams {
                    conn.reset(*stream, 8).await?;
                }
            }
            Manner::HalfCloses => conn.close().await?,
            _ => {}
        }
        for (path, _, exchange) in streams {
            exchange
                .until(PATIENCE, |seen| seen.ended || seen.broken.is_some())
                .await;
            if exchange.seen().head.is_some() {
                self.answered.lock().push(path);
            }
        }
        match self.random.below(2) {
            0 => conn.shut().await,
            _ => conn.abort().await,
        }
        Ok(())
    }

    /// Bytes after the first words of HTTP/2 that are no frames.
    async fn nonsense_h2(&mut self) -> io::Result<()> {
        let mut socket = self.bench.connect_raw_h2().await?;
        let bytes: Vec<u8> = (0..200)
            .map(|_| self.random.next().to_le_bytes()[0])
            .collect();
        socket.write_all(&bytes).await?;
        let mut ignored = Vec::new();
        let read = socket.read_to_end(&mut ignored);
        tokio::time::timeout(PATIENCE, read).await.ok();
        Ok(())
    }
}
