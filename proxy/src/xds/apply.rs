//! Notices made into changes of the snapshot.

use std::sync::Arc;
use std::time::Instant;

use xds_client::protocol::{Push, Rejection, Resource, WILDCARD};
use xds_client::types;

use super::Xds;
use super::stats::{self, Outcome, ReloadStats, unix_millis};
use crate::snapshot::{Applied, Origin, Received, Snapshot};

impl Xds {
    /// Applies what is good in a push; what is not comes back.
    pub(super) fn apply(
        &mut self,
        source: usize,
        mut push: Push,
        snapshot: &mut Snapshot,
    ) -> Vec<Rejection> {
        self.drop_unwanted(source, &mut push);
        let begin = Instant::now();
        let url = push.type_url.clone();
        tracing::debug!(
            target: "config",
            type_url = %url,
            cluster = %self.sources[&source].config.cluster,
            changed = push.changed.len(),
            removed = push.removed.len(),
            version = %push.version,
            "received resources",
        );
        let unreadable = push.unreadable.len();
        let rejected = match &*url {
            types::CLUSTER => self.apply_clusters(&push, begin, snapshot),
            types::LISTENER => self.apply_listeners(&push, begin, snapshot),
            types::ENDPOINTS => self.apply_endpoints(&push, begin, snapshot),
            types::ROUTES => self.apply_routes(&push, begin, snapshot),
            types::SECRET => self.apply_secrets(source, &push, begin, snapshot),
            _ => Vec::new(),
        };
        if unreadable + rejected.len() > 0 {
            let all = push.unreadable.iter().chain(&rejected);
            for Rejection { name, reason } in all {
                tracing::warn!(target: "config", type_url = %url, %name, reason, "resource refused");
            }
        }
        rejected
    }

    /// Takes out what was given up while the push was on its way.
    fn drop_unwanted(&self, source: usize, push: &mut Push) {
        let subscribed = &self.sources[&source].subscribed;
        let url = push.type_url.clone();
        if subscribed.contains(&(url.clone(), WILDCARD.into())) {
            return;
        }
        let wanted = |name: &Arc<str>| subscribed.contains(&(url.clone(), name.clone()));
        push.changed.retain(|resource| wanted(&resource.name));
        push.unchanged.retain(wanted);
        push.removed.retain(wanted);
    }

    fn apply_clusters(
        &mut self,
        push: &Push,
        begin: Instant,
        snapshot: &mut Snapshot,
    ) -> Vec<Rejection> {
        let (rejected, applied) = each(push, |r| snapshot.apply_cluster(r, Origin::Dynamic));
        for name in &push.removed {
            snapshot.remove_cluster(name);
        }
        if (applied || !push.removed.is_empty())
            && let Some(stats) = &self.cds_stats
        {
            note_reload(stats);
        }
        self.cds_answered = true;
        stats::note_some(self.cds_stats.as_ref(), outcome(push, &rejected, begin));
        rejected
    }

    fn apply_listeners(
        &mut self,
        push: &Push,
        begin: Instant,
        snapshot: &mut Snapshot,
    ) -> Vec<Rejection> {
        // First those that go: another may take the address.
        for name in &push.removed {
            snapshot.remove_listener(name);
        }
        let (rejected, _) = each(push, |r| snapshot.apply_listener(r, Origin::Dynamic));
        self.lds_answered = true;
        stats::note_some(self.lds_stats.as_ref(), outcome(push, &rejected, begin));
        rejected
    }

    fn apply_endpoints(
        &mut self,
        push: &Push,
        begin: Instant,
        snapshot: &mut Snapshot,
    ) -> Vec<Rejection> {
        for name in names(push) {
            self.given_up.remove(&(push.type_url.clone(), name.clone()));
        }
        let (rejected, _) = each(push, |r| snapshot.apply_assignment(r));
        let accepted = Outcome::Accepted(&push.version, begin.elapsed());
        for name in names(push) {
            let refused = rejected.iter().any(|r| r.name == *name);
            let outcome = if refused { Outcome::Rejected } else { accepted };
            snapshot.note_endpoints(name, outcome);
        }
        for name in &push.unchanged {
            snapshot.note_same_endpoints(name);
        }
        for rejection in &push.unreadable {
            snapshot.note_endpoints(&rejection.name, Outcome::Rejected);
        }
        // As in Envoy, hosts stay when their assignment is taken away, but nobody waits for it.
        for name in &push.removed {
            snapshot.note_endpoints(name, accepted);
            snapshot.note_no_endpoints(name);
            snapshot.assignment_timed_out(name);
        }
        rejected
    }

    fn apply_routes(
        &mut self,
        push: &Push,
        begin: Instant,
        snapshot: &mut Snapshot,
    ) -> Vec<Rejection> {
        for name in names(push) {
            self.given_up.remove(&(push.type_url.clone(), name.clone()));
        }
        let (rejected, _) = each(push, |r| snapshot.apply_routes(r));
        let refused = |name: &str| rejected.iter().any(|r| *r.name == *name);
        for (name, is_changed) in push
            .changed
            .iter()
            .map(|r| (&r.name, true))
            .chain(push.unchanged.iter().map(|n| (n, false)))
        {
            for slabs in self.routes.of(name) {
                if refused(name) {
                    stats::note(&slabs.updates, Outcome::Rejected);
                    continue;
                }
                if is_changed {
                    note_reload(&slabs.updates);
                }
                let accepted = Outcome::Accepted(&push.version, begin.elapsed());
                stats::note(&slabs.updates, accepted);
            }
        }
        for rejection in &push.unreadable {
            for slabs in self.routes.of(&rejection.name) {
                stats::note(&slabs.updates, Outcome::Rejected);
            }
        }
        // As in Envoy, routes that a listener names cannot be taken away.
        for name in &push.removed {
            let accepted = Outcome::Accepted(&push.version, begin.elapsed());
            for slabs in self.routes.of(name) {
                stats::note(&slabs.updates, accepted);
            }
            tracing::warn!(target: "router", %name, "removal of routes that are in use ignored");
        }
        rejected
    }

    /// The first answer on a name is late.
    pub(super) fn timed_out(&mut self, url: &Arc<str>, name: &Arc<str>, snapshot: &mut Snapshot) {
        tracing::warn!(target: "config", type_url = %url, %name, "initial fetch timed out");
        match &**url {
            types::CLUSTER => {
                self.cds_answered = true;
                stats::note_some(self.cds_stats.as_ref(), Outcome::TimedOut);
            }
            types::LISTENER => {
                self.lds_answered = true;
                stats::note_some(self.lds_stats.as_ref(), Outcome::TimedOut);
            }
            types::ENDPOINTS => {
                snapshot.note_endpoints(name, Outcome::TimedOut);
                self.given_up.insert((url.clone(), name.clone()));
            }
            _ => {
                for slabs in self.routes.of(name) {
                    stats::note(&slabs.updates, Outcome::TimedOut);
                }
                self.given_up.insert((url.clone(), name.clone()));
            }
        }
    }

    /// The time to live of a resource has passed.
    pub(super) fn remove(&mut self, url: &str, name: &str, snapshot: &mut Snapshot) {
        match url {
            types::CLUSTER => snapshot.remove_cluster(name),
            types::LISTENER => snapshot.remove_listener(name),
            types::ENDPOINTS => snapshot.assignment_expired(name),
            _ => {}
        }
    }

    /// The stream of a type failed.
    pub(super) fn note_failure(&self, source: usize, url: &str, snapshot: &Snapshot) {
        let names = self.sources[&source].subscribed.iter();
        let names = names.filter(|(u, _)| **u == *url).map(|(_, name)| name);
        match url {
            types::CLUSTER => stats::note_some(self.cds_stats.as_ref(), Outcome::Failed),
            types::LISTENER => stats::note_some(self.lds_stats.as_ref(), Outcome::Failed),
            types::ENDPOINTS => names.for_each(|n| snapshot.note_endpoints(n, Outcome::Failed)),
            types::SECRET => names.for_each(|n| self.secrets.note(n, Outcome::Failed)),
            _ => {
                for slabs in names.flat_map(|name| self.routes.of(name)) {
                    stats::note(&slabs.updates, Outcome::Failed);
                }
            }
        }
    }
}

/// Names of the resources of a push.
pub(super) fn names(push: &Push) -> impl Iterator<Item = &Arc<str>> {
    push.changed
        .iter()
        .map(|resource| &resource.name)
        .chain(&push.unchanged)
}

/// Applies each changed resource; gives back those refused, and whether any changed what there was.
pub(super) fn each(
    push: &Push,
    mut apply: impl FnMut(Received) -> Result<Applied, filter_api::ConfigError>,
) -> (Vec<Rejection>, bool) {
    let mut rejected = Vec::new();
    let mut changed = false;
    for Resource {
        name,
        version,
        bytes,
    } in &push.changed
    {
        match apply(Received::now(bytes.clone(), version)) {
            Ok(applied) => changed |= applied == Applied::Changed,
            Err(error) => rejected.push(Rejection {
                name: name.clone(),
                reason: error.to_string(),
            }),
        }
    }
    (rejected, changed)
}

fn outcome<'a>(push: &'a Push, rejected: &[Rejection], begin: Instant) -> Outcome<'a> {
    if rejected.is_empty() && push.unreadable.is_empty() {
        Outcome::Accepted(&push.version, begin.elapsed())
    } else {
        Outcome::Rejected
    }
}

fn note_reload(slab: &outrigger_stats::Slab<ReloadStats>) {
    slab.inc(ReloadStats::config_reload);
    slab.gauge_set(ReloadStats::config_reload_time_ms, unix_millis());
}
