//! The sequence of steps, from the first call to the summary.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use crate::admin::{self, Stats, prometheus_sum};
use crate::args::Args;
use crate::backend::{Backend, Behaviour};
use crate::client::{SteadyClient, burst};
use crate::control_plane::ControlPlane;
use crate::proxy::{self, Cost, Proxy};
use crate::resources::{Mesh, V1, V2, V2_MAX_REQUESTS, short_name};
use crate::screen::Screen;
use crate::summary::{Breaker, Findings, Kill, Shift};
use crate::table::{View, draw, milliseconds};

/// Between two looks at the proxy.
const REFRESH: Duration = Duration::from_millis(500);
/// A push that is not acknowledged by then has failed.
const ACK_LIMIT: Duration = Duration::from_secs(5);
/// Calls of the burst: three times what the breaker lets through.
const BURST: usize = 3 * V2_MAX_REQUESTS as usize;
/// How long each of them keeps the backend busy.
const BURST_LINGER: Duration = Duration::from_millis(800);
/// How long the control plane takes to see that a backend is dead.
const NOTICE: Duration = Duration::from_millis(1_000);
/// Calls in flight when the weights change end within this time.
const SETTLE: Duration = Duration::from_millis(200);
/// Whether a breaker has closed is asked for so long.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);
/// The parts of the time at which weights, breaker and kill begin.
const PLAN: [f64; 3] = [0.30, 0.52, 0.72];

/// Everything that runs. All of it ends when this is dropped.
#[derive(Debug)]
pub struct Stage {
    faulty: Backend,
    sound: Backend,
    slow: Backend,
    control_plane: ControlPlane,
    proxy: Proxy,
    client: SteadyClient,
    screen: Screen,
    began: Instant,
    /// What the proxy had cost before the first call.
    cost_before: Cost,
    about_proxy: String,
    step: String,
}

impl Stage {
    /// Starts everything, the client last.
    pub async fn set(args: &Args) -> Result<Self, String> {
        let binary = proxy::find(args.proxy.as_deref()).await?;
        let start = |behaviour| Backend::start(behaviour).map_err(|e| format!("a backend: {e}"));
        let (faulty, sound, slow) = (
            start(Behaviour::faulty())?,
            start(Behaviour::sound())?,
            start(Behaviour::slow())?,
        );
        let [admin, listener] = proxy::free_ports().map_err(|e| e.to_string())?;
        let mesh = Mesh {
            listener,
            weights: (90, 10),
            v1: vec![faulty.address, sound.address],
            v2: vec![slow.address],
        };
        let control_plane = ControlPlane::start(mesh)
            .await
            .map_err(|e| format!("the control plane: {e}"))?;
        let mut proxy = Proxy::start(&binary, control_plane.address, admin, listener)?;
        let ready = proxy.wait_until_ready().await;
        ready.map_err(|e| format!("{e}\n{}", control_plane.progress().nacks.join("\n")))?;
        let client = SteadyClient::start(proxy.listener, args.rate)?;
        let stage = Self {
            screen: Screen::new(args.plain),
            began: Instant::now(),
            cost_before: proxy.cost(),
            about_proxy: format!("{}, process {}", proxy.name, proxy.pid()),
            step: "steady, weights 90/10".to_owned(),
            faulty,
            sound,
            slow,
            control_plane,
            proxy,
            client,
        };
        Ok(stage)
    }

    /// Says where everything is.
    pub fn introduce(&mut self) {
        let Proxy {
            admin, listener, ..
        } = self.proxy;
        let lines = [
            format!("control plane  {} (delta ADS)", self.control_plane.address),
            format!("v1-a           {} (20 % unavailable)", self.faulty.address),
            format!("v1-b           {}", self.sound.address),
            format!("v2             {} (slow)", self.slow.address),
            format!("proxy          {listener} ({})", self.about_proxy),
            format!("admin          http://{admin}/"),
            format!("metrics        http://{admin}/stats/prometheus"),
            String::new(),
        ];
        lines.iter().for_each(|line| self.screen.event(line));
    }

    /// Plays all steps within the given time, and says what was found.
    pub async fn play(&mut self, duration: Duration) -> Result<Findings, String> {
        let [shift_at, breaker_at, kill_at] = PLAN.map(|part| duration.mul_f64(part));
        let mut findings = Findings::default();
        self.watch_until(shift_at).await?;
        findings.shift.before = self.view().await?.share_of_v1();
        let after_shift = self.shift(&mut findings.shift).await?;
        self.watch_until(breaker_at).await?;
        findings.shift.after = share_since(&after_shift, &self.view().await?);
        findings.breaker = self.trip().await?;
        self.watch_until(kill_at).await?;
        findings.kill = self.kill().await?;
        self.watch_until(duration).await?;
        let counters = &self.faulty.counters;
        findings.faulty = (
            counters.calls.load(Ordering::Relaxed),
            counters.failed.load(Ordering::Relaxed),
        );
        let metrics = admin::get(self.proxy.admin, "/stats/prometheus").await?;
        findings.debug_build = self.proxy.debug_build;
        findings.labelled_requests = prometheus_sum(&metrics, "outrigger_grpc_requests_total");
        findings.view = self.view().await?;
        self.screen.last_table(&draw(&findings.view));
        Ok(findings)
    }

    /// Keeps everything running and shown, for ever.
    pub async fn keep(&mut self) -> Result<(), String> {
        self.step = "kept running until Ctrl-C".to_owned();
        loop {
            self.show().await?;
            sleep(REFRESH).await;
        }
    }

    /// Prints a line that stays.
    pub fn say(&mut self, line: &str) {
        self.screen.event(line);
    }

    /// What there is to see now.
    async fn view(&mut self) -> Result<View, String> {
        self.proxy.check()?;
        let stats = Stats::fetch(self.proxy.admin).await?;
        let now = self.proxy.cost();
        Ok(View {
            elapsed: self.began.elapsed(),
            step: self.step.clone(),
            proxy: self.about_proxy.clone(),
            stats,
            totals: self.client.tally.totals(),
            progress: self.control_plane.progress(),
            cost: Cost {
                cpu: now.cpu.saturating_sub(self.cost_before.cpu),
                rss: now.rss,
            },
        })
    }

    async fn show(&mut self) -> Result<View, String> {
        let view = self.view().await?;
        self.screen.table(&draw(&view));
        Ok(view)
    }

    /// Shows the table until so long after the first call.
    async fn watch_until(&mut self, at: Duration) -> Result<(), String> {
        while self.began.elapsed() < at {
            self.show().await?;
            let left = at.saturating_sub(self.began.elapsed());
            sleep(left.min(REFRESH)).await;
        }
        self.show().await.map(|_| ())
    }

    /// A step begins.
    fn begin(&mut self, step: &str) {
        self.step = step.to_owned();
        let line = format!("{:>5.1} s  {step}", self.began.elapsed().as_secs_f64());
        self.screen.event(&line);
    }

    /// Shifts the weights, and gives the view from which the new share counts.
    async fn shift(&mut self, found: &mut Shift) -> Result<View, String> {
        self.begin("weights shifted to 50/50 over RDS");
        found.acked = self
            .push("RouteConfiguration", |mesh| mesh.weights = (50, 50))
            .await?;
        sleep(SETTLE).await;
        self.view().await
    }

    /// Changes the mesh and waits for the acknowledgement of the type that changes with it.
    async fn push(
        &mut self,
        type_name: &str,
        change: impl FnOnce(&mut Mesh),
    ) -> Result<Duration, String> {
        let of_type = |control_plane: &ControlPlane| {
            let types = control_plane.progress().types;
            types
                .into_iter()
                .find(|(url, _)| url.ends_with(type_name))
                .map(|(_, t)| t)
                .unwrap_or_default()
        };
        let before = of_type(&self.control_plane);
        self.control_plane.change(change);
        let control_plane = &self.control_plane;
        let acked = timeout(ACK_LIMIT, async {
            loop {
                let now = of_type(control_plane);
                if now.pushed > before.pushed && now.acked == now.pushed {
                    return now.took;
                }
                sleep(Duration::from_millis(1)).await;
            }
        });
        let took = acked.await.map_err(|_| {
            let nacks = self.control_plane.progress().nacks.join("; ");
            format!(
                "{} was not acknowledged within {ACK_LIMIT:?}; refused: {nacks}",
                short_name(type_name)
            )
        })?;
        self.screen.event(&format!(
            "         acknowledged after {}",
            milliseconds(took)
        ));
        Ok(took)
    }

    /// Trips version 2's breaker by a burst, and watches it open and close.
    async fn trip(&mut self) -> Result<Breaker, String> {
        self.begin(&format!(
            "a burst of {BURST} calls on version 2, whose breaker is {V2_MAX_REQUESTS}"
        ));
        let calls = tokio::spawn(burst(self.proxy.listener, BURST, BURST_LINGER));
        let mut seen_open = false;
        while !calls.is_finished() {
            let view = self.show().await?;
            if !seen_open && view.stats.cluster(V2, "circuit_breakers.default.rq_open") > 0 {
                seen_open = true;
                self.screen.table_now(&draw(&view));
            }
            sleep(Duration::from_millis(50)).await;
        }
        let burst = calls.await.map_err(|e| e.to_string())??;
        let seen_closed = self.closes().await?;
        self.step = "steady, weights 50/50".to_owned();
        Ok(Breaker {
            burst,
            seen_open,
            seen_closed,
        })
    }

    async fn closes(&mut self) -> Result<bool, String> {
        let begin = Instant::now();
        while begin.elapsed() < CLOSE_LIMIT {
            if self
                .view()
                .await?
                .stats
                .cluster(V2, "circuit_breakers.default.rq_open")
                == 0
            {
                return Ok(true);
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(false)
    }

    /// Kills the faulty backend; a second later the control plane takes it out.
    async fn kill(&mut self) -> Result<Kill, String> {
        let name = self.faulty.behaviour.name;
        let before = self.view().await?;
        self.begin(&format!("backend {name} killed"));
        self.faulty.kill();
        let noticed = self.began.elapsed() + NOTICE;
        self.watch_until(noticed).await?;
        self.begin(&format!("backend {name} taken out over EDS"));
        let dead = self.faulty.address;
        let acked = self
            .push("ClusterLoadAssignment", |mesh| {
                mesh.v1.retain(|a| *a != dead)
            })
            .await?;
        let after = self.view().await?;
        let grown = |name: &str| {
            after
                .stats
                .cluster(V1, name)
                .saturating_sub(before.stats.cluster(V1, name))
        };
        self.step = format!("steady, weights 50/50, without {name}");
        Ok(Kill {
            name,
            failed_attempts: grown("upstream_cx_connect_fail") + grown("upstream_rq_rx_reset"),
            retries: grown("upstream_rq_retry"),
            lost: after.totals.sum(|s| s.lost) - before.totals.sum(|s| s.lost),
            acked,
        })
    }
}

/// The part of the calls between two views that went to version 1.
fn share_since(from: &View, to: &View) -> f64 {
    use crate::table::SERVICE;
    let v1 = to
        .stats
        .calls(V1, SERVICE)
        .saturating_sub(from.stats.calls(V1, SERVICE));
    let all = to.calls().saturating_sub(from.calls());
    v1 as f64 / all.max(1) as f64
}
