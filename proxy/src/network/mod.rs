//! Connections beneath the protocols.

pub mod io;
