//! DNS for clusters: names are looked up again and again, each cluster's in its
//! own rhythm, and the answers come back as messages.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts,
    ServerOrderingStrategy,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::read_system_conf;
use outrigger_config::ir::{BackOffConfig, DnsConfig, DnsLookupFamily, DnsResolverConfig};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// What became of a look-up.
#[derive(Debug)]
pub struct Resolved {
    /// The cluster that asked.
    pub cluster: Arc<str>,
    /// The name.
    pub host: Arc<str>,
    /// How far it is.
    pub progress: Progress,
}

/// How far a look-up is.
#[derive(Debug)]
pub enum Progress {
    /// It has begun.
    Started,
    /// Its addresses, in the order of the answer; none for a name without any.
    Answered(Vec<IpAddr>),
    /// There was no answer, for this reason.
    Failed(String),
}

/// Looks names up for clusters.
pub struct Resolver {
    answers: mpsc::UnboundedSender<Resolved>,
    watches: HashMap<Arc<str>, Vec<AbortHandle>>,
    /// Who is asked for clusters that do not say.
    default: Arc<DnsResolverConfig>,
}

impl Resolver {
    /// A resolver that answers into a channel.
    pub fn new(answers: mpsc::UnboundedSender<Resolved>) -> Self {
        Self {
            answers,
            watches: HashMap::new(),
            default: Arc::default(),
        }
    }

    /// Asks these for clusters that do not say whom to ask. The system's by default.
    #[must_use]
    pub fn asking(mut self, default: Arc<DnsResolverConfig>) -> Self {
        self.default = default;
        self
    }

    /// Looks the names of a cluster up from now on, in place of those before. `single` says
    /// that all addresses belong to one host, which there must be.
    pub fn watch(
        &mut self,
        cluster: &Arc<str>,
        names: &[Arc<str>],
        config: &DnsConfig,
        single: bool,
    ) {
        self.forget(cluster);
        let resolver = config.resolver.as_ref().unwrap_or(&self.default);
        let spawn = |name: &Arc<str>| {
            let watch = Watch {
                cluster: cluster.clone(),
                host: name.clone(),
                config: config.clone(),
                resolver: resolver.clone(),
                single,
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
    resolver: Arc<DnsResolverConfig>,
    single: bool,
    answers: mpsc::UnboundedSender<Resolved>,
    failures: u32,
}

impl Watch {
    async fn run(mut self) {
        loop {
            if !self.report(Progress::Started) {
                return;
            }
            let answer = lookup(&self.host, self.config.family, &self.resolver).await;
            let (progress, ttl) = match answer {
                Ok(answer) if self.single && answer.addresses.is_empty() => {
                    (Progress::Failed("no addresses".to_owned()), None)
                }
                Ok(answer) => (Progress::Answered(answer.addresses), answer.ttl),
                Err(error) => (Progress::Failed(error), None),
            };
            self.failures = match progress {
                Progress::Failed(_) => self.failures.saturating_add(1),
                Progress::Started | Progress::Answered(_) => 0,
            };
            if !self.report(progress) {
                return;
            }
            tokio::time::sleep(wait(&self.config, ttl, self.failures)).await;
        }
    }

    /// False if nobody listens any more.
    fn report(&self, progress: Progress) -> bool {
        let resolved = Resolved {
            cluster: self.cluster.clone(),
            host: self.host.clone(),
            progress,
        };
        self.answers.send(resolved).is_ok()
    }
}

/// Time until the next look-up, after so many failures in a row.
fn wait(config: &DnsConfig, ttl: Option<Duration>, failures: u32) -> Duration {
    if failures > 0 {
        return match &config.failure_refresh_rate {
            Some(back_off) => jittered(back_off, failures),
            None => config.refresh_rate,
        };
    }
    let base = match ttl {
        Some(ttl) if config.respect_ttl && !ttl.is_zero() => ttl.max(config.min_refresh_rate),
        _ => config.refresh_rate,
    };
    let jitter = u64::try_from(config.jitter.as_millis()).unwrap_or(u64::MAX);
    match jitter {
        0 => base,
        limit => base + Duration::from_millis(rand::random::<u64>() % limit),
    }
}

/// Any time below the base for the first failure, below twice as much for the next, and so on.
fn jittered(back_off: &BackOffConfig, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let ceiling = back_off
        .base
        .saturating_mul(1 << doublings)
        .min(back_off.max);
    ceiling
        .mul_f64(rand::random::<f64>())
        .max(Duration::from_millis(1))
}

/// Addresses of a name.
struct Answer {
    addresses: Vec<IpAddr>,
    /// How long they hold; none if that is not known.
    ttl: Option<Duration>,
}

/// Looks a name up, in the system's hosts file first. That there is no such name is an
/// answer too: no addresses, for no certain time.
async fn lookup(
    host: &str,
    family: DnsLookupFamily,
    config: &DnsResolverConfig,
) -> Result<Answer, String> {
    if let Ok(address) = host.parse() {
        return Ok(Answer {
            addresses: vec![address],
            ttl: None,
        });
    }
    let (servers, mut options) = sources(config)?;
    options.ip_strategy = match family {
        DnsLookupFamily::V4Only => LookupIpStrategy::Ipv4Only,
        DnsLookupFamily::V6Only => LookupIpStrategy::Ipv6Only,
        DnsLookupFamily::V4Preferred => LookupIpStrategy::Ipv4thenIpv6,
        DnsLookupFamily::Auto => LookupIpStrategy::Ipv6thenIpv4,
        DnsLookupFamily::All => LookupIpStrategy::Ipv4AndIpv6,
    };
    let provider = TokioRuntimeProvider::default();
    let mut builder = TokioResolver::builder_with_config(servers, provider);
    *builder.options_mut() = options;
    let resolver = builder.build().map_err(|e| e.to_string())?;
    let found = match resolver.lookup_ip(host).await {
        Ok(found) => found,
        Err(error) if error.is_no_records_found() => {
            return Ok(Answer {
                addresses: Vec::new(),
                ttl: None,
            });
        }
        Err(error) => return Err(error.to_string()),
    };
    let mut addresses = Vec::new();
    for address in found.iter() {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let shortest = found
        .as_lookup()
        .answers()
        .iter()
        .map(|record| record.ttl)
        .min();
    // What did not come from a name server holds for as long as can be written.
    let ttl = shortest.filter(|ttl| *ttl < hickory_resolver::MAX_TTL);
    Ok(Answer {
        addresses,
        ttl: ttl.map(|seconds| Duration::from_secs(seconds.into())),
    })
}

/// Who is asked, and how, by the system's configuration and what is said over it.
fn sources(config: &DnsResolverConfig) -> Result<(ResolverConfig, ResolverOpts), String> {
    let system = read_system_conf();
    let (system, mut options) = match system {
        Ok(found) => found,
        Err(_) if !config.servers.is_empty() => Default::default(),
        Err(error) => return Err(error.to_string()),
    };
    let (domain, search, mut servers) = system.into_parts();
    if !(config.servers.is_empty() || config.fallback && !servers.is_empty()) {
        servers = config.servers.iter().map(|at| name_server(*at)).collect();
    }
    if config.tcp {
        for server in &mut servers {
            server
                .connections
                .retain(|connection| connection.protocol == tcp().protocol);
        }
    }
    let (domain, search) = match config.search {
        true => (domain, search),
        false => (None, Vec::new()),
    };
    options.timeout = config.timeout;
    options.attempts = config.tries.saturating_sub(1) as usize;
    options.num_concurrent_reqs = 1;
    options.server_ordering_strategy = match config.rotate {
        true => ServerOrderingStrategy::RoundRobin,
        false => ServerOrderingStrategy::UserProvidedOrder,
    };
    if let Some(length) = config.edns_payload {
        options.edns0 = true;
        options.edns_payload_len = length;
    }
    Ok((ResolverConfig::from_parts(domain, search, servers), options))
}

/// A name server that is asked over UDP, and over TCP for long answers.
fn name_server(address: std::net::SocketAddr) -> NameServerConfig {
    let at = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let connections = vec![at(ConnectionConfig::udp()), at(tcp())];
    NameServerConfig::new(address.ip(), true, connections)
}

fn tcp() -> ConnectionConfig {
    ConnectionConfig::tcp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> DnsConfig {
        DnsConfig {
            refresh_rate: Duration::from_secs(5),
            failure_refresh_rate: None,
            respect_ttl: true,
            min_refresh_rate: Duration::ZERO,
            jitter: Duration::ZERO,
            family: DnsLookupFamily::Auto,
            resolver: None,
            waits: true,
        }
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn an_answer_holds_for_its_ttl_where_that_is_respected() {
        assert_eq!(wait(&config(), Some(secs(9)), 0), secs(9));
        assert_eq!(wait(&config(), Some(Duration::ZERO), 0), secs(5));
        assert_eq!(wait(&config(), None, 0), secs(5));
        let mut own_rate = config();
        own_rate.respect_ttl = false;
        assert_eq!(wait(&own_rate, Some(secs(9)), 0), secs(5));
    }

    #[test]
    fn a_short_ttl_is_kept_to_the_least_rate() {
        let mut floor = config();
        floor.min_refresh_rate = secs(3);
        assert_eq!(wait(&floor, Some(secs(1)), 0), secs(3));
        assert_eq!(wait(&floor, Some(secs(4)), 0), secs(4));
    }

    #[test]
    fn jitter_comes_on_top_of_a_success_only() {
        let mut jittery = config();
        jittery.jitter = secs(2);
        for _ in 0..100 {
            let after = wait(&jittery, None, 0);
            assert!(after >= secs(5) && after < secs(7), "{after:?}");
            assert_eq!(wait(&jittery, None, 1), secs(5));
        }
    }

    #[test]
    fn failures_back_off_below_ever_more() {
        let back_off = BackOffConfig {
            base: secs(1),
            max: secs(4),
        };
        for _ in 0..100 {
            assert!(jittered(&back_off, 1) <= secs(1));
            assert!(jittered(&back_off, 2) <= secs(2));
            assert!(jittered(&back_off, 60) <= secs(4));
        }
    }

    #[test]
    fn named_servers_take_the_place_of_the_system_s() {
        let named = DnsResolverConfig {
            servers: vec![([127, 0, 0, 9], 5353).into()],
            search: false,
            tcp: true,
            tries: 1,
            ..DnsResolverConfig::default()
        };
        let (config, options) = sources(&named).expect("sources");
        let [server] = config.name_servers() else {
            panic!("one server: {:?}", config.name_servers());
        };
        assert_eq!(server.ip, IpAddr::from([127, 0, 0, 9]));
        let ports: Vec<u16> = server.connections.iter().map(|c| c.port).collect();
        assert_eq!((ports, options.attempts), (vec![5353], 0));
        assert!(config.search().is_empty());
    }
}
