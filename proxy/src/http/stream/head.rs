//! The beginning of a stream: the HCM's rules for the head, the choice of the
//! route, and the chain of filters; then what the router makes of the route.

use std::sync::Arc;

use filter_api::{LocalReply, Services, Side};
use outrigger_config::ir::RouteActionConfig;
use outrigger_types::{
    ConnectionInfo, HeaderValue, Method, Protocol, RequestHead, ResponseFlag, ResponseHead,
    StatusCode, StreamInfo, details, names,
};

use super::routing::StreamRouting;
use super::timers::Timers;
use super::upstream::Upstream;
use super::{BodyEnd, Download, FilterChain, Stream, Upload};
use crate::http::codec::ServerStream;
use crate::http::conn_manager::{Hcm, local_reply, request, request_id};
use crate::router::matcher::RouteMatch;
use crate::router::{redirect, strict};

/// A request as the codec gave it.
pub struct Incoming {
    /// Its head.
    pub head: RequestHead,
    /// Whether it has no body.
    pub end_stream: bool,
    /// The version it came in.
    pub protocol: Protocol,
    /// The stream it came on.
    pub stream: ServerStream,
}

impl Stream {
    /// Takes in a request.
    pub fn new(hcm: &Arc<Hcm>, connection: &Arc<ConnectionInfo>, incoming: Incoming) -> Self {
        let end_stream = incoming.end_stream;
        let mut stream = Self::prepare(hcm, connection, incoming);
        let mut started = false;
        stream.guarded(|stream| {
            if !std::mem::replace(&mut started, true) {
                stream.start(end_stream);
            }
        });
        stream
    }

    fn prepare(hcm: &Arc<Hcm>, connection: &Arc<ConnectionInfo>, incoming: Incoming) -> Self {
        let mut info = StreamInfo::new(connection.clone(), hcm.empty_name());
        info.protocol = Some(incoming.protocol);
        info.header_bytes_received = incoming.head.byte_size() as u64;
        info.times.downstream_rx_head = Some(info.elapsed());
        let guard = hcm.begin_stream(incoming.protocol);
        let config = &hcm.config;
        let mut timers = Timers::default();
        timers.idle = config.stream_idle_timeout;
        timers.touch(info.start);
        timers.request = config.request_timeout.map(|d| info.start + d);
        timers.report = config.access_log_flush_interval.map(|d| info.start + d);
        timers.max_duration = config
            .common_http
            .max_stream_duration
            .map(|d| info.start + d);
        let buffer_limit = hcm.buffer_limit;
        Self {
            hcm: hcm.clone(),
            down: incoming.stream,
            info,
            is_head: incoming.head.method == Method::HEAD,
            request: incoming.head,
            response: None,
            response_trailers: None,
            routing: StreamRouting::new(hcm.clone()),
            chain: FilterChain::new(),
            upload: Upload::default(),
            download: Download::default(),
            upstream: Upstream::default(),
            timers,
            grpc: None,
            buffer_limit,
            collect_limit: buffer_limit,
            unreadable: false,
            upgrade: false,
            over: false,
            moved: false,
            _guard: guard,
        }
    }

    fn start(&mut self, end_stream: bool) {
        let checked = request::mutate(
            &mut self.request,
            &self.hcm.config,
            &self.hcm.worker.caller,
            &mut self.info,
            self.routing.random,
        );
        if end_stream {
            self.upload.head_ended = true;
            self.on_request_received();
        }
        self.answer_expectation();
        if checked.is_ok() {
            self.remove_internal_only();
            self.routing.choose(&self.request, &mut self.info);
            self.mark_traced();
        }
        self.chain.fill(&self.routing);
        if let Err(reply) = checked.and_then(|()| self.check_upgrade()) {
            self.hcm.count_refused(&reply);
            return self.local_reply(reply);
        }
        self.log_start();
        let verdict = {
            let (chain, mut parts) = self.split();
            chain.head(Side::Decode, &mut parts, end_stream)
        };
        self.act_on(verdict, Side::Decode);
        self.feed_router();
    }

    fn mark_traced(&mut self) {
        if let Some(tracing) = &self.hcm.config.tracing {
            let runtime = self.hcm.worker.runtime();
            let random = self.routing.random;
            let (request, info) = (&mut self.request, &mut self.info);
            let reason = request_id::mark_traced(request, info, tracing, &runtime, random);
            self.hcm.count_tracing(reason);
        }
    }

    fn remove_internal_only(&mut self) {
        if let Some(table) = self.hcm.routes() {
            let names = &table.config().internal_only_headers;
            request::remove_internal_only(&mut self.request, names, &self.info);
        }
    }

    /// Begins an upgrade that is taken. Where no route was found that is the answer, not
    /// the upgrade.
    fn check_upgrade(&mut self) -> Result<(), LocalReply> {
        let matched = self.routing.matched.as_ref();
        let upgrades = matched.and_then(RouteMatch::forward).map(|f| &f.upgrades);
        match request::takes_upgrade(&self.request, &self.hcm.config, upgrades) {
            None => Ok(()),
            Some(true) => {
                self.upgrade = true;
                self.hcm.begin_upgrade();
                Ok(())
            }
            Some(false) => match matched.and_then(|m| m.route.as_ref()) {
                Some(_) => Err(request::upgrade_refused()),
                None => Ok(()),
            },
        }
    }

    /// Asks for the body of a request that waits to be asked, unless the upstream
    /// is to decide.
    fn answer_expectation(&mut self) {
        let expect = self.request.headers.get_bytes(&names::EXPECT);
        let waits = expect.is_some_and(|e| e.eq_ignore_ascii_case(b"100-continue"));
        if waits && !self.hcm.config.proxy_100_continue {
            self.request.headers.remove(&names::EXPECT);
            let head = ResponseHead::new(StatusCode::CONTINUE);
            self.hcm.count_response(StatusCode::CONTINUE.as_u16());
            if let Err(error) = self.down.send_informational(head) {
                self.on_downstream_reset(&error);
            }
        }
    }

    /// The head has passed the filters: does what the route says.
    pub(super) fn route_request(&mut self, ends: bool) {
        self.hcm.count_routed();
        let Some(matched) = self.routing.matched.clone() else {
            self.hcm.count_no_route();
            let reply = LocalReply::new(StatusCode::NOT_FOUND, "", details::ROUTE_NOT_FOUND);
            return self.local_reply(reply.with_flag(ResponseFlag::NoRouteFound));
        };
        let Some(route) = &matched.route else {
            let (status, location) = redirect::to_https(&self.request);
            return self.redirect(status, location);
        };
        match &route.action {
            RouteActionConfig::Redirect(action) => {
                let (status, location) = redirect::location(&matched, action, &self.request);
                self.redirect(status, location);
            }
            RouteActionConfig::DirectResponse {
                status,
                body,
                format,
            } => {
                self.hcm.count_direct_response();
                let mut reply = LocalReply::new(*status, body.clone(), details::DIRECT_RESPONSE);
                if *status == StatusCode::CREATED || status.is_redirection() {
                    reply
                        .headers
                        .set(names::LOCATION, redirect::to_itself(&self.request));
                }
                if let Some(format) = format {
                    local_reply::format_body(&mut reply, format, &self.request, &self.info);
                }
                self.router_reply(reply);
            }
            RouteActionConfig::Forward(forward) => {
                let cluster = matched
                    .cluster
                    .as_ref()
                    .and_then(|name| self.hcm.worker.cluster(name));
                let check = |_| strict::malformed(&self.hcm.config.router, &self.request);
                if let Some(reply) = cluster.as_ref().and_then(check) {
                    return self.router_reply(reply);
                }
                match cluster {
                    Some(cluster) => {
                        if ends {
                            self.chain.decode_out.end = None;
                            self.upstream.note_end(BodyEnd::Plain);
                        }
                        self.forward(forward, cluster);
                        if ends {
                            self.on_request_complete(BodyEnd::Plain);
                        }
                    }
                    None => {
                        self.hcm.count_no_cluster();
                        let reply = LocalReply::new(
                            forward.cluster_not_found,
                            "",
                            details::CLUSTER_NOT_FOUND,
                        );
                        self.router_reply(reply.with_flag(ResponseFlag::NoClusterFound));
                    }
                }
            }
        }
    }

    fn redirect(&mut self, status: StatusCode, location: HeaderValue) {
        self.hcm.count_direct_response();
        let mut reply = LocalReply::new(status, "", details::DIRECT_RESPONSE);
        reply.headers.set(names::LOCATION, location);
        self.router_reply(reply);
    }

    /// A local reply of the router: the route's changes to responses apply.
    pub(super) fn router_reply(&mut self, reply: LocalReply) {
        self.download.by_router = true;
        self.local_reply(reply);
    }
}

impl Stream {
    /// A stream for what could not be read as a request: it is answered, and
    /// seen by filters and access log all the same.
    pub fn refused(
        hcm: &Arc<Hcm>,
        connection: &Arc<ConnectionInfo>,
        incoming: Incoming,
        reply: LocalReply,
    ) -> Self {
        let mut stream = Self::prepare(hcm, connection, incoming);
        stream.unreadable = true;
        let mut reply = Some(reply);
        stream.guarded(|stream| {
            if let Some(reply) = reply.take() {
                stream.chain.fill(&stream.routing);
                stream.local_reply(reply);
            }
        });
        stream
    }
}
