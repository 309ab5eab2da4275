//! Which listener a redirected connection is for.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use parking_lot::RwLock;

use super::worker::{Door, WorkerListener};

/// The listeners of a worker by address, those that do not bind among them.
#[derive(Default)]
pub(crate) struct ListenerIndex(RwLock<HashMap<SocketAddr, Door>>);

impl ListenerIndex {
    /// A listener serves from now on.
    pub fn add(&self, listener: &WorkerListener) {
        let mut known = self.0.write();
        for address in listener.addresses() {
            known.insert(address, listener.door());
        }
    }

    /// A listener serves no more. What another one has taken over stays with that.
    pub fn remove(&self, listener: &WorkerListener) {
        let door = listener.door();
        let mut known = self.0.write();
        for address in listener.addresses() {
            if known.get(&address) == Some(&door) {
                known.remove(&address);
            }
        }
    }

    /// The listener of an address: of just this one, or of its port on any address.
    pub fn find(&self, address: SocketAddr) -> Option<Door> {
        let any = match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let known = self.0.read();
        let exact = known.get(&address);
        let found = exact.or_else(|| known.get(&SocketAddr::new(any, address.port())));
        found.cloned()
    }
}
