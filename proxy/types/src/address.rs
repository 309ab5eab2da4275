//! Network addresses.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Where a socket is bound or connects to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An IPv4 or IPv6 address with a port.
    Ip(SocketAddr),
    /// A Unix domain socket. A path that starts with `@` is abstract.
    Pipe(Arc<str>),
    /// Envoy's internal address: the name of an internal listener, and an id
    /// that tells endpoints of the same listener apart.
    Internal(Arc<str>, Arc<str>),
}

impl Address {
    /// The IP address, unless it is a pipe or internal.
    pub fn ip(&self) -> Option<IpAddr> {
        self.socket_addr().map(|a| a.ip())
    }

    /// The port, unless it is a pipe or internal.
    pub fn port(&self) -> Option<u16> {
        self.socket_addr().map(|a| a.port())
    }

    /// The socket address, unless it is a pipe or internal.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(addr) => Some(*addr),
            Self::Pipe(_) | Self::Internal(..) => None,
        }
    }
}

impl fmt::Display for Address {
    /// As Envoy's `asString()`: `1.2.3.4:80`, `[::1]:80`, `/path`,
    /// `envoy://name/id`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(addr) => addr.fmt(f),
            Self::Pipe(path) => f.write_str(path),
            Self::Internal(name, id) => write!(f, "envoy://{name}/{id}"),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        Self::Ip(addr)
    }
}
