//! xDS client: one stream for many types of resources, state-of-the-world and delta.
//!
//! * [`protocol`]: the protocol as a state machine, without sockets and clocks: events in, actions out.
//! * [`message`]: the messages of both variants, reduced to what the machine needs.
//! * [`types`]: type URLs, and what the protocol holds to be true of each.
//! * [`transport`]: what a stream must be able to do.
//! * [`driver`]: a task that runs a machine over a transport, with timers and back-off.
//!
//! The client knows resources as names, versions and bytes. Whoever uses it decodes them, and says which
//! were refused: the good ones of a push are applied, and the push is NACKed with the path and the reason
//! of each bad one. A resource whose bytes did not change is not handed over again.

pub mod driver;
pub mod message;
pub mod protocol;
pub mod transport;
pub mod types;
