//! Watchdogs: a thread that sees whether the others still come round.
//!
//! Every thread that is watched notes twice an interval that it is alive, from its own
//! event loop; a loop that is held up does not. A miss is counted for the thread and
//! for the group that it belongs to, once a stall, under Envoy's names and with its
//! default times. Nothing is ended.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use outrigger_stats::{Slab, Store};

/// A thread that has not come round for so long has missed.
const MISS: Duration = Duration::from_millis(200);
/// The same, for a big miss.
const MEGA_MISS: Duration = Duration::from_secs(1);
/// How often threads note that they are alive, and are looked at.
const INTERVAL: Duration = Duration::from_millis(100);

outrigger_stats::stat_set! {
    /// What is counted for a thread (`server.<thread>.`) and for a group of them
    /// (`main_thread.`, `workers.`).
    pub struct WatchdogStats {
        counters {
            watchdog_mega_miss,
            watchdog_miss,
        }
    }
}

/// The watched threads.
pub struct Watchdog {
    started: Instant,
    threads: Vec<Watched>,
    store: Store,
}

/// One of them.
struct Watched {
    touched: Weak<AtomicU64>,
    own: Slab<WatchdogStats>,
    group: Arc<Slab<WatchdogStats>>,
    stall: Stall,
}

/// What the present stall was counted as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Stall {
    #[default]
    None,
    Miss,
    MegaMiss,
}

/// A thread's proof of life.
pub struct Pulse {
    started: Instant,
    touched: Arc<AtomicU64>,
}

impl Pulse {
    /// Notes again and again that the thread's loop comes round.
    pub async fn beat(self) {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.touched.store(millis(self.started), Ordering::Relaxed);
        }
    }
}

impl Watchdog {
    /// Nobody is watched yet.
    pub fn new(store: &Store) -> Self {
        Self {
            started: Instant::now(),
            threads: Vec::new(),
            store: store.clone(),
        }
    }

    /// Watches threads, which belong to `group`, by the pulses returned.
    pub fn watch(&mut self, group: &str, names: impl Iterator<Item = String>) -> Vec<Pulse> {
        let group = Arc::new(self.store.scope(&format!("{group}.")).slab());
        let watch = |name: String| {
            let touched = Arc::new(AtomicU64::new(millis(self.started)));
            self.threads.push(Watched {
                touched: Arc::downgrade(&touched),
                own: self.store.scope(&format!("server.{name}.")).slab(),
                group: group.clone(),
                stall: Stall::None,
            });
            Pulse {
                started: self.started,
                touched,
            }
        };
        names.map(watch).collect()
    }

    /// Starts the thread that looks; it ends with those that it watches.
    ///
    /// # Errors
    /// When the system gives no thread.
    #[expect(
        clippy::disallowed_methods,
        reason = "a thread with nothing else to do"
    )]
    pub fn start(mut self) -> std::io::Result<()> {
        let run = move || {
            while !self.threads.is_empty() {
                std::thread::sleep(INTERVAL);
                self.look(millis(self.started));
            }
        };
        std::thread::Builder::new()
            .name("dog:watchdog".to_owned())
            .spawn(run)
            .map(drop)
    }

    fn look(&mut self, now: u64) {
        self.threads.retain_mut(|thread| {
            let Some(touched) = thread.touched.upgrade() else {
                return false;
            };
            let silent = now.saturating_sub(touched.load(Ordering::Relaxed));
            thread.note(Duration::from_millis(silent));
            true
        });
    }
}

impl Watched {
    fn note(&mut self, silent: Duration) {
        let stall = match silent {
            _ if silent > MEGA_MISS => Stall::MegaMiss,
            _ if silent > MISS => Stall::Miss,
            _ => Stall::None,
        };
        if stall > self.stall {
            for stats in [&self.own, &*self.group] {
                if self.stall == Stall::None {
                    stats.inc(WatchdogStats::watchdog_miss);
                }
                if stall == Stall::MegaMiss {
                    stats.inc(WatchdogStats::watchdog_mega_miss);
                }
            }
        }
        self.stall = stall;
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_a_stall_once() {
        let store = Store::default();
        let mut dog = Watchdog::new(&store);
        let names = ["worker_0", "worker_1"].map(str::to_owned);
        let pulses = dog.watch("workers", names.into_iter());
        let counts = |what: &str| {
            ["server.worker_0", "server.worker_1", "workers"].map(|of| {
                store
                    .counter_value(&format!("{of}.watchdog_{what}"))
                    .unwrap()
            })
        };
        pulses[0].touched.store(1000, Ordering::Relaxed);
        pulses[1].touched.store(1250, Ordering::Relaxed);
        dog.look(1300);
        dog.look(1310);
        assert_eq!(
            (counts("miss"), counts("mega_miss")),
            ([1, 0, 1], [0, 0, 0])
        );
        pulses[1].touched.store(2400, Ordering::Relaxed);
        dog.look(2500);
        assert_eq!(
            (counts("miss"), counts("mega_miss")),
            ([1, 0, 1], [1, 0, 1])
        );
        drop(pulses);
        dog.look(2600);
        assert!(dog.threads.is_empty());
    }
}
