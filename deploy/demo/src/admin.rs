//! Reads the proxy's admin pages: the text of `/stats`, and `/stats/prometheus`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A page that takes longer has failed.
const PAGE_LIMIT: Duration = Duration::from_secs(3);
/// A page is not larger.
const PAGE_SIZE: usize = 8 << 20;

/// Fetches a page. An error names the page.
pub async fn get(admin: SocketAddr, path: &str) -> Result<String, String> {
    match timeout(PAGE_LIMIT, fetch(admin, path)).await {
        Ok(result) => result.map_err(|e| format!("{path}: {e}")),
        Err(_) => Err(format!("{path}: no answer within {PAGE_LIMIT:?}")),
    }
}

async fn fetch(
    admin: SocketAddr,
    path: &str,
) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let socket = TcpStream::connect(admin).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    // Its end is seen by the request.
    let connection = tokio::spawn(connection);
    let request = Request::get(path)
        .header("host", admin.to_string())
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), PAGE_SIZE)
        .collect()
        .await?
        .to_bytes();
    connection.abort();
    let text = String::from_utf8_lossy(&body).into_owned();
    if status == StatusCode::OK {
        Ok(text)
    } else {
        Err(format!("{status}: {}", text.trim()).into())
    }
}

/// Counters and gauges of `/stats`, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats(BTreeMap<String, u64>);

impl Stats {
    /// Reads all counters and gauges that have been used.
    pub async fn fetch(admin: SocketAddr) -> Result<Self, String> {
        Ok(Self::parse(&get(admin, "/stats?usedonly").await?))
    }

    /// Reads the text form; lines of histograms and text are left out.
    pub fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (name, value) = line.rsplit_once(": ")?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        };
        Self(text.lines().filter_map(line).collect())
    }

    /// A value; 0 if it is not there, for a stat appears with its first use.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// A value of a cluster.
    pub fn cluster(&self, cluster: &str, name: &str) -> u64 {
        self.get(&format!("cluster.{cluster}.{name}"))
    }

    /// Calls of a method by gRPC status, over all clusters, as grpc_stats counts them.
    pub fn statuses(&self, service: &str, method: &str) -> BTreeMap<u64, u64> {
        let mut statuses = BTreeMap::new();
        let middle = format!(".grpc.{service}.{method}.");
        for (name, value) in self
            .0
            .iter()
            .filter(|(name, _)| name.starts_with("cluster."))
        {
            let code = name
                .split_once(middle.as_str())
                .and_then(|(_, leaf)| leaf.parse().ok());
            if let Some(code) = code {
                *statuses.entry(code).or_insert(0) += value;
            }
        }
        statuses
    }

    /// Calls of a cluster, over all methods of a service, as grpc_stats counts them.
    pub fn calls(&self, cluster: &str, service: &str) -> u64 {
        let prefix = format!("cluster.{cluster}.grpc.{service}.");
        let total = |(name, value): (&String, &u64)| {
            let leaf = name.strip_prefix(&prefix)?;
            leaf.ends_with(".total").then_some(*value)
        };
        self.0.iter().filter_map(total).sum()
    }
}

/// The sum of all samples of a metric in the text of `/stats/prometheus`; none if it is not there.
pub fn prometheus_sum(text: &str, metric: &str) -> Option<f64> {
    let sample = |line: &str| {
        let rest = line.strip_prefix(metric)?;
        let value = match rest.strip_prefix('{') {
            Some(labels) => labels.rsplit_once('}')?.1,
            None => rest.strip_prefix(' ')?,
        };
        value.split_whitespace().next()?.parse::<f64>().ok()
    };
    let samples: Vec<f64> = text.lines().filter_map(sample).collect();
    (!samples.is_empty()).then(|| samples.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
cluster.greeter-v1.grpc.demo.Greeter.SayHello.0: 90
cluster.greeter-v1.grpc.demo.Greeter.SayHello.14: 2
cluster.greeter-v1.grpc.demo.Greeter.SayHello.total: 92
cluster.greeter-v1.grpc.demo.Greeter.StreamHellos.total: 8
cluster.greeter-v2.grpc.demo.Greeter.SayHello.0: 10
cluster.greeter-v1.upstream_rq_time: P0(nan,1.0) P25(nan,1.025)
control_plane.identifier: \"demo: 7\"
";

    #[test]
    fn sums_methods_over_clusters_and_clusters_over_methods() {
        let stats = Stats::parse(TEXT);
        assert_eq!(
            stats.statuses("demo.Greeter", "SayHello"),
            BTreeMap::from([(0, 100), (14, 2)])
        );
        assert_eq!(stats.calls("greeter-v1", "demo.Greeter"), 100);
        assert_eq!(stats.cluster("greeter-v1", "upstream_rq_time"), 0);
    }

    #[test]
    fn sums_the_samples_of_one_metric() {
        let text = "# TYPE a counter\na{x=\"}\"} 2\na{x=\"2\"} 3\nab 9\n";
        assert_eq!(prometheus_sum(text, "a"), Some(5.0));
        assert_eq!(prometheus_sum(text, "ab"), Some(9.0));
        assert_eq!(prometheus_sum(text, "b"), None);
    }
}
