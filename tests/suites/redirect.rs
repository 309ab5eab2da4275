//! Connections that nftables redirects, as it does in a pod: Envoy and the proxy under test on
//! the same listeners, in a network namespace of their own.
//!
//! Who comes from 127.0.0.9 or fd00::9 is redirected, so that what the proxies themselves send
//! is not.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use integration_tests::peers;
use integration_tests::proxy::Proxy;
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

/// Set in the process that runs within the namespace, to where the rules were made.
const INSIDE: &str = "REDIRECT_INSIDE";

/// Ports that the outbound listener takes, and those that the inbound one takes.
const RULES: &str = "
table inet detour {
    chain outgoing {
        type nat hook output priority -100;
        ip saddr 127.0.0.9 tcp dport 1-6999 redirect to :15001
        ip saddr 127.0.0.9 tcp dport 7000-7999 redirect to :15006
        ip6 saddr fd00::9 tcp dport 1-6999 redirect to :15001
        ip6 saddr fd00::9 tcp dport 7000-7999 redirect to :15006
    }
}
";

const ADMIN: u16 = 19_000;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if std::env::var_os(INSIDE).is_some() || arguments.list {
        return libtest_mimic::run(&arguments, vec![Trial::test("as_envoy_does", compare)])
            .exit_code();
    }
    let installed = peers::debian("unshare", "util-linux")
        .and_then(|_| peers::debian("ip", "iproute2"))
        .and_then(|_| peers::debian("nft", "nftables"))
        .and_then(|_| Ok((peers::envoy()?, peers::subject()?)));
    let (envoy, subject) = match installed {
        Ok(programs) => programs,
        Err(e) => return peers::missing("redirect", &e),
    };
    let probe = Command::new("unshare").args(["--net", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        return peers::missing(
            "redirect",
            "no network namespace can be made (that takes root)",
        );
    }
    let own = std::env::current_exe().unwrap_or_default();
    let inside = Command::new("unshare")
        .arg("--net")
        .arg(own)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .env("ENVOY_BIN", envoy)
        .env("OUTRIGGER_BIN", subject)
        .status();
    match inside {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// What a proxy did: answers, lines of its log, stats.
#[derive(Debug, PartialEq, Eq)]
struct Observed {
    answers: Vec<String>,
    log: Vec<String>,
    stats: BTreeMap<String, u64>,
}

fn compare() -> Result<(), Failed> {
    prepare()?;
    serve_echo()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let envoy = runtime.block_on(observe(&peers::envoy()?))?;
    let ours = runtime.block_on(observe(&peers::subject()?))?;
    if std::env::var_os("REDIRECT_SHOW").is_some() {
        println!("{envoy:#?}");
    }
    // Of the proxy's own choosing: that there is anything to compare.
    assert_eq!(envoy.answers.len(), PROBES.len());
    assert!(
        envoy.answers.iter().any(|a| a.ends_with("exact")),
        "{envoy:#?}"
    );
    assert_eq!(envoy.answers, ours.answers);
    assert_eq!(envoy.log, ours.log);
    assert_eq!(envoy.stats, ours.stats);
    Ok(())
}

/// Brings the namespace up.
fn prepare() -> Result<(), String> {
    for args in [
        &["link", "set", "lo", "up"][..],
        &["-6", "address", "add", "fd00::9/128", "dev", "lo"],
        &["-6", "address", "add", "fd00::3/128", "dev", "lo"],
    ] {
        let done = Command::new("ip").args(args).status();
        if !done.is_ok_and(|status| status.success()) {
            return Err(format!("ip {args:?} failed"));
        }
    }
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let fed = nft
        .stdin
        .take()
        .map(|mut pipe| pipe.write_all(RULES.as_bytes()));
    let status = nft.wait().map_err(|e| e.to_string())?;
    match fed {
        Some(Ok(())) if status.success() => Ok(()),
        _ => Err("nft does not take the rules".to_owned()),
    }
}

/// A server that says where it was reached, and then what it is told.
fn serve_echo() -> io::Result<()> {
    for address in ["127.0.2.3:5000", "127.0.2.3:7100", "[fd00::3]:5000"] {
        let listener = std::net::TcpListener::bind(address)?;
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut said = [0; 256];
                let n = stream.read(&mut said).unwrap_or(0);
                let answer = format!("server {address} {}", String::from_utf8_lossy(&said[..n]));
                let _ = stream.write_all(answer.as_bytes());
            }
        });
    }
    Ok(())
}

/// Where clients go, and what they say.
const PROBES: &[(&str, &str)] = &[
    // A listener of just this address, one of the port on any, none.
    ("127.0.2.1:80", HTTP),
    ("127.0.2.2:80", HTTP),
    ("127.0.2.1:81", HTTP),
    ("127.0.2.3:5000", "no http\n"),
    ("127.0.2.1:5001", "nobody there\n"),
    // The inspector of the listener that is handed the connection.
    ("127.0.2.1:82", HTTP),
    ("127.0.2.3:5000", HTTP),
    // Straight to the port of the outbound listener, by its redirection.
    ("127.0.0.1:1500", HTTP),
    // The inbound listener, which matches the port that was meant.
    ("127.0.2.1:7000", HTTP),
    ("127.0.2.3:7100", "in\n"),
    ("[fd00::3]:80", HTTP),
    ("[fd00::3]:5000", "six\n"),
    ("[fd00::3]:7000", HTTP),
];

const HTTP: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

async fn observe(binary: &Path) -> Result<Observed, String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let log = dir.path().join("access.log");
    let bootstrap = write(dir.path(), &bootstrap(&log))?;
    let args = ["--concurrency", "1", "--disable-hot-restart"].map(str::to_owned);
    let proxy = Proxy::start(binary, &bootstrap, ADMIN, &args, dir.path()).await?;
    let answers = PROBES
        .iter()
        .map(|(to, said)| format!("{to}: {}", ask(to, said).unwrap_or_else(|e| e.to_string())))
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let interesting = |name: &str| {
        name.starts_with("listener.") && !name.starts_with("listener.admin") && !name.contains("ms")
            || name.starts_with("http_inspector.")
            || name.starts_with("tcp.")
    };
    let stats = proxy.stats().await.map_err(|e| e.to_string())?;
    let stats = stats
        .into_iter()
        .filter(|(name, value)| interesting(name) && *value > 0);
    // Logs are written by a thread of their own.
    let _ = proxy.admin("POST", "/reopen_logs").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let text = std::fs::read_to_string(&log).map_err(|e| e.to_string())?;
    Ok(Observed {
        answers,
        log: text.lines().map(str::to_owned).collect(),
        stats: stats.collect(),
    })
}

/// What is answered to a client of the redirected address: a status and a body, or the bytes.
fn ask(to: &str, said: &str) -> io::Result<String> {
    let to: SocketAddr = to.parse().map_err(io::Error::other)?;
    let from: IpAddr = match to {
        SocketAddr::V4(_) => [127, 0, 0, 9].into(),
        SocketAddr::V6(_) => "fd00::9".parse().map_err(io::Error::other)?,
    };
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.connect(&to.into())?;
    let mut stream: std::net::TcpStream = socket.into();
    stream.write_all(said.as_bytes())?;
    let mut answer = String::new();
    if let Err(error) = stream.read_to_string(&mut answer) {
        return Ok(format!("{:?}", error.kind()));
    }
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or(("", &answer));
    let status = head.lines().next().unwrap_or("");
    Ok(format!("{status} {body}"))
}

fn write(dir: &Path, bootstrap: &Value) -> Result<PathBuf, String> {
    let path = dir.join("bootstrap.json");
    std::fs::write(&path, bootstrap.to_string()).map_err(|e| e.to_string())?;
    Ok(path)
}

fn typed(name: &str, fields: Value) -> Value {
    let mut config = fields;
    config["@type"] = json!(format!("type.googleapis.com/{name}"));
    json!({"name": name, "typed_config": config})
}

fn bootstrap(log: &Path) -> Value {
    let format = "%FILTER_CHAIN_NAME% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_DIRECT_LOCAL_ADDRESS% \
                  %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %RESPONSE_CODE% %RESPONSE_FLAGS% \
                  %UPSTREAM_HOST%\n";
    let log = typed(
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        json!({"path": log, "log_format": {"text_format_source": {"inline_string": format}}}),
    );
    let inspector = typed(
        "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
        json!({}),
    );
    let original = typed(
        "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
        json!({}),
    );
    let http = |name: &str, matches: Value| chain(name, matches, http_filter(name, &log));
    let pass = |name: &str, matches: Value| chain(name, matches, tcp_filter(name, &log));
    let six = |port: u16| json!([{"address": address("::", port)}]);
    let listeners = json!([
        {
            "name": "outbound", "address": address("0.0.0.0", 15001), "use_original_dst": true,
            "additional_addresses": six(15001), "access_log": [log],
            "filter_chains": [pass("blackhole", json!({"destination_port": 15001})), pass("passthrough", json!({}))],
        },
        {
            "name": "inbound", "address": address("0.0.0.0", 15006), "listener_filters": [original, inspector],
            "additional_addresses": six(15006), "access_log": [log], "traffic_direction": "INBOUND",
            "filter_chains": [
                http("seven", json!({"destination_port": 7000, "application_protocols": ["http/1.1"]})),
                pass("rest", json!({})),
            ],
        },
        unbound("127.0.2.1", 80, json!([http("exact", json!({}))]), &json!([])),
        unbound("0.0.0.0", 80, json!([http("any address", json!({}))]), &json!([])),
        unbound("0.0.0.0", 81, json!([http("any of 81", json!({}))]), &json!([])),
        unbound("::", 80, json!([http("any of six", json!({}))]), &json!([])),
        unbound("0.0.0.0", 82, json!([http("inspected", json!({"application_protocols": ["http/1.1"]}))]), &json!([inspector])),
    ]);
    json!({
        "node": {"id": "redirect", "cluster": "redirect"},
        "admin": {"address": address("127.0.0.1", ADMIN)},
        "layered_runtime": {"layers": [{"name": "l", "static_layer": {
            "envoy.reloadable_features.hide_deprecated": false,
        }}]},
        "static_resources": {"listeners": listeners, "clusters": [{
            "name": "passthrough", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "1s",
        }]},
    })
}

fn address(ip: &str, port: u16) -> Value {
    json!({"socket_address": {"address": ip, "port_value": port}})
}

fn unbound(ip: &str, port: u16, chains: Value, filters: &Value) -> Value {
    json!({
        "name": format!("{ip}_{port}"), "address": address(ip, port), "bind_to_port": false,
        "listener_filters": filters, "filter_chains": chains,
    })
}

fn chain(name: &str, matches: Value, filter: Value) -> Value {
    json!({"name": name, "filter_chain_match": matches, "filters": [filter]})
}

fn tcp_filter(name: &str, log: &Value) -> Value {
    typed(
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        json!({"stat_prefix": name, "cluster": "passthrough", "access_log": [log]}),
    )
}

fn http_filter(name: &str, log: &Value) -> Value {
    let router = typed("envoy.extensions.filters.http.router.v3.Router", json!({}));
    let answer = json!({"status": 200, "body": {"inline_string": name}});
    let route = json!({"match": {"prefix": "/"}, "direct_response": answer});
    typed(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({
            "stat_prefix": name, "access_log": [log], "http_filters": [router],
            "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]},
        }),
    )
}
