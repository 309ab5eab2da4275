//! Files of access logs, and the thread that writes them.
//!
//! As in Envoy, a buffer is written at every interval, and before that when it is
//! longer than a minimum; the first line of a file is written at once.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use outrigger_config::ir::AccessLogSink;
use outrigger_stats::{Scope, Slab};
use parking_lot::{Condvar, Mutex};

use super::AccessLogOptions;

/// Bytes that may wait for a file that takes none, such as a pipe whose reader
/// stands still. Lines beyond are dropped and counted as `write_failed`.
const MAX_BUFFERED: usize = 16 << 20;

outrigger_stats::stat_set! {
    /// `filesystem.*`
    pub(super) struct FileStats {
        counters {
            /// Flushes that the interval brought about, with or without data.
            flushed_by_timer,
            /// Files that could not be opened anew.
            reopen_failed,
            /// Lines taken into a buffer.
            write_buffered,
            /// Buffers written.
            write_completed,
            /// Buffers that could not be written, and lines that found no room.
            write_failed,
        }
        gauges {
            /// Bytes that wait to be written.
            write_total_buffered,
        }
    }
}

/// One file.
pub(super) struct LogFile {
    sink: AccessLogSink,
    min_size: usize,
    pending: Mutex<Pending>,
    output: Mutex<Output>,
    wake: Arc<Wake>,
}

struct Pending {
    buffer: Vec<u8>,
    /// Nothing was written yet.
    is_new: bool,
    /// The buffer is not to wait for the interval.
    urgent: bool,
    /// Written to only with the lock held.
    stats: Slab<FileStats>,
}

#[derive(Default)]
struct Output {
    file: Option<File>,
    /// The buffer that was written last, to be used again.
    spare: Vec<u8>,
}

impl LogFile {
    fn new(sink: AccessLogSink, min_size: usize, scope: &Scope, wake: Arc<Wake>) -> Self {
        Self {
            sink,
            min_size,
            pending: Mutex::new(Pending {
                buffer: Vec::new(),
                is_new: true,
                urgent: false,
                stats: scope.slab(),
            }),
            output: Mutex::default(),
            wake,
        }
    }

    /// Opens the file if it is not open.
    pub(super) fn open(&self) -> io::Result<()> {
        let mut output = self.output.lock();
        if output.file.is_none() {
            output.file = Some(open(&self.sink)?);
        }
        Ok(())
    }

    /// Takes a line into the buffer.
    pub(super) fn append(&self, line: &[u8]) {
        let mut pending = self.pending.lock();
        if pending.buffer.len() + line.len() > MAX_BUFFERED {
            pending.stats.inc(FileStats::write_failed);
            return;
        }
        pending.buffer.extend_from_slice(line);
        pending.stats.inc(FileStats::write_buffered);
        let added = i64::try_from(line.len()).unwrap_or(i64::MAX);
        pending
            .stats
            .gauge_add(FileStats::write_total_buffered, added);
        let urgent = pending.is_new || pending.buffer.len() > self.min_size;
        pending.is_new = false;
        let wake = urgent && !pending.urgent;
        pending.urgent |= urgent;
        drop(pending);
        if wake {
            self.wake.set(|signals| signals.urgent = true);
        }
    }

    fn is_due(&self, due: Due) -> bool {
        match due {
            Due::All | Due::Timer => true,
            Due::Urgent => self.pending.lock().urgent,
        }
    }

    /// Writes the buffer. What cannot be written is lost.
    fn flush(&self, due: Due) {
        let mut output = self.output.lock();
        let data = {
            let mut pending = self.pending.lock();
            if due == Due::Timer {
                pending.stats.inc(FileStats::flushed_by_timer);
            }
            pending.urgent = false;
            if pending.buffer.is_empty() {
                return;
            }
            let spare = std::mem::take(&mut output.spare);
            std::mem::replace(&mut pending.buffer, spare)
        };
        let result = output.write(&self.sink, &data);
        let pending = self.pending.lock();
        let written = i64::try_from(data.len()).unwrap_or(i64::MAX);
        pending
            .stats
            .gauge_sub(FileStats::write_total_buffered, written);
        pending.stats.inc(match result {
            Ok(()) => FileStats::write_completed,
            Err(_) => FileStats::write_failed,
        });
        drop(pending);
        output.keep(data);
    }

    fn reopen(&self) {
        if !matches!(self.sink, AccessLogSink::File(_)) {
            return;
        }
        let mut output = self.output.lock();
        if output.file.is_none() {
            return;
        }
        match open(&self.sink) {
            Ok(file) => output.file = Some(file),
            Err(_) => self.pending.lock().stats.inc(FileStats::reopen_failed),
        }
    }
}

impl Output {
    fn write(&mut self, sink: &AccessLogSink, data: &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(open(sink)?),
        };
        file.write_all(data)
    }

    /// Keeps a buffer for the next lines unless it grew beyond the ordinary.
    fn keep(&mut self, mut buffer: Vec<u8>) {
        const ORDINARY: usize = 1 << 20;
        if buffer.capacity() <= ORDINARY {
            buffer.clear();
            self.spare = buffer;
        }
    }
}

/// Opens a sink; a file is made if there is none.
pub(super) fn open(sink: &AccessLogSink) -> io::Result<File> {
    let descriptor = match sink {
        AccessLogSink::File(path) => {
            return File::options().append(true).create(true).open(&**path);
        }
        AccessLogSink::Stdout => io::stdout().as_fd().try_clone_to_owned()?,
        AccessLogSink::Stderr => io::stderr().as_fd().try_clone_to_owned()?,
    };
    Ok(descriptor.into())
}

/// The system's words for an error, without its number.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((reason, _)) => reason.to_owned(),
        None => text,
    }
}

/// Why files are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// The interval passed.
    Timer,
    /// Somebody asked for it, or the end has come.
    All,
    /// A buffer is full, or a file is new.
    Urgent,
}

/// What the writing thread is woken for.
#[derive(Default)]
struct Signals {
    urgent: bool,
    reopen: bool,
    stop: bool,
}

#[derive(Default)]
struct Wake {
    signals: Mutex<Signals>,
    condition: Condvar,
}

impl Wake {
    fn set(&self, change: impl FnOnce(&mut Signals)) {
        change(&mut self.signals.lock());
        self.condition.notify_one();
    }

    /// Waits for a signal or the time, and takes the signals.
    fn wait(&self, until: Instant) -> Signals {
        let mut signals = self.signals.lock();
        while !(signals.urgent || signals.reopen || signals.stop) {
            if self.condition.wait_until(&mut signals, until).timed_out() {
                break;
            }
        }
        std::mem::take(&mut signals)
    }
}

/// All files, by where they go.
type Table = Arc<Mutex<HashMap<SinkKey, Arc<LogFile>>>>;

/// What tells files apart: their path.
#[derive(Clone, PartialEq, Eq, Hash)]
enum SinkKey {
    File(Arc<str>),
    Stdout,
    Stderr,
}

impl From<&AccessLogSink> for SinkKey {
    fn from(sink: &AccessLogSink) -> Self {
        match sink {
            AccessLogSink::File(path) => Self::File(path.clone()),
            AccessLogSink::Stdout => Self::Stdout,
            AccessLogSink::Stderr => Self::Stderr,
        }
    }
}

/// The files and the thread that writes them.
pub(super) struct Files {
    table: Table,
    wake: Arc<Wake>,
    options: AccessLogOptions,
    scope: Scope,
    thread: Option<JoinHandle<()>>,
    /// Shown from the start, before there is a file.
    _stats: Slab<FileStats>,
}

impl Files {
    pub(super) fn start(options: AccessLogOptions, scope: Scope) -> io::Result<Self> {
        let (table, wake) = (Table::default(), Arc::new(Wake::default()));
        let writer = Writer {
            table: table.clone(),
            wake: wake.clone(),
            options,
        };
        let thread = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || writer.run())?;
        Ok(Self {
            table,
            wake,
            options,
            _stats: scope.slab(),
            scope,
            thread: Some(thread),
        })
    }

    /// The file of a sink: the one that is in use, if there is one.
    pub(super) fn get(&self, sink: &AccessLogSink) -> Arc<LogFile> {
        let make = || {
            let size = self.options.flush_min_size;
            Arc::new(LogFile::new(
                sink.clone(),
                size,
                &self.scope,
                self.wake.clone(),
            ))
        };
        let mut table = self.table.lock();
        table.entry(sink.into()).or_insert_with(make).clone()
    }

    pub(super) fn reopen_all(&self) {
        self.wake.set(|signals| signals.reopen = true);
    }

    pub(super) fn flush(&self) {
        for file in files(&self.table) {
            file.flush(Due::All);
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.wake.set(|signals| signals.stop = true);
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has nothing more to write.
            let _ = thread.join();
        }
    }
}

fn files(table: &Table) -> Vec<Arc<LogFile>> {
    table.lock().values().cloned().collect()
}

struct Writer {
    table: Table,
    wake: Arc<Wake>,
    options: AccessLogOptions,
}

impl Writer {
    fn run(self) {
        let mut next = Instant::now() + self.options.flush_interval;
        loop {
            let signals = self.wake.wait(next);
            if signals.reopen {
                files(&self.table).iter().for_each(|file| file.reopen());
                // As in Envoy what waits begins the new file.
                self.write(Due::All);
            }
            if signals.stop {
                return self.write(Due::All);
            }
            if signals.urgent {
                self.write(Due::Urgent);
            }
            if Instant::now() >= next {
                next = Instant::now() + self.options.flush_interval;
                self.write(Due::Timer);
                self.forget_unused();
            }
        }
    }

    fn write(&self, due: Due) {
        for file in files(&self.table) {
            if file.is_due(due) {
                file.flush(due);
            }
        }
    }

    /// Closes files that no logger writes to any more.
    fn forget_unused(&self) {
        self.table.lock().retain(|_, file| {
            Arc::strong_count(file) > 1 || !file.pending.lock().buffer.is_empty()
        });
    }
}
