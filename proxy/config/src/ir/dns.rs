//! Resolving names (`Cluster`'s DNS fields, `DnsCluster`, `CaresDnsResolverConfig`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::BackOffConfig;

/// How the names of a cluster are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsConfig {
    /// Time between look-ups. Default 5 s.
    pub refresh_rate: Duration,
    /// Back-off after a failed look-up; none for the refresh rate.
    pub failure_refresh_rate: Option<BackOffConfig>,
    /// Use the answer's TTL instead of the refresh rate.
    pub respect_ttl: bool,
    /// The shortest time between look-ups that a TTL may bring about; zero for any.
    pub min_refresh_rate: Duration,
    /// Random addition to the time until the next look-up after one that succeeded, exclusive.
    pub jitter: Duration,
    /// Which addresses are wanted.
    pub family: DnsLookupFamily,
    /// Who is asked; none for whom the bootstrap names.
    pub resolver: Option<Arc<DnsResolverConfig>>,
    /// The cluster serves nobody before the first answers. True by default.
    pub waits: bool,
}

/// `DnsLookupFamily`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DnsLookupFamily {
    /// AUTO: IPv6, and IPv4 if there is none.
    #[default]
    Auto,
    /// V4_ONLY
    V4Only,
    /// V6_ONLY
    V6Only,
    /// V4_PREFERRED: IPv4, and IPv6 if there is none.
    V4Preferred,
    /// ALL
    All,
}

/// Who is asked for addresses, and how (`CaresDnsResolverConfig`). The system's hosts file
/// is looked at first in any case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsResolverConfig {
    /// Name servers, in order; none for the system's.
    pub servers: Vec<SocketAddr>,
    /// Ask `servers` only if the system names none.
    pub fallback: bool,
    /// Ask over TCP alone.
    pub tcp: bool,
    /// Try names with the system's search domains too. True by default.
    pub search: bool,
    /// How long a name server has to answer. Default 5 s.
    pub timeout: Duration,
    /// How often a question is asked at most, from 1. Default 4.
    pub tries: u32,
    /// Begin with another name server each time.
    pub rotate: bool,
    /// Longest answer that is asked for over UDP, bytes; none for the resolver's choice.
    pub edns_payload: Option<u16>,
}

impl Default for DnsResolverConfig {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            fallback: false,
            tcp: false,
            search: true,
            timeout: Duration::from_secs(5),
            tries: 4,
            rotate: false,
            edns_payload: None,
        }
    }
}
