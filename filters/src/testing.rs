//! What tests drive a filter with, by hand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use filter_api::{
    CallError, CallFuture, ClusterFacts, CreateContext, FactoryContext, FilterContext, HttpFilter,
    HttpFilterConfig, RouteFilterConfig, RouteInfo, RuntimeSnapshot, Services, WorkerContext,
};
use outrigger_stats::{Scope, Store};
use outrigger_types::{
    Address, Buffer, ConnectionInfo, HeaderName, HeaderValue, Headers, Metadata, Method, Protocol,
    RequestHead, StreamInfo,
};

pub(crate) fn factory_context() -> FactoryContext {
    FactoryContext {
        stat_prefix: "http.inbound_test.".into(),
        store: Store::default(),
        node: Default::default(),
        chain: Default::default(),
    }
}

/// Services over one store; every cluster but `gone` exists, and speaks what the
/// downstream does.
pub(crate) struct TestServices {
    pub(crate) store: Store,
    pub(crate) runtime: Arc<RuntimeSnapshot>,
    pub(crate) random: u64,
    pub(crate) metadata: Option<Arc<Metadata>>,
}

impl Services for TestServices {
    fn call(&self, _: &str, _: RequestHead, _: Bytes, _: Duration) -> CallFuture {
        Box::pin(std::future::ready(Err(CallError::NoCluster)))
    }

    fn cluster_scope(&self, cluster: &str) -> Option<Scope> {
        (cluster != "gone").then(|| self.store.scope(&format!("cluster.{cluster}.")))
    }

    fn cluster_facts(&self, cluster: &str, downstream: Protocol) -> Option<ClusterFacts> {
        (cluster != "gone").then(|| ClusterFacts {
            protocol: downstream,
            metadata: self.metadata.clone(),
        })
    }

    fn runtime(&self) -> Arc<RuntimeSnapshot> {
        self.runtime.clone()
    }

    fn random(&self) -> u64 {
        self.random
    }
}

/// A stream without a proxy.
pub(crate) struct TestStream {
    pub(crate) services: TestServices,
    pub(crate) info: StreamInfo,
    pub(crate) request: RequestHead,
    pub(crate) route: RouteInfo,
}

impl TestStream {
    pub(crate) fn new(store: &Store, path: &'static str) -> Self {
        Self {
            services: TestServices {
                store: store.clone(),
                runtime: Arc::default(),
                random: 0,
                metadata: None,
            },
            info: stream_info(),
            request: RequestHead::new(Method::POST, path),
            route: RouteInfo {
                cluster: Some("a".into()),
                ..RouteInfo::default()
            },
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        let name = HeaderName::from_static(name);
        self.request
            .headers
            .append(name, HeaderValue::from_str(value).unwrap());
        self
    }

    pub(crate) fn runtime(mut self, key: &str, value: &str) -> Self {
        let values = [(key.into(), value.into())].into();
        self.services.runtime = Arc::new(RuntimeSnapshot::new(values));
        self
    }

    pub(crate) fn context(&mut self) -> FilterContext<'_> {
        FilterContext {
            info: &mut self.info,
            request: &mut self.request,
            response: None,
            route: Some(&self.route),
            services: &self.services,
            clear_route_cache: false,
            buffer_limit: 0,
            add_trailers: None,
            add_data: None,
            held: 0,
        }
    }

    pub(crate) fn filter(
        &self,
        config: &dyn HttpFilterConfig,
        route: Option<&RouteFilterConfig>,
    ) -> Option<Box<dyn HttpFilter>> {
        let worker = WorkerContext {
            index: 0,
            store: self.services.store.clone(),
        };
        let cx = CreateContext {
            services: &self.services,
            overrides: &|| route.cloned().into_iter().collect(),
        };
        config.factory(&worker).create(route, &cx)
    }
}

fn stream_info() -> StreamInfo {
    let address = Address::Ip(([127, 0, 0, 1], 80).into());
    let connection = ConnectionInfo {
        id: 1,
        local: address.clone(),
        direct_local: address.clone(),
        local_restored: false,
        remote: address.clone(),
        direct_remote: address,
        requested_server_name: "".into(),
        tls: Default::default(),
        transport_failure: Default::default(),
        start: Instant::now(),
        listener_name: "l".into(),
        filter_chain_name: "".into(),
        listener_metadata: None,
        filter_chain_metadata: None,
        filter_state: Default::default(),
    };
    StreamInfo::new(Arc::new(connection), "".into())
}

pub(crate) fn headers(fields: &[(&'static str, &'static str)]) -> Headers {
    let field = |(n, v): &(&'static str, &'static str)| {
        (HeaderName::from_static(n), HeaderValue::from_static(v))
    };
    fields.iter().map(field).collect()
}

pub(crate) fn data(bytes: &[u8]) -> Buffer {
    Buffer::from(Bytes::copy_from_slice(bytes))
}
