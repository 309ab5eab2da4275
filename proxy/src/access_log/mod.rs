//! Access logs: filters, formats, and files that a thread of their own writes.
//!
//! Workers only append lines to a file's buffer; see [`file`](self) for when it
//! is written. Loggers of one path share one file.

mod file;
mod filter;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use filter_api::RuntimeSnapshot;
use outrigger_config::format::FormatContext;
use outrigger_config::ir::{AccessLogConfig, AccessLogFilter, AccessLogFormat, AccessLogSink};
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
    pub fn new(options: AccessLogOptions, store: &Store) -> std::io::Result<Self> {
        Ok(Self {
            files: Files::start(options, store.scope("filesystem."))?,
            runtime: Arc::new(ArcSwap::from_pointee(RuntimeSnapshot::default())),
        })
    }

    /// Opens the file of a configuration, so that a listener can be refused if
    /// that fails.
    ///
    /// # Errors
    /// Why it cannot be opened, in Envoy's words.
    pub fn open(&self, config: &AccessLogConfig) -> Result<(), String> {
        self.files.get(&config.sink).open().map_err(|error| {
            let path = match &config.sink {
                AccessLogSink::File(path) => path,
                AccessLogSink::Stdout => "/dev/stdout",
                AccessLogSink::Stderr => "/dev/stderr",
            };
            format!("unable to open file '{path}': {}", file::reason(&error))
        })
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
