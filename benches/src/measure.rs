//! One row, one subject, one round.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::args::Args;
use crate::backend::{self, Backend};
use crate::load::{Load, Pace};
use crate::process::{cpu_time, own_cpu_time, rss};
use crate::rows::{Kind, Row};
use crate::subject::{Running, Subject, Variant};

/// Connections made at a time while memory is measured; the first of them pay what is paid once.
const AT_A_TIME: usize = 20;
/// Wait before memory is read.
const SETTLE: Duration = Duration::from_millis(800);
/// A row that has not made its connections by then has failed.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// What one round gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// The row's figures, in the row's order.
    pub figures: Vec<f64>,
    /// Requests a second, where traffic ran.
    pub per_second: f64,
    /// Share of its core the subject used, 0 to 1.
    pub subject_share: f64,
    /// Share of its core that load and backend used, 0 to 1.
    pub load_share: f64,
}

/// Measures a row once. An error says what went wrong, for the table.
pub async fn once(row: &Row, subject: &Subject, args: &Args) -> Result<Sample, String> {
    let backend = backend::start(row.upstream, row.answer.clone())
        .await
        .map_err(|e| e.to_string())?;
    let proxy = subject.start(row.config, row.variant, backend.address)?;
    match row.kind {
        Kind::Cpu { streams } => cpu(row, &proxy, Pace::Closed { streams }, args).await,
        Kind::NewConnections => cpu(row, &proxy, Pace::Reconnect, args).await,
        Kind::Latency { rate } => latency(row, &proxy, &backend, rate, args).await,
        Kind::IdleMemory => idle_memory(&proxy).await,
        Kind::ConnectionMemory => connection_memory(row, &proxy).await,
        Kind::Configuration => configuration(row, subject, &backend, &proxy).await,
    }
}

async fn cpu(row: &Row, proxy: &Running, pace: Pace, args: &Args) -> Result<Sample, String> {
    let load = Load::start(proxy.address, &row.request, row.connections, pace);
    sleep(args.warm_up).await;
    let window = Window::open(proxy, &load);
    sleep(args.window).await;
    let sample = window.close(proxy, &load)?;
    Ok(sample)
}

/// The state at the beginning of the measured window.
struct Window {
    at: Instant,
    subject: Duration,
    own: Duration,
    done: u64,
    failed: u64,
}

impl Window {
    fn open(proxy: &Running, load: &Load) -> Self {
        Self {
            subject: cpu_time(proxy.pid()),
            own: own_cpu_time(),
            done: load.counts.done.get(),
            failed: load.counts.failed.get(),
            at: Instant::now(),
        }
    }

    fn close(self, proxy: &Running, load: &Load) -> Result<Sample, String> {
        let elapsed = self.at.elapsed().as_secs_f64();
        let done = load.counts.done.get() - self.done;
        let failed = load.counts.failed.get() - self.failed;
        if failed > 0 || done == 0 {
            return Err(format!(
                "{failed} requests failed, {done} succeeded: {}",
                proxy.last_log_line()
            ));
        }
        let subject = (cpu_time(proxy.pid()) - self.subject).as_secs_f64();
        let own = (own_cpu_time() - self.own).as_secs_f64();
        Ok(Sample {
            figures: vec![subject * 1e6 / done as f64],
            per_second: done as f64 / elapsed,
            subject_share: subject / elapsed,
            load_share: own / elapsed,
        })
    }
}

/// Through the proxy less straight to the backend, each timed from the intended send.
async fn latency(
    row: &Row,
    proxy: &Running,
    backend: &Backend,
    rate: u32,
    args: &Args,
) -> Result<Sample, String> {
    let every = Duration::from_secs(1) * row.connections as u32 / rate;
    let pace = Pace::Open { every };
    let direct = Load::start(backend.address, &row.request, row.connections, pace);
    let (direct_times, _) = timed(direct, proxy, args).await?;
    let through = Load::start(proxy.address, &row.request, row.connections, pace);
    let (through_times, mut sample) = timed(through, proxy, args).await?;
    let added = |p| (percentile(&through_times, p) - percentile(&direct_times, p)) / 1_000.0;
    sample.figures = vec![added(0.5), added(0.9)];
    Ok(sample)
}

/// Sorted latencies of a window, in nanoseconds.
async fn timed(load: Load, proxy: &Running, args: &Args) -> Result<(Vec<u64>, Sample), String> {
    sleep(args.warm_up).await;
    let window = Window::open(proxy, &load);
    load.counts.timing.set(true);
    sleep(args.window).await;
    let sample = window.close(proxy, &load)?;
    let mut latencies = load.counts.latencies.take();
    latencies.sort_unstable();
    Ok((latencies, sample))
}

/// The value below which so large a part lies; the input is sorted.
fn percentile(sorted: &[u64], part: f64) -> f64 {
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .map_or(0.0, |v| *v as f64)
}

async fn idle_memory(proxy: &Running) -> Result<Sample, String> {
    sleep(SETTLE).await;
    let megabytes = rss(proxy.pid()) as f64 / 1e6;
    Ok(Sample {
        figures: vec![megabytes],
        ..Sample::default()
    })
}

/// The memory of the large configuration, its growth over that of one cluster, and the time to load it.
async fn configuration(
    row: &Row,
    subject: &Subject,
    backend: &Backend,
    large: &Running,
) -> Result<Sample, String> {
    let Variant::Repeated(clusters) = row.variant else {
        return Err("the row does not say how large".to_owned());
    };
    let small = subject.start(row.config, Variant::Repeated(1), backend.address)?;
    sleep(SETTLE).await;
    let [large_rss, small_rss] = [large, &small].map(|proxy| rss(proxy.pid()));
    let grown = large_rss.saturating_sub(small_rss) as f64;
    Ok(Sample {
        figures: vec![
            large_rss as f64 / 1e6,
            grown / 1e3 / clusters as f64,
            large.load_time.as_secs_f64() * 1e3,
        ],
        ..Sample::default()
    })
}

/// Connections are made a few at a time, so that what a burst of requests leaves behind is not taken
/// for the cost of a connection.
async fn connection_memory(row: &Row, proxy: &Running) -> Result<Sample, String> {
    let mut held = vec![idle_connections(row, proxy).await?];
    sleep(SETTLE).await;
    let before = rss(proxy.pid());
    for _ in 0..row.connections.div_ceil(AT_A_TIME) {
        held.push(idle_connections(row, proxy).await?);
    }
    sleep(SETTLE).await;
    let grown = rss(proxy.pid()).saturating_sub(before);
    let measured = (held.len() - 1) * AT_A_TIME;
    Ok(Sample {
        figures: vec![grown as f64 / 1e3 / measured as f64],
        ..Sample::default()
    })
}

/// [`AT_A_TIME`] connections that have carried one request each.
async fn idle_connections(row: &Row, proxy: &Running) -> Result<Load, String> {
    let load = Load::start(proxy.address, &row.request, AT_A_TIME, Pace::Once);
    let begin = Instant::now();
    while load.counts.done.get() < AT_A_TIME as u64 {
        if load.counts.failed.get() > 0 || begin.elapsed() > CONNECT_LIMIT {
            let (done, failed) = (load.counts.done.get(), load.counts.failed.get());
            return Err(format!(
                "of {AT_A_TIME} connections {done} carried a request, {failed} failed"
            ));
        }
        sleep(Duration::from_millis(2)).await;
    }
    Ok(load)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_known_list() {
        let list: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&list, 0.5), 50.0);
        assert_eq!(percentile(&list, 0.9), 90.0);
        assert_eq!(percentile(&[], 0.9), 0.0);
    }
}
