//! The admin endpoint: Envoy's pages on the bootstrap's admin address.
//!
//! The endpoint is a listener of the main thread, with an HTTP connection manager
//! whose only filter hands each request as a [`Call`] to the main loop
//! ([`endpoint`]). The loop owns everything that pages show and answers between two
//! of its other duties: no lock, no torn view.

mod clusters;
mod config_dump;
pub mod endpoint;
mod endpoint_stats;
mod logging;
mod memory;
mod pages;
mod profiling;
mod query;
mod runtime;
mod server_info;

use bytes::Bytes;
use outrigger_types::{Method, StatusCode};
use tokio::sync::oneshot;

pub use memory::MemoryUse;
pub use pages::{AdminContext, Lookups, ServerState, answer};
pub use server_info::{State, state as server_state};

/// A request for a page.
#[derive(Debug)]
pub struct Call {
    /// Its method.
    pub method: Method,
    /// Its path.
    pub path: String,
    /// What follows `?`.
    pub query: String,
    /// The fields of a form that was sent as body, as a query is written.
    pub form: Option<Bytes>,
    /// Where the page goes.
    pub reply: oneshot::Sender<Page>,
}

/// A page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its status.
    pub status: StatusCode,
    /// Its content type.
    pub content_type: &'static str,
    /// Its body.
    pub body: String,
}

/// Plain text, as Envoy labels it.
const TEXT: &str = "text/plain; charset=UTF-8";
const JSON: &str = "application/json";

impl Page {
    /// A text with status 200.
    pub fn text(body: impl Into<String>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: TEXT,
            body: body.into(),
        }
    }

    /// A JSON value with status 200, indented by one blank as Envoy's.
    pub fn json(value: &serde_json::Value) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: JSON,
            body: pretty(value),
        }
    }

    /// A text with another status.
    pub fn error(status: StatusCode, body: impl Into<String>) -> Self {
        Self {
            status,
            content_type: TEXT,
            body: body.into(),
        }
    }
}

fn pretty(value: &serde_json::Value) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    // A value in memory is always written.
    let written = serde::Serialize::serialize(value, &mut serializer);
    debug_assert!(written.is_ok());
    out.push(b'\n');
    String::from_utf8_lossy(&out).into_owned()
}
