//! What a filter implements, and what it may ask of its stream.
//!
//! Filters are synchronous callbacks on one stream, called on the worker that
//! owns it. Nothing is boxed or awaited a frame: a filter that has to wait
//! returns [`FilterStatus::Pause`] and is polled through
//! [`HttpFilter::poll_resume`] until it is done.
//!
//! The way from configuration to a stream has three steps, each on the thread
//! that needs it: an [`HttpFilterConfig`] is validated once on the main thread,
//! makes one [`HttpFilterFactory`] a worker, which makes one [`HttpFilter`] a
//! stream.

mod error;
mod http_filter;
mod local_reply;
mod registry;
mod runtime;
mod services;

pub use error::ConfigError;
pub use http_filter::{
    CreateContext, FilterContext, FilterStatus, HttpFilter, HttpFilterConfig, HttpFilterFactory,
    Interest, Resume, RouteFilterConfig, RouteInfo, Side, WorkerContext,
};
pub use local_reply::LocalReply;
pub use outrigger_types::{ResponseFlag, ResponseFlags};
pub use registry::{Chain, ExtensionRegistry, FactoryContext, LocalNode};
pub use runtime::{FractionalPercent, RuntimeFraction, RuntimeSnapshot};
pub use services::{CallError, CallFuture, CallResponse, ClusterFacts, Services};
