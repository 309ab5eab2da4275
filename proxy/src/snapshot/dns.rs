//! DNS for clusters: names are looked up again and again, each cluster's in its
//! own rhythm, and the answers come back as messages.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use outrigger_config::ir::{BackOffConfig, DnsConfig, DnsLookupFamily};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// An answer.
#[derive(Debug)]
pub struct Resolved {
    /// The cluster that asked.
    pub cluster: Arc<str>,
    /// The name.
    pub host: Arc<str>,
    /// Its addresses; none for a name without any.
    pub addresses: Result<Vec<IpAddr>, String>,
}

/// Looks names up for clusters.
pub struct Resolver {
    answers: mpsc::UnboundedSender<Resolved>,
    watches: HashMap<Arc<str>, Vec<AbortHandle>>,
}

impl Resolver {
    /// A resolver that answers into a channel.
    pub fn new(answers: mpsc::UnboundedSender<Resolved>) -> Self {
        Self {
            answers,
            watches: HashMap::new(),
        }
    }

    /// Looks the names of a cluster up from now on, in place of those before.
    pub fn watch(&mut self, cluster: &Arc<str>, names: &[Arc<str>], config: &DnsConfig) {
        self.forget(cluster);
        let spawn = |name: &Arc<str>| {
            let watch = Watch {
                cluster: cluster.clone(),
                host: name.clone(),
                config: config.clone(),
                answers: self.answers.clone(),
                failures: 0,
            };
            tokio::spawn(watch.run()).abort_handle()
        };
        let handles = names.iter().map(spawn).collect();
        self.watches.insert(cluster.clone(), handles);
    }

    /// Stops looking the names of a cluster up.
    pub fn forget(&mut self, cluster: &str) {
        for handle in self.watches.remove(cluster).unwrap_or_default() {
            handle.abort();
        }
    }
}

/// One name of one cluster.
struct Watch {
    cluster: Arc<str>,
    host: Arc<str>,
    config: DnsConfig,
    answers: mpsc::UnboundedSender<Resolved>,
    failures: u32,
}

impl Watch {
    async fn run(mut self) {
        loop {
            let (addresses, ttl) = match lookup(&self.host, self.config.family).await {
                Ok((addresses, ttl)) => (Ok(addresses), ttl),
                Err(error) => (Err(error), None),
            };
            self.failures = if addresses.is_ok() {
                0
            } else {
                self.failures.saturating_add(1)
            };
            let wait = self.wait(ttl);
            let answer = Resolved {
                cluster: self.cluster.clone(),
                host: self.host.clone(),
                addresses,
            };
            if self.answers.send(answer).is_err() {
                return;
            }
            tokio::time::sleep(wait).await;
        }
    }

    fn wait(&self, ttl: Option<Duration>) -> Duration {
        let base = match (ttl, &self.config.failure_refresh_rate) {
            (Some(ttl), _) if self.config.respect_ttl => ttl.max(Duration::from_secs(1)),
            (None, Some(back_off)) if self.failures > 0 => jittered(back_off, self.failures),
            _ => self.config.refresh_rate,
        };
        let jitter = u64::try_from(self.config.jitter.as_millis()).unwrap_or(u64::MAX);
        if jitter == 0 {
            base
        } else {
            base + Duration::from_millis(rand::random::<u64>() % jitter)
        }
    }
}

fn jittered(back_off: &BackOffConfig, failures: u32) -> Duration {
    let ceiling = back_off
        .base
        .saturating_mul(1 << failures.min(16))
        .min(back_off.max);
    ceiling
        .mul_f64(rand::random::<f64>())
        .max(Duration::from_millis(1))
}

/// Looks a name up by the system's configuration (its hosts file first). That there is
/// no such name is an answer too: no addresses, for no certain time.
async fn lookup(
    host: &str,
    family: DnsLookupFamily,
) -> Result<(Vec<IpAddr>, Option<Duration>), String> {
    let mut builder = TokioResolver::builder_tokio().map_err(|e| e.to_string())?;
    builder.options_mut().ip_strategy = match family {
        DnsLookupFamily::V4Only => LookupIpStrategy::Ipv4Only,
        DnsLookupFamily::V6Only => LookupIpStrategy::Ipv6Only,
        DnsLookupFamily::V4Preferred => LookupIpStrategy::Ipv4thenIpv6,
        DnsLookupFamily::Auto => LookupIpStrategy::Ipv6thenIpv4,
        DnsLookupFamily::All => LookupIpStrategy::Ipv4AndIpv6,
    };
    let resolver = builder.build().map_err(|e| e.to_string())?;
    let answer = match resolver.lookup_ip(host).await {
        Ok(answer) => answer,
        Err(error) if error.is_no_records_found() => return Ok((Vec::new(), None)),
        Err(error) => return Err(error.to_string()),
    };
    let ttl = answer
        .valid_until()
        .saturating_duration_since(std::time::Instant::now());
    let mut addresses: Vec<IpAddr> = answer.iter().collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok((addresses, Some(ttl)))
}
