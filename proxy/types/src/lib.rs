//! Shared types of the data plane: headers, addresses, buffers, response flags,
//! reset reasons and what a stream knows about itself.
//!
//! This package is at the bottom of the dependency arrows: it knows no
//! protobuf message, no socket and no runtime.

mod address;
mod buffer;
mod filter_state;
mod flags;
mod head;
mod headers;
mod metadata;
mod reset;
mod single;
mod stream_info;
mod tls;

pub use address::Address;
pub use buffer::Buffer;
pub use filter_state::{FilterState, FilterStateObject};
pub use flags::{ResponseFlag, ResponseFlags};
pub use head::{HeaderKey, Protocol, RequestHead, ResponseHead, Scheme};
pub use headers::{Headers, NameRef, names};
pub use http::{HeaderName, HeaderValue, Method, StatusCode};
pub use metadata::{Metadata, MetadataValue};
pub use reset::ResetReason;
pub use single::HeadKind;
pub use stream_info::{ConnectionInfo, Details, StreamInfo, StreamTimes, UpstreamInfo, details};
pub use tls::{Certificate, SanKind, TlsInfo};
