//! Making a connection to a host: at its address, or at the first of several that
//! answers. Follows Envoy's "Happy Eyeballs Support" and RFC 8305.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use outrigger_config::ir;
use outrigger_types::Address;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, UnixStream};

use crate::network::io::Io;
use crate::upstream::cluster::{ClusterInfo, WorkerCluster};
use crate::upstream::host::Host;
use crate::upstream::stats::ClusterStats;

/// How long an address may take before the next one is tried beside it.
const ATTEMPT_DELAY: Duration = Duration::from_millis(300);

/// A connection to a host, and the address at which it was reached.
pub(super) async fn to_host(host: &Host, cluster: &WorkerCluster) -> io::Result<(Io, Address)> {
    if host.additional_addresses.is_empty() {
        return at(&host.address, &cluster.info).await;
    }
    let all = [&host.address]
        .into_iter()
        .chain(&host.additional_addresses);
    race(interleaved(all), host, cluster).await
}

/// The first of several that answers; the error of the last one if none does. Every
/// attempt counts as a connection; the first is counted with the connection itself.
async fn race(
    addresses: Vec<&Address>,
    host: &Host,
    cluster: &WorkerCluster,
) -> io::Result<(Io, Address)> {
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure = None;
    let mut tried = 0;
    loop {
        if let Some(next) = waiting.next() {
            if tried > 0 {
                cluster.stats.inc(ClusterStats::upstream_cx_total);
                host.stats.cx_total.fetch_add(1, Ordering::Relaxed);
            }
            tried += 1;
            attempts.push(at(next, &cluster.info));
        }
        tokio::select! {
            Some(outcome) = attempts.next() => match outcome {
                Ok(connected) => return Ok(connected),
                Err(error) => failure = Some(error),
            },
            () = tokio::time::sleep(ATTEMPT_DELAY), if waiting.len() > 0 => {}
            else => return Err(failure.unwrap_or_else(|| io::ErrorKind::NotFound.into())),
        }
    }
}

/// The families by turns, beginning with that of the first.
fn interleaved<'a>(addresses: impl Iterator<Item = &'a Address>) -> Vec<&'a Address> {
    let is_v6 = |a: &Address| matches!(a, Address::Ip(ip) if ip.is_ipv6());
    let mut addresses = addresses.peekable();
    let first_family = addresses.peek().is_some_and(|a| is_v6(a));
    let (first, second): (Vec<_>, Vec<_>) = addresses.partition(|a| is_v6(a) == first_family);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut ordered = Vec::new();
    loop {
        let before = ordered.len();
        ordered.extend(first.next());
        ordered.extend(second.next());
        if ordered.len() == before {
            return ordered;
        }
    }
}

async fn at(address: &Address, info: &ClusterInfo) -> io::Result<(Io, Address)> {
    let io = match address {
        Address::Ip(addr) => {
            let socket = if addr.is_ipv4() {
                TcpSocket::new_v4()?
            } else {
                TcpSocket::new_v6()?
            };
            if let Some(source) = info.config.bind_source {
                socket.bind(source)?;
            }
            let stream = socket.connect(*addr).await?;
            stream.set_nodelay(true)?;
            if let Some(keepalive) = &info.config.tcp_keepalive {
                SockRef::from(&stream).set_tcp_keepalive(&socket_keepalive(keepalive))?;
            }
            Io::from(stream)
        }
        Address::Pipe(path) => UnixStream::connect(&**path).await.map(Io::from)?,
        Address::Internal(..) => return Err(io::ErrorKind::Unsupported.into()),
    };
    Ok((io, address.clone()))
}

/// The socket options of a configured keep-alive.
pub(crate) fn socket_keepalive(config: &ir::TcpKeepalive) -> TcpKeepalive {
    let mut keepalive = TcpKeepalive::new();
    if let Some(time) = config.time {
        keepalive = keepalive.with_time(time);
    }
    if let Some(interval) = config.interval {
        keepalive = keepalive.with_interval(interval);
    }
    if let Some(probes) = config.probes {
        keepalive = keepalive.with_retries(probes);
    }
    keepalive
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(list: &[&str]) -> Vec<String> {
        let all: Vec<Address> = list
            .iter()
            .map(|a| Address::Ip(a.parse().expect("an address")))
            .collect();
        interleaved(all.iter())
            .iter()
            .map(|a| a.to_string())
            .collect()
    }

    #[test]
    fn families_take_turns_beginning_with_the_first() {
        assert_eq!(
            ordered(&["[::1]:1", "[::1]:2", "127.0.0.1:1", "[::1]:3"]),
            ["[::1]:1", "127.0.0.1:1", "[::1]:2", "[::1]:3"]
        );
        assert_eq!(
            ordered(&["127.0.0.1:1", "127.0.0.1:2"]),
            ["127.0.0.1:1", "127.0.0.1:2"]
        );
    }
}
