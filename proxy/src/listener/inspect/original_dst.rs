//! Where a connection that iptables or nftables redirected was meant to go
//! (`SO_ORIGINAL_DST`, `IP6T_SO_ORIGINAL_DST`).

use std::net::SocketAddr;

use socket2::SockRef;

use super::Facts;
use crate::network::io::Io;

/// Restores our end of a connection to what the client asked for. Nothing happens to a
/// connection that was not redirected: the kernel knows no other destination then.
pub(super) fn restore(io: &Io, facts: &mut Facts) {
    let Some(socket) = io.tcp().map(SockRef::from) else {
        return;
    };
    let v6 = facts.direct_local.ip().is_some_and(|ip| ip.is_ipv6());
    let original = match v6 {
        true => socket.original_dst_v6(),
        false => socket.original_dst_v4(),
    };
    if let Ok(Some(original)) = original.map(|address| address.as_socket()) {
        let ip = original.ip().to_canonical();
        facts.local = SocketAddr::new(ip, original.port()).into();
        facts.local_restored = true;
    }
}
