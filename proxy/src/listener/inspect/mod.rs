//! Listener filters: what looks at a connection before its filter chain is chosen.
//!
//! Filters run in the listener's order, each until it knows enough. What they read is put
//! back, so that whoever serves the connection reads it again.

mod client_hello;
mod original_dst;
mod stats;

use std::time::Duration;

use bytes::BytesMut;
use outrigger_config::ir::{
    ListenerConfig, ListenerFilterConfig, ListenerFilterKind, TlsInspectorConfig,
};
use outrigger_stats::{Slab, Store};
use outrigger_types::{Address, Protocol};
use tokio::io::AsyncReadExt;

pub use self::client_hello::{ClientHello, Found, read as read_client_hello};
use self::stats::{HttpInspectorStats, TlsInspectorStats};
use crate::http::codec::h1::{Sniffed, sniff};
use crate::network::io::Io;

/// What a client of HTTP/2 says first (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Most bytes in which the HTTP inspector looks for the end of a line.
const MAX_LINE: usize = 64 << 10;

/// Bytes of one read.
const READ_AT_ONCE: usize = 4 << 10;

/// What is known of a connection before its chain is chosen.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Our end, as the socket has it.
    pub direct_local: Address,
    /// Our end; where the connection was meant to go, if a filter restored that.
    pub local: Address,
    /// Whether a filter restored it, even to what it was.
    pub local_restored: bool,
    /// The peer's end.
    pub remote: Address,
    /// SNI in lower case; empty for none.
    pub server_name: Box<str>,
    /// What carries the connection: `raw_buffer` or `tls`.
    pub transport_protocol: &'static str,
    /// What the client offers by ALPN, or the version of HTTP that it speaks.
    pub application_protocols: Vec<Box<str>>,
}

impl Facts {
    /// What a socket tells.
    pub fn new(local: Address, remote: Address) -> Self {
        Self {
            direct_local: local.clone(),
            local,
            local_restored: false,
            remote,
            server_name: "".into(),
            transport_protocol: "raw_buffer",
            application_protocols: Vec::new(),
        }
    }
}

/// Why a connection is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// The peer has ended it.
    Closed,
    /// It could not be read.
    Failed,
    /// A filter does not take it, and has counted that.
    Refused,
    /// The time was up.
    Late,
}

/// The listener filters of one listener.
#[derive(Debug)]
pub struct ListenerFilters {
    filters: Vec<ListenerFilterConfig>,
    timeout: Option<Duration>,
    /// What takes too long is served by what is known until then.
    goes_on: bool,
    stats: FilterStats,
}

/// What the filters count, where there is such a filter.
#[derive(Debug, Default)]
struct FilterStats {
    tls: Option<Slab<TlsInspectorStats>>,
    http: Option<Slab<HttpInspectorStats>>,
}

impl FilterStats {
    fn new(filters: &[ListenerFilterConfig], store: &Store) -> Self {
        let mut stats = Self::default();
        for filter in filters {
            match &filter.kind {
                ListenerFilterKind::OriginalDst => {}
                ListenerFilterKind::TlsInspector(_) => {
                    stats.tls = Some(store.scope("tls_inspector.").slab());
                }
                ListenerFilterKind::HttpInspector => {
                    stats.http = Some(store.scope("http_inspector.").slab());
                }
            }
        }
        stats
    }
}

impl ListenerFilters {
    /// The filters of a listener; that it hands redirected connections over is one of them.
    pub fn new(config: &ListenerConfig, store: &Store) -> Self {
        let mut filters = config.listener_filters.clone();
        if config.use_original_dst {
            filters.push(ListenerFilterConfig {
                name: "envoy.filters.listener.original_dst".into(),
                disabled: None,
                kind: ListenerFilterKind::OriginalDst,
            });
        }
        Self {
            stats: FilterStats::new(&filters, store),
            filters,
            timeout: config.listener_filters_timeout,
            goes_on: config.continue_on_listener_filters_timeout,
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// Runs the filters, which note in `facts` what they find. With an error the connection is
    /// to be closed, unless it is late and [`goes_on`](Self::goes_on).
    ///
    /// # Errors
    /// Why the connection is not served.
    pub async fn run(&self, io: &mut Io, facts: &mut Facts) -> Result<(), Rejected> {
        let mut seen = BytesMut::new();
        let every = self.run_every(io, facts, &mut seen);
        let outcome = match self.timeout {
            Some(timeout) => tokio::time::timeout(timeout, every)
                .await
                .unwrap_or(Err(Rejected::Late)),
            None => every.await,
        };
        if !seen.is_empty() {
            io.rewind(seen.freeze());
        }
        outcome
    }

    /// Whether a connection that is late is served all the same.
    pub fn goes_on(&self) -> bool {
        self.goes_on
    }

    async fn run_every(
        &self,
        io: &mut Io,
        facts: &mut Facts,
        seen: &mut BytesMut,
    ) -> Result<(), Rejected> {
        for filter in &self.filters {
            let port = facts.local.port();
            if filter.disabled.as_ref().is_some_and(|d| d.matches(port)) {
                continue;
            }
            match &filter.kind {
                ListenerFilterKind::OriginalDst => original_dst::restore(io, facts),
                ListenerFilterKind::TlsInspector(config) => {
                    while !self.look_for_tls(config, seen, facts)? {
                        read_more(io, seen, config.max_client_hello_size + 1).await?;
                    }
                }
                ListenerFilterKind::HttpInspector => {
                    while !self.look_for_http(seen, facts) {
                        let read = read_more(io, seen, MAX_LINE).await;
                        read.inspect_err(|why| self.note_failed_read(*why))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Looks for a ClientHello; false if it takes more bytes to tell.
    fn look_for_tls(
        &self,
        config: &TlsInspectorConfig,
        seen: &[u8],
        facts: &mut Facts,
    ) -> Result<bool, Rejected> {
        let Some(stats) = &self.stats.tls else {
            return Ok(true);
        };
        let count = |read: usize| stats.record(TlsInspectorStats::bytes_processed, read as u64);
        let within = seen.len().min(config.max_client_hello_size);
        match client_hello::read(&seen[..within]) {
            Found::More if within < seen.len() => {
                stats.inc(TlsInspectorStats::client_hello_too_large);
                count(within);
                return Err(Rejected::Refused);
            }
            Found::More => return Ok(false),
            Found::NotTls { read } => {
                stats.inc(TlsInspectorStats::tls_not_found);
                count(read);
                if config.close_on_error {
                    return Err(Rejected::Refused);
                }
            }
            Found::Hello { hello, read } => {
                stats.inc(TlsInspectorStats::tls_found);
                stats.inc(match hello.server_name.is_empty() {
                    true => TlsInspectorStats::sni_not_found,
                    false => TlsInspectorStats::sni_found,
                });
                stats.inc(match hello.application_protocols {
                    None => TlsInspectorStats::alpn_not_found,
                    Some(_) => TlsInspectorStats::alpn_found,
                });
                count(read);
                facts.transport_protocol = "tls";
                facts.server_name = hello.server_name;
                facts.application_protocols = hello.application_protocols.unwrap_or_default();
            }
        }
        Ok(true)
    }

    /// Looks for a request; false if it takes more bytes to tell.
    fn look_for_http(&self, seen: &[u8], facts: &mut Facts) -> bool {
        let Some(stats) = &self.stats.http else {
            return true;
        };
        if facts.transport_protocol == "tls" {
            return true;
        }
        if seen.len() < PREFACE.len() && PREFACE.starts_with(seen) {
            return false;
        }
        let (counter, protocol) = match sniff(seen) {
            _ if seen.starts_with(PREFACE) => (HttpInspectorStats::http2_found, "h2c"),
            Sniffed::More if seen.len() < MAX_LINE => return false,
            Sniffed::Http1(Protocol::Http11) => (HttpInspectorStats::http11_found, "http/1.1"),
            Sniffed::Http1(_) => (HttpInspectorStats::http10_found, "http/1.0"),
            Sniffed::More | Sniffed::Other => {
                stats.inc(HttpInspectorStats::http_not_found);
                return true;
            }
        };
        stats.inc(counter);
        facts.application_protocols = vec![protocol.into()];
        true
    }

    fn note_failed_read(&self, why: Rejected) {
        if let (Rejected::Failed, Some(stats)) = (why, &self.stats.http) {
            stats.inc(HttpInspectorStats::read_error);
        }
    }
}

/// Reads more, up to `limit` bytes in all.
async fn read_more(io: &mut Io, seen: &mut BytesMut, limit: usize) -> Result<(), Rejected> {
    let room = limit.saturating_sub(seen.len()).min(READ_AT_ONCE);
    seen.reserve(room);
    let mut bounded = bytes::BufMut::limit(&mut *seen, room);
    match io.read_buf(&mut bounded).await {
        Ok(0) => Err(Rejected::Closed),
        Ok(_) => Ok(()),
        Err(_) => Err(Rejected::Failed),
    }
}

#[cfg(test)]
mod tests;
