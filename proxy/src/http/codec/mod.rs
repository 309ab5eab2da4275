//! The codecs: bytes to heads, bodies and trailers, and back.
//!
//! [`ServerStream`] and [`ClientStream`] are all that the rest of the proxy
//! sees of a stream; HTTP/1 is our own over `httparse`, HTTP/2 is `h2`, and
//! nothing of either shows above this module.

mod error;
pub mod h1;
pub mod h2;
mod stream;

pub use error::StreamError;
pub use stream::{BodyEvent, ByteCounts, ClientStream, HeadEvent, ServerStream};

/// What to do with fields whose name holds an underscore
/// (`headers_with_underscores_action`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum UnderscoresAction {
    /// Pass them.
    #[default]
    Allow,
    /// 400 on HTTP/1, REFUSED_STREAM on HTTP/2.
    RejectRequest,
    /// Drop the field.
    DropHeader,
}
