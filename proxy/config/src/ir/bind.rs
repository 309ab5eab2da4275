//! Where upstream sockets are bound, and their options (`BindConfig`).

use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_types::Address;

/// The local end of upstream sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindConfig {
    /// Local addresses, at most one of each family. The first is for families that have none.
    pub sources: Vec<SourceAddress>,
    /// Bind to addresses that the machine has not (`IP_FREEBIND`); none leaves the bootstrap's.
    pub freebind: Option<bool>,
    /// Options of the sockets, set before they are bound.
    pub options: Arc<[SocketOption]>,
}

/// A local address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceAddress {
    /// The address; with port 0 the kernel chooses one.
    pub address: SocketAddr,
    /// Options of sockets that are bound to it, in place of those of the whole.
    pub options: Option<Arc<[SocketOption]>>,
}

/// An option of a socket (`setsockopt`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOption {
    /// The level, such as `IPPROTO_TCP`.
    pub level: i32,
    /// The option.
    pub name: i32,
    /// Its value as the kernel takes it.
    pub value: Box<[u8]>,
    /// Only for sockets of IPv4 or of IPv6; none for both.
    pub family: Option<AddressFamily>,
}

/// What kind of address it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// A Unix domain socket.
    Pipe,
    /// One within the proxy.
    Internal,
}

impl AddressFamily {
    /// The family of an address.
    pub fn of(address: &Address) -> Self {
        match address {
            Address::Ip(SocketAddr::V4(_)) => Self::V4,
            Address::Ip(SocketAddr::V6(_)) => Self::V6,
            Address::Pipe(_) => Self::Pipe,
            Address::Internal(..) => Self::Internal,
        }
    }
}

impl BindConfig {
    /// What a cluster says, with what the bootstrap says where the cluster does not.
    pub fn over(own: Option<Self>, bootstrap: Option<&Self>) -> Option<Self> {
        let Some(below) = bootstrap else {
            return own;
        };
        let Some(mut own) = own else {
            return Some(below.clone());
        };
        own.freebind = own.freebind.or(below.freebind);
        if own.options.is_empty() {
            own.options = below.options.clone();
        }
        Some(own)
    }

    /// The local address for sockets to `remote`.
    pub fn source(&self, remote: &SocketAddr) -> Option<&SourceAddress> {
        let fits = |source: &&SourceAddress| source.address.is_ipv4() == remote.is_ipv4();
        let of_family = self.sources.iter().find(fits);
        of_family.or_else(|| self.sources.first())
    }

    /// The options of sockets to `remote`.
    pub fn options(&self, remote: &SocketAddr) -> impl Iterator<Item = &SocketOption> {
        let family = AddressFamily::of(&Address::Ip(*remote));
        let own = self
            .source(remote)
            .and_then(|source| source.options.as_ref());
        let all = own.unwrap_or(&self.options).iter();
        all.filter(move |option| option.family.is_none_or(|only| only == family))
    }
}

/// The order in which the addresses of a host are tried (`HappyEyeballsConfig`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HappyEyeballs {
    /// The family that comes first; none for that of the first address.
    pub first: Option<AddressFamily>,
    /// Addresses of that family before each of the others, from 1.
    pub count: u32,
}

impl Default for HappyEyeballs {
    fn default() -> Self {
        Self {
            first: None,
            count: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(name: i32, family: Option<AddressFamily>) -> SocketOption {
        SocketOption {
            level: 0,
            name,
            value: Box::default(),
            family,
        }
    }

    fn source(address: &str, options: Option<Vec<SocketOption>>) -> SourceAddress {
        SourceAddress {
            address: address.parse().expect("an address"),
            options: options.map(Into::into),
        }
    }

    fn names(bind: &BindConfig, remote: &str) -> Vec<i32> {
        let remote = remote.parse().expect("an address");
        bind.options(&remote).map(|option| option.name).collect()
    }

    #[test]
    fn the_source_of_the_family_counts_else_the_first() {
        let bind = BindConfig {
            sources: vec![source("[::1]:0", None), source("127.0.0.6:0", None)],
            ..BindConfig::default()
        };
        let of = |remote: &str| bind.source(&remote.parse().expect("an address"));
        assert_eq!(of("10.0.0.1:1"), bind.sources.get(1));
        assert_eq!(of("[2001:db8::1]:1"), bind.sources.first());
        let only_v6 = BindConfig {
            sources: vec![source("[::1]:0", None)],
            ..BindConfig::default()
        };
        let v4 = "10.0.0.1:1".parse().expect("an address");
        assert_eq!(only_v6.source(&v4), only_v6.sources.first());
    }

    #[test]
    fn options_are_those_of_the_source_and_of_the_family() {
        let all = vec![option(1, None), option(2, Some(AddressFamily::V6))];
        let bind = BindConfig {
            sources: vec![
                source("127.0.0.6:0", None),
                source("[::1]:0", Some(vec![option(3, None)])),
            ],
            options: all.into(),
            freebind: None,
        };
        assert_eq!(names(&bind, "10.0.0.1:1"), [1]);
        assert_eq!(names(&bind, "[2001:db8::1]:1"), [3]);
    }

    #[test]
    fn a_cluster_goes_over_the_bootstrap_field_by_field() {
        let below = BindConfig {
            sources: vec![source("127.0.0.6:0", None)],
            freebind: Some(true),
            options: vec![option(1, None)].into(),
        };
        assert_eq!(BindConfig::over(None, Some(&below)), Some(below.clone()));
        let own = BindConfig {
            sources: vec![source("127.0.0.7:0", None)],
            freebind: Some(false),
            options: Arc::default(),
        };
        let merged = BindConfig::over(Some(own.clone()), Some(&below)).expect("a binding");
        assert_eq!(merged.sources, own.sources);
        assert_eq!(merged.freebind, Some(false));
        assert_eq!(merged.options, below.options);
    }
}
