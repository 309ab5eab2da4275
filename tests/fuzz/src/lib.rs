//! Fuzz targets. Each takes any bytes, makes of them what it tests, and
//! asserts what must hold of every input: that nothing panics is the least.
//!
//! `cargo test` replays `corpus/` through them; `tests/fuzz/run` has libFuzzer
//! look for inputs that break them.

mod bytes;
mod config;
mod first_bytes;
mod format;
mod grpc;
mod h1_client;
mod h1_server;
mod h2_server;
mod header_values;
mod peer_metadata;
mod regex;
mod route;
mod route_oracle;
mod stream;

/// What is done with an input.
pub type Target = fn(&[u8]);

/// All targets, by the names of their folders in the corpus.
pub const TARGETS: [(&str, Target); 12] = [
    ("bootstrap", config::bootstrap),
    ("first_bytes", first_bytes::first_bytes),
    ("format", format::format),
    ("grpc_frames", grpc::frames),
    ("h1_client", h1_client::client),
    ("h1_server", h1_server::server),
    ("h2_server", h2_server::server),
    ("header_values", header_values::header_values),
    ("peer_metadata", peer_metadata::peer_metadata),
    ("regex", regex::regex),
    ("resource", config::resource),
    ("route_match", route::route_match),
];

/// The target of that name.
pub fn target(name: &str) -> Option<Target> {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.map(|(_, target)| *target)
}
