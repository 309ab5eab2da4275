//! Load and backend against each other, without a proxy: every row must work by itself.

use std::time::Duration;

use outrigger_bench::backend::{self, Protocol};
use outrigger_bench::load::{Load, Pace};
use outrigger_bench::rows::{self, Row};
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

/// Runs on one thread, as the harness does.
fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, future)
}

/// Waits until so many requests are done, and says how many have failed by then.
async fn until_done(load: &Load, wanted: u64) -> u64 {
    let waiting = async {
        while load.counts.done.get() < wanted && load.counts.failed.get() == 0 {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(Duration::from_secs(20), waiting)
        .await
        .expect("requests are answered");
    load.counts.failed.get()
}

/// The rows whose two ends speak the same protocol.
fn rows() -> Vec<Row> {
    rows::all()
        .into_iter()
        .filter(|r| r.request.protocol == r.upstream)
        .collect()
}

#[test]
fn every_row_is_answered_right_in_a_closed_loop() {
    run(async {
        for row in rows() {
            let backend = backend::start(row.upstream, row.answer.clone())
                .await
                .unwrap();
            let load = Load::start(
                backend.address,
                &row.request,
                3,
                Pace::Closed { streams: 4 },
            );
            assert_eq!(until_done(&load, 40).await, 0, "{}", row.name);
        }
    });
}

#[test]
fn a_connection_for_each_request_is_made_again_and_again() {
    run(async {
        let row = rows().into_iter().find(|r| r.name == "http1").unwrap();
        let backend = backend::start(row.upstream, row.answer.clone())
            .await
            .unwrap();
        let load = Load::start(backend.address, &row.request, 3, Pace::Reconnect);
        assert_eq!(until_done(&load, 40).await, 0);
    });
}

#[test]
fn an_open_loop_keeps_its_rate() {
    run(async {
        let row = rows().remove(0);
        let backend = backend::start(row.upstream, row.answer.clone())
            .await
            .unwrap();
        let load = Load::start(
            backend.address,
            &row.request,
            2,
            Pace::Open {
                every: Duration::from_millis(10),
            },
        );
        load.counts.timing.set(true);
        sleep(Duration::from_millis(550)).await;
        let done = load.counts.done.get();
        assert!(
            (80..=101).contains(&done),
            "two connections, 100 a second each, for half a second: {done}"
        );
        assert_eq!(load.counts.latencies.borrow().len() as u64, done);
    });
}

#[test]
fn a_connection_that_is_held_sends_one_request() {
    run(async {
        for row in rows()
            .iter()
            .filter(|r| matches!(r.kind, rows::Kind::ConnectionMemory))
        {
            let backend = backend::start(row.upstream, row.answer.clone())
                .await
                .unwrap();
            let load = Load::start(backend.address, &row.request, 5, Pace::Once);
            assert_eq!(until_done(&load, 5).await, 0, "{}", row.name);
            sleep(Duration::from_millis(50)).await;
            assert_eq!(
                (load.counts.done.get(), load.counts.failed.get()),
                (5, 0),
                "{}",
                row.name
            );
        }
    });
}

#[test]
fn a_wrong_answer_and_a_lost_peer_are_failures() {
    run(async {
        let row = rows().remove(0);
        let mut short = row.answer.clone();
        short.frames = 0;
        let backend = backend::start(Protocol::Http2, short).await.unwrap();
        let load = Load::start(
            backend.address,
            &row.request,
            1,
            Pace::Closed { streams: 1 },
        );
        assert!(
            until_done(&load, 1).await > 0,
            "an answer of the wrong length"
        );
        let gone = backend.address;
        drop(backend);
        sleep(Duration::from_millis(20)).await;
        let load = Load::start(gone, &row.request, 1, Pace::Closed { streams: 1 });
        assert!(until_done(&load, 1).await > 0, "nobody listens");
    });
}
