//! Validated internal configuration (IR), and the conversions that make it from
//! Envoy's messages.
//!
//! [`ir`] holds plain data that the data plane is built from: every default is
//! filled in, every expression compiled, every duration a `Duration`. No
//! protobuf type leaves this package.

pub mod cel;
pub mod convert;
pub mod format;
pub mod ir;
pub mod matcher;
pub mod re2;
pub mod workload;

pub(crate) use xds_api::pb;
