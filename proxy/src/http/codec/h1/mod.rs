//! HTTP/1: our own codec over `httparse`, downstream and upstream.
//!
//! [`locate`], [`head`] and [`body`] are sans-IO: bytes in, heads and body events out, so
//! that tables and random chunking can test them. [`wire`] holds what waits to
//! be read and written on a connection. [`ServerConnection`] and
//! [`ClientConnection`] put the three together; each is its own stream, as
//! HTTP/1 has one request at a time.
//!
//! Strictness is Envoy's as seen on the wire: obs-fold is joined, a bare CR is
//! dropped from a value, a bare LF ends a line of a head but not a chunk's size.

mod body;
mod client;
mod encode;
mod head;
mod locate;
mod mend;
mod nominated;
mod options;
mod request_line;
mod send;
mod server;
mod sniff;
mod tally;
#[cfg(test)]
mod tests;
mod wire;

pub use client::ClientConnection;
pub use options::{H1Error, HeaderCase, Options, UNEXPECTED_UNDERSCORE};
pub use server::{NextRequest, ServerConnection};
pub use sniff::{Sniffed, sniff};
