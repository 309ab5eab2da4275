//! Making a connection to a host: at its address, or at the first of several that
//! answers. Follows Envoy's "Happy Eyeballs Support" and RFC 8305.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use outrigger_config::ir::{self, AddressFamily, HappyEyeballs};
use outrigger_types::{Address, ResetReason};
use socket2::{Domain, Socket, TcpKeepalive, Type};
use tokio::net::{TcpStream, UnixStream};

use crate::network::io::Io;
use crate::network::socket_options;
use crate::upstream::cluster::WorkerCluster;
use crate::upstream::host::Host;
use crate::upstream::stats::ClusterStats;

/// How long an address may take before the next one is tried beside it.
const ATTEMPT_DELAY: Duration = Duration::from_millis(300);

/// A connection to a host, and the address at which it was reached.
pub(super) async fn to_host(
    host: &Host,
    cluster: &WorkerCluster,
) -> Result<(Io, Address), DialError> {
    if host.additional_addresses.is_empty() {
        return at(&host.address, cluster).await;
    }
    let all = [&host.address]
        .into_iter()
        .chain(&host.additional_addresses);
    race(
        interleaved(all, cluster.info.config.happy_eyeballs),
        host,
        cluster,
    )
    .await
}

/// The first of several that answers; the error of the last one if none does. Every
/// attempt counts as a connection; the first is counted with the connection itself.
async fn race(
    addresses: Vec<&Address>,
    host: &Host,
    cluster: &WorkerCluster,
) -> Result<(Io, Address), DialError> {
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
            attempts.push(at(next, cluster));
        }
        tokio::select! {
            Some(outcome) = attempts.next() => match outcome {
                Ok(connected) => return Ok(connected),
                Err(error) => failure = Some(error),
            },
            () = tokio::time::sleep(ATTEMPT_DELAY), if waiting.len() > 0 => {}
            else => {
                let nothing = || DialError::Delayed(io::ErrorKind::NotFound.into());
                return Err(failure.unwrap_or_else(nothing));
            }
        }
    }
}

/// The addresses as they are tried: so many of the first family, then one of the others, and
/// again. That family is said, or that of the first address.
fn interleaved<'a>(
    addresses: impl Iterator<Item = &'a Address>,
    order: HappyEyeballs,
) -> Vec<&'a Address> {
    let mut addresses = addresses.peekable();
    let of_first = addresses.peek().map(|a| AddressFamily::of(a));
    let family = order.first.or(of_first);
    let (first, other): (Vec<_>, Vec<_>) =
        addresses.partition(|a| Some(AddressFamily::of(a)) == family);
    let (mut first, mut other) = (first.into_iter(), other.into_iter());
    let mut ordered = Vec::new();
    loop {
        let before = ordered.len();
        ordered.extend(first.by_ref().take(order.count as usize));
        ordered.extend(other.next());
        if ordered.len() == before {
            return ordered;
        }
    }
}

async fn at(address: &Address, cluster: &WorkerCluster) -> Result<(Io, Address), DialError> {
    let at_once = |error| DialError::AtOnce(error, address.clone());
    let io = match address {
        Address::Ip(remote) => {
            let socket = socket(*remote, cluster)?;
            match socket.connect(&(*remote).into()) {
                Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
                    return Err(at_once(error));
                }
                _ => {}
            }
            connected(socket).await.map_err(DialError::Delayed)?
        }
        Address::Pipe(path) => {
            let connected = UnixStream::connect(&*pipe_path(path)).await;
            connected.map(Io::from).map_err(at_once)?
        }
        Address::Internal(..) => return Err(at_once(io::ErrorKind::Unsupported.into())),
    };
    Ok((io, address.clone()))
}

/// Waits for a connection that was begun.
async fn connected(socket: Socket) -> io::Result<Io> {
    let stream = TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    stream.set_nodelay(true)?;
    Ok(Io::from(stream))
}

/// A socket with the options of the cluster, bound where it says.
fn socket(remote: SocketAddr, cluster: &WorkerCluster) -> Result<Socket, DialError> {
    let config = &cluster.info.config;
    let bind = config.bind.as_ref();
    let socket = with_options(remote, config).map_err(|error| {
        tracing::debug!(target: "upstream", %remote, %error, "no socket with these options");
        DialError::Options
    })?;
    if let Some(source) = bind.and_then(|bind| bind.source(&remote)) {
        socket.bind(&source.address.into()).map_err(|error| {
            cluster.stats.inc(ClusterStats::bind_errors);
            DialError::Bind(error, source.address)
        })?;
    }
    Ok(socket)
}

fn with_options(remote: SocketAddr, config: &ir::ClusterConfig) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(remote), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    if let Some(keepalive) = &config.tcp_keepalive {
        socket.set_tcp_keepalive(&socket_keepalive(keepalive))?;
    }
    let Some(bind) = &config.bind else {
        return Ok(socket);
    };
    if bind.freebind == Some(true) {
        socket.set_freebind_v4(true)?;
    }
    for option in bind.options(&remote) {
        socket_options::set(&socket, option)?;
    }
    Ok(socket)
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum DialError {
    /// There is no socket with the options that it is to have.
    Options,
    /// The socket could not be bound to that address.
    Bind(io::Error, SocketAddr),
    /// The system refused to begin connecting to that address.
    AtOnce(io::Error, Address),
    /// It was begun, and failed.
    Delayed(io::Error),
}

impl DialError {
    /// Whose fault it is.
    pub(super) fn reset(&self) -> ResetReason {
        match self {
            Self::Options | Self::Bind(..) => ResetReason::LocalConnectionFailure,
            Self::AtOnce(..) | Self::Delayed(_) => ResetReason::ConnectionFailure,
        }
    }
}

impl fmt::Display for DialError {
    /// In Envoy's words; nothing for what it does not explain.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Options => Ok(()),
            Self::Bind(error, source) => {
                write!(f, "failed to bind to {source}: {}", describe(error))
            }
            Self::AtOnce(error, remote) => write!(
                f,
                "immediate connect error: {}|remote address:{remote}",
                describe(error)
            ),
            Self::Delayed(error) => write!(f, "delayed connect error: {}", describe(error)),
        }
    }
}

/// The system's words for an error.
fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

/// The path of a pipe as the system takes it: `@` begins an abstract one.
fn pipe_path(path: &str) -> Cow<'_, str> {
    match path.strip_prefix('@') {
        Some(name) => Cow::Owned(format!("\0{name}")),
        None => Cow::Borrowed(path),
    }
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

    fn ordered(list: &[&str], order: HappyEyeballs) -> Vec<String> {
        let all: Vec<Address> = list
            .iter()
            .map(|a| Address::Ip(a.parse().expect("an address")))
            .collect();
        interleaved(all.iter(), order)
            .iter()
            .map(|a| a.to_string())
            .collect()
    }

    #[test]
    fn families_take_turns_beginning_with_the_first() {
        let usual = HappyEyeballs::default();
        assert_eq!(
            ordered(&["[::1]:1", "[::1]:2", "127.0.0.1:1", "[::1]:3"], usual),
            ["[::1]:1", "127.0.0.1:1", "[::1]:2", "[::1]:3"]
        );
        assert_eq!(
            ordered(&["127.0.0.1:1", "127.0.0.1:2"], usual),
            ["127.0.0.1:1", "127.0.0.1:2"]
        );
    }

    #[test]
    fn the_first_family_and_its_share_may_be_chosen() {
        let order = HappyEyeballs {
            first: Some(AddressFamily::V4),
            count: 2,
        };
        assert_eq!(
            ordered(
                &[
                    "[::1]:1",
                    "[::1]:2",
                    "127.0.0.1:1",
                    "127.0.0.1:2",
                    "127.0.0.1:3"
                ],
                order
            ),
            [
                "127.0.0.1:1",
                "127.0.0.1:2",
                "[::1]:1",
                "127.0.0.1:3",
                "[::1]:2"
            ]
        );
        assert_eq!(
            ordered(&["[::1]:1", "[::1]:2"], order),
            ["[::1]:1", "[::1]:2"]
        );
    }

    #[test]
    fn keep_alive_has_its_times_and_its_count() {
        let keepalive = socket_keepalive(&ir::TcpKeepalive {
            probes: Some(3),
            time: Some(Duration::from_secs(70)),
            interval: Some(Duration::from_secs(7)),
        });
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_tcp_keepalive(&keepalive).expect("set");
        assert!(socket.keepalive().expect("an option"));
        let times = (socket.tcp_keepalive_time(), socket.tcp_keepalive_interval());
        assert_eq!(times.0.expect("an option"), Duration::from_secs(70));
        assert_eq!(times.1.expect("an option"), Duration::from_secs(7));
        assert_eq!(socket.tcp_keepalive_retries().expect("an option"), 3);
    }

    #[test]
    fn an_error_says_whose_fault_it_is_and_where() {
        let error = || io::Error::from_raw_os_error(libc::EADDRNOTAVAIL);
        let source = SocketAddr::from(([192, 0, 2, 1], 0));
        let bind = DialError::Bind(error(), source);
        assert_eq!(
            bind.to_string(),
            "failed to bind to 192.0.2.1:0: Cannot assign requested address"
        );
        assert_eq!(bind.reset(), ResetReason::LocalConnectionFailure);
        let at_once = DialError::AtOnce(error(), Address::Pipe("/p".into()));
        assert_eq!(
            at_once.to_string(),
            "immediate connect error: Cannot assign requested address|remote address:/p"
        );
        assert_eq!(at_once.reset(), ResetReason::ConnectionFailure);
        assert_eq!(DialError::Options.to_string(), "");
    }

    #[test]
    fn an_abstract_pipe_begins_with_a_zero() {
        assert_eq!(pipe_path("@name"), "\0name");
        assert_eq!(pipe_path("/run/name"), "/run/name");
    }
}
