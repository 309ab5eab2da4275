//! Support library, parity cases and suites.
//!
//! - [`upstream`], [`client`]: peers that do what a script says ([`steps`]) and keep all they see
//!   ([`exchange`]), over HTTP/1 ([`h1`]), HTTP/2 ([`h2`]) and plain TCP.
//! - [`ads`]: a scripted control plane; [`dns`]: a scripted name server.
//! - [`proxy`]: a proxy as a child process; [`ports`]: ports of a case's own.
//! - [`peers`]: real programs from the registries, installed on first use.
//! - [`lab`]: a proxy in front of one server, for suites of real clients.
//! - [`parity`]: cases that run on Envoy and on Outrigger, compared.

pub mod ads;
pub mod client;
pub mod dns;
pub mod exchange;
pub mod h1;
pub mod h2;
pub mod lab;
pub mod parity;
pub mod peers;
pub mod ports;
pub mod proxy;
pub mod steps;
pub mod upstream;
pub mod values;
