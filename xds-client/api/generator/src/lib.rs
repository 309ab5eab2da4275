//! The build-time half of `xds-api`: what is generated and checked in comes from here.
//!
//! * [`sources`] finds the `.proto` files (the message crate's own, amended, plus our overlay) and compiles them.
//! * [`table`] lays the compiled schema out as the read-only table that `xds-api` carries.
//! * [`messages`] writes the prost code of the overlay's messages.
//! * [`matrix`] writes the support matrix from the verdict tables.
//! * [`captured`] lists what a mesh really sends, for the support matrix.
//! * [`bad`] makes bad bootstraps by rule, to compare verdicts with Envoy's.
//!
//! `cargo run -p xds-api-generator` rewrites everything; the tests fail while what is checked in is stale.

pub mod bad;
pub mod captured;
mod error;
pub mod matrix;
pub mod messages;
pub mod sources;
pub mod table;

pub use bad::bad_bootstraps;
pub use error::Error;
