//! The exchange of peer metadata over TCP, which workloads of an Istio mesh agree on by ALPN:
//! each end sends who it is before its first byte, and takes as much off what it receives.
//!
//! As in Envoy an end begins when it first has something to write, or has received anything.

mod theirs;

use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use outrigger_config::ir::MetadataExchangeConfig;
use outrigger_config::workload::{self, PeerSide};
use outrigger_stats::{Slab, Store};
use outrigger_types::{ConnectionInfo, FilterState};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::theirs::{Found, Theirs};
use super::io::Io;

outrigger_stats::stat_set! {
    /// `metadata_exchange.`
    pub struct MetadataExchangeStats {
        counters {
            alpn_protocol_found,
            alpn_protocol_not_found,
            header_not_found,
            initial_header_not_found,
            metadata_added,
        }
    }
}

/// What is known of the peer of an upstream connection, once it has said it.
pub type PeerState = Arc<OnceLock<FilterState>>;

/// Where it is left who the peer is.
#[derive(Debug)]
pub enum Told {
    /// The peer is who called.
    Downstream(Arc<ConnectionInfo>),
    /// The peer is who was called.
    Upstream(PeerState),
}

impl Told {
    fn side(&self) -> PeerSide {
        match self {
            Self::Downstream(_) => PeerSide::Downstream,
            Self::Upstream(_) => PeerSide::Upstream,
        }
    }

    fn leave(&self, state: FilterState) {
        match self {
            Self::Downstream(connection) => connection.filter_state.get_or_init(|| state),
            Self::Upstream(known) => known.get_or_init(|| state),
        };
    }
}

/// What the connections of a filter chain or a cluster exchange, on one worker.
#[derive(Debug)]
pub struct Exchange {
    config: Arc<MetadataExchangeConfig>,
    stats: Slab<MetadataExchangeStats>,
}

impl Exchange {
    /// What is configured, counted in `store`.
    pub fn new(config: &Arc<MetadataExchangeConfig>, store: &Store) -> Arc<Self> {
        Arc::new(Self {
            config: config.clone(),
            stats: store.scope("metadata_exchange.").slab(),
        })
    }

    /// Begins on a connection whose handshake agreed on `alpn`, if that is the protocol of
    /// the exchange; else the connection is as it was.
    pub fn begin(self: &Arc<Self>, io: Io, alpn: &[u8], peer: Told) -> Io {
        if !self.is_agreed(alpn) {
            peer.leave(workload::no_peer());
            return io;
        }
        Io::exchanging(Exchanging {
            io,
            ours: Ours::Unsaid,
            theirs: Theirs::default(),
            exchange: self.clone(),
            peer,
        })
    }

    /// Begins on a connection to a host, and tells what becomes known of it.
    pub fn begin_upstream(self: &Arc<Self>, io: Io, alpn: &[u8]) -> (Io, PeerState) {
        static NOBODY: LazyLock<PeerState> = LazyLock::new(|| Arc::new(workload::no_peer().into()));
        if !self.is_agreed(alpn) {
            return (io, NOBODY.clone());
        }
        let state = PeerState::default();
        let exchanging = Exchanging {
            io,
            ours: Ours::Unsaid,
            theirs: Theirs::default(),
            exchange: self.clone(),
            peer: Told::Upstream(state.clone()),
        };
        (Io::exchanging(exchanging), state)
    }

    fn is_agreed(&self, alpn: &[u8]) -> bool {
        let agreed = *alpn == *self.config.protocol;
        self.stats.inc(match agreed {
            true => MetadataExchangeStats::alpn_protocol_found,
            false => MetadataExchangeStats::alpn_protocol_not_found,
        });
        agreed
    }
}

/// How far this end has said who it is.
#[derive(Debug)]
enum Ours {
    Unsaid,
    Saying(Bytes),
    Flushing,
    Said,
}

/// A connection on which metadata is exchanged.
#[derive(Debug)]
pub struct Exchanging {
    io: Io,
    ours: Ours,
    theirs: Theirs,
    exchange: Arc<Exchange>,
    peer: Told,
}

impl Exchanging {
    /// What carries it.
    pub(super) fn io(&self) -> &Io {
        &self.io
    }

    /// The same, to change it.
    pub(super) fn io_mut(&mut self) -> &mut Io {
        &mut self.io
    }

    /// Says who this end is, if it has not.
    fn poll_say(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.ours {
                Ours::Unsaid => {
                    let exchange = &self.exchange;
                    exchange.stats.inc(MetadataExchangeStats::metadata_added);
                    self.ours = Ours::Saying(exchange.config.preamble.clone());
                }
                Ours::Saying(left) if left.is_empty() => self.ours = Ours::Flushing,
                Ours::Saying(left) => match ready!(Pin::new(&mut self.io).poll_write(cx, left))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    taken => left.advance(taken),
                },
                Ours::Flushing => {
                    ready!(Pin::new(&mut self.io).poll_flush(cx))?;
                    self.ours = Ours::Said;
                }
                Ours::Said => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Says it beside reading: what fails shows where something else is written.
    fn say_beside(&mut self, cx: &mut Context<'_>) {
        if let Poll::Ready(Err(_)) = self.poll_say(cx) {
            self.ours = Ours::Said;
        }
    }

    /// Reads what the peer says of itself; ready when what follows is the application's.
    fn poll_listen(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut room = [0; 2048];
        while !self.theirs.is_over() {
            let mut buf = ReadBuf::new(&mut room);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf))?;
            self.say_beside(cx);
            let labels = &self.exchange.config.labels;
            let found = self.theirs.push(buf.filled(), labels);
            self.note(found)?;
        }
        Poll::Ready(Ok(()))
    }

    fn note(&self, found: Found) -> io::Result<()> {
        let stats = &self.exchange.stats;
        match found {
            Found::TooLittle => stats.inc(MetadataExchangeStats::initial_header_not_found),
            Found::Part | Found::Nothing | Found::Peer(None) => {}
            Found::NoMagic => {
                stats.inc(MetadataExchangeStats::initial_header_not_found);
                self.peer.leave(workload::no_peer());
            }
            Found::Peer(Some(workload)) => {
                let objects = workload.to_filter_state();
                self.peer.leave(objects.of_connection(self.peer.side()));
            }
            Found::TooMuch => {
                stats.inc(MetadataExchangeStats::header_not_found);
                self.peer.leave(workload::no_peer());
                let reason = "the peer says too much of itself";
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
            Found::NoMessage => {
                stats.inc(MetadataExchangeStats::header_not_found);
                self.peer.leave(workload::no_peer());
            }
        }
        Ok(())
    }
}

impl AsyncRead for Exchanging {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !matches!(this.ours, Ours::Unsaid | Ours::Said) {
            this.say_beside(cx);
        }
        ready!(this.poll_listen(cx))?;
        if this.theirs.take_rest(buf) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Exchanging {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_say(cx))?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_say(cx))?;
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !matches!(self.ours, Ours::Unsaid) {
            ready!(self.poll_say(cx))?;
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_say(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
