//! The main thread: it makes the configuration into what the workers run, and
//! sees to everything that is not traffic.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use filter_api::ExtensionRegistry;
use outrigger_stats::Store;
use tokio::sync::mpsc;

use super::logging;
use super::options::{DrainStrategy, Mode, Options};
use super::signals::{Request, Signals};
use super::stats::ServerObserver;
use super::watchdog::{Pulse, Watchdog};
use super::worker::{OfBootstrap, Update, Worker};
use crate::access_log::AccessLogManager;
use crate::admin::endpoint::Endpoint;
use crate::admin::{self, AdminContext, Call, ServerState};
use crate::bootstrap::LoadedBootstrap;
use crate::http::conn_manager::request::Caller;
use crate::listener::DrainPolicy;
use crate::runtime::Runtime;
use crate::snapshot::{Origin, Received, Resolved, Resolver, Snapshot};
use crate::xds::{InitState, SourceNotice, Xds};

/// What the process is started with.
pub struct Settings {
    /// The command line.
    pub options: Options,
    /// The bootstrap.
    pub bootstrap: LoadedBootstrap,
    /// Where stats are registered.
    pub store: Store,
    /// The filters that are built in.
    pub registry: Arc<dyn ExtensionRegistry>,
    /// Where access logs are written.
    pub access_logs: Arc<AccessLogManager>,
    /// The runtime.
    pub runtime: Runtime,
}

impl Settings {
    fn of_bootstrap(&self) -> OfBootstrap {
        let config = &self.bootstrap.config;
        OfBootstrap {
            max_connections: config.max_downstream_connections,
            caller: Caller::new(&config.node.cluster, &config.node.id),
        }
    }
}

/// The workers of the process.
pub struct Workers {
    channels: Vec<mpsc::UnboundedSender<Update>>,
}

impl Workers {
    /// Starts the threads, one a pulse.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(settings: &Settings, pulses: Vec<Pulse>) -> io::Result<Self> {
        let mut workers = Self {
            channels: Vec::new(),
        };
        for (index, pulse) in pulses.into_iter().enumerate() {
            let (sender, receiver) = mpsc::unbounded_channel();
            let store = settings.store.clone();
            let access_logs = settings.access_logs.clone();
            let drain = drain_policy(&settings.options);
            let bootstrap = settings.of_bootstrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let run = move || {
                let worker = Worker::new(index, store, access_logs, drain, bootstrap);
                runtime.block_on(async {
                    tokio::spawn(pulse.beat());
                    worker.run(receiver).await;
                });
                runtime.shutdown_background();
            };
            std::thread::Builder::new()
                .name(format!("wrk:worker_{index}"))
                .spawn(run)?;
            workers.channels.push(sender);
        }
        Ok(workers)
    }
}

/// The main thread's state: everything but traffic.
struct Main {
    settings: Settings,
    snapshot: Snapshot,
    state: ServerState,
    observer: ServerObserver,
    signals: Signals,
    resolved: mpsc::UnboundedReceiver<Resolved>,
    xds: Xds,
    notices: mpsc::Receiver<SourceNotice>,
    worker: Arc<Worker>,
    admin: Option<Endpoint>,
    /// When listeners that drain are to be stopped.
    stop_at: Option<Instant>,
}

/// Runs the process until it is told to end.
///
/// # Errors
/// What keeps it from starting.
pub async fn run(settings: Settings) -> Result<(), String> {
    let workers = start_threads(&settings).map_err(|e| format!("cannot start the workers: {e}"))?;
    let mut main = Main::new(settings, workers)?;
    main.apply_static()?;
    main.start_admin()?;
    main.xds.advance(&mut main.snapshot);
    main.note_progress();
    if main.settings.options.mode != Mode::InitOnly {
        main.serve().await;
        main.shut_down().await;
        // A page that was just answered is still to be written.
        tokio::time::sleep(SHUTDOWN_POLL).await;
    }
    main.settings.access_logs.flush();
    Ok(())
}

/// Starts the workers, and the watchdog over them and this thread.
fn start_threads(settings: &Settings) -> io::Result<Workers> {
    let mut watchdog = Watchdog::new(&settings.store);
    for own in watchdog.watch("main_thread", ["main_thread".to_owned()].into_iter()) {
        tokio::spawn(own.beat());
    }
    let names = (0..settings.options.concurrency).map(|index| format!("worker_{index}"));
    let workers = Workers::start(settings, watchdog.watch("workers", names))?;
    watchdog.start()?;
    Ok(workers)
}

/// How often a shutdown looks whether there is anything left to wait for.
const SHUTDOWN_POLL: Duration = Duration::from_millis(20);

impl Main {
    fn new(settings: Settings, workers: Workers) -> Result<Self, String> {
        let (answers, resolved) = mpsc::unbounded_channel::<Resolved>();
        let mut snapshot = Snapshot::new(
            &settings.store,
            settings.registry.clone(),
            workers.channels,
            Resolver::new(answers).asking(settings.bootstrap.config.dns_resolver.clone()),
            settings.options.reject_unknown_dynamic_fields,
        );
        let own = Worker::for_main(
            settings.options.concurrency,
            settings.store.clone(),
            settings.access_logs.clone(),
            drain_policy(&settings.options),
        );
        snapshot.serve_main(own.clone());
        snapshot.set_node(settings.bootstrap.config.node.local());
        snapshot.set_upstream_bind(settings.bootstrap.config.upstream_bind.clone());
        snapshot.set_ads(settings.bootstrap.config.ads.is_some());
        snapshot.set_drain_time(settings.options.drain_time);
        let (xds, notices) = Xds::new(&settings.bootstrap.config, &settings.store, own.clone());
        let state = ServerState::starting();
        let signals = Signals::new().map_err(|e| format!("cannot listen to signals: {e}"))?;
        let observer = ServerObserver::new(
            &settings.store,
            settings.options.concurrency,
            settings.bootstrap.unknown.len(),
        );
        Ok(Self {
            settings,
            snapshot,
            state,
            observer,
            signals,
            resolved,
            xds,
            notices,
            worker: own,
            admin: None,
            stop_at: None,
        })
    }

    fn apply_static(&mut self) -> Result<(), String> {
        let config = &self.settings.bootstrap.config;
        let runtime = self.settings.runtime.snapshot();
        crate::runtime::apply_to_process(&runtime);
        self.settings.access_logs.set_runtime(runtime.clone());
        self.snapshot.set_runtime(runtime);
        for bytes in &config.static_secrets {
            self.snapshot
                .apply_static_secret(&Received::now(bytes.clone(), ""))
                .map_err(|e| e.to_string())?;
        }
        for bytes in &config.static_clusters {
            let received = Received::now(bytes.clone(), "");
            self.snapshot
                .apply_cluster(received, Origin::Static)
                .map_err(|e| e.to_string())?;
        }
        self.snapshot
            .check_static(config)
            .map_err(|e| e.to_string())?;
        for bytes in &config.static_listeners {
            let received = Received::now(bytes.clone(), "");
            self.snapshot
                .apply_listener(received, Origin::Static)
                .map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    fn start_admin(&mut self) -> Result<(), String> {
        let Some(config) = &self.settings.bootstrap.config.admin else {
            return Ok(());
        };
        let endpoint = Endpoint::open(config, &self.worker, &*self.settings.registry)?;
        if let Some(path) = &self.settings.options.admin_address_path {
            std::fs::write(path, endpoint.address()).map_err(|e| {
                format!(
                    "cannot write the admin address to '{}': {e}",
                    path.display()
                )
            })?;
        }
        tracing::info!(target: "admin", "admin address: {}", endpoint.address());
        self.admin = Some(endpoint);
        Ok(())
    }

    /// Sees to everything until the process is to end.
    async fn serve(&mut self) {
        let every = self.settings.bootstrap.config.stats_flush_interval;
        let next_flush = || every.map(|every| Instant::now() + every);
        let mut flush_at = next_flush();
        while !self.state.quit {
            let stop_at = self.stop_at;
            tokio::select! {
                Some(answer) = self.resolved.recv() => {
                    self.snapshot.apply_resolved(answer);
                    self.xds.advance(&mut self.snapshot);
                    self.note_progress();
                }
                Some(call) = next_call(&mut self.admin) => self.answer(call),
                Some(notice) = self.notices.recv() => {
                    self.xds.handle(notice, &mut self.snapshot);
                    self.note_progress();
                }
                () = sleep_until(flush_at) => {
                    flush_at = next_flush();
                    self.observe();
                    self.settings.store.flush();
                }
                () = sleep_until(stop_at) => self.end_drain(),
                () = sleep_until(self.snapshot.next_clean_up()) => {
                    self.snapshot.clean_up(Instant::now());
                    self.snapshot.publish();
                }
                request = self.signals.next() => match request {
                    Request::ReopenLogs => {
                        logging::reopen();
                        self.settings.access_logs.reopen_all();
                    }
                    Request::Terminate => return,
                },
            }
        }
    }

    fn note_progress(&mut self) {
        self.state.init = self.xds.state();
        // Envoy's workers accept from then on.
        if self.state.init == InitState::Initialized && !self.snapshot.workers_started() {
            self.snapshot.start_workers();
            self.snapshot.publish();
        }
    }

    /// Publishes the gauges that nobody writes as they change.
    fn observe(&mut self) {
        self.snapshot.end_drained();
        self.snapshot.observe_breakers();
        self.snapshot.observe_destinations();
        let connections = self.snapshot.active_connections();
        self.observer.observe(&self.state, connections);
    }

    fn answer(&mut self, call: Call) {
        self.observe();
        let mut cx = AdminContext {
            snapshot: &mut self.snapshot,
            store: &self.settings.store,
            options: &self.settings.options,
            bootstrap: &self.settings.bootstrap,
            runtime: &mut self.settings.runtime,
            access_logs: &self.settings.access_logs,
            state: &mut self.state,
        };
        admin::answer(&mut cx, call);
        if self.state.stop_after_drain.is_some() && self.stop_at.is_none() {
            self.stop_at = Some(Instant::now() + self.settings.options.drain_time);
        }
    }

    /// The drain time has passed: what drains accepts no more.
    fn end_drain(&mut self) {
        self.stop_at = None;
        if let Some(inbound_only) = self.state.stop_after_drain.take() {
            self.snapshot.stop_listeners(inbound_only);
            self.snapshot.publish();
        }
    }

    /// Accepts no more, asks all connections to end, and waits for them as long
    /// as the options allow; a second signal ends the wait. Envoy would cut them.
    async fn shut_down(&mut self) {
        tracing::info!(target: "main", "draining before the end");
        self.snapshot.end_listeners();
        self.snapshot.stop_listeners(false);
        self.snapshot.publish();
        let deadline = Instant::now() + self.settings.options.shutdown_timeout;
        while self.snapshot.active_connections() > 0 && Instant::now() < deadline {
            tokio::select! {
                () = tokio::time::sleep(SHUTDOWN_POLL) => {}
                Some(call) = next_call(&mut self.admin) => self.answer(call),
                request = self.signals.next() => {
                    if request == Request::Terminate {
                        return;
                    }
                }
            }
        }
    }
}

fn drain_policy(options: &Options) -> DrainPolicy {
    DrainPolicy {
        time: options.drain_time,
        immediate: options.drain_strategy == DrainStrategy::Immediate,
    }
}

async fn next_call(admin: &mut Option<Endpoint>) -> Option<Call> {
    match admin {
        Some(admin) => admin.calls.recv().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
