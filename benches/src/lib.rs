//! The side-by-side load harness and the micro benches.
