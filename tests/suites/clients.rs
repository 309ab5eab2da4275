//! Real clients through the proxy: grpcio, tonic, curl over both HTTP versions, a WebSocket client.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use integration_tests::lab::{self, Lab, Server};
use integration_tests::upstream::{Protocol, Upstream};
use integration_tests::{peers, ports};
use libtest_mimic::{Arguments, Failed, Trial};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

/// The scenarios of `clients/lab.py`.
const GRPCIO: &[&str] = &[
    "unary",
    "server_stream",
    "client_stream",
    "bidi",
    "deadline",
    "cancellation",
    "big_message",
    "metadata",
    "status_details",
];

type Outcome = Result<(), String>;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let installed = peers::python("clients", peers::PYTHON_CLIENTS)
        .and_then(|python| Ok((python, peers::system("curl")?)));
    match installed {
        Ok((python, curl)) => libtest_mimic::run(&arguments, trials(&python, &curl)).exit_code(),
        Err(e) => peers::missing("clients", &e),
    }
}

fn trials(python: &Path, curl: &Path) -> Vec<Trial> {
    let python = Arc::new(python.to_path_buf());
    let mut trials: Vec<Trial> = GRPCIO
        .iter()
        .map(|scenario| {
            let python = Arc::clone(&python);
            trial(&format!("grpcio/{scenario}"), move || {
                grpcio(&python, scenario)
            })
        })
        .collect();
    let with_python = Arc::clone(&python);
    trials.push(trial("tonic", move || tonic_client(&with_python)));
    trials.push(trial("websocket", move || websocket(&python)));
    for (name, version, protocol) in [
        ("curl/http1", "--http1.1", Protocol::H1),
        ("curl/http1_to_http2", "--http1.1", Protocol::H2),
        ("curl/h2c", "--http2-prior-knowledge", Protocol::H2),
        ("curl/h2c_to_http1", "--http2-prior-knowledge", Protocol::H1),
    ] {
        let curl = curl.to_path_buf();
        trials.push(trial(name, move || curl_client(&curl, version, protocol)));
    }
    trials
}

fn trial(name: &str, run: impl FnOnce() -> Outcome + Send + 'static) -> Trial {
    Trial::test(name, move || run().map_err(Failed::from))
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|e| e.to_string())
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/clients/lab.py")
}

fn python_server(python: &Path, kind: &str) -> Result<(Server, u16), String> {
    let port = ports::free();
    let mut command = Command::new(python);
    let server = Server::start(command.arg(script()).args([kind, &port.to_string()]), port)?;
    Ok((server, port))
}

fn grpcio(python: &Path, scenario: &str) -> Outcome {
    let (_server, port) = python_server(python, "grpc-server")?;
    let runtime = runtime()?;
    let lab = runtime.block_on(Lab::start(port, Protocol::H2))?;
    let mut client = Command::new(python);
    client
        .arg(script())
        .args(["grpc", &lab.listener.to_string(), scenario]);
    lab::run(&mut client, Duration::from_secs(30)).map(drop)
}

fn websocket(python: &Path) -> Outcome {
    let (_server, port) = python_server(python, "ws-server")?;
    let runtime = runtime()?;
    let lab = runtime.block_on(Lab::start(port, Protocol::H1))?;
    let mut client = Command::new(python);
    client.arg(script()).args(["ws", &lab.listener.to_string()]);
    lab::run(&mut client, Duration::from_secs(30)).map(drop)
}

fn curl_client(curl: &Path, version: &str, protocol: Protocol) -> Outcome {
    let runtime = runtime()?;
    let script = serde_json::json!({"protocol": match protocol {
        Protocol::H2 => "h2",
        _ => "h1",
    }, "replies": [{"when": "/echo", "steps": [
        {"await": "end"}, {"respond": {"status": 200, "headers": {"content-length": "200000"}}}, "echo",
    ]}]});
    let script = integration_tests::upstream::parse(script)?;
    let port = ports::free();
    let started = runtime.block_on(Upstream::start("a", &script, port));
    let mut upstream = started.map_err(|e| e.to_string())?;
    let lab = runtime.block_on(Lab::start(port, protocol))?;
    let get = |path: &str, more: &[&str]| {
        let mut command = Command::new(curl);
        command.args([
            "--silent",
            "--show-error",
            "--fail",
            "--max-time",
            "10",
            version,
        ]);
        command
            .args(more)
            .arg(format!("http://127.0.0.1:{}{path}", lab.listener));
        lab::run(&mut command, Duration::from_secs(15))
    };
    expect(&get("/plain", &[])?, "a")?;
    expect(&get("/plain", &["-X", "DELETE"])?, "a")?;
    let body = "x".repeat(200_000);
    let file = lab.dir().join("body");
    std::fs::write(&file, &body).map_err(|e| e.to_string())?;
    let sent = format!("@{}", file.display());
    expect(&get("/echo", &["--data-binary", &sent])?, &body)?;
    runtime.block_on(upstream.stop());
    expect(&upstream.requests().len().to_string(), "3")
}

fn expect(got: &str, want: &str) -> Outcome {
    if got == want {
        return Ok(());
    }
    let brief = |text: &str| text.chars().take(100).collect::<String>();
    Err(format!(
        "got {:?} ({} bytes), want {:?}",
        brief(got),
        got.len(),
        brief(want)
    ))
}

fn tonic_client(python: &Path) -> Outcome {
    let (_server, port) = python_server(python, "grpc-server")?;
    let runtime = runtime()?;
    let lab = runtime.block_on(Lab::start(port, Protocol::H2))?;
    runtime
        .block_on(tonic_calls(lab.listener))
        .map_err(|e| e.to_string())
}

type Client = tonic::client::Grpc<tonic::transport::Channel>;

fn path(method: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(method)
}

async fn tonic_calls(port: u16) -> Result<(), Box<dyn std::error::Error>> {
    let channel = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?
        .connect()
        .await?;
    let mut client: Client = tonic::client::Grpc::new(channel).max_decoding_message_size(8 << 20);
    let codec = ProstCodec::<String, String>::default;
    for text in ["hello".to_owned(), "x".repeat(4_000_000)] {
        client.ready().await?;
        let request = Request::new(text.clone());
        let answer = client
            .unary(request, path("/lab.Lab/Unary"), codec())
            .await?;
        expect(&answer.into_inner(), &text)?;
    }
    client.ready().await?;
    let sent: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    let request = Request::new(tokio_stream::iter(sent.clone()));
    let answer = client
        .streaming(request, path("/lab.Lab/Bidi"), codec())
        .await?;
    let mut stream = answer.into_inner();
    let mut got = Vec::new();
    while let Some(message) = stream.message().await? {
        got.push(message);
    }
    expect(&got.join(" "), &sent.join(" "))?;
    fails(&mut client).await
}

/// Status details arrive whole; a deadline ends the call here and is seen there.
async fn fails(client: &mut Client) -> Result<(), Box<dyn std::error::Error>> {
    let codec = ProstCodec::<String, String>::default;
    client.ready().await?;
    let failed = client
        .unary(Request::new(String::new()), path("/lab.Lab/Fail"), codec())
        .await;
    let status = failed.err().ok_or("the call succeeded")?;
    expect(&format!("{:?}", status.code()), "FailedPrecondition")?;
    expect(status.message(), "no good: ü%")?;
    expect(
        &status.details().escape_ascii().to_string(),
        "\\x00\\x01details\\xff",
    )?;
    client.ready().await?;
    let mut request = Request::new(String::new());
    request.set_timeout(Duration::from_millis(300));
    let late = client.unary(request, path("/lab.Lab/Sleep"), codec()).await;
    let code = late.err().ok_or("the call succeeded")?.code();
    if matches!(code, Code::Cancelled | Code::DeadlineExceeded) {
        return Ok(());
    }
    Err(format!("the deadline ended the call with {code:?}").into())
}
