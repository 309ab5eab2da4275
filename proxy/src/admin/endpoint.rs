//! The listener of the admin endpoint, and the filter that answers in it.
//!
//! Requests are served as any others, so that the endpoint speaks HTTP/1 and
//! HTTP/2, writes its access log and counts (`listener.admin.`, `http.admin.`) as
//! Envoy's does.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use filter_api::{
    CreateContext, ExtensionRegistry, FilterContext, FilterStatus, HttpFilter, HttpFilterConfig,
    HttpFilterFactory, Interest, LocalReply, Resume, RouteFilterConfig, Side, WorkerContext,
};
use outrigger_config::convert::{self, ConvertContext};
use outrigger_config::ir::{
    AdminConfig, FilterChainConfig, HcmConfig, HttpFilterEntry, ListenerConfig, NetworkTerminal,
};
use outrigger_types::{
    Buffer, HeaderName, HeaderValue, Headers, RequestHead, StatusCode, details, names,
};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::{Call, Page};
use crate::listener::worker::WorkerListener;
use crate::listener::{ListenerSockets, ListenerSpec};
use crate::server::worker::Worker;

/// Calls that may wait for the main loop.
const WAITING_CALLS: usize = 64;

/// The endpoint while it is open.
pub struct Endpoint {
    /// Calls that wait to be answered.
    pub calls: mpsc::Receiver<Call>,
    sockets: Arc<ListenerSockets>,
    _listener: WorkerListener,
}

impl Endpoint {
    /// Opens the endpoint on the main thread's worker.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn open(
        config: &AdminConfig,
        worker: &Arc<Worker>,
        registry: &dyn ExtensionRegistry,
    ) -> Result<Self, String> {
        let (sender, calls) = mpsc::channel(WAITING_CALLS);
        let config = listener(config, sender, worker, registry)?;
        let sockets = Arc::new(ListenerSockets::bind(&config, 1)?);
        sockets
            .listen()
            .map_err(|e| format!("cannot listen on the admin address: {e}"))?;
        let spec = ListenerSpec::new(Arc::new(config), Default::default(), "admin");
        Ok(Self {
            _listener: WorkerListener::start(worker, &spec, &sockets),
            sockets,
            calls,
        })
    }

    /// The address as bound.
    pub fn address(&self) -> String {
        self.sockets
            .bound()
            .iter()
            .map(ToString::to_string)
            .collect()
    }
}

/// The configuration: what the message gives by default, with the address, the
/// access log and the filter put in.
fn listener(
    admin: &AdminConfig,
    calls: mpsc::Sender<Call>,
    worker: &Worker,
    registry: &dyn ExtensionRegistry,
) -> Result<ListenerConfig, String> {
    let message = json!({
        "name": "admin",
        "stat_prefix": "admin",
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } },
        "enable_reuse_port": false,
        "ignore_global_conn_limit": true,
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "admin",
                "route_config": {},
                "use_remote_address": true,
                "generate_request_id": false,
                "normalize_path": true,
                "merge_slashes": true,
                "http_protocol_options": { "allow_absolute_url": false },
                "stream_idle_timeout": "0s",
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
                }],
            },
        }] }],
    });
    let parsed = xds_api::json::from_json("envoy.config.listener.v3.Listener", &message)
        .map_err(|e| e.to_string())?;
    let cx = ConvertContext {
        registry,
        store: worker.store.clone(),
        node: Default::default(),
        reject_unknown_fields: true,
    };
    let mut config = convert::listener(&parsed.bytes, &cx)
        .map_err(|e| e.to_string())?
        .value;
    config.addresses = vec![admin.address.clone()];
    let answers: Arc<dyn HttpFilterConfig> = Arc::new(AdminFilterConfig { calls });
    let chains = config.filter_chains.iter();
    config.filter_chains = chains.map(|c| with_filter(c, admin, &answers)).collect();
    Ok(config)
}

fn with_filter(
    chain: &FilterChainConfig,
    admin: &AdminConfig,
    answers: &Arc<dyn HttpFilterConfig>,
) -> Arc<FilterChainConfig> {
    let mut chain = chain.clone();
    if let NetworkTerminal::Http(hcm) = &chain.terminal {
        chain.terminal = NetworkTerminal::Http(Arc::new(HcmConfig {
            filters: vec![HttpFilterEntry {
                name: "admin".into(),
                config: answers.clone(),
                disabled: false,
            }],
            access_logs: admin.access_logs.clone(),
            ..HcmConfig::clone(hcm)
        }));
    }
    Arc::new(chain)
}

/// Makes the filter, which needs nothing but the way to the main loop.
#[derive(Clone, Debug)]
struct AdminFilterConfig {
    calls: mpsc::Sender<Call>,
}

impl HttpFilterConfig for AdminFilterConfig {
    fn factory(&self, _: &WorkerContext) -> Box<dyn HttpFilterFactory> {
        Box::new(self.clone())
    }

    fn records_grpc(&self) -> bool {
        true
    }
}

impl HttpFilterFactory for AdminFilterConfig {
    fn interest(&self) -> Interest {
        Interest::DECODE_HEADERS | Interest::DECODE_DATA | Interest::DECODE_TRAILERS
    }

    fn create(
        &self,
        _: Option<&RouteFilterConfig>,
        _: &CreateContext<'_>,
    ) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(AdminFilter {
            calls: self.calls.clone(),
            body: BytesMut::new(),
            answer: None,
        }))
    }
}

/// Collects the request, passes it on and answers with the page.
struct AdminFilter {
    calls: mpsc::Sender<Call>,
    body: BytesMut,
    answer: Option<oneshot::Receiver<Page>>,
}

impl AdminFilter {
    fn pass_on(&mut self, request: &RequestHead) -> FilterStatus {
        let target = String::from_utf8_lossy(&request.path);
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let (reply, answer) = oneshot::channel();
        let call = Call {
            method: request.method.clone(),
            path: path.to_owned(),
            query: query.to_owned(),
            form: is_form(&request.headers).then(|| std::mem::take(&mut self.body).freeze()),
            reply,
        };
        if self.calls.try_send(call).is_err() {
            let page = Page::error(StatusCode::SERVICE_UNAVAILABLE, "too many calls wait\n");
            return FilterStatus::Reply(Box::new(reply_of(page)));
        }
        self.answer = Some(answer);
        FilterStatus::Pause
    }
}

impl HttpFilter for AdminFilter {
    fn decode_headers(&mut self, cx: &mut FilterContext<'_>, end_stream: bool) -> FilterStatus {
        match end_stream {
            true => self.pass_on(cx.request),
            false => FilterStatus::PauseAndBuffer,
        }
    }

    fn decode_data(
        &mut self,
        cx: &mut FilterContext<'_>,
        data: &mut Buffer,
        end_stream: bool,
    ) -> FilterStatus {
        if is_form(&cx.request.headers) {
            data.chunks()
                .for_each(|chunk| self.body.extend_from_slice(chunk));
        }
        match end_stream {
            true => self.pass_on(cx.request),
            false => FilterStatus::PauseAndBuffer,
        }
    }

    fn decode_trailers(&mut self, cx: &mut FilterContext<'_>, _: &mut Headers) -> FilterStatus {
        self.pass_on(cx.request)
    }

    fn poll_resume(
        &mut self,
        _: Side,
        _: &mut FilterContext<'_>,
        task: &mut Context<'_>,
    ) -> Poll<Resume> {
        let Some(answer) = &mut self.answer else {
            return Poll::Pending;
        };
        std::pin::Pin::new(answer).poll(task).map(|page| {
            let ending = |_| Page::error(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n");
            Resume::Reply(Box::new(reply_of(page.unwrap_or_else(ending))))
        })
    }
}

fn is_form(headers: &Headers) -> bool {
    headers.get_bytes(&names::CONTENT_TYPE) == Some(b"application/x-www-form-urlencoded")
}

fn reply_of(page: Page) -> LocalReply {
    let mut reply = LocalReply::new(page.status, page.body, details::ADMIN_FILTER_RESPONSE);
    for (name, value) in [
        (names::CONTENT_TYPE, page.content_type),
        (names::CACHE_CONTROL, "no-cache, max-age=0"),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
    ] {
        reply.headers.append(name, HeaderValue::from_static(value));
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_forms_count_as_parameters() {
        let of = |value| {
            let mut headers = Headers::new();
            headers.append(names::CONTENT_TYPE, HeaderValue::from_static(value));
            is_form(&headers)
        };
        assert!(of("application/x-www-form-urlencoded"));
        assert!(!of("text/plain"));
    }
}
