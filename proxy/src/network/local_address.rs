//! The machine's own address, which stands for a loopback peer in
//! `x-forwarded-for`.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::OnceLock;

/// The first IPv4 address of an interface that is not loopback, else
/// 127.0.0.1. Read once.
pub fn local_address() -> IpAddr {
    static ADDRESS: OnceLock<IpAddr> = OnceLock::new();
    *ADDRESS.get_or_init(|| IpAddr::V4(first_address().unwrap_or(Ipv4Addr::LOCALHOST)))
}

/// Asks the C library, which alone knows the interfaces in their order.
fn first_address() -> Option<Ipv4Addr> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: `list` is a valid place for the pointer that getifaddrs writes.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return None;
    }
    let mut found = None;
    let mut next = list;
    // SAFETY: every node of the list, and the address in it if there is one, is
    // valid until freeifaddrs; an address of AF_INET is a sockaddr_in.
    while let Some(node) = unsafe { next.as_ref() } {
        next = node.ifa_next;
        // SAFETY: as above; there may be no address, which is null.
        let address = unsafe { node.ifa_addr.as_ref() };
        let family = address.map(|a| i32::from(a.sa_family));
        if family == Some(libc::AF_INET) {
            // SAFETY: as above.
            let address = unsafe { node.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned() };
            let ip = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
            if !ip.is_loopback() {
                found = Some(ip);
                break;
            }
        }
    }
    // SAFETY: the list came from getifaddrs and is freed once.
    unsafe { libc::freeifaddrs(list) };
    found
}
