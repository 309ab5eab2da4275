//! HTTP/2 at the level of frames, for scripted peers on either side.
//!
//! The `h2` crate is too well behaved for this: it reorders fields, answers
//! protocol errors itself and hides frames. Here every frame that the proxy
//! sends is recorded as it came, and any frame can be sent.

pub mod conn;
pub mod frame;
pub mod hpack;
