//! Connections beneath the protocols.

pub mod io;
pub mod local_address;
