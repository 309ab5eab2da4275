//! Idle HTTP/1 connections.
//!
//! Nobody polls an idle connection, yet its end must be seen soon. A sweeper
//! task registers for the readiness of those that have been idle for a moment,
//! so that a busy connection costs no extra wake-up between two requests.

use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::{ConnectionMeta, Pool, PooledH1};
use crate::upstream::stats::ClusterStats;

/// How long a connection rests before the sweeper watches it.
const REST: Duration = Duration::from_millis(20);

/// An idle connection.
pub(super) struct IdleH1 {
    pooled: PooledH1,
    since: Instant,
}

/// Whether a sweeper task runs, and how to wake it.
#[derive(Default)]
pub(super) struct SweeperState {
    running: bool,
}

impl IdleH1 {
    /// The connection, if it still is usable.
    pub(super) fn check(mut self) -> Option<PooledH1> {
        if self.pooled.meta.protocol.is_none() {
            // Of raw bytes the peer may have sent the first, and their end.
            self.pooled.meta.begin_stream();
            return Some(self.pooled);
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match self.pooled.connection.poll_idle(&mut cx) {
            Poll::Pending => {
                self.pooled.meta.begin_stream();
                Some(self.pooled)
            }
            Poll::Ready(_) => {
                self.note_end();
                None
            }
        }
    }

    /// It ended by itself: the peer closed it, or said what it was not asked for.
    fn note_end(&self) {
        let unasked = self.pooled.connection.sent_unasked();
        let meta = &self.pooled.meta;
        if unasked {
            let stats = &meta.cluster().stats;
            stats.inc(ClusterStats::upstream_cx_protocol_error);
        }
        meta.note_close(!unasked);
    }

    /// Closes it from our side.
    pub(super) fn close_locally(self) {
        self.pooled.meta.note_close(false);
    }
}

impl Pool {
    /// An HTTP/1 connection has no request any more.
    pub(super) fn release_h1(self: &Arc<Self>, h1: PooledH1) {
        h1.meta.end_stream();
        {
            let mut inner = self.inner.lock();
            inner.busy = inner.busy.saturating_sub(1);
        }
        if h1.meta.is_used_up() {
            h1.meta.note_close(false);
            drop(h1);
        } else {
            self.store_idle(h1);
        }
        self.serve_pending();
    }

    /// Keeps a connection without a request, unless the pool drains and nobody waits for it.
    pub(super) fn store_idle(self: &Arc<Self>, h1: PooledH1) {
        let start_sweeper = {
            let mut inner = self.inner.lock();
            if inner.draining && inner.pending.is_empty() {
                h1.meta.note_close(false);
                return;
            }
            inner.idle.push(IdleH1 {
                pooled: h1,
                since: Instant::now(),
            });
            !std::mem::replace(&mut inner.sweeper.running, true)
        };
        if start_sweeper {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Closes a connection from our side if it is idle.
    pub(super) fn close_idle(&self, meta: &Arc<ConnectionMeta>) {
        let idle = {
            let mut inner = self.inner.lock();
            let is_it = |idle: &IdleH1| Arc::ptr_eq(&idle.pooled.meta, meta);
            let at = inner.idle.iter().position(is_it);
            at.map(|at| inner.idle.swap_remove(at))
        };
        if let Some(idle) = idle {
            idle.close_locally();
        }
    }

    /// An HTTP/1 connection ended with its request: cut short, or whole and the last of
    /// its connection.
    pub(super) fn lose_h1(self: &Arc<Self>, h1: PooledH1, by_peer: bool) {
        let whole = h1.connection.is_complete();
        if whole {
            h1.meta.end_stream();
        }
        if !by_peer && h1.connection.announced_close() {
            h1.meta
                .cluster()
                .stats
                .inc(ClusterStats::upstream_cx_close_notify);
        }
        if h1.connection.is_protocol_error() || (whole && h1.connection.sent_unasked()) {
            h1.meta
                .cluster()
                .stats
                .inc(ClusterStats::upstream_cx_protocol_error);
        }
        h1.meta.note_close(by_peer);
        drop(h1);
        {
            let mut inner = self.inner.lock();
            inner.busy = inner.busy.saturating_sub(1);
        }
        self.serve_pending();
    }

    /// A connection of raw bytes ended.
    pub(super) fn lose_raw(self: &Arc<Self>, meta: &ConnectionMeta, by_peer: bool) {
        meta.note_close(by_peer);
        {
            let mut inner = self.inner.lock();
            inner.busy = inner.busy.saturating_sub(1);
        }
        self.serve_pending();
    }

    /// Polls every idle connection; drops those that ended or timed out. Ready
    /// when none is left.
    fn poll_idle(&self, cx: &mut Context<'_>, timeout: Option<Duration>) -> Poll<()> {
        let mut ended: Vec<Arc<ConnectionMeta>> = Vec::new();
        let mut inner = self.inner.lock();
        let mut at = 0;
        while at < inner.idle.len() {
            let idle = &mut inner.idle[at];
            let timed_out = timeout.is_some_and(|t| idle.since.elapsed() >= t);
            let closed = idle.pooled.connection.poll_idle(cx).is_ready();
            if !timed_out && !closed {
                at += 1;
                continue;
            }
            let gone = inner.idle.swap_remove(at);
            match closed {
                true => gone.note_end(),
                false => gone.pooled.meta.note_close(false),
            }
            if timed_out
                && !closed
                && let Some(cluster) = self.cluster.upgrade()
            {
                cluster.stats.inc(ClusterStats::upstream_cx_idle_timeout);
            }
            ended.push(gone.pooled.meta.clone());
        }
        if inner.idle.is_empty() {
            inner.sweeper.running = false;
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

/// Watches the idle connections of a pool until there is none.
async fn sweep(pool: Weak<Pool>) {
    let timeout = match pool.upgrade().and_then(|p| p.cluster.upgrade()) {
        Some(cluster) => cluster.info.config.common_http.idle_timeout,
        None => return,
    };
    loop {
        tokio::time::sleep(REST).await;
        // New idle connections are registered at the next round at the latest.
        let round = timeout.map_or(ROUND, |t| t.min(ROUND));
        let watch = std::future::poll_fn(|cx| match pool.upgrade() {
            Some(pool) => pool.poll_idle(cx, timeout),
            None => Poll::Ready(()),
        });
        if tokio::time::timeout(round, watch).await.is_ok() {
            return;
        }
    }
}

/// How often the sweeper looks for connections it does not watch yet.
const ROUND: Duration = Duration::from_secs(1);
