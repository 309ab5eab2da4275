//! The live table: a method a row, a cluster a row, the state of xDS, and the proxy's cost.

use std::fmt::Write;
use std::time::Duration;

use tonic::Code;

use crate::admin::Stats;
use crate::control_plane::Progress;
use crate::greeter::Method;
use crate::proxy::Cost;
use crate::resources::{V1, V2, served_types, short_name};
use crate::tally::{Seen, Totals};

/// The service's name in the stats.
pub const SERVICE: &str = "demo.Greeter";

/// Everything the table shows, at one moment.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Since the client began.
    pub elapsed: Duration,
    /// What the story does now.
    pub step: String,
    /// One line about the proxy: name, process, addresses.
    pub proxy: String,
    /// What the proxy's admin says.
    pub stats: Stats,
    /// What the client has seen.
    pub totals: Totals,
    /// What the control plane has pushed.
    pub progress: Progress,
    /// What the proxy has cost since the client began, and its memory now.
    pub cost: Cost,
}

impl View {
    /// Calls that the proxy has carried to an end, over all methods and clusters.
    pub fn calls(&self) -> u64 {
        self.stats.calls(V1, SERVICE) + self.stats.calls(V2, SERVICE)
    }

    /// CPU time of the proxy for each call; none before the first.
    pub fn cpu_per_call(&self) -> Option<Duration> {
        let calls = u32::try_from(self.calls()).ok().filter(|c| *c > 0)?;
        Some(self.cost.cpu / calls)
    }

    /// The part of the calls that went to version 1, 0 to 1.
    pub fn share_of_v1(&self) -> f64 {
        self.stats.calls(V1, SERVICE) as f64 / (self.calls().max(1)) as f64
    }
}

/// Draws the table, one string a line.
pub fn draw(view: &View) -> Vec<String> {
    let mut lines = vec![
        format!("{:>5.1} s  {}", view.elapsed.as_secs_f64(), view.step),
        cost_line(view),
        String::new(),
    ];
    lines.push(format!(
        "{:<14}{:>8}  {:<26}{:>9}{:>10}{:>10}",
        "method", "calls", "status", "retries", "p50", "p99"
    ));
    lines.extend(Method::ALL.iter().map(|method| method_line(view, *method)));
    lines.push(String::new());
    lines.push(format!(
        "{:<14}{:>8}{:>8}{:>9}{:>7}  {:<9}{:>10}{:>10}",
        "cluster", "calls", "share", "retries", "hosts", "breaker", "free", "refused"
    ));
    lines.extend([V1, V2].map(|cluster| cluster_line(view, cluster)));
    lines.push(String::new());
    lines.push(xds_line(view));
    lines
}

fn cost_line(view: &View) -> String {
    let cpu = view
        .cpu_per_call()
        .map_or("-".to_owned(), |d| format!("{} µs", d.as_micros()));
    format!(
        "{}  CPU per call {cpu}  memory {}",
        view.proxy,
        megabytes(view.cost.rss)
    )
}

fn method_line(view: &View, method: Method) -> String {
    let statuses = view.stats.statuses(SERVICE, method.name());
    let calls: u64 = statuses.values().sum();
    let mut text = String::new();
    for (code, count) in &statuses {
        let code = Code::from_i32(i32::try_from(*code).unwrap_or(i32::MAX));
        write!(text, "{code:?} {count}  ").unwrap_or_default();
    }
    let seen = view
        .totals
        .methods
        .get(&method)
        .cloned()
        .unwrap_or_else(Seen::default);
    let percentile = |part| {
        seen.durations
            .percentile(part)
            .map_or("-".to_owned(), milliseconds)
    };
    format!(
        "{:<14}{calls:>8}  {:<26}{:>9}{:>10}{:>10}",
        method.name(),
        text.trim_end(),
        seen.retries,
        percentile(0.5),
        percentile(0.99)
    )
}

fn cluster_line(view: &View, cluster: &str) -> String {
    let stat = |name: &str| view.stats.cluster(cluster, name);
    let calls = view.stats.calls(cluster, SERVICE);
    let share = 100.0 * calls as f64 / view.calls().max(1) as f64;
    let breaker = if stat("circuit_breakers.default.rq_open") > 0 {
        "OPEN"
    } else {
        "closed"
    };
    format!(
        "{cluster:<14}{calls:>8}{share:>6.1} %{:>9}{:>7}  {breaker:<9}{:>10}{:>10}",
        stat("upstream_rq_retry"),
        stat("membership_total"),
        stat("circuit_breakers.default.remaining_rq"),
        stat("upstream_rq_pending_overflow") + stat("upstream_rq_active_overflow"),
    )
}

fn xds_line(view: &View) -> String {
    let of_type = |url: &String| {
        let progress = view.progress.types.get(url).cloned().unwrap_or_default();
        let state = if progress.acked == progress.pushed {
            "acked"
        } else {
            "waiting"
        };
        format!("{} v{} {state}", short_name(url), progress.pushed)
    };
    let types = served_types()
        .iter()
        .map(of_type)
        .collect::<Vec<_>>()
        .join("   ");
    let connected = if view.stats.get("control_plane.connected_state") > 0 {
        "connected"
    } else {
        "not connected"
    };
    format!(
        "xDS  {types}   NACKs {}   {connected}",
        view.progress.nacks.len()
    )
}

/// Memory in megabytes.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// A duration in milliseconds.
pub fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::tally::{Outcome, Tally};

    pub(crate) fn view() -> View {
        let stats = Stats::parse(
            "cluster.greeter-v1.grpc.demo.Greeter.SayHello.0: 90\n\
             cluster.greeter-v1.grpc.demo.Greeter.SayHello.total: 90\n\
             cluster.greeter-v2.grpc.demo.Greeter.SayHello.0: 8\n\
             cluster.greeter-v2.grpc.demo.Greeter.SayHello.14: 2\n\
             cluster.greeter-v2.grpc.demo.Greeter.SayHello.total: 10\n\
             cluster.greeter-v2.circuit_breakers.default.rq_open: 1\n\
             cluster.greeter-v1.circuit_breakers.default.remaining_rq: 1000\n\
             cluster.greeter-v2.upstream_rq_pending_overflow: 1\n\
             cluster.greeter-v2.upstream_rq_active_overflow: 1\n\
             cluster.greeter-v1.upstream_rq_retry: 17\n\
             cluster.greeter-v1.membership_total: 2\n\
             control_plane.connected_state: 1\n",
        );
        let tally = Tally::default();
        for millis in 1..=98 {
            tally.record(
                Method::SayHello,
                Outcome::Answered,
                u64::from(millis < 18),
                Duration::from_millis(millis),
            );
        }
        View {
            elapsed: Duration::from_millis(12_340),
            step: "steady".to_owned(),
            proxy: "outrigger, process 7".to_owned(),
            stats,
            totals: tally.totals(),
            cost: Cost {
                cpu: Duration::from_millis(5),
                rss: 12_000_000,
            },
            ..View::default()
        }
    }

    #[test]
    fn shows_a_method_a_row_and_a_cluster_a_row() {
        let lines = draw(&view());
        assert!(
            lines[1].contains("CPU per call 50 µs  memory 12.0 MB"),
            "{}",
            lines[1]
        );
        let row = |name: &str| {
            lines
                .iter()
                .find(|l| l.starts_with(name))
                .unwrap()
                .split_whitespace()
                .collect::<Vec<_>>()
        };
        assert_eq!(
            row("SayHello")[..7],
            ["SayHello", "100", "Ok", "98", "Unavailable", "2", "17"]
        );
        assert_eq!(row("SayGoodbye"), ["SayGoodbye", "0", "0", "-", "-"]);
        assert_eq!(
            row("greeter-v1"),
            [
                "greeter-v1",
                "90",
                "90.0",
                "%",
                "17",
                "2",
                "closed",
                "1000",
                "0"
            ]
        );
        assert_eq!(
            row("greeter-v2"),
            ["greeter-v2", "10", "10.0", "%", "0", "0", "OPEN", "0", "2"]
        );
    }

    #[test]
    fn the_columns_stand_under_their_heads() {
        let lines = draw(&view());
        let widths = |i: usize| lines[i].chars().count();
        assert_eq!(widths(3), widths(4));
        assert_eq!(widths(8), widths(9));
    }

    #[test]
    fn nothing_measured_is_not_a_division_by_nothing() {
        let empty = View::default();
        assert_eq!(empty.cpu_per_call(), None);
        assert_eq!(empty.share_of_v1(), 0.0);
        assert!(draw(&empty)[1].contains("CPU per call -"));
    }
}
