//! The side-by-side load harness and the micro benches.
//!
//! `cargo side-by-side` (an alias for `cargo bench --package outrigger-bench --bench side_by_side --`)
//! builds the proxy with the bench profile, then runs every subject (Outrigger, Envoy, and HAProxy and
//! nginx where they are installed) through every row of [`rows`], interleaved A B A B, and prints the
//! table. `--quick --row NAME` answers in seconds; `--write` puts the table into `benches/RESULTS.md`;
//! `--help` lists the rest.
//!
//! # How it measures
//!
//! The figure is the proxy's CPU time per request: the run time of all its threads over the window,
//! as the scheduler counts it, divided by the answers that arrived whole. It is the least noisy figure
//! a small machine has. The proxy runs with one worker pinned to core 0. Load and backend are one
//! thread pinned to core 1 that writes frames prepared by hand, so that they cost less than the
//! subject; the share of core 1 they used is printed, and a share near 100 % says that throughput (not
//! CPU per request) was bounded by the load.
//!
//! # Where things are
//!
//! * [`args`] reads the command line; [`rows`] names what is measured; [`subject`] starts a proxy.
//! * [`http2`] is the HTTP/2 peer both sides share; [`backend`] and [`load`] are the two sides.
//! * [`process`] reads `/proc`; [`measure`] runs one row once; [`report`] takes medians and prints.
//! * [`micro`] is the timing loop of the micro benches.

pub mod args;
pub mod backend;
pub mod http2;
pub mod load;
pub mod measure;
pub mod micro;
pub mod process;
pub mod report;
pub mod rows;
pub mod subject;

/// Whether cargo runs this program as a bench. As a test (`cargo test --all-targets`) it has nothing to
/// do: a measurement takes minutes, and says nothing without optimisation.
pub fn runs_as_bench() -> bool {
    let asked = std::env::args().any(|a| a == "--bench");
    if !asked {
        println!("nothing is measured: run this with cargo bench, or with --bench");
    }
    asked
}
