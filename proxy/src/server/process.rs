//! The process from its options to its exit code.

use std::process::ExitCode;
use std::sync::Arc;

use outrigger_config::ir::LogFormatConfig;
use outrigger_filters::Registry;
use outrigger_stats::{StatsConfig, Store};

use super::main_thread::{self, Settings};
use super::options::{Mode, Options};
use super::{logging, stats_config};
use crate::access_log::{AccessLogManager, AccessLogOptions};
use crate::bootstrap::{self, LoadedBootstrap};
use crate::runtime::Runtime;

/// Does what the options ask for.
pub fn run(options: Options) -> ExitCode {
    let registry = Arc::new(Registry);
    let outcome = match options.mode {
        Mode::Validate => validate(&options, &registry),
        Mode::Serve | Mode::InitOnly => serve(options, registry),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Checks the configuration; prints what has no effect beside Envoy's verdict.
fn validate(options: &Options, registry: &Registry) -> Result<(), String> {
    let loaded = bootstrap::load(options, registry)?;
    let name = file_name(options);
    log_format(options, &loaded).map_err(|reason| refused(options, &reason))?;
    let ignored =
        bootstrap::check_static(&loaded, registry).map_err(|reason| refused(options, &reason))?;
    println!("configuration '{name}' OK");
    for (path, reason) in ignored {
        println!("ignored {path}: {reason}");
    }
    for path in &loaded.unknown {
        println!("unknown {path}");
    }
    Ok(())
}

fn file_name(options: &Options) -> String {
    options
        .config_path
        .as_ref()
        .map(|p| p.display().to_string())
        .unwrap_or_default()
}

fn refused(options: &Options, reason: &dyn std::fmt::Display) -> String {
    let name = file_name(options);
    format!("error initializing configuration '{name}': {reason}")
}

/// The format of the log that the bootstrap asks for.
fn log_format<'a>(
    options: &Options,
    loaded: &'a LoadedBootstrap,
) -> Result<Option<&'a LogFormatConfig>, &'static str> {
    match &loaded.config.log_format {
        Some(_) if options.log_format.is_some() => Err(
            "Only one of ApplicationLogConfig.log_format or CLI option --log-format can be specified.",
        ),
        format => Ok(format.as_ref()),
    }
}

fn serve(options: Options, registry: Arc<Registry>) -> Result<(), String> {
    logging::init(&options)?;
    let loaded = bootstrap::load(&options, &*registry)?;
    let known = |e: &dyn std::fmt::Display| refused(&options, e);
    if let Some(format) = log_format(&options, &loaded).map_err(|e| known(&e))? {
        logging::set_format(format);
    }
    for flag in &options.without_effect {
        tracing::debug!(target: "main", flag, "the flag has no effect");
    }
    let stats = StatsConfig {
        max_label_sets: options.grpc_max_methods,
        ..stats_config::of(&loaded.config.stats, &options.stats_tags).map_err(|e| known(&e))?
    };
    let store = Store::new(stats).map_err(|e| known(&e))?;
    let settings = settings(options.clone(), loaded, store, registry)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start: {e}"))?;
    runtime
        .block_on(main_thread::run(settings))
        .map_err(|e| known(&e))
}

fn settings(
    options: Options,
    loaded: LoadedBootstrap,
    store: Store,
    registry: Arc<Registry>,
) -> Result<Settings, String> {
    let log_options = AccessLogOptions {
        flush_interval: options.file_flush_interval,
        flush_min_size: options.file_flush_min_size,
    };
    let access_logs = AccessLogManager::new(log_options, &store)
        .map_err(|e| format!("cannot start the access log thread: {e}"))?;
    let runtime = Runtime::new(&loaded.config.runtime_layers, &store);
    Ok(Settings {
        bootstrap: loaded,
        options,
        store,
        registry,
        access_logs: Arc::new(access_logs),
        runtime,
    })
}
