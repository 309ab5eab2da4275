//! More connections than there may be: by runtime, and by the descriptors of the process.

use std::time::{Duration, Instant};

use integration_tests::lab::Setup;
use libtest_mimic::Trial;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::bench::{Bench, MB, head_h2};
use crate::{Outcome, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("limits/listener", || {
            by_runtime(
                "envoy.resource_limits.listener.listener_0.connection_limit",
                "downstream_cx_overflow",
            )
        }),
        trial("limits/process", || {
            by_runtime(
                "overload.global_downstream_max_connections",
                "downstream_global_cx_overflow",
            )
        }),
        trial("limits/descriptors", descriptors),
        trial("limits/grpc_methods", grpc_methods),
    ]
}

async fn open(bench: &Bench, connections: usize) -> Vec<TcpStream> {
    let mut sockets = Vec::new();
    for _ in 0..connections {
        // With a full queue the kernel refuses some, which is no fault.
        let connect = tokio::time::timeout(Duration::from_millis(300), bench.connect());
        sockets.extend(connect.await.ok().and_then(Result::ok));
    }
    sockets
}

/// How many of these connections the proxy has closed.
async fn closed(sockets: &mut [TcpStream]) -> usize {
    let mut closed = 0;
    for socket in sockets {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_millis(10), socket.read(&mut byte));
        closed += usize::from(read.await.is_ok());
    }
    closed
}

/// Both workers together take no more connections than the key lets them.
async fn by_runtime(key: &str, stat: &str) -> Outcome {
    const LIMIT: usize = 10;
    let config = format!(
        "{{bootstrap: {{layered_runtime: {{layers: [{{name: l, static_layer: {{{key}: {LIMIT}}}}}]}}}}}}"
    );
    let mut bench = Bench::start(&config).await?;
    bench.is_clean().await?;
    let mut sockets = open(&bench, 30).await;
    let name = format!("listener.127.0.0.1_{}.{stat}", bench.lab.listener);
    // Two workers that look at the same time may each take one.
    bench.counts(&name, 19).await?;
    let closed = closed(&mut sockets).await;
    if !(19..=20).contains(&closed) {
        return Err(format!("{closed} of 30 connections were closed"));
    }
    drop(sockets);
    bench.is_clean().await?;
    bench.neighbours().await?.were_served().await
}

/// Out of descriptors the proxy waits, without spinning, and goes on when there are some.
async fn descriptors() -> Outcome {
    const LIMIT: u32 = 100;
    const SECOND: Duration = Duration::from_secs(1);
    let setup = Setup {
        open_files: Some(LIMIT),
        ..Setup::default()
    };
    let mut bench = Bench::with("{hcm: {delayed_close_timeout: 0.1s}}", setup).await?;
    let sockets = open(&bench, 250).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (since, before) = (Instant::now(), bench.lab.cpu_ticks()?);
    tokio::time::sleep(SECOND).await;
    let used = bench.lab.cpu_ticks()? - before;
    // A hundredth of a second each: two workers that spin would use two hundred.
    let share = used as f64 / since.elapsed().as_secs_f64();
    if share > 50.0 {
        return Err(format!("{used} ticks of processor time in a second"));
    }
    if let Some(how) = bench.lab.ended() {
        return Err(format!("the process ended, {how}"));
    }
    drop(sockets);
    bench.is_clean().await?;
    bench.holds_at_most(16 * MB)?;
    bench.neighbours().await?.were_served().await
}

/// A client that makes up methods gets labels for as many as there may be; all its other
/// calls are counted too, under one name.
async fn grpc_methods() -> Outcome {
    const CAP: usize = 10;
    const CALLS: usize = 5_000;
    let setup = Setup {
        args: vec!["--grpc-max-methods".to_owned(), CAP.to_string()],
        ..Setup::default()
    };
    let mut bench = Bench::with("", setup).await?;
    let conn = bench.connect_h2(false).await.map_err(|e| e.to_string())?;
    for at in 0..CALLS {
        let mut head = head_h2("POST", &format!("/answer/method{at}"), false);
        head.push("content-type", "application/grpc");
        let (stream, exchange) = conn.open();
        let sent = conn.headers(stream, &head, true).await;
        sent.map_err(|e| e.to_string())?;
        exchange
            .until(Duration::from_secs(10), |seen| {
                seen.ended || seen.broken.is_some()
            })
            .await;
    }
    conn.shut().await;
    bench.is_clean().await?;
    let page = bench.lab.page("/metrics").await?;
    let rows = |prefix: &str| -> Vec<(String, usize)> {
        let rows = page.lines().filter(|line| line.starts_with(prefix));
        let row = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        rows.filter_map(row).collect()
    };
    let requests = rows("outrigger_grpc_requests_total{");
    let total: usize = requests.iter().map(|(_, calls)| calls).sum();
    let over = requests
        .iter()
        .filter(|(name, _)| name.contains("method=\"_overflow\""));
    let over: usize = over.map(|(_, calls)| calls).sum();
    let told = rows("outrigger_stats_overflow_total{family=\"outrigger_grpc_requests_total\"}");
    let told: usize = told.iter().map(|(_, calls)| calls).sum();
    if (total, over, told, requests.len()) != (CALLS, CALLS - CAP, CALLS - CAP, CAP + 1) {
        return Err(format!(
            "{total} calls in {} rows, {over} of them over the cap, {told} told",
            requests.len()
        ));
    }
    bench.holds_at_most(16 * MB)
}
