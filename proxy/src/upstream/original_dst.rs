//! The hosts of a cluster of type ORIGINAL_DST: made where connections and requests were meant
//! to go, shared by all workers, and dropped when nobody uses them. Follows Envoy's "Original
//! destination" pages.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use outrigger_config::ir::{ClusterConfig, DestinationHeader, DiscoveryConfig, OriginalDstConfig};
use outrigger_stats::{Counter, Scope};
use outrigger_types::{Address, MetadataValue, RequestHead, StreamInfo};
use parking_lot::RwLock;

use super::host::Host;

/// Most hosts of a cluster at a time: requests choose the addresses, and could make up any
/// number. Beyond them only those that are known can be reached.
const MOST: usize = 16_384;

/// See the module.
#[derive(Debug)]
pub struct Destinations {
    config: OriginalDstConfig,
    /// The name of the cluster, with which the names of its hosts begin.
    cluster: Arc<str>,
    /// `original_dst_host_invalid`
    invalid: Counter,
    hosts: RwLock<HashMap<SocketAddr, Known>>,
    /// Hosts made that the main thread has not counted yet.
    made: AtomicU64,
}

#[derive(Debug)]
struct Known {
    host: Arc<Host>,
    /// It was asked for since the last look for hosts that nobody uses.
    asked_for: AtomicBool,
}

impl Destinations {
    /// Without hosts; none for a cluster of another type.
    pub fn new(cluster: &ClusterConfig, scope: &Scope) -> Option<Self> {
        let DiscoveryConfig::OriginalDst(config) = &cluster.discovery else {
            return None;
        };
        Some(Self {
            config: config.clone(),
            cluster: cluster.name.clone(),
            invalid: scope.counter("original_dst_host_invalid"),
            hosts: RwLock::default(),
            made: AtomicU64::new(0),
        })
    }

    /// Where a stream is for: as its metadata says, as its request says, or where its
    /// connection was meant to go, whichever is there first. What is no address is passed over.
    pub fn of(&self, stream: &StreamInfo, request: Option<&RequestHead>) -> Option<SocketAddr> {
        let named = self.by_metadata(stream);
        let named = named.or_else(|| self.by_header(request?));
        let mut to = named.or_else(|| {
            let connection = &stream.connection;
            let restored = connection.local_restored.then_some(&connection.local);
            restored.and_then(Address::socket_addr)
        })?;
        if let Some(port) = self.config.port {
            to.set_port(port);
        }
        Some(to)
    }

    fn by_metadata(&self, stream: &StreamInfo) -> Option<SocketAddr> {
        let path = self.config.metadata.as_ref()?;
        let value = path.find(stream.metadata.as_deref()?)?;
        let value = match value {
            MetadataValue::List(items) => items.first()?,
            other => other,
        };
        match value {
            MetadataValue::String(text) => self.address(text.as_bytes()),
            _ => None,
        }
    }

    /// Only the first of several lines counts.
    fn by_header(&self, request: &RequestHead) -> Option<SocketAddr> {
        let value = match self.config.header.as_ref()? {
            DestinationHeader::Authority => Some(request.authority_bytes()),
            DestinationHeader::Field(name) => request.headers.get_bytes(name),
        };
        self.address(value?)
    }

    fn address(&self, text: &[u8]) -> Option<SocketAddr> {
        let parsed = std::str::from_utf8(text).ok().and_then(|t| t.parse().ok());
        if parsed.is_none() {
            self.invalid.inc();
        }
        parsed
    }

    /// The host at an address, made if there is none yet; none if there are too many.
    pub fn host(&self, at: SocketAddr) -> Option<Arc<Host>> {
        if let Some(known) = self.hosts.read().get(&at) {
            return Some(known.take());
        }
        let mut hosts = self.hosts.write();
        // Another worker may have been faster.
        if let Some(known) = hosts.get(&at) {
            return Some(known.take());
        }
        if hosts.len() >= MOST {
            tracing::debug!(target: "upstream", cluster = %self.cluster, %at, "too many destinations");
            return None;
        }
        let name = format!("{}{at}", self.cluster);
        let host = Arc::new(Host::at(at.into(), name.into()));
        let known = Known {
            host: host.clone(),
            asked_for: AtomicBool::new(true),
        };
        hosts.insert(at, known);
        self.made.fetch_add(1, Ordering::Relaxed);
        Some(host)
    }

    /// How many hosts were made since this was asked last.
    pub fn take_made(&self) -> u64 {
        self.made.swap(0, Ordering::Relaxed)
    }

    /// All hosts, the oldest first.
    pub fn hosts(&self) -> Vec<Arc<Host>> {
        let mut all: Vec<_> = self.hosts.read().values().map(|k| k.host.clone()).collect();
        all.sort_by_key(|host| host.created);
        all
    }

    /// Drops the hosts that were not asked for since the last time, and that no connection
    /// goes to; true if there were any.
    pub fn clean_up(&self) -> bool {
        let mut hosts = self.hosts.write();
        let before = hosts.len();
        hosts.retain(|_, known| {
            let asked_for = known.asked_for.swap(false, Ordering::Relaxed);
            asked_for || known.host.is_in_use()
        });
        hosts.len() < before
    }
}

impl Known {
    fn take(&self) -> Arc<Host> {
        self.asked_for.store(true, Ordering::Relaxed);
        self.host.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrigger_stats::Store;
    use std::time::Duration;

    fn destinations() -> Destinations {
        Destinations {
            config: OriginalDstConfig {
                metadata: None,
                header: None,
                port: None,
                cleanup_interval: Duration::from_secs(5),
            },
            cluster: "c".into(),
            invalid: Store::default().scope("").counter("invalid"),
            hosts: RwLock::default(),
            made: AtomicU64::new(0),
        }
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_one_host_named_after_cluster_and_address() {
        let all = destinations();
        let first = all.host(at("127.0.0.1:80")).unwrap();
        assert!(Arc::ptr_eq(&first, &all.host(at("127.0.0.1:80")).unwrap()));
        assert_eq!(&*first.hostname, "c127.0.0.1:80");
        let other = all.host(at("[::1]:80")).unwrap();
        assert_eq!(&*other.hostname, "c[::1]:80");
        assert_eq!((all.take_made(), all.take_made()), (2, 0));
    }

    #[test]
    fn a_host_outlives_one_clean_up_and_as_long_as_it_is_used() {
        let all = destinations();
        let host = all.host(at("127.0.0.1:80")).unwrap();
        assert!(!all.clean_up());
        host.stats.cx_active.store(1, Ordering::Relaxed);
        assert!(!all.clean_up());
        host.stats.cx_active.store(0, Ordering::Relaxed);
        host.stats.rq_pending.store(1, Ordering::Relaxed);
        assert!(!all.clean_up());
        host.stats.rq_pending.store(0, Ordering::Relaxed);
        assert!(all.clean_up());
        assert!(all.hosts().is_empty());
        let again = all.host(at("127.0.0.1:80")).unwrap();
        assert!(!Arc::ptr_eq(&host, &again));
    }

    #[test]
    fn there_are_only_so_many_hosts() {
        let all = destinations();
        let of = |n: u32| SocketAddr::from((n.to_be_bytes(), 80));
        for n in 0..u32::try_from(MOST).unwrap() {
            assert!(all.host(of(n)).is_some());
        }
        assert!(all.host(at("127.0.0.1:81")).is_none());
        assert!(all.host(of(7)).is_some());
    }
}
