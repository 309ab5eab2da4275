//! Nanoseconds for one increment and one sample.

use std::hint::black_box;
use std::time::Instant;

use outrigger_stats::{Store, Unit};

outrigger_stats::stat_set! {
    /// What is measured.
    struct Bench {
        counters { before, total }
        gauges { active }
        histograms { time: ms }
    }
}

const ROUNDS: u32 = 20_000_000;

fn measure(name: &str, mut step: impl FnMut(u64)) {
    let started = Instant::now();
    for round in 0..ROUNDS {
        step(black_box(u64::from(round)));
    }
    let nanos = started.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS);
    println!("{name:<22} {nanos:6.2} ns");
}

fn main() {
    let store = Store::default();
    let scope = store.scope("bench.");
    let slab = scope.slab::<Bench>();
    let counter = scope.counter("dynamic");
    let histogram = scope.histogram("dynamic_time", Unit::Milliseconds);
    slab.inc(Bench::before);
    measure("empty loop", |_| {});
    measure("counter of a slab", |_| black_box(&slab).inc(Bench::total));
    measure("gauge of a slab", |_| {
        black_box(&slab).gauge_inc(Bench::active)
    });
    measure("histogram of a slab", |n| {
        black_box(&slab).record(Bench::time, n & 1023)
    });
    measure("counter by handle", |_| black_box(&counter).inc());
    measure("histogram by handle", |n| {
        black_box(&histogram).record(n & 1023)
    });
}
