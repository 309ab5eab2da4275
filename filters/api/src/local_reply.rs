//! A reply that the proxy makes itself.

use bytes::Bytes;
use outrigger_types::{Details, Headers, ResponseFlag, StatusCode};

/// A reply made here instead of upstream.
///
/// For a gRPC caller it becomes a trailers-only response: the status is mapped
/// to `grpc-status` unless `grpc_status` says another, and the body becomes
/// `grpc-message`.
#[derive(Clone, Debug)]
pub struct LocalReply {
    /// The HTTP status.
    pub status: StatusCode,
    /// The body, `text/plain` unless `headers` say otherwise.
    pub body: Bytes,
    /// The status for a gRPC caller, if it is not the mapped one.
    pub grpc_status: Option<u32>,
    /// Fields to add.
    pub headers: Headers,
    /// `%RESPONSE_CODE_DETAILS%`
    pub details: Details,
    /// The response flag to set.
    pub flag: Option<ResponseFlag>,
    /// It is sent as it is: neither mapped as configured nor made a response of gRPC.
    pub verbatim: bool,
}

impl LocalReply {
    /// A reply with a status, a body and its details.
    pub fn new(status: StatusCode, body: impl Into<Bytes>, details: impl Into<Details>) -> Self {
        Self {
            status,
            body: body.into(),
            grpc_status: None,
            headers: Headers::new(),
            details: details.into(),
            flag: None,
            verbatim: false,
        }
    }

    /// Has it sent as it is, as Envoy's filters do with a response that they encode
    /// themselves.
    #[must_use]
    pub fn verbatim(mut self) -> Self {
        self.verbatim = true;
        self
    }

    /// Sets the response flag.
    #[must_use]
    pub fn with_flag(mut self, flag: ResponseFlag) -> Self {
        self.flag = Some(flag);
        self
    }

    /// Sets the status that a gRPC caller sees.
    #[must_use]
    pub fn with_grpc_status(mut self, status: u32) -> Self {
        self.grpc_status = Some(status);
        self
    }
}
