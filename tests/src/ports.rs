//! Ports for one case each, below the range from which the kernel picks, so that
//! parallel cases and parallel runs keep out of each other's way.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 12_000;
const COUNT: u16 = 19_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port that nobody listens on, not handed out before by this process
/// (until the range has been used up).
///
/// # Panics
/// When every port of the range is taken.
pub fn free() -> u16 {
    for _ in 0..COUNT {
        let turn = NEXT.fetch_add(1, Ordering::Relaxed);
        let start = std::process::id().wrapping_mul(421) % u32::from(COUNT);
        let offset = (start + u32::from(turn)) % u32::from(COUNT);
        let port = FIRST + u16::try_from(offset).unwrap_or(0);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST} to {}", FIRST + COUNT);
}
