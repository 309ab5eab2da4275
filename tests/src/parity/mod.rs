//! The parity harness: a case runs on real Envoy and on the proxy under test, one after the
//! other on the same ports, and everything visible from outside is compared.
//!
//! A case is a YAML file, `tests/parity/<family>/<name>.yaml`; [`case::Case`] says what it may
//! hold and `tests/parity/README.md` how to write one.

pub mod admin;
pub mod case;
pub mod compare;
pub mod differences;
pub mod normalise;
pub mod observe;
pub mod run;
pub mod template;
mod tls;
pub mod validate;
pub mod xds;
