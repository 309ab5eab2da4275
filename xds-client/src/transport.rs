//! What a stream must be able to do.

use std::pin::Pin;

use tokio::sync::mpsc;
use tokio_stream::Stream;

use crate::message::{Request, Response};

/// The answers of a stream. It ends when the server closes it; an error is the last item.
pub type Responses = Pin<Box<dyn Stream<Item = Result<Response, String>> + Send>>;

/// A stream being opened. It must be polled for requests to go out, also before the server has said
/// anything.
pub type Opening = Pin<Box<dyn Future<Output = Result<Responses, String>> + Send>>;

/// Opens streams.
pub trait Transport: Send + 'static {
    /// Opens a stream that carries `requests`. Dropping what this returns, or what that resolves to, ends
    /// the stream. Errors are for the log.
    fn open(&mut self, requests: mpsc::Receiver<Request>) -> Opening;
}
