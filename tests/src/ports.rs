//! Ports for one case each, below the range from which the kernel picks, so that
//! parallel cases and parallel runs keep out of each other's way.
//!
//! Ports come in blocks. A process owns a block as long as it listens on the block's first
//! port, which it does until it ends.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpSocket;

const FIRST: u16 = 12_000;
const BLOCK: u16 = 64;
const BLOCKS: u16 = 300;

/// The blocks this process owns, and what is next in the newest.
struct Owned {
    guards: Vec<TcpListener>,
    next: u16,
    end: u16,
}

static OWNED: Mutex<Owned> = Mutex::new(Owned {
    guards: Vec::new(),
    next: 0,
    end: 0,
});

fn listen(port: u16) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
}

/// A port that nobody listens on and that is not handed out twice.
///
/// # Panics
/// When every block is taken.
pub fn free() -> u16 {
    let mut owned = OWNED.lock();
    loop {
        while owned.next < owned.end {
            let port = owned.next;
            owned.next += 1;
            if listen(port).is_some() {
                return port;
            }
        }
        assert!(owned.claim(), "no free ports from {FIRST} on");
    }
}

/// Listens on a port of the loopback address that was in use a moment ago.
///
/// A process being started by another thread holds every descriptor of this one until it
/// has loaded its program, listening sockets among them, so the port may be busy for a while.
///
/// # Errors
/// When the port stays taken for two seconds.
pub async fn reuse(port: u16) -> io::Result<tokio::net::TcpListener> {
    let mut turns = 0;
    loop {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        let bound = socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        match bound.and_then(|()| socket.listen(1024)) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && turns < 100 => turns += 1,
            done => return done,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Owned {
    /// Takes a further block; false when there is none.
    fn claim(&mut self) -> bool {
        let start = std::process::id() % u32::from(BLOCKS);
        for turn in 0..u32::from(BLOCKS) {
            let block = u16::try_from((start + turn) % u32::from(BLOCKS)).unwrap_or(0);
            let first = FIRST + block * BLOCK;
            if let Some(guard) = listen(first) {
                self.guards.push(guard);
                (self.next, self.end) = (first + 1, first + BLOCK);
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_handed_out_twice() {
        let mut ports: Vec<u16> = (0..100).map(|_| free()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 100);
    }
}
