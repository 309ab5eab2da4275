//! The demo: `cargo demo` runs a control plane, three gRPC backends of two versions, the proxy as a
//! process of its own, and a client at a steady rate, and shows what the proxy does as a live table.
//!
//! # The story
//!
//! One backend of version 1 answers a fifth of its calls with `unavailable`; version 2 is slow. The
//! weights go from 90/10 to 50/50 over xDS, a burst trips version 2's breaker, the faulty backend is
//! killed and, a second later, taken out by EDS. The summary says in a sentence what each step showed,
//! with figures of this run. The exit code is not 0 if a call was lost that policy should have saved.
//!
//! # Where things are
//!
//! * [`greeter`] is the service; [`backend`] serves it; [`client`] calls it and keeps the [`tally`].
//! * [`control_plane`] speaks delta ADS; [`resources`] is what it says.
//! * [`proxy`] finds, builds, starts and measures the proxy; [`admin`] reads its admin pages.
//! * [`story`] is the sequence of steps; [`table`], [`screen`] and [`summary`] are what is printed.
//!
//! Nothing of this is linked into the `outrigger` binary.

pub mod admin;
pub mod args;
pub mod backend;
pub mod client;
pub mod control_plane;
pub mod greeter;
pub mod proxy;
pub mod resources;
pub mod screen;
pub mod story;
pub mod summary;
pub mod table;
pub mod tally;
