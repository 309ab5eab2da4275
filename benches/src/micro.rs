//! The timing loop of the micro benches: nanoseconds per operation, the best of several batches.
//!
//! The best batch is the figure because whatever disturbs a loop this short only ever makes it slower.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Batches per bench.
const BATCHES: usize = 15;
/// How long a batch should take.
const BATCH_TIME: Duration = Duration::from_millis(20);
/// No batch has more operations than this.
const BATCH_LIMIT: u64 = 1 << 28;

/// Runs `operation` and prints its cost, if the name begins with one of the filters (or there are none).
pub fn bench<T>(filters: &[String], name: &str, mut operation: impl FnMut() -> T) {
    if filters.is_empty() || filters.iter().any(|f| name.starts_with(f.as_str())) {
        println!(
            "{name:<48} {:>10.2} ns",
            nanos_per_operation(&mut operation)
        );
    }
}

/// The cost of one operation in nanoseconds.
pub fn nanos_per_operation<T>(operation: &mut impl FnMut() -> T) -> f64 {
    let mut count = 1;
    while run(operation, count) < BATCH_TIME && count < BATCH_LIMIT {
        count *= 2;
    }
    let best = (0..BATCHES)
        .map(|_| run(operation, count))
        .min()
        .unwrap_or_default();
    best.as_nanos() as f64 / count as f64
}

fn run<T>(operation: &mut impl FnMut() -> T, count: u64) -> Duration {
    let begin = Instant::now();
    for _ in 0..count {
        black_box(operation());
    }
    begin.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_operation_costs_more() {
        let mut short = || black_box(1u64);
        let mut long = || (0..2_000u64).fold(0, |sum, i| black_box(sum + i));
        assert!(nanos_per_operation(&mut long) > 5.0 * nanos_per_operation(&mut short));
    }
}
