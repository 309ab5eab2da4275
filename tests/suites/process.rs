//! The command line beside Envoy's: what is accepted, what is refused and in which words.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use integration_tests::parity::run::Binaries;
use integration_tests::peers;
use integration_tests::proxy::{self, Finished};
use libtest_mimic::{Arguments, Failed, Trial};

/// How the two runs are compared, beside the exit code.
#[derive(Clone, Copy, Debug)]
enum By {
    /// The first line, which is the message.
    FirstLine,
    /// The first three lines: those of an error of the parser.
    Parser,
    /// That both end with this text.
    Contains(&'static str),
    /// Nothing more.
    Code,
}

/// Name, arguments and comparison of every run; `BOOTSTRAP` and `DIR` stand for a good file
/// and its folder.
#[rustfmt::skip]
const RUNS: &[(&str, &str, By)] = &[
    ("unknown_flag", "--bogus", By::Parser),
    ("stray_word", "stray", By::Parser),
    ("missing_value", "-c", By::Parser),
    ("missing_value_of_a_long_flag", "--concurrency", By::Parser),
    ("given_twice", "-c a -c b", By::Parser),
    ("given_twice_switch", "--allow-unknown-static-fields --allow-unknown-static-fields", By::Parser),
    ("no_number", "--concurrency x", By::Parser),
    ("number_too_large", "--drain-time-s 99999999999", By::Parser),
    ("no_number_of_milliseconds", "--file-flush-interval-msec x", By::Parser),
    ("unknown_mode", "--mode sing", By::FirstLine),
    ("unknown_level", "-l loud", By::FirstLine),
    ("unknown_component", "--component-log-level nope:info", By::FirstLine),
    ("component_without_level", "--component-log-level http", By::FirstLine),
    ("component_with_unknown_level", "--component-log-level http:loud", By::FirstLine),
    ("component_with_too_much", "--component-log-level http:info:x", By::FirstLine),
    ("component_list_with_an_end", "--component-log-level misc:error,", By::FirstLine),
    ("component_with_fine_grain", "--enable-fine-grain-logging --component-log-level http:info", By::FirstLine),
    ("unknown_ip_version", "--local-address-ip-version v5", By::FirstLine),
    ("unknown_drain_strategy", "--drain-strategy x", By::Code),
    ("tag_without_value", "--stats-tag a", By::FirstLine),
    ("tag_with_bad_name", "--stats-tag a.b:c", By::FirstLine),
    ("tag_with_bad_value", "--stats-tag a:b.c", By::FirstLine),
    ("epoch_with_dynamic_base_id", "--use-dynamic-base-id --restart-epoch 1", By::FirstLine),
    ("no_configuration", "", By::Contains("At least one of --config-path or --config-yaml or Options::configProto() should be non-empty")),
    ("missing_file", "-c /does/not/exist.yaml", By::Contains("Invalid path: /does/not/exist.yaml")),
    ("missing_file_to_validate", "--mode validate -c /does/not/exist.yaml", By::Contains("error initializing configuration '/does/not/exist.yaml': Invalid path: /does/not/exist.yaml")),
    ("log_file_that_cannot_be", "-c BOOTSTRAP --log-path /does/not/exist", By::Contains("Failed to open log-file '/does/not/exist'")),
    ("two_log_formats", "-c DIR/format.yaml --log-format x", By::Contains("Only one of ApplicationLogConfig.log_format or CLI option --log-format can be specified.")),
    ("validate", "--mode validate -c BOOTSTRAP", By::Contains("configuration 'BOOTSTRAP' OK")),
    ("init_only", "--mode init_only -c BOOTSTRAP", By::Code),
    ("init_only_without_control_plane", "--mode init_only -c DIR/ads.yaml", By::Code),
    ("json_log", "--mode init_only -c DIR/format.yaml", By::Contains("\"Message\":\"cm init: all clusters initialized\"")),
    ("level_off", "--mode init_only -l off -c BOOTSTRAP", By::Code),
    ("version_of_hot_restart", "--disable-hot-restart --hot-restart-version", By::FirstLine),
    ("every_component", "--mode validate -c BOOTSTRAP --component-log-level a2a:off,misc:error,upstream:debug,quic_stream:info,ip_tagging:warn", By::Code),
    ("flags_of_pilot_agent", "--mode validate -c BOOTSTRAP --drain-time-s 45 --drain-strategy immediate --local-address-ip-version v4 --file-flush-interval-msec 1000 --disable-hot-restart --allow-unknown-static-fields -l warning --component-log-level misc:error --skip-deprecated-logs --concurrency 2", By::Code),
];

const BOOTSTRAP: &str = "node: {id: a, cluster: b}\n";
const FORMAT: &str = "\
application_log_config: {log_format: {json_format: {Level: \"%l\", Message: \"%j\"}}}
";
const ADS: &str = "\
node: {id: a, cluster: b}
dynamic_resources:
  ads_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: x}}]}
  cds_config: {ads: {}, resource_api_version: V3}
static_resources:
  clusters:
  - name: x
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: x
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9}}}}]}]
";

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(2);
    let envoy = match peers::envoy() {
        Ok(envoy) => envoy,
        Err(e) => return peers::missing("process", &e),
    };
    match peers::subject().and_then(|subject| trials(&Binaries { envoy, subject })) {
        Ok((trials, _dir)) => libtest_mimic::run(&arguments, trials).exit_code(),
        Err(e) => {
            eprintln!("process: {e}");
            ExitCode::FAILURE
        }
    }
}

fn trials(binaries: &Binaries) -> Result<(Vec<Trial>, tempfile::TempDir), String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    for (name, text) in [
        ("bootstrap.yaml", BOOTSTRAP),
        ("format.yaml", FORMAT),
        ("ads.yaml", ADS),
    ] {
        std::fs::write(dir.path().join(name), text).map_err(|e| e.to_string())?;
    }
    let mut trials: Vec<Trial> = RUNS
        .iter()
        .map(|(name, line, by)| {
            let (binaries, dir, by) = (binaries.clone(), dir.path().to_owned(), *by);
            Trial::test(*name, move || {
                blocking(compare(&binaries, &dir, line, by)).map_err(Failed::from)
            })
        })
        .collect();
    let both = binaries.clone();
    trials.push(Trial::test("every_flag_of_envoy_is_ours", move || {
        blocking(flags(&both)).map_err(Failed::from)
    }));
    let both = binaries.clone();
    trials.push(Trial::test("the_version_reads_as_envoys", move || {
        blocking(version(&both)).map_err(Failed::from)
    }));
    Ok((trials, dir))
}

fn blocking<T>(run: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?
        .block_on(run)
}

async fn finish(binary: &Path, args: Vec<String>) -> Result<Finished, String> {
    proxy::finish(binary, &args)
        .await
        .map_err(|e| format!("{} {args:?}: {e}", binary.display()))
}

async fn compare(binaries: &Binaries, dir: &Path, line: &str, by: By) -> Result<(), String> {
    let folder = dir.to_string_lossy();
    let good = format!("{folder}/bootstrap.yaml");
    let fill = |text: &str| text.replace("BOOTSTRAP", &good).replace("DIR", &folder);
    let args = |binary: &PathBuf| {
        let words = line.split_whitespace().map(fill);
        // Runs at the same time must not take each other for parent and child.
        let hot_restart = !line.contains("hot-restart") && !line.contains("base-id");
        let own =
            (binary == &binaries.envoy && hot_restart).then(|| "--disable-hot-restart".into());
        words.chain(own).collect::<Vec<String>>()
    };
    // A flag that waits for its value must stay the last.
    let plain = |_: &PathBuf| line.split_whitespace().map(fill).collect::<Vec<String>>();
    let parser = matches!(by, By::Parser);
    let args_of = |b: &PathBuf| if parser { plain(b) } else { args(b) };
    let envoy = finish(&binaries.envoy, args_of(&binaries.envoy)).await?;
    let ours = finish(&binaries.subject, args_of(&binaries.subject)).await?;
    let report = || {
        format!(
            "{line}\nenvoy: {}\n{}\noutrigger: {}\n{}",
            envoy.status,
            tail(&envoy.output),
            ours.status,
            tail(&ours.output)
        )
    };
    let first = |output: &str, lines: usize| -> Vec<String> {
        output.lines().take(lines).map(str::to_owned).collect()
    };
    let same = match by {
        By::FirstLine => first(&envoy.output, 1) == first(&ours.output, 1),
        By::Parser => first(&envoy.output, 4) == first(&ours.output, 4),
        By::Contains(text) => {
            let text = fill(text);
            envoy.output.contains(&text) && ours.output.contains(&text)
        }
        By::Code => true,
    };
    if same && envoy.status.code() == ours.status.code() {
        Ok(())
    } else {
        Err(report())
    }
}

/// The end of what was printed.
fn tail(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

/// Flags of `--help` with how they take a value.
fn flags_of(help: &str) -> Vec<String> {
    let long = |line: &str| {
        let line = line.trim_start();
        let at = line
            .find("--")
            .filter(|at| *at == 0 || line.starts_with('-'))?;
        let flag = line[at..].split("  (accepted").next().unwrap_or_default();
        Some(flag.trim().to_owned())
    };
    let listed = help.split("Where:").nth(1).unwrap_or_default();
    listed
        .lines()
        .filter(|line| line.starts_with("   -") && !line.starts_with("    "))
        .filter_map(long)
        .collect()
}

async fn flags(binaries: &Binaries) -> Result<(), String> {
    let envoy = finish(&binaries.envoy, vec!["--help".into()]).await?;
    let ours = finish(&binaries.subject, vec!["--help".into()]).await?;
    let (theirs, ours) = (flags_of(&envoy.output), flags_of(&ours.output));
    if theirs.len() < 40 {
        return Err(format!("Envoy's flags are not understood: {theirs:?}"));
    }
    let missing: Vec<&String> = theirs
        .iter()
        .filter(|flag| !flag.contains("ignore_rest") && !ours.contains(flag))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(format!("missing: {missing:?}\nours: {ours:?}"))
    }
}

async fn version(binaries: &Binaries) -> Result<(), String> {
    let parts = |output: &str| -> Option<Vec<String>> {
        let (_, version) = output.trim().split_once("  version: ")?;
        Some(version.split('/').map(str::to_owned).collect())
    };
    let envoy = finish(&binaries.envoy, vec!["--version".into()]).await?;
    let ours = finish(&binaries.subject, vec!["--version".into()]).await?;
    match (parts(&envoy.output), parts(&ours.output)) {
        (Some(theirs), Some(own))
            if theirs.len() == own.len()
                && theirs[1] == own[1]
                && theirs[0].len() == own[0].len() =>
        {
            Ok(())
        }
        (theirs, own) => Err(format!("{theirs:?} {own:?}")),
    }
}
