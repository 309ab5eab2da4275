//! Connections beneath the protocols.

pub mod exchange;
pub mod io;
pub mod local_address;
pub mod socket_options;
pub mod tls;
pub mod transport_socket;
