//! The main thread: it makes the configuration into what the workers run, and
//! sees to everything that is not traffic.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use filter_api::{ExtensionRegistry, RuntimeSnapshot};
use outrigger_config::ir::BootstrapConfig;
use outrigger_stats::Store;
use tokio::sync::mpsc;

use super::worker::{Update, Worker};
use crate::access_log::AccessLogManager;
use crate::snapshot::{Origin, Received, Resolved, Resolver, Snapshot};

/// What the process is started with.
pub struct Settings {
    /// The bootstrap.
    pub bootstrap: BootstrapConfig,
    /// Number of workers.
    pub concurrency: usize,
    /// Refuse fields that the schema does not know.
    pub reject_unknown_dynamic_fields: bool,
    /// Where stats are registered.
    pub store: Store,
    /// The filters that are built in.
    pub registry: Arc<dyn ExtensionRegistry>,
    /// Where access logs are written.
    pub access_logs: Arc<AccessLogManager>,
    /// The runtime as it is at first.
    pub runtime: Arc<RuntimeSnapshot>,
}

/// The workers of the process.
pub struct Workers {
    channels: Vec<mpsc::UnboundedSender<Update>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(settings: &Settings) -> io::Result<Self> {
        let mut workers = Self {
            channels: Vec::new(),
            threads: Vec::new(),
        };
        for index in 0..settings.concurrency {
            let (sender, receiver) = mpsc::unbounded_channel();
            let store = settings.store.clone();
            let access_logs = settings.access_logs.clone();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let run = move || {
                let worker = Worker::new(index, store, access_logs);
                runtime.block_on(worker.run(receiver));
                runtime.shutdown_background();
            };
            let thread = std::thread::Builder::new()
                .name(format!("wrk:worker_{index}"))
                .spawn(run)?;
            workers.channels.push(sender);
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// Waits for the threads, whose channels must be closed.
    pub fn join(self) {
        drop(self.channels);
        for thread in self.threads {
            // A worker that panicked has said so already.
            let _ = thread.join();
        }
    }
}

/// Runs the process until it is told to end.
///
/// # Errors
/// What keeps it from starting.
pub async fn run(settings: Settings) -> Result<(), String> {
    let workers =
        Workers::start(&settings).map_err(|e| format!("cannot start the workers: {e}"))?;
    let (answers, mut resolved) = mpsc::unbounded_channel::<Resolved>();
    let mut snapshot = Snapshot::new(
        &settings.store,
        settings.registry.clone(),
        workers.channels.clone(),
        Resolver::new(answers),
        settings.reject_unknown_dynamic_fields,
    );
    snapshot.set_runtime(settings.runtime.clone());
    for bytes in &settings.bootstrap.static_clusters {
        let received = Received::now(bytes.clone(), "");
        snapshot
            .apply_cluster(received, Origin::Static)
            .map_err(|e| e.to_string())?;
    }
    for bytes in &settings.bootstrap.static_listeners {
        let received = Received::now(bytes.clone(), "");
        snapshot
            .apply_listener(received, Origin::Static)
            .map_err(|e| e.to_string())?;
    }
    if let Some(addr) = settings
        .bootstrap
        .admin
        .as_ref()
        .and_then(|a| a.address.socket_addr())
    {
        let listener = tokio::net::TcpListener::bind(addr)
            .await
            .map_err(|e| e.to_string())?;
        tokio::spawn(crate::admin::serve(settings.store.clone(), listener));
    }
    snapshot.note_workers_started();
    snapshot.publish();
    let mut flush = tokio::time::interval(settings.bootstrap.stats_flush_interval);
    loop {
        tokio::select! {
            Some(answer) = resolved.recv() => {
                snapshot.apply_resolved(answer);
                snapshot.publish();
            }
            _ = flush.tick() => settings.store.flush(),
        }
    }
}
