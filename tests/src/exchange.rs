//! What one side of an HTTP exchange has sent so far, filled by a reader and
//! watched by a script: the same record serves HTTP/1 and HTTP/2, client and server.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::values::Fields;

/// A message head: the first line (HTTP/1 only) and the fields in wire order
/// (pseudo headers among them on HTTP/2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// `GET / HTTP/1.1` or `HTTP/1.1 200 OK`; empty on HTTP/2.
    pub line: String,
    /// Fields in the order they came.
    pub fields: Fields,
}

impl Head {
    /// The response status, zero when there is none.
    #[must_use]
    pub fn status(&self) -> u16 {
        let text = self
            .fields
            .get(":status")
            .or_else(|| self.line.split(' ').nth(1));
        text.and_then(|s| s.parse().ok()).unwrap_or(0)
    }

    /// The request path, empty when there is none.
    #[must_use]
    pub fn path(&self) -> &str {
        let path = self.fields.get(":path");
        path.or_else(|| self.line.split(' ').nth(1)).unwrap_or("")
    }

    /// The request method, empty when there is none.
    #[must_use]
    pub fn method(&self) -> &str {
        let method = self.fields.get(":method");
        method.or_else(|| self.line.split(' ').next()).unwrap_or("")
    }
}

/// Everything seen of one message.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// 1xx heads before the final one.
    pub interim: Vec<Head>,
    /// The final head.
    pub head: Option<Head>,
    /// The body, framing removed.
    pub body: Vec<u8>,
    /// Trailers, when any came.
    pub trailers: Option<Fields>,
    /// The message ended as its framing says.
    pub ended: bool,
    /// How the peer broke off, before or after the end: `RST 8`, `closed`.
    pub broken: Option<String>,
}

/// A shared [`Seen`] that can be waited upon.
#[derive(Debug, Default)]
pub struct Exchange {
    seen: Mutex<Seen>,
    changed: Notify,
}

impl Exchange {
    /// A fresh record.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock()
    }

    /// A copy of what was seen so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.lock().clone()
    }

    /// Changes the record and wakes who waits.
    pub fn update(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.lock());
        self.changed.notify_waiters();
    }

    /// Marks the peer as gone; the first reason stays.
    pub fn broke(&self, how: &str) {
        self.update(|seen| {
            seen.broken.get_or_insert_with(|| how.to_owned());
        });
    }

    /// Waits until `done` holds; false when `limit` passed first.
    pub async fn until(&self, limit: Duration, done: impl Fn(&Seen) -> bool) -> bool {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if done(&self.lock()) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(limit, wait).await.is_ok()
    }
}
