//! What is particular to upgrades and CONNECT: the answer opens a tunnel, or does not.

use std::future::poll_fn;
use std::task::{Poll, ready};
use std::time::Duration;

use filter_api::LocalReply;
use outrigger_types::{
    Buffer, Method, Protocol, ResetReason, ResponseFlag, ResponseHead, StatusCode, details, names,
};

use super::Stream;
use crate::http::conn_manager::response;
use crate::upstream::pool::UpstreamStream;

impl Stream {
    /// Whether it asks for an upgrade to WebSocket.
    pub(super) fn is_websocket(&self) -> bool {
        let protocol = self.request.protocol.as_ref();
        self.upgrade && protocol.is_some_and(|p| p.eq_ignore_ascii_case(b"websocket"))
    }

    /// Whether both sides exchange bytes without framing.
    pub(in crate::http::stream) fn is_tunnel(&self) -> bool {
        let status = self.response.as_ref().map(|head| head.status);
        self.upgrade && status == Some(StatusCode::SWITCHING_PROTOCOLS)
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

/// How long an upstream may take to read the last bytes of a tunnel.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// Passes on what the client sent before it went away, and ends the tunnel.
pub(super) async fn deliver(mut active: UpstreamStream, mut rest: Buffer) {
    let all = poll_fn(|cx| {
        let stream = active.stream();
        while !rest.is_empty() {
            if ready!(stream.poll_send_data(cx, &mut rest, false)).is_err() {
                return Poll::Ready(());
            }
        }
        stream.poll_flush(cx).map(drop)
    });
    // What is not read by then is lost with the connection.
    let _ = tokio::time::timeout(LAST_BYTES, all).await;
    active.stream().reset(ResetReason::LocalReset);
}
