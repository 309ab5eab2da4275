//! A downstream connection: which codec it speaks, its requests one after the
//! other or side by side, and its end.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use outrigger_config::ir::CodecType;
use outrigger_types::{ConnectionInfo, Protocol};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use super::{Hcm, HcmStats, http1, http2};
use crate::listener::connection_log::Account;
use crate::listener::{Handshake, Lost};
use crate::network::io::{ByteSink, Io};

/// How HTTP/2 begins, as far as Envoy looks.
const PREFACE: &[u8] = b"PRI * HTTP/2";

/// Serves a connection to its end, beginning with its TLS handshake if it has one. `drain` asks it
/// to end when it can; `account` is told what the log of the listener wants to know.
pub async fn serve(
    hcm: Arc<Hcm>,
    mut io: Io,
    info: Arc<ConnectionInfo>,
    handshake: Option<Handshake>,
    drain: CancellationToken,
    account: Option<Arc<Account>>,
) {
    let counted = CountedConnection::new(&hcm, handshake.is_some());
    if let Some(handshake) = handshake {
        // In a box, or connections in plain text would have room for it in their tasks.
        match Box::pin(handshake.run(io, &info)).await {
            Ok(secured) => io = secured,
            Err(lost) => return counted.end_of(Ended::idle(lost == Lost::Remote)),
        }
    }
    match &account {
        Some(account) => io.report_to(Arc::new(Accounted(hcm.clone(), account.clone()))),
        None => io.report_to(hcm.clone()),
    }
    let protocol = match hcm.config.codec {
        CodecType::Http1 => Protocol::Http11,
        CodecType::Http2 => Protocol::Http2,
        CodecType::Auto => match agreed(&info) {
            Some(protocol) => protocol,
            None => match detect_in_time(&hcm, &mut io, &drain).await {
                Ok(protocol) => protocol,
                Err(ended) => return counted.end_of(ended),
            },
        },
    };
    let counted = counted.speaks(protocol);
    if let Some(account) = &account {
        account.speaks(protocol);
    }
    let end = match protocol {
        Protocol::Http2 => http2::serve(hcm, io, info, drain).await,
        Protocol::Http10 | Protocol::Http11 => http1::serve(&hcm, io, &info, drain).await,
    };
    if let Some(account) = &account
        && let Some(at_once) = end.malformed
    {
        account.note_malformed(at_once);
    }
    counted.end_of(end);
}

/// Counts bytes with the HCM and for the log of the listener.
struct Accounted(Arc<Hcm>, Arc<Account>);

impl ByteSink for Accounted {
    fn count_bytes(&self, read: u64, written: u64) {
        self.0.count_bytes(read, written);
        self.1.count(read, written);
    }

    fn count_unread(&self, change: i64) {
        self.0.count_unread(change);
    }

    fn count_unwritten(&self, change: i64) {
        self.0.count_unwritten(change);
    }
}

/// The protocol that ALPN agreed on; what is not HTTP/2 is HTTP/1.
fn agreed(info: &ConnectionInfo) -> Option<Protocol> {
    match &*info.tls()?.alpn {
        b"" => None,
        b"h2" => Some(Protocol::Http2),
        _ => Some(Protocol::Http11),
    }
}

/// Waits for the first bytes, as long as the timeouts of a connection and a drain let it.
async fn detect_in_time(
    hcm: &Hcm,
    io: &mut Io,
    drain: &CancellationToken,
) -> Result<Protocol, Ended> {
    let common = &hcm.config.common_http;
    let now = Instant::now();
    let life = common.max_connection_duration.map(|d| now + d);
    let idle = common.idle_timeout.map(|d| now + d);
    let why = tokio::select! {
        biased;
        found = detect(io) => return found.ok().flatten().ok_or(Ended::idle(true)),
        () = sleep_until(idle) => HcmStats::downstream_cx_idle_timeout,
        () = sleep_until(life) => HcmStats::downstream_cx_max_duration_reached,
        () = drain.cancelled() => HcmStats::downstream_cx_drain_close,
    };
    hcm.stats.inc(why);
    Err(Ended::idle(false))
}

/// Tells HTTP/2 from HTTP/1 by the first bytes, which stay to be read. None when
/// the peer ended before it said anything.
async fn detect(io: &mut Io) -> io::Result<Option<Protocol>> {
    let mut seen = BytesMut::with_capacity(4096);
    let found = loop {
        if io.read_buf(&mut seen).await? == 0 {
            // What is less than a preface is the beginning of a head.
            break (!seen.is_empty()).then_some(Protocol::Http11);
        }
        let common = seen.len().min(PREFACE.len());
        if seen[..common] != PREFACE[..common] {
            break Some(Protocol::Http11);
        }
        if common == PREFACE.len() {
            break Some(Protocol::Http2);
        }
    };
    io.rewind(seen.freeze());
    Ok(found)
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ended {
    /// The peer ended it.
    pub(super) by_peer: bool,
    /// A request was cut.
    pub(super) active: bool,
    /// It was this side that cut the requests, whoever closed first then.
    pub(super) cut_here: bool,
    /// The peer broke the protocol: true if that was the first it said.
    pub(super) malformed: Option<bool>,
}

impl Ended {
    /// With no request under way.
    pub(super) fn idle(by_peer: bool) -> Self {
        Self {
            by_peer,
            ..Self::default()
        }
    }
}

/// Waits until then; for ever if there is no such time.
pub(super) async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// How long the last bytes may take where `delayed_close_timeout` is off.
pub(super) const FLUSH_TIME: Duration = Duration::from_secs(1);

/// Counts a connection while it lives.
struct CountedConnection {
    hcm: Arc<Hcm>,
    opened: Instant,
    tls: bool,
    protocol: Option<Protocol>,
    end: Ended,
}

impl CountedConnection {
    fn new(hcm: &Arc<Hcm>, tls: bool) -> Self {
        hcm.stats.inc(HcmStats::downstream_cx_total);
        if tls {
            hcm.stats.inc(HcmStats::downstream_cx_ssl_total);
            hcm.stats.gauge_inc(HcmStats::downstream_cx_ssl_active);
        }
        hcm.stats.gauge_inc(HcmStats::downstream_cx_active);
        Self {
            hcm: hcm.clone(),
            opened: Instant::now(),
            tls,
            protocol: None,
            end: Ended::default(),
        }
    }

    fn speaks(mut self, protocol: Protocol) -> Self {
        let (total, active) = Self::of(protocol);
        self.hcm.stats.inc(total);
        self.hcm.stats.gauge_inc(active);
        self.protocol = Some(protocol);
        self
    }

    fn of(
        protocol: Protocol,
    ) -> (
        outrigger_stats::CounterId<HcmStats>,
        outrigger_stats::GaugeId<HcmStats>,
    ) {
        match protocol {
            Protocol::Http2 => (
                HcmStats::downstream_cx_http2_total,
                HcmStats::downstream_cx_http2_active,
            ),
            Protocol::Http10 | Protocol::Http11 => (
                HcmStats::downstream_cx_http1_total,
                HcmStats::downstream_cx_http1_active,
            ),
        }
    }

    fn end_of(mut self, end: Ended) {
        self.end = end;
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        let stats = &self.hcm.stats;
        stats.gauge_dec(HcmStats::downstream_cx_active);
        if self.tls {
            stats.gauge_dec(HcmStats::downstream_cx_ssl_active);
        }
        if let Some(protocol) = self.protocol {
            stats.gauge_dec(Self::of(protocol).1);
        }
        stats.inc(HcmStats::downstream_cx_destroy);
        stats.inc(match self.end.by_peer {
            true => HcmStats::downstream_cx_destroy_remote,
            false => HcmStats::downstream_cx_destroy_local,
        });
        if self.end.active {
            stats.inc(HcmStats::downstream_cx_destroy_active_rq);
            stats.inc(match self.end.by_peer && !self.end.cut_here {
                true => HcmStats::downstream_cx_destroy_remote_active_rq,
                false => HcmStats::downstream_cx_destroy_local_active_rq,
            });
        }
        let millis = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        stats.record(HcmStats::downstream_cx_length_ms, millis);
    }
}
