//! The proxy under a storm of updates from its control plane, while requests run.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use integration_tests::ads::{Ads, Resource};
use integration_tests::proxy::Proxy;
use integration_tests::upstream::{Protocol, Script, Upstream};
use integration_tests::{peers, ports};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How long one answer, or one acknowledgement, may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Updates of routes in one burst.
const BURST: usize = 1_000;

/// Hosts of the large cluster that nobody picks.
const SPARE_HOSTS: usize = 10_000;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = vec![
        trial("a_storm_of_routes_tears_no_request", route_storm),
        trial("a_burst_of_connections_outlives_listener_updates", || {
            churn(Protocol::H1, 120, Mesh::push_listener)
        }),
        trial("clusters_that_change_lose_no_request", || {
            churn(Protocol::H1, 60, Mesh::push_clusters)
        }),
        trial("clusters_of_http2_that_change_lose_no_request", || {
            churn(Protocol::H2, 60, Mesh::push_clusters)
        }),
        trial("one_changed_host_of_many_keeps_the_pools", many_hosts),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial<F, R>(name: &str, run: F) -> Trial
where
    F: FnOnce() -> R + Send + 'static,
    R: Future<Output = Result<(), String>>,
{
    Trial::test(name, move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(run())
            .map_err(Failed::from)
    })
}

/// A proxy with a control plane and two servers that answer with their names.
struct Mesh {
    ads: Ads,
    proxy: Proxy,
    upstreams: [Upstream; 2],
    ports: [u16; 2],
    listener: u16,
    protocol: Protocol,
    _dir: TempDir,
}

impl Mesh {
    async fn start(workers: &str, protocol: Protocol) -> Result<Self, String> {
        let ports = [ports::free(), ports::free()];
        let (admin, control, listener) = (ports::free(), ports::free(), ports::free());
        let server = |name, port| async move {
            let script = Script {
                protocol,
                ..Script::default()
            };
            let started = Upstream::start(name, &script, port).await;
            started.map_err(|e| e.to_string())
        };
        let upstreams = [server("a", ports[0]).await?, server("b", ports[1]).await?];
        let ads = Ads::start(control, None).await.map_err(|e| e.to_string())?;
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let proxy = launch(dir.path(), admin, control, workers)?;
        let mut mesh = Self {
            ads,
            proxy,
            upstreams,
            ports,
            listener,
            protocol,
            _dir: dir,
        };
        mesh.configure().await?;
        Ok(mesh)
    }

    async fn configure(&mut self) -> Result<(), String> {
        self.asked("cluster").await?;
        self.push_clusters(0)?;
        self.asked("listener").await?;
        self.push_listener(0)?;
        self.asked("route").await?;
        let nonce = self.push_route(0)?;
        self.acknowledged(&nonce).await?;
        self.proxy.until_ready().await
    }

    async fn asked(&self, kind: &str) -> Result<(), String> {
        let asked = self.ads.until(LIMIT, |seen| seen.kind == kind).await;
        asked.map(drop).ok_or(format!("no request for {kind}"))
    }

    async fn acknowledged(&self, nonce: &str) -> Result<(), String> {
        let seen = self.ads.until(LIMIT, |seen| seen.nonce == nonce).await;
        match seen.ok_or(format!("no answer to {nonce}"))?.error {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn push(&self, kind: &str, n: usize, resources: &[Value]) -> Result<String, String> {
        let resources = resources.iter().map(|r| Resource::from_json(kind, r));
        let resources = resources.collect::<Result<Vec<_>, _>>()?;
        let nonce = self.ads.push(kind, &n.to_string(), &resources, &[]);
        nonce.ok_or_else(|| "the proxy has no stream".to_owned())
    }

    /// Every route says in a header which cluster it leads to.
    fn push_route(&self, n: usize) -> Result<String, String> {
        let cluster = ["a", "b"][n % 2];
        let header = json!({"header": {"key": "x-route", "value": cluster}});
        let route = json!({"match": {"prefix": "/"}, "route": {"cluster": cluster},
            "response_headers_to_add": [header]});
        let host = json!({"name": "all", "domains": ["*"], "routes": [route]});
        self.push("route", n, &[json!({"name": "r", "virtual_hosts": [host]})])
    }

    /// Every listener differs from the one before in a chain of its own.
    fn push_listener(&self, n: usize) -> Result<String, String> {
        let source = json!({"ads": {}, "resource_api_version": "V3"});
        let router = json!({"name": "envoy.filters.http.router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}});
        let hcm = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "load", "via": format!("update-{n}"),
            "rds": {"route_config_name": "r", "config_source": source},
            "http_filters": [router]});
        let filter = json!({"name": "hcm", "typed_config": hcm});
        let listener = json!({"name": "l", "address": address(self.listener),
            "filter_chains": [{"filters": [filter]}]});
        self.push("listener", n, &[listener])
    }

    fn push_clusters(&self, n: usize) -> Result<String, String> {
        let options = match self.protocol {
            Protocol::H2 => http2_options(),
            _ => json!({}),
        };
        let cluster = |name: &str, port: u16| {
            json!({"name": name, "type": "STATIC",
                "connect_timeout": format!("{}s", 2 + n % 7),
                "typed_extension_protocol_options": options,
                "load_assignment": {"cluster_name": name,
                    "endpoints": [{"lb_endpoints": [endpoint(port)]}]}})
        };
        let clusters = [cluster("a", self.ports[0]), cluster("b", self.ports[1])];
        self.push("cluster", n, &clusters)
    }

    /// The first priority holds both servers, the second hosts that are never picked.
    fn push_endpoints(&self, n: usize) -> Result<String, String> {
        let spare = |host: usize| {
            let last = if host == 0 { n } else { 0 };
            let ip = format!("127.{}.{}.{}", 100 + last, host / 250, 1 + host % 250);
            json!({"endpoint": {"address": {"socket_address": {"address": ip, "port_value": 9}}}})
        };
        let spares: Vec<Value> = (0..SPARE_HOSTS).map(spare).collect();
        let first = self.ports.map(endpoint);
        let assignment = json!({"cluster_name": "a", "endpoints": [
            {"lb_endpoints": first}, {"priority": 1, "lb_endpoints": spares}]});
        self.push("endpoints", n, &[assignment])
    }

    fn connections(&self) -> usize {
        self.upstreams.iter().map(Upstream::connections).sum()
    }
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

fn endpoint(port: u16) -> Value {
    json!({"endpoint": {"address": address(port)}})
}

fn http2_options() -> Value {
    json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}}}})
}

fn launch(dir: &Path, admin: u16, control: u16, workers: &str) -> Result<Proxy, String> {
    let source = json!({"ads": {}, "resource_api_version": "V3"});
    let bootstrap = json!({
        "node": {"id": "load", "cluster": "load"},
        "admin": {"address": address(admin)},
        "dynamic_resources": {"cds_config": source, "lds_config": source, "ads_config": {
            "api_type": "DELTA_GRPC", "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]}},
        "static_resources": {"clusters": [{"name": "xds", "type": "STATIC",
            "typed_extension_protocol_options": http2_options(),
            "load_assignment": {"cluster_name": "xds",
                "endpoints": [{"lb_endpoints": [endpoint(control)]}]}}]}});
    let file = dir.join("bootstrap.json");
    std::fs::write(&file, bootstrap.to_string()).map_err(|e| e.to_string())?;
    let args = ["--disable-hot-restart", "--concurrency", workers];
    let args = args.map(str::to_owned);
    Proxy::launch(&peers::subject()?, &file, admin, &args, dir)
}

/// One request on a connection of its own: the cluster that the route named, and the one that answered.
async fn get(port: u16) -> Result<(String, String), String> {
    let ask = async {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
        socket
            .write_all(b"GET / HTTP/1.1\r\nhost: load\r\nconnection: close\r\n\r\n")
            .await?;
        let mut text = String::new();
        socket.read_to_string(&mut text).await?;
        Ok::<_, std::io::Error>(text)
    };
    let text = tokio::time::timeout(LIMIT, ask)
        .await
        .map_err(|_| "no answer in time".to_owned())?
        .map_err(|e| e.to_string())?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("no answer")?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(format!("{text:?}"));
    }
    let named = head
        .lines()
        .find_map(|line| line.strip_prefix("x-route: "))
        .unwrap_or_default();
    // A body of unknown length comes in chunks; the name is the one letter in either form.
    let answered: String = body.chars().filter(|c| matches!(c, 'a' | 'b')).collect();
    Ok((named.to_owned(), answered))
}

/// Clients that ask until they are told to stop; each returns how many answers it had.
fn clients(port: u16, stop: &Arc<AtomicBool>) -> JoinSet<Result<usize, String>> {
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        let stop = Arc::clone(stop);
        clients.spawn(async move {
            let mut answers = 0;
            while !stop.load(Ordering::Relaxed) {
                let (named, answered) = get(port).await?;
                if named != answered {
                    return Err(format!("route {named}, but {answered} answered"));
                }
                answers += 1;
            }
            Ok(answers)
        });
    }
    clients
}

async fn finish(
    mut clients: JoinSet<Result<usize, String>>,
    stop: &AtomicBool,
) -> Result<(), String> {
    stop.store(true, Ordering::Relaxed);
    let mut answers = 0;
    while let Some(client) = clients.join_next().await {
        answers += client.map_err(|e| e.to_string())??;
    }
    if answers < 10 {
        return Err(format!("only {answers} requests ran beside the updates"));
    }
    Ok(())
}

async fn route_storm() -> Result<(), String> {
    let mesh = Mesh::start("2", Protocol::H1).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let clients = clients(mesh.listener, &stop);
    // A spread storm first, that requests run beside, then a burst that leaves them no time.
    for n in 1..=100 {
        mesh.push_route(n)?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut nonces = BTreeSet::new();
    let mut last = String::new();
    for n in 101..=100 + BURST + 1 {
        last = mesh.push_route(n)?;
        nonces.insert(last.clone());
    }
    mesh.acknowledged(&last).await?;
    finish(clients, &stop).await?;
    for seen in mesh.ads.seen() {
        if let Some(error) = seen.error {
            return Err(format!("{} refused: {error}", seen.nonce));
        }
        nonces.remove(&seen.nonce);
    }
    if !nonces.is_empty() {
        return Err(format!("{} updates had no answer", nonces.len()));
    }
    let wanted = ["a", "b"][(100 + BURST + 1) % 2];
    let (_, answered) = get(mesh.listener).await?;
    if answered != wanted {
        return Err(format!("{answered} answers, the last routes say {wanted}"));
    }
    Ok(())
}

/// Pushes `updates` of one kind beside a burst of new connections, none of which may fail.
async fn churn(
    protocol: Protocol,
    updates: usize,
    push: impl Fn(&Mesh, usize) -> Result<String, String>,
) -> Result<(), String> {
    let mesh = Mesh::start("2", protocol).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let clients = clients(mesh.listener, &stop);
    let mut last = String::new();
    for n in 1..=updates {
        last = push(&mesh, n)?;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    mesh.acknowledged(&last).await?;
    finish(clients, &stop).await
}

async fn many_hosts() -> Result<(), String> {
    let mesh = Mesh::start("1", Protocol::H1).await?;
    let source = json!({"ads": {}, "resource_api_version": "V3"});
    let cluster = json!({"name": "a", "type": "EDS", "eds_cluster_config": {"eds_config": source}});
    mesh.push("cluster", 1, &[cluster])?;
    mesh.asked("endpoints").await?;
    mesh.acknowledged(&mesh.push_endpoints(0)?).await?;
    // Requests in turn need one connection to each server.
    for _ in 0..10 {
        get(mesh.listener).await?;
    }
    let before = mesh.connections();
    for n in 1..=3 {
        mesh.acknowledged(&mesh.push_endpoints(n)?).await?;
        for _ in 0..10 {
            get(mesh.listener).await?;
        }
    }
    let after = mesh.connections();
    if after != before {
        return Err(format!("{before} upstream connections became {after}"));
    }
    Ok(())
}
