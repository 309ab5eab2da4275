//! HTTP/2, on `h2`, downstream and upstream.
//!
//! What `h2` cannot do stands beside it: [`metered`] counts frames by class
//! between the socket and `h2` and ends floods and what is malformed as Envoy does,
//! [`convert`] turns heads into ours at the edge, and the windows are Envoy's.

mod client;
mod convert;
mod error;
mod fault;
mod frames;
mod half;
mod inbound;
mod keepalive;
mod meter;
mod metered;
mod options;
mod server;
#[cfg(test)]
mod tests;

pub use client::{ClientConnection, ClientDriver, ClientHandle, ClientStream};
pub use error::ConnError;
pub use fault::{Fault, Flood};
pub use options::{Keepalive, Options};
pub use server::{Accepted, Next, Parting, Refusal, ServerConnection, ServerStream};
