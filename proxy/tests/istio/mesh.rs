//! Sidecars, their certificates, and what istiod configures of them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use filter_api::LocalNode;
use outrigger::access_log::{AccessLogManager, AccessLogOptions};
use outrigger::listener::DrainPolicy;
use outrigger::server::worker::{OfBootstrap, Worker};
use outrigger::snapshot::{Origin, Received, Resolver, Snapshot};
use outrigger_config::workload::{Labels, Workload};
use outrigger_filters::Registry;
use outrigger_stats::Store;
use outrigger_types::{Address, MetadataValue};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// The protocol of the exchange.
pub(crate) const EXCHANGE: &str = "istio-peer-exchange";
const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";
const URL: &str = "type.googleapis.com";

/// Who signs the certificates of a mesh.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// A certificate of a workload, and its key.
    fn workload(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let uri = format!("spiffe://td/ns/{name}/sa/default");
        let dns = "server.test".try_into().unwrap();
        params.subject_alt_names = vec![
            SanType::URI(uri.as_str().try_into().unwrap()),
            SanType::DnsName(dns),
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn context(&self, name: &str, alpn: &[&str]) -> Value {
        let (chain, key) = self.workload(name);
        json!({
            "alpn_protocols": alpn,
            "tls_certificates": [{
                "certificate_chain": {"inline_string": chain},
                "private_key": {"inline_string": key}}],
            "validation_context": {"trusted_ca": {"inline_string": self.0.pem()}},
        })
    }

    /// A transport socket of a listener.
    pub(crate) fn downstream(&self, name: &str, alpn: &[&str]) -> Value {
        json!({"name": "tls", "typed_config": {
            "@type": format!("{TLS}.DownstreamTlsContext"),
            "require_client_certificate": true,
            "common_tls_context": self.context(name, alpn)}})
    }

    /// A transport socket of a cluster, which offers what istiod has it offer.
    pub(crate) fn upstream(&self, name: &str) -> Value {
        json!({"name": "tls", "typed_config": {
            "@type": format!("{TLS}.UpstreamTlsContext"),
            "sni": "server.test",
            "common_tls_context": self.context(name, &[EXCHANGE, "istio"])}})
    }

    /// What a server of the test's own needs.
    pub(crate) fn server(&self, name: &str, alpn: &[&str]) -> rustls::ServerConfig {
        let (chain, key) = self.identity(name);
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        config
    }

    /// What a client of the test's own needs.
    pub(crate) fn client(&self, name: &str, alpn: &[&str]) -> rustls::ClientConfig {
        let (chain, key) = self.identity(name);
        let mut roots = RootCertStore::empty();
        let pem = self.0.pem();
        roots
            .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
            .unwrap();
        let mut config = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        config
    }

    fn identity(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let (chain, key) = self.workload(name);
        let chain = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
        (
            vec![chain],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
    }
}

/// The node of a workload: its namespace is its name, too.
pub(crate) fn node(name: &str) -> LocalNode {
    let text = |text: String| MetadataValue::String(text.into());
    let labels = [("app".into(), text(name.to_owned()))].into();
    let fields = [
        ("NAMESPACE".into(), text(name.to_owned())),
        ("WORKLOAD_NAME".into(), text(format!("{name}-v1"))),
        ("CLUSTER_ID".into(), text("Kubernetes".to_owned())),
        ("LABELS".into(), MetadataValue::Struct(labels)),
    ];
    LocalNode {
        id: format!("sidecar~{name}").into(),
        metadata: MetadataValue::Struct(fields.into()),
        region: "r1".into(),
        zone: "z1".into(),
    }
}

/// What a workload says of itself before the first byte of a connection.
pub(crate) fn preamble(name: &str) -> Vec<u8> {
    let node = node(name);
    Workload::of_node(&node, &Labels::new())
        .to_preamble(&node.id)
        .to_vec()
}

/// A filter carried as istiod carries it.
fn typed_struct(name: &str, message: &str, value: Value) -> Value {
    json!({"name": name, "typed_config": {
        "@type": format!("{URL}/udpa.type.v1.TypedStruct"),
        "type_url": format!("{URL}/{message}"),
        "value": value}})
}

/// The exchange of metadata, as a filter of a listener or a cluster.
pub(crate) fn exchange() -> Value {
    let message = "envoy.tcp.metadataexchange.config.MetadataExchange";
    let value = json!({"protocol": EXCHANGE, "enable_discovery": true});
    typed_struct("istio.metadata_exchange", message, value)
}

/// Peer metadata in headers, of the `upstream` or the `downstream` side.
pub(crate) fn peer_metadata(side: &str) -> Value {
    let value = json!({
        format!("{side}_discovery"): [{"istio_headers": {}}, {"workload_discovery": {}}],
        format!("{side}_propagation"): [{"istio_headers": {}}],
    });
    let message = "io.istio.http.peer_metadata.Config";
    typed_struct("istio.metadata_exchange", message, value)
}

/// Istio's metrics, of either kind of filter.
pub(crate) fn stats() -> Value {
    json!({"name": "istio.stats", "typed_config": {
        "@type": format!("{URL}/stats.PluginConfig"), "disable_host_header_fallback": true}})
}

/// The offers by version of HTTP.
pub(crate) fn alpn() -> Value {
    let offer = |protocol: &str, names: [&str; 3]| json!({"upstream_protocol": protocol, "alpn_override": names});
    json!({"name": "istio.alpn", "typed_config": {
    "@type": format!("{URL}/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig"),
    "alpn_override": [
        offer("HTTP10", ["istio-http/1.0", "istio", "http/1.0"]),
        offer("HTTP11", ["istio-http/1.1", "istio", "http/1.1"]),
        offer("HTTP2", ["istio-h2", "istio", "h2"]),
    ]}})
}

/// A cluster of one host.
pub(crate) fn cluster(name: &str, address: SocketAddr, over: Value) -> Value {
    let endpoint = json!({"endpoint": {"address": {"socket_address": {
        "address": address.ip().to_string(), "port_value": address.port()}}}});
    let mut cluster = json!({
        "name": name, "connect_timeout": "2s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    });
    merge(&mut cluster, over);
    cluster
}

/// Options of a cluster that speaks HTTP in this way.
pub(crate) fn speaking(how: Value) -> Value {
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let mut value = json!({"@type": format!("{URL}/{options}")});
    merge(&mut value, how);
    json!({"typed_extension_protocol_options": {options: value}})
}

/// An HTTP connection manager with these filters, whose path chooses the cluster: `/a` is
/// for `a`. It logs `format`.
pub(crate) fn hcm(mut filters: Vec<Value>, clusters: &[&str], log: &str) -> Value {
    filters.push(json!({"name": "router", "typed_config": {
        "@type": format!("{URL}/envoy.extensions.filters.http.router.v3.Router")}}));
    let route = |cluster: &&str| json!({"match": {"prefix": format!("/{cluster}")}, "route": {"cluster": cluster}});
    let routes: Vec<Value> = clusters.iter().map(route).collect();
    let message =
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    json!({"name": "hcm", "typed_config": {
        "@type": format!("{URL}/{message}"),
        "stat_prefix": "h",
        "http_protocol_options": {"accept_http_10": true},
        "http_filters": filters,
        "route_config": {"name": "r", "virtual_hosts": [
            {"name": "v", "domains": ["*"], "routes": routes}]},
        "access_log": [access_log(log)]}})
}

/// A TCP proxy to cluster `a`.
pub(crate) fn tcp_proxy(log: &str) -> Value {
    json!({"name": "tcp", "typed_config": {
        "@type": format!("{URL}/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"),
        "stat_prefix": "t", "cluster": "a", "access_log": [access_log(log)]}})
}

fn access_log(format: &str) -> Value {
    json!({"name": "f", "typed_config": {
        "@type": format!("{URL}/envoy.extensions.access_loggers.file.v3.FileAccessLog"),
        "path": "{{log}}",
        "log_format": {"text_format_source": {"inline_string": format!("{format}\n")}}}})
}

/// A listener of one chain.
pub(crate) fn listener(filters: &[Value], socket: Option<Value>) -> Value {
    let mut chain = json!({"filters": filters});
    if let Some(socket) = socket {
        chain["transport_socket"] = socket;
    }
    json!({
        "name": "l",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [chain],
    })
}

pub(crate) fn merge(into: &mut Value, over: Value) {
    match (into, over) {
        (Value::Object(into), Value::Object(over)) => {
            for (key, value) in over {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, over) => *into = over,
    }
}

/// A worker that serves beside a workload.
pub(crate) struct Sidecar {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    store: Store,
    access_logs: Arc<AccessLogManager>,
    log: PathBuf,
    worker: JoinHandle<()>,
    _snapshot: Snapshot,
    _directory: TempDir,
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

impl Sidecar {
    /// Starts the sidecar of a workload within the test's runtime.
    pub(crate) fn start(name: &str, listener: &Value, clusters: &[Value]) -> Self {
        let directory = TempDir::new().unwrap();
        let log = directory.path().join("access.log");
        let store = Store::default();
        let options = AccessLogOptions {
            flush_interval: Duration::from_millis(10),
            flush_min_size: 1,
        };
        let access_logs = Arc::new(AccessLogManager::new(options, &store).unwrap());
        let drain = DrainPolicy {
            time: Duration::ZERO,
            immediate: false,
        };
        let bootstrap = OfBootstrap::default();
        let worker = Worker::new(0, store.clone(), access_logs.clone(), drain, bootstrap);
        let (sender, updates) = mpsc::unbounded_channel();
        let (answers, _) = mpsc::unbounded_channel();
        let resolver = Resolver::new(answers);
        let registry = Arc::new(Registry);
        let mut snapshot = Snapshot::new(&store, registry, vec![sender], resolver, false);
        snapshot.set_node(node(name));
        for message in clusters {
            let received = received("envoy.config.cluster.v3.Cluster", &message.to_string());
            snapshot.apply_cluster(received, Origin::Static).unwrap();
        }
        let text = listener
            .to_string()
            .replace("{{log}}", &log.to_string_lossy());
        let received = received("envoy.config.listener.v3.Listener", &text);
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
            access_logs,
            log,
            worker: tokio::spawn(worker.run(updates)),
            _snapshot: snapshot,
            _directory: directory,
        }
    }

    /// A counter's value, 0 if there is none.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.store.counter_value(name).unwrap_or(0)
    }

    /// What the exchanges on its connections count: protocol found, not found, metadata
    /// sent, and missing.
    pub(crate) fn exchanges(&self) -> [u64; 4] {
        [
            "alpn_protocol_found",
            "alpn_protocol_not_found",
            "metadata_added",
            "initial_header_not_found",
        ]
        .map(|name| self.counter(&format!("metadata_exchange.{name}")))
    }

    /// The first line of the access log, once it is there.
    pub(crate) async fn logged(&self) -> String {
        for _ in 0..400 {
            self.access_logs.flush();
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            if let Some((line, _)) = text.split_once('\n') {
                return line.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nothing was logged");
    }
}

fn received(type_name: &str, text: &str) -> Received {
    let json = xds_api::text::parse_json(text).unwrap();
    let parsed = xds_api::json::from_json(type_name, &json).unwrap();
    Received::now(parsed.bytes.into(), "")
}
