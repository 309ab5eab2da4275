//! grpc-go's interoperability cases through the proxy, each a test.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use integration_tests::lab::{self, Lab, Server};
use integration_tests::upstream::Protocol;
use integration_tests::{peers, ports};
use libtest_mimic::{Arguments, Failed, Trial};

/// All that need no cloud credentials.
const CASES: &[&str] = &[
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
    "orca_per_rpc",
    "orca_oob",
    "rpc_soak",
    "channel_soak",
];

/// The balancer with which the client reads load reports.
const LOAD_REPORTS: &str = r#"{"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}"#;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The server keeps one load report for all: the cases that read it must not meet.
    arguments.test_threads = Some(1);
    let installed = peers::go("interop-client", peers::GRPC_GO_CLIENT)
        .and_then(|client| Ok((client, peers::go("interop-server", peers::GRPC_GO_SERVER)?)));
    let (client, server) = match installed {
        Ok(peers) => peers,
        Err(e) => return peers::missing("interop", &e),
    };
    if arguments.list {
        return libtest_mimic::run(&arguments, trials(0, &client)).exit_code();
    }
    match serve(&arguments, &client, &server) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("interop: {e}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &Arguments, client: &Path, server: &Path) -> Result<ExitCode, String> {
    let port = ports::free();
    let _server = Server::start(Command::new(server).arg(format!("--port={port}")), port)?;
    let runtime = tokio::runtime::Runtime::new().map_err(|e| e.to_string())?;
    let lab = runtime.block_on(Lab::start(port, Protocol::H2))?;
    let conclusion = libtest_mimic::run(arguments, trials(lab.listener, client));
    if conclusion.has_failed() {
        eprintln!("{}", lab.log_tail());
    }
    Ok(conclusion.exit_code())
}

fn trials(port: u16, client: &Path) -> Vec<Trial> {
    let client: Arc<PathBuf> = Arc::new(client.to_path_buf());
    let trial = |case: &&'static str| {
        let (case, client) = (*case, Arc::clone(&client));
        Trial::test(case, move || {
            let mut command = Command::new(client.as_path());
            command.args([
                "--server_host=127.0.0.1".to_owned(),
                format!("--server_port={port}"),
            ]);
            command.arg(format!("--test_case={case}"));
            if case.starts_with("orca") {
                command.arg(format!("--service_config_json={LOAD_REPORTS}"));
            }
            command.args([
                "--soak_iterations=50",
                "--soak_max_failures=0",
                "--soak_per_iteration_max_acceptable_latency_ms=2000",
            ]);
            lab::run(&mut command, Duration::from_secs(60))
                .map(drop)
                .map_err(Failed::from)
        })
    };
    CASES.iter().map(trial).collect()
}
