//! A worker with one listener, on a port of its own, within the test's runtime.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use filter_api::{
    ConfigError, ExtensionRegistry, FactoryContext, HttpFilterConfig, RouteFilterConfig,
};
use outrigger::access_log::{AccessLogManager, AccessLogOptions};
use outrigger::listener::DrainPolicy;
use outrigger::server::worker::{OfBootstrap, Worker};
use outrigger::snapshot::{Origin, Received, Resolver, Snapshot};
use outrigger_filters::Registry;
use outrigger_filters::http::testing::{Behaviour, TestFilter};
use outrigger_stats::Store;
use outrigger_types::Address;
use prost::Message;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// The message that stands for a test filter, and for an override of one: its
/// value names the filter, or is the override.
const STAND_IN: &str = "type.googleapis.com/google.protobuf.StringValue";

/// The filters of this lab by name, then those that are built in.
#[derive(Default)]
struct LabRegistry {
    filters: HashMap<String, TestFilter>,
}

impl ExtensionRegistry for LabRegistry {
    fn http_filter(
        &self,
        type_url: &str,
        config: &[u8],
        cx: &FactoryContext,
    ) -> Result<Arc<dyn HttpFilterConfig>, ConfigError> {
        if type_url != STAND_IN {
            return Registry.http_filter(type_url, config, cx);
        }
        let name = text(config);
        let filter = self.filters.get(&name);
        let filter = filter.ok_or_else(|| ConfigError::new(format!("no test filter {name}")))?;
        Ok(Arc::new(filter.clone()))
    }

    fn route_filter(
        &self,
        type_url: &str,
        config: &[u8],
    ) -> Result<RouteFilterConfig, ConfigError> {
        if type_url != STAND_IN {
            return Registry.route_filter(type_url, config);
        }
        let text: Arc<str> = text(config).into();
        Ok(Arc::new(text))
    }
}

fn text(message: &[u8]) -> String {
    String::decode(message).expect("a StringValue")
}

/// The life of a worker.
type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An override of a test filter.
pub(crate) fn override_with(text: &str) -> Value {
    json!({"@type": STAND_IN, "value": text})
}

/// What a lab is made of.
pub(crate) struct Setup {
    /// The chain before the router.
    pub(crate) filters: Vec<Behaviour>,
    /// Merged over the HCM.
    pub(crate) hcm: Value,
    /// Merged over the listener.
    pub(crate) listener: Value,
    /// The virtual hosts; unset for one that sends everything to `a`.
    pub(crate) virtual_hosts: Option<Value>,
    /// Clusters, and whether they speak HTTP/2.
    pub(crate) clusters: Vec<(&'static str, SocketAddr, bool)>,
    /// Merged over every cluster.
    pub(crate) cluster: Value,
}

impl Setup {
    /// A chain of these filters before the cluster `a`.
    pub(crate) fn new(filters: Vec<Behaviour>, upstream: SocketAddr, h2: bool) -> Self {
        Self {
            filters,
            hcm: json!({}),
            listener: json!({}),
            virtual_hosts: None,
            clusters: vec![("a", upstream, h2)],
            cluster: json!({}),
        }
    }
}

/// A worker that serves.
pub(crate) struct Lab {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its stats.
    pub(crate) store: Store,
    /// The filters, by their place.
    pub(crate) filters: Vec<TestFilter>,
    access_logs: Arc<AccessLogManager>,
    log: PathBuf,
    worker: Option<JoinHandle<()>>,
    _snapshot: Snapshot,
    _directory: TempDir,
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(worker) = &self.worker {
            worker.abort();
        }
    }
}

impl Lab {
    /// Starts a worker within the test's runtime.
    pub(crate) async fn start(setup: Setup) -> Self {
        Self::start_with(setup, |run| Some(tokio::spawn(run)))
    }

    /// Starts a worker on a thread of its own, whose allocations are counted.
    pub(crate) fn start_counted(setup: Setup) -> Self {
        Self::start_with(setup, |run| {
            std::thread::spawn(move || {
                crate::allocator::count_this_thread();
                let runtime = tokio::runtime::Builder::new_current_thread();
                let runtime = { runtime }.enable_all().build().unwrap();
                runtime.block_on(run);
            });
            None
        })
    }

    fn start_with(setup: Setup, spawn: impl FnOnce(Running) -> Option<JoinHandle<()>>) -> Self {
        let filters: Vec<TestFilter> = setup.filters.iter().cloned().map(TestFilter::new).collect();
        let named = filters
            .iter()
            .enumerate()
            .map(|(i, filter)| (format!("f{i}"), filter.clone()));
        let registry = Arc::new(LabRegistry {
            filters: named.collect(),
        });
        let directory = TempDir::new().unwrap();
        let log = directory.path().join("access.log");
        let store = Store::default();
        let options = AccessLogOptions {
            flush_interval: Duration::from_millis(10),
            flush_min_size: 1,
        };
        let access_logs = Arc::new(AccessLogManager::new(options, &store).unwrap());
        let worker = Worker::new(
            0,
            store.clone(),
            access_logs.clone(),
            DrainPolicy {
                time: Duration::ZERO,
                immediate: false,
            },
            OfBootstrap::default(),
        );
        let (sender, updates) = mpsc::unbounded_channel();
        let (answers, _) = mpsc::unbounded_channel();
        let resolver = Resolver::new(answers);
        let mut snapshot = Snapshot::new(&store, registry, vec![sender], resolver, false);
        for (name, address, h2) in &setup.clusters {
            let mut message = cluster(name, *address, *h2);
            merge(&mut message, setup.cluster.clone());
            let received = received("envoy.config.cluster.v3.Cluster", &message);
            snapshot.apply_cluster(received, Origin::Static).unwrap();
        }
        let message = listener(&setup, &log.to_string_lossy());
        let received = received("envoy.config.listener.v3.Listener", &message);
        snapshot.apply_listener(received, Origin::Static).unwrap();
        snapshot.start_workers();
        snapshot.publish();
        let bound = snapshot.listeners().next().unwrap().sockets.bound()[0].clone();
        let Address::Ip(address) = bound else {
            panic!("not an address of IP");
        };
        Self {
            address,
            store,
            filters,
            access_logs,
            log,
            worker: spawn(Box::pin(worker.run(updates))),
            _snapshot: snapshot,
            _directory: directory,
        }
    }

    /// A counter's value, 0 if there is none.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.store.counter_value(name).unwrap_or(0)
    }

    /// Waits until all that is counted as active is over: gauges of every scope,
    /// filters, breakers.
    pub(crate) async fn settles(&self) {
        for _ in 0..400 {
            if self.unsettled().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("still there: {:?}", self.unsettled());
    }

    /// What is still active, connections left out.
    fn unsettled(&self) -> Vec<String> {
        let active = |line: &&str| {
            let (name, value) = line.split_once(": ").unwrap_or_default();
            (name.ends_with("rq_active") || name.ends_with("pending_active")) && value != "0"
        };
        let text = self.store.text();
        let mut left: Vec<String> = text.lines().filter(active).map(str::to_owned).collect();
        for (i, filter) in self.filters.iter().enumerate() {
            if filter.alive() != 0 {
                left.push(format!("{} filters at {i}", filter.alive()));
            }
        }
        left
    }

    /// The lines of the access log, once there are `n`.
    pub(crate) async fn logged(&self, n: usize) -> Vec<String> {
        for _ in 0..400 {
            self.access_logs.flush();
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            if lines.len() >= n {
                return lines;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the access log has fewer than {n} lines");
    }
}

fn received(type_name: &str, message: &Value) -> Received {
    let json = xds_api::text::parse_json(&message.to_string()).unwrap();
    let parsed = xds_api::json::from_json(type_name, &json).unwrap();
    Received::now(parsed.bytes.into(), "")
}

fn cluster(name: &str, address: SocketAddr, h2: bool) -> Value {
    let endpoint = json!({"endpoint": {"address": {"socket_address": {
        "address": address.ip().to_string(), "port_value": address.port()}}}});
    let mut cluster = json!({
        "name": name, "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    });
    if h2 {
        cluster["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        });
    }
    cluster
}

fn listener(setup: &Setup, log: &str) -> Value {
    let stand_in = |i: usize| {
        json!({"name": format!("f{i}"),
            "typed_config": {"@type": STAND_IN, "value": format!("f{i}")}})
    };
    let mut filters: Vec<Value> = (0..setup.filters.len()).map(stand_in).collect();
    filters.push(json!({"name": "router", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}));
    let everything = json!([{"name": "all", "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "a"}}]}]);
    let mut hcm = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "lab",
        "http_protocol_options": {"enable_trailers": true},
        "http_filters": filters,
        "route_config": {"name": "r", "virtual_hosts": setup.virtual_hosts.clone().unwrap_or(everything)},
        "access_log": [{"name": "f", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": log, "log_format": {"text_format_source": {
                "inline_string": "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n"}},
        }}],
    });
    merge(&mut hcm, setup.hcm.clone());
    let mut listener = json!({
        "name": "l",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": hcm}]}],
    });
    merge(&mut listener, setup.listener.clone());
    listener
}

fn merge(into: &mut Value, over: Value) {
    match (into, over) {
        (Value::Object(into), Value::Object(over)) => {
            for (key, value) in over {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, over) => *into = over,
    }
}
