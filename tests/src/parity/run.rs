//! Running a case: both proxies in turn, the script against each, and the comparison.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use regex::Regex;

use super::case::{Case, Entry};
use super::compare;
use super::normalise::Normaliser;
use super::observe::{self, Section, StatChoice};
use super::template::{self, Base};
use super::validate;
use super::xds;
use crate::ads::Ads;
use crate::client::{Answer, Connections, Kind, Request};
use crate::dns;
use crate::ports;
use crate::proxy::{self, Proxy};
use crate::upstream::Upstream;

/// The two programs compared.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// The oracle.
    pub envoy: PathBuf,
    /// The proxy under test.
    pub subject: PathBuf,
}

impl Binaries {
    /// Whether Envoy stands on both sides (to find what is unsteady in a case).
    #[must_use]
    pub fn same(&self) -> bool {
        self.subject
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("envoy"))
    }
}

/// What one side gave.
#[derive(Debug, Default)]
struct Side {
    sections: Vec<Section>,
    tally: BTreeMap<String, usize>,
}

/// Runs a case.
///
/// # Errors
/// The report: every difference side by side, or why the case could not run.
pub async fn run(case: &Case, binaries: &Binaries) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let mut report = String::new();
    for verdict in &case.validate {
        report += &validate::check(verdict, binaries, dir.path()).await;
    }
    if !case.requests.is_empty() {
        report += &run_traffic(case, binaries, dir.path()).await?;
    }
    if report.is_empty() {
        Ok(())
    } else {
        Err(format!("{}\n{report}", case.about))
    }
}

async fn run_traffic(case: &Case, binaries: &Binaries, dir: &Path) -> Result<String, String> {
    let bootstrap = case.config.bootstrap(&case.upstreams)?.to_string();
    let ports = Arc::new(allocate(&bootstrap, case));
    let envoy = one_side(
        case,
        &bootstrap,
        &ports,
        &binaries.envoy,
        &dir.join("envoy"),
    )
    .await;
    let envoy = envoy.map_err(|e| format!("envoy: {e}"))?;
    let ours = one_side(
        case,
        &bootstrap,
        &ports,
        &binaries.subject,
        &dir.join("ours"),
    )
    .await;
    let ours = ours.map_err(|e| format!("{}\n  outrigger: {e}", case.about))?;
    if std::env::var_os("PARITY_SHOW").is_some() {
        println!("{}", compare::show(&envoy.sections));
    }
    let (mut report, unused) = compare::compare(&envoy.sections, &ours.sections, &case.differs);
    report += &compare::compare_tallies(&envoy.tally, &ours.tally, case.tally.unwrap_or(0.0));
    if !binaries.same() {
        for pattern in unused {
            writeln!(
                report,
                "  {pattern:?} is listed under `differs` but does not differ"
            )
            .ok();
        }
    }
    Ok(report)
}

static PLACEHOLDER: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"\{\{((?:listener|upstream|admin)[a-z0-9_.]*)\}\}").ok());

/// A port for every placeholder and every upstream.
fn allocate(bootstrap: &str, case: &Case) -> BTreeMap<String, u16> {
    let mut names: BTreeSet<String> = BTreeSet::from(["admin".to_owned(), "listener.a".to_owned()]);
    if case.config.tls.is_some() {
        names.insert("listener.tls".to_owned());
    }
    names.extend(case.upstreams.keys().map(|name| format!("upstream.{name}")));
    if case.config.base == Base::Ads {
        names.insert("upstream.xds".to_owned());
    }
    if !case.dns.is_empty() {
        names.insert("upstream.dns".to_owned());
    }
    if let Some(placeholder) = &*PLACEHOLDER {
        names.extend(
            placeholder
                .captures_iter(bootstrap)
                .map(|found| found[1].to_owned()),
        );
    }
    names
        .into_iter()
        .map(|name| (name, ports::free()))
        .collect()
}

/// One side while its script runs.
struct Context {
    admin: u16,
    ports: Arc<BTreeMap<String, u16>>,
    normaliser: Normaliser,
    connections: Connections,
    case: Case,
    values: BTreeMap<String, String>,
    ads: tokio::sync::Mutex<Option<Ads>>,
    upstreams: tokio::sync::Mutex<BTreeMap<String, Upstream>>,
    tally: bool,
    state: Mutex<(Vec<Section>, Vec<String>)>,
}

async fn one_side(
    case: &Case,
    bootstrap: &str,
    ports: &Arc<BTreeMap<String, u16>>,
    binary: &Path,
    dir: &Path,
) -> Result<Side, String> {
    std::fs::create_dir_all(dir).map_err(|e| e.to_string())?;
    let log = dir.join("access.log");
    let file = dir.join("bootstrap.yaml");
    let mut values: BTreeMap<String, String> = ports
        .iter()
        .map(|(n, p)| (n.clone(), p.to_string()))
        .collect();
    values.insert("log".to_owned(), log.to_string_lossy().into_owned());
    values.insert("dir".to_owned(), dir.to_string_lossy().into_owned());
    let pki = crate::peers::repository().join("tests/fixtures/tls");
    values.insert("pki".to_owned(), pki.to_string_lossy().into_owned());
    std::fs::write(&file, template::fill(bootstrap, &values)).map_err(|e| e.to_string())?;
    let mut upstreams = BTreeMap::new();
    for (name, script) in &case.upstreams {
        let port = ports[&format!("upstream.{name}")];
        let upstream = Upstream::start(name, script, port)
            .await
            .map_err(|e| format!("upstream {name}: {e}"))?;
        upstreams.insert(name.clone(), upstream);
    }
    let _names = match ports.get("upstream.dns") {
        Some(port) if !case.dns.is_empty() => Some(
            dns::Server::start(&case.dns, *port)
                .await
                .map_err(|e| format!("dns: {e}"))?,
        ),
        _ => None,
    };
    let ads = match case.config.base {
        Base::Ads => Some(
            Ads::start(ports["upstream.xds"], Some(dir.join("xds.sock")))
                .await
                .map_err(|e| format!("xds: {e}"))?,
        ),
        _ => None,
    };
    let mut proxy = Proxy::launch(binary, &file, ports["admin"], &arguments(case), dir)?;
    let context = Arc::new(Context {
        admin: ports["admin"],
        ports: Arc::clone(ports),
        normaliser: Normaliser::new(ports),
        connections: Connections::default(),
        case: case.clone(),
        values,
        ads: tokio::sync::Mutex::new(ads),
        upstreams: tokio::sync::Mutex::new(upstreams),
        tally: case.tally.is_some(),
        state: Mutex::default(),
    });
    if case.config.base != Base::Ads {
        proxy.until_ready().await?;
    }
    for (at, entry) in case.requests.iter().enumerate() {
        perform(Arc::clone(&context), entry.clone(), (at + 1).to_string()).await;
    }
    context.connections.close().await;
    let (stats, log) = settle(&proxy, &log).await;
    let ended = proxy.ended();
    let tail = proxy.log_tail();
    proxy.kill();
    if let Some(status) = ended {
        return Err(format!("the process ended, {status}\n{tail}"));
    }
    Ok(context.side(case, &stats, &log).await)
}

fn arguments(case: &Case) -> Vec<String> {
    let concurrency = case.concurrency.unwrap_or(1).to_string();
    let usual = [
        "--disable-hot-restart",
        "--concurrency",
        &concurrency,
        "--file-flush-interval-msec",
        "10",
        "-l",
        "warning",
    ];
    usual
        .iter()
        .map(|s| (*s).to_owned())
        .chain(case.args.iter().cloned())
        .collect()
}

/// Waits until neither stats nor log change any more.
async fn settle(proxy: &Proxy, log: &Path) -> (Vec<(String, u64)>, String) {
    const QUIET: u32 = 3;
    let deadline = Instant::now() + Duration::from_secs(6);
    let mut last = (Vec::new(), String::new());
    let mut same = 0;
    while same < QUIET && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(35)).await;
        let stats = proxy.stats().await.unwrap_or_default();
        let moving = |(name, _): &&(String, u64)| {
            observe::matches("http.ingress*", name) || observe::matches("cluster.*", name)
        };
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let quiet = stats.iter().filter(moving).eq(last.0.iter().filter(moving)) && text == last.1;
        same = if quiet { same + 1 } else { 0 };
        last = (stats, text);
    }
    last
}

type Done = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Performs an entry; boxed, as entries hold entries.
fn perform(context: Arc<Context>, entry: Entry, number: String) -> Done {
    Box::pin(async move {
        match entry {
            Entry::H1(request) => context.send(Kind::H1, &request, &number).await,
            Entry::H2(request) => context.send(Kind::H2, &request, &number).await,
            Entry::Raw(request) => context.send(Kind::Raw, &request, &number).await,
            Entry::Parallel(entries) => parallel(&context, entries, &number).await,
            Entry::Repeat { times, of } => {
                for turn in 1..=times {
                    for (at, entry) in of.iter().enumerate() {
                        let number = format!("{number}#{turn}.{}", at + 1);
                        perform(Arc::clone(&context), entry.clone(), number).await;
                    }
                }
            }
            Entry::Wait(span) => tokio::time::sleep(span.0).await,
            Entry::Snapshot(patterns) => context.snapshot(&patterns, &number).await,
            Entry::Admin(admin) => {
                let title = format!("admin {number}");
                let section = admin.ask(context.admin, title, &context.normaliser).await;
                context.push(vec![section]);
            }
            Entry::Stop(name) => {
                if let Some(upstream) = context.upstreams.lock().await.get_mut(&name) {
                    upstream.stop().await;
                }
            }
            Entry::Xds(step) => context.xds(&step, &number).await,
            Entry::Start(name) => {
                let port = context
                    .ports
                    .get(&format!("upstream.{name}"))
                    .copied()
                    .unwrap_or(0);
                if let Some(upstream) = context.upstreams.lock().await.get_mut(&name) {
                    upstream.listen(port).await.ok();
                }
            }
        }
    })
}

async fn parallel(context: &Arc<Context>, entries: Vec<Entry>, number: &str) {
    let mut tasks = Vec::new();
    for (at, entry) in entries.into_iter().enumerate() {
        let number = format!("{number}.{}", at + 1);
        tasks.push(tokio::spawn(perform(Arc::clone(context), entry, number)));
    }
    for task in tasks {
        if let Err(e) = task.await {
            context.push(vec![Section::new(
                format!("request {number}"),
                vec![e.to_string()],
            )]);
        }
    }
}

impl Context {
    async fn send(&self, kind: Kind, request: &Request, number: &str) {
        let name = format!("listener.{}", request.to.as_deref().unwrap_or("a"));
        let port = self.ports.get(&name).copied().unwrap_or(0);
        let answer: Answer = self.connections.send(kind, request, port).await;
        if self.tally {
            let line = observe::brief(&answer);
            self.state().1.push(line);
        } else {
            let title = format!("request {number}");
            self.push(observe::answer(
                &title,
                &answer,
                kind == Kind::Raw,
                &self.normaliser,
            ));
        }
    }

    async fn snapshot(&self, patterns: &[String], number: &str) {
        let body = proxy::admin(self.admin, "GET", "/stats")
            .await
            .map(|(_, body)| body);
        let body = body.unwrap_or_default();
        let chosen = |line: &&str| {
            let name = line.rsplit_once(": ").map_or("", |(name, _)| name);
            patterns
                .iter()
                .any(|pattern| observe::matches(pattern, name))
        };
        let mut lines: Vec<String> = body
            .lines()
            .filter(chosen)
            .map(|line| self.normaliser.text(line))
            .collect();
        lines.sort();
        self.push(vec![Section::new(format!("snapshot {number}"), lines)]);
    }

    async fn xds(&self, step: &xds::Step, number: &str) {
        let mut ads = self.ads.lock().await;
        let Some(ads) = ads.as_mut() else { return };
        let (config, upstreams) = (&self.case.config, &self.case.upstreams);
        let title = format!("xds {number}");
        let section = xds::perform(step, ads, config, upstreams, &self.values, &title).await;
        self.push(vec![section]);
    }

    fn state(&self) -> parking_lot::MutexGuard<'_, (Vec<Section>, Vec<String>)> {
        self.state.lock()
    }

    fn push(&self, sections: Vec<Section>) {
        self.state().0.extend(sections);
    }

    async fn side(&self, case: &Case, stats: &[(String, u64)], log: &str) -> Side {
        if let Some(ads) = self.ads.lock().await.as_mut() {
            ads.stop().await;
            self.push(xds::sections(ads));
        }
        let mut upstreams = self.upstreams.lock().await;
        for upstream in upstreams.values_mut() {
            upstream.stop().await;
        }
        let (mut sections, answers) = std::mem::take(&mut *self.state());
        let tally = observe::tally(&answers);
        if case.tally.is_none() {
            for upstream in upstreams.values() {
                sections.extend(observe::upstream(
                    upstream,
                    &self.normaliser,
                    case.unordered,
                ));
            }
            sections.extend(observe::log(log, case.unordered, &self.normaliser));
            let choice = StatChoice {
                more: case.stats.clone(),
                unsteady: case.unsteady_stats.clone(),
                moved: case.moved_stats.clone(),
                zeros: case.stat_names,
            };
            sections.push(Section::new("stats", choice.lines(stats, &self.normaliser)));
        }
        Side { sections, tally }
    }
}
