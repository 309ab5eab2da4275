//! What is particular to upgrades and CONNECT: the answer opens a tunnel, or does not.

use filter_api::LocalReply;
use outrigger_types::{Method, Protocol, ResponseFlag, ResponseHead, StatusCode, details, names};

use super::Stream;
use crate::http::conn_manager::response;

impl Stream {
    /// Whether it asks for an upgrade to WebSocket.
    pub(super) fn is_websocket(&self) -> bool {
        let protocol = self.request.protocol.as_ref();
        self.upgrade && protocol.is_some_and(|p| p.eq_ignore_ascii_case(b"websocket"))
    }

    /// Whether what follows the request's head is held back until the upstream took it.
    pub(super) fn waits_for_answer(&self) -> bool {
        self.upgrade && (self.request.method == Method::CONNECT || self.is_websocket())
    }

    /// Whether it is a tunnel, in the eyes of HTTP/2, whose upstream was lost or never
    /// reached.
    pub(in crate::http::stream) fn lost_tunnel(&self) -> bool {
        let flags = self.info.flags;
        self.info.protocol == Some(Protocol::Http2)
            && (self.request.method == Method::CONNECT || self.request.protocol.is_some())
            && (flags.has(ResponseFlag::UpstreamConnectionFailure)
                || flags.has(ResponseFlag::UpstreamConnectionTermination))
    }

    /// Reads the answer to an upgrade. True if it was dealt with: a handshake of WebSocket
    /// that failed without an error is answered by its head alone.
    pub(super) fn answered_upgrade(&mut self, head: &mut ResponseHead) -> bool {
        if let (Some(Protocol::Http2), Some(protocol)) =
            (self.info.upstream.protocol, &self.request.protocol)
        {
            response::upgrade_from_http2(head, protocol);
        }
        let status = head.status;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            self.timers.global = None;
            return false;
        }
        let over_http1 = self.info.upstream.protocol != Some(Protocol::Http2);
        let failed = over_http1 && self.is_websocket() && status.as_u16() < 400;
        if failed {
            let mut reply = LocalReply::new(status, "", details::WEBSOCKET_HANDSHAKE_UNSUCCESSFUL);
            reply.headers = std::mem::take(&mut head.headers);
            reply.headers.remove(&names::CONTENT_LENGTH);
            reply.headers.remove(&names::TRANSFER_ENCODING);
            self.local_reply(reply);
        }
        failed
    }
}
