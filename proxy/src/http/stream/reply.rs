//! Replies made here, and the timeouts and overflows that make them.

use bytes::Bytes;
use filter_api::{LocalReply, Services, Side};
use outrigger_types::{
    Buffer, ResetReason, ResponseFlag, ResponseHead, StatusCode, details, names,
};

use super::Stream;
use crate::http::codec::ServerStream;
use crate::http::conn_manager::local_reply;

impl Stream {
    /// Answers here: the attempt is given up, and the reply takes the way of a
    /// response through the encode filters. If a head went out before, the
    /// stream is reset instead.
    pub(super) fn local_reply(&mut self, mut reply: LocalReply) {
        // As in Envoy the reply to a broken message does not say that it was the client's.
        let broken = (reply.flag).filter(|flag| *flag == ResponseFlag::DownstreamProtocolError);
        if let Some(flag) = reply.flag.filter(|_| broken.is_none()) {
            self.info.flags.set(flag);
        }
        self.info.response_code_details = Some(reply.details.clone());
        if reply.details == details::REQUEST_PAYLOAD_TOO_LARGE {
            self.hcm.count_too_large();
        }
        // After a malformed message HTTP/1 does not go on, unless it is told to.
        // The admin endpoint answers by itself: its answers say nothing of the message.
        if reply.status == StatusCode::BAD_REQUEST
            && reply.details != details::ADMIN_FILTER_RESPONSE
            && !self
                .hcm
                .config
                .http1
                .override_stream_error_on_invalid_http_message
            && let ServerStream::H1(connection) = &mut self.down
        {
            connection.set_close();
            self.download.closes = true;
        }
        self.abandon_upstream(false);
        self.stop_upload();
        if self.download.head_sent {
            return self.reset(ResetReason::LocalReset);
        }
        self.chain.abandon(Side::Encode);
        self.download.unreleased = 0;
        // The route's changes come before what the reply says of its body.
        if std::mem::take(&mut self.download.by_router) {
            let own_type = reply.headers.get(&names::CONTENT_TYPE).cloned();
            let mut head = ResponseHead::new(reply.status);
            head.headers = std::mem::take(&mut reply.headers);
            self.finish_router_headers(&mut head);
            reply.headers = head.headers;
            if let Some(own_type) = own_type {
                reply.headers.set(names::CONTENT_TYPE, own_type);
            }
        }
        let runtime = self.hcm.worker.runtime();
        let rendered = local_reply::render(
            &self.hcm.config.local_reply,
            reply,
            &self.request,
            &mut self.info,
            &runtime,
        );
        if let Some(flag) = broken {
            self.info.flags.set(flag);
        }
        self.download.is_local = true;
        // In place of a response that has come to the filters, it goes out as it is.
        if self.response.is_some() || self.download.around_filters {
            self.send_around_filters(rendered.head, rendered.body);
            return;
        }
        let ends = rendered.body.is_empty();
        self.encode_head(rendered.head, ends);
        if !ends && self.response.is_some() && !self.over {
            self.encode_data(rendered.body.into(), true);
        }
        self.moved = true;
    }

    fn send_around_filters(&mut self, head: ResponseHead, body: Bytes) {
        self.response = Some(head);
        self.chain.encode_out.head = true;
        self.chain.encode_out.data = Buffer::from(body);
        self.chain.encode_out.end = Some(super::BodyEnd::Plain);
        self.moved = true;
    }

    pub(super) fn on_overflow(&mut self, side: Side) {
        match side {
            Side::Decode => {
                let reply = LocalReply::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "Payload Too Large",
                    details::REQUEST_PAYLOAD_TOO_LARGE,
                );
                self.local_reply(reply);
            }
            Side::Encode => {
                self.hcm.count_response_too_large();
                let reply = LocalReply::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "Internal Server Error",
                    details::RESPONSE_PAYLOAD_TOO_LARGE,
                );
                self.local_reply(reply);
            }
        }
    }

    pub(super) fn on_idle_timeout(&mut self) {
        self.hcm.count_idle_timeout();
        self.info.flags.set(ResponseFlag::StreamIdleTimeout);
        if self.download.head_sent {
            self.set_details(details::STREAM_IDLE_TIMEOUT.into());
            return self.reset(ResetReason::LocalReset);
        }
        let status = if self.upload.received {
            StatusCode::GATEWAY_TIMEOUT
        } else {
            StatusCode::REQUEST_TIMEOUT
        };
        self.local_reply(LocalReply::new(
            status,
            "stream timeout",
            details::STREAM_IDLE_TIMEOUT,
        ));
    }

    pub(super) fn on_request_timeout(&mut self) {
        self.hcm.count_request_timeout();
        if self.download.head_sent {
            self.set_details(details::REQUEST_OVERALL_TIMEOUT.into());
            return self.reset(ResetReason::LocalReset);
        }
        self.local_reply(LocalReply::new(
            StatusCode::REQUEST_TIMEOUT,
            "request timeout",
            details::REQUEST_OVERALL_TIMEOUT,
        ));
    }

    pub(super) fn on_max_duration(&mut self) {
        self.hcm.count_max_duration();
        if self.download.head_sent {
            self.set_details(details::MAX_DURATION_TIMEOUT.into());
            return self.reset(ResetReason::LocalReset);
        }
        let status = if self.upload.received {
            StatusCode::GATEWAY_TIMEOUT
        } else {
            StatusCode::REQUEST_TIMEOUT
        };
        let reply = LocalReply::new(
            status,
            "downstream duration timeout",
            details::MAX_DURATION_TIMEOUT,
        )
        .with_grpc_status(4);
        self.local_reply(reply);
    }
}
