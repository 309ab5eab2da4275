//! Access logs: filters, formats, and files that a thread of their own writes.
//!
//! Workers only append lines to a file's buffer; see [`file`](self) for when it
//! is written. Loggers of one path share one file.

mod file;
mod filter;

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use filter_api::{ConfigError, RuntimeSnapshot};
use outrigger_config::format::FormatContext;
use outrigger_config::ir::{
    AccessLogConfig, AccessLogFilter, AccessLogFormat, AccessLogSink, ListenerConfig,
    NetworkTerminal,
};
use outrigger_stats::Store;

use file::{Files, LogFile};
pub use filter::accepts;

/// When files are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessLogOptions {
    /// Time between writes (`--file-flush-interval-msec`). Default 10 s.
    pub flush_interval: Duration,
    /// Bytes that are written without waiting for the interval
    /// (`--file-flush-min-size-kb`). Default 64 KiB.
    pub flush_min_size: usize,
}

impl Default for AccessLogOptions {
    fn default() -> Self {
        Self {
            flush_interval: Duration::from_secs(10),
            flush_min_size: 64 << 10,
        }
    }
}

/// Every file that access logs are written to.
///
/// What is still buffered is written when it is dropped, and by [`flush`](Self::flush).
pub struct AccessLogManager {
    files: Files,
    runtime: Arc<ArcSwap<RuntimeSnapshot>>,
}

impl AccessLogManager {
    /// Starts the thread that writes. Its stats are `filesystem.*` of `store`.
    ///
    /// # Errors
    /// The system would not start a thread.
    pub fn new(options: AccessLogOptions, store: &Store) -> io::Result<Self> {
        Ok(Self {
            files: Files::start(options, store.untagged_scope("filesystem."))?,
            runtime: Arc::new(ArcSwap::from_pointee(RuntimeSnapshot::default())),
        })
    }

    /// Opens the files of a listener, which is to be refused if that fails.
    ///
    /// # Errors
    /// Which one cannot be opened, and why.
    pub fn open(&self, listener: &ListenerConfig) -> Result<(), ConfigError> {
        each_sink(listener, |sink| self.files.get(sink).open())
    }

    /// The logger of a configuration. A file that was not opened before is opened
    /// when it is first written to.
    pub fn logger(&self, config: &AccessLogConfig) -> AccessLogger {
        AccessLogger {
            filter: config.filter.clone(),
            format: config.format.clone(),
            file: self.files.get(&config.sink),
            runtime: self.runtime.clone(),
        }
    }

    /// The runtime that filters read from now on.
    pub fn set_runtime(&self, runtime: Arc<RuntimeSnapshot>) {
        self.runtime.store(runtime);
    }

    /// Opens every file anew before it is next written to, which is at once:
    /// logs were rotated (SIGUSR1).
    pub fn reopen_all(&self) {
        self.files.reopen_all();
    }

    /// Writes what is buffered, and returns when that is done.
    pub fn flush(&self) {
        self.files.flush();
    }
}

/// Whether the files of a listener can be opened; they are made if need be, as
/// Envoy does even where it only validates.
///
/// # Errors
/// Which one cannot be opened, and why.
pub fn check(listener: &ListenerConfig) -> Result<(), String> {
    each_sink(listener, |sink| file::open(sink).map(drop)).map_err(|e| e.to_string())
}

/// Does something to the sink of every access log of a listener.
fn each_sink(
    listener: &ListenerConfig,
    open: impl Fn(&AccessLogSink) -> io::Result<()>,
) -> Result<(), ConfigError> {
    for (index, log) in listener.access_logs.iter().enumerate() {
        open(&log.sink).map_err(|error| {
            ConfigError::new(describe(&log.sink, &error))
                .at("access_log", index)
                .within(format!("listener \"{}\"", listener.name))
        })?;
    }
    let chains = listener.filter_chains.iter();
    let chains = chains.enumerate().map(|(at, chain)| (Some(at), chain));
    let default = listener.default_filter_chain.iter().map(|c| (None, c));
    for (at, chain) in chains.chain(default) {
        let logs = match &chain.terminal {
            NetworkTerminal::Http(hcm) => &hcm.access_logs,
            NetworkTerminal::Tcp(tcp) => &tcp.access_logs,
            NetworkTerminal::None => continue,
        };
        for (index, log) in logs.iter().enumerate() {
            open(&log.sink).map_err(|error| {
                let error = ConfigError::new(describe(&log.sink, &error)).at("access_log", index);
                let error = match at {
                    Some(at) => error.at("filter_chains", at),
                    None => error.within("default_filter_chain"),
                };
                error.within(format!("listener \"{}\"", listener.name))
            })?;
        }
    }
    Ok(())
}

/// Why a sink cannot be opened, in Envoy's words.
fn describe(sink: &AccessLogSink, error: &io::Error) -> String {
    let path = match sink {
        AccessLogSink::File(path) => path,
        AccessLogSink::Stdout => "/dev/stdout",
        AccessLogSink::Stderr => "/dev/stderr",
    };
    format!("unable to open file '{path}': {}", file::reason(error))
}

/// One access logger.
#[derive(Clone)]
pub struct AccessLogger {
    filter: Option<AccessLogFilter>,
    format: AccessLogFormat,
    file: Arc<LogFile>,
    runtime: Arc<ArcSwap<RuntimeSnapshot>>,
}

impl std::fmt::Debug for AccessLogger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessLogger")
            .field("filter", &self.filter)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

impl AccessLogger {
    /// Logs a stream, if the filter lets it through.
    pub fn log(&self, context: &FormatContext<'_>) {
        thread_local! {
            static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        if let Some(filter) = &self.filter
            && !accepts(filter, context, &self.runtime.load())
        {
            return;
        }
        LINE.with_borrow_mut(|line| {
            line.clear();
            match &self.format {
                AccessLogFormat::Text(format) => format.append_to(line, context),
                AccessLogFormat::Json(format) => format.append_to(line, context),
            }
            self.file.append(line);
        });
    }
}

#[cfg(test)]
mod tests;
