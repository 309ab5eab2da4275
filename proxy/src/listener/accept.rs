//! Accepts the connections of a listener.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use outrigger_types::Address;
use tokio::net::{TcpListener, TcpStream, UnixListener};

use super::sockets::ListenSocket;
use super::stats::ListenerStats;
use super::worker::Shared;
use crate::network::io::Io;

/// A pause after an accept that failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts on one socket until the listener stops.
pub(super) async fn accept_loop(shared: Arc<Shared>, socket: ListenSocket) {
    let end = match socket {
        ListenSocket::Tcp(socket) => accept_tcp(shared, socket).await,
        ListenSocket::Unix(socket) => accept_unix(shared, socket).await,
    };
    if let Err(error) = end {
        tracing::error!(%error, "the listening socket is unusable");
    }
}

async fn accept_tcp(shared: Arc<Shared>, socket: std::net::TcpListener) -> io::Result<()> {
    let listener = TcpListener::from_std(socket)?;
    let mut batch = Batch::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.stop.cancelled() => break,
            accepted = batch.next(&shared, |cx| listener.poll_accept(cx)) => accepted,
        };
        match accepted {
            Ok((stream, peer)) => shared.admit_tcp(stream, peer),
            Err(error) => accept_failed(&error).await,
        }
    }
    if shared.handed_over.load(Ordering::Relaxed) {
        return Ok(());
    }
    // What the kernel has accepted before the socket closes would be reset.
    let socket = listener.into_std()?;
    while let Ok((stream, peer)) = socket.accept() {
        stream.set_nonblocking(true)?;
        shared.admit_tcp(TcpStream::from_std(stream)?, peer);
    }
    Ok(())
}

async fn accept_unix(
    shared: Arc<Shared>,
    socket: std::os::unix::net::UnixListener,
) -> io::Result<()> {
    let path = socket.local_addr()?;
    let path = path.as_pathname().map(|p| p.display().to_string());
    let local = Address::Pipe(path.unwrap_or_default().into());
    let listener = UnixListener::from_std(socket)?;
    let mut batch = Batch::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.stop.cancelled() => return Ok(()),
            accepted = batch.next(&shared, |cx| listener.poll_accept(cx)) => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let peer = Address::Pipe("".into());
                shared.admit(Io::from(stream), local.clone(), peer);
            }
            Err(error) => accept_failed(&error).await,
        }
    }
}

/// Connections accepted since the queue was last empty.
#[derive(Default)]
struct Batch(u64);

impl Batch {
    /// The next connection. A worker that has taken as many in a row as the
    /// listener lets it sees to its other work first.
    async fn next<T>(
        &mut self,
        shared: &Shared,
        mut accept: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> io::Result<T> {
        let most = shared.state.read().spec.config.max_connections_per_event;
        if most.is_some_and(|most| self.0 >= u64::from(most)) {
            self.end(shared);
            tokio::task::yield_now().await;
        }
        let accepted = poll_fn(|cx| {
            let polled = accept(cx);
            if polled.is_pending() {
                self.end(shared);
            }
            polled
        });
        let accepted = accepted.await;
        self.0 += u64::from(accepted.is_ok());
        accepted
    }

    fn end(&mut self, shared: &Shared) {
        if self.0 > 0 {
            shared
                .stats
                .record(ListenerStats::connections_accepted_per_socket_event, self.0);
            self.0 = 0;
        }
    }
}

/// A connection that ended in the queue is nobody's loss; without descriptors
/// there is nothing to do but wait.
async fn accept_failed(error: &io::Error) {
    if !matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    ) {
        tracing::warn!(%error, "accept failed");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}
