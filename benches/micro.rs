//! Micro benches: `cargo bench --package outrigger-bench --bench micro [-- NAME...]`.
//!
//! Each prints nanoseconds per operation, measured as [`outrigger_bench::micro`] says.

use outrigger_bench::http2;
use outrigger_bench::micro::bench;

fn main() {
    // Cargo passes --bench to every bench it runs.
    let filters: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    bench(&filters, "harness/loop", || 1u64);
    bench(&filters, "harness/header_blocks", || {
        http2::blocks(&[&[(":status", "200"), ("grpc-status", "0")]])
    });
}
