//! The sockets of a listener. They are bound on the main thread, before the
//! configuration is acknowledged, and kept over updates: closing one would reset
//! the connections that wait in its queue. They listen once the listener serves:
//! until then a client is refused, and may go elsewhere.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use outrigger_config::ir::ListenerConfig;
use outrigger_types::Address;
use parking_lot::Mutex;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

/// The bound sockets of a listener, a set a worker.
#[derive(Debug)]
pub struct ListenerSockets {
    /// By worker, then by address; empty once closed.
    workers: Mutex<Vec<Vec<ListenSocket>>>,
    bound: Vec<Address>,
    /// Connections that were accepted here and live, on all workers.
    pub(super) connections: Arc<AtomicU64>,
    backlog: i32,
    listening: AtomicBool,
}

/// One bound socket.
#[derive(Debug)]
pub enum ListenSocket {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix domain socket.
    Unix(UnixListener),
}

impl ListenerSockets {
    /// Binds the addresses of a listener for `workers` workers.
    ///
    /// # Errors
    /// The system's, with the address.
    pub fn bind(config: &ListenerConfig, workers: usize) -> Result<Self, String> {
        let mut sockets = Self {
            workers: Mutex::new((0..workers).map(|_| Vec::new()).collect()),
            bound: Vec::new(),
            connections: Arc::default(),
            backlog: i32::try_from(config.tcp_backlog).unwrap_or(libc::SOMAXCONN),
            listening: AtomicBool::new(false),
        };
        if !config.bind_to_port {
            sockets.bound.clone_from(&config.addresses);
            return Ok(sockets);
        }
        for address in &config.addresses {
            sockets
                .bind_address(address, config)
                .map_err(|error| format!("cannot bind '{address}': {}", describe(&error)))?;
        }
        Ok(sockets)
    }

    fn bind_address(&mut self, address: &Address, config: &ListenerConfig) -> io::Result<()> {
        match address {
            Address::Ip(addr) => self.bind_tcp(*addr, config),
            Address::Pipe(path) => self.bind_pipe(path),
            Address::Internal(..) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "internal address",
            )),
        }
    }

    /// One socket a worker, all on the same port; the kernel spreads the
    /// connections. Without `enable_reuse_port` all workers share one.
    fn bind_tcp(&mut self, mut addr: SocketAddr, config: &ListenerConfig) -> io::Result<()> {
        let reuse_port = config.enable_reuse_port;
        let mut first: Option<std::net::TcpListener> = None;
        for worker in self.workers.get_mut() {
            let listener = match &first {
                Some(shared) if !reuse_port => shared.try_clone()?,
                _ => tcp_socket(addr, config, reuse_port)?.into(),
            };
            // An ephemeral port is chosen once, for all.
            addr = listener.local_addr()?;
            if first.is_none() {
                first = Some(listener.try_clone()?);
            }
            worker.push(ListenSocket::Tcp(listener));
        }
        self.bound.push(Address::Ip(addr));
        Ok(())
    }

    fn bind_pipe(&mut self, path: &str) -> io::Result<()> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        match path.strip_prefix('@') {
            Some(name) => socket.bind(&SockAddr::unix(format!("\0{name}"))?)?,
            None => {
                // What a process that is gone left behind.
                match std::fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                socket.bind(&SockAddr::unix(path)?)?;
            }
        }
        let fd: OwnedFd = socket.into();
        let listener = UnixListener::from(fd);
        for worker in self.workers.get_mut() {
            worker.push(ListenSocket::Unix(listener.try_clone()?));
        }
        self.bound.push(Address::Pipe(path.into()));
        Ok(())
    }

    /// The addresses as bound: an ephemeral port is known here.
    pub fn bound(&self) -> &[Address] {
        &self.bound
    }

    /// Has the sockets listen, unless they do.
    ///
    /// # Errors
    /// The system's: another process may listen there since they were bound.
    pub fn listen(&self) -> io::Result<()> {
        if self.listening.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let workers = self.workers.lock();
        workers.iter().flatten().try_for_each(|socket| {
            let socket = match socket {
                ListenSocket::Tcp(tcp) => SockRef::from(tcp),
                ListenSocket::Unix(unix) => SockRef::from(unix),
            };
            socket.listen(self.backlog)
        })
    }

    /// Copies of the descriptors of one worker.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn for_worker(&self, index: usize) -> io::Result<Vec<ListenSocket>> {
        let copy = |socket: &ListenSocket| {
            Ok(match socket {
                ListenSocket::Tcp(tcp) => ListenSocket::Tcp(tcp.try_clone()?),
                ListenSocket::Unix(unix) => ListenSocket::Unix(unix.try_clone()?),
            })
        };
        let workers = self.workers.lock();
        workers.get(index).into_iter().flatten().map(copy).collect()
    }

    /// Closes the sockets, once those who hold copies have closed theirs.
    pub fn close(&self) {
        self.workers.lock().clear();
    }
}

fn tcp_socket(addr: SocketAddr, config: &ListenerConfig, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(!config.ipv4_compat)?;
    }
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    let fd: OwnedFd = socket.into();
    Ok(fd.into())
}

/// The system's words for an error.
fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}
