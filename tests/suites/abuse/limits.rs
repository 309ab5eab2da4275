//! More connections than there may be: by runtime, and by the descriptors of the process.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::bench::{Bench, MB};
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
    let mut bench = Bench::limited("{hcm: {delayed_close_timeout: 0.1s}}", Some(LIMIT)).await?;
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
