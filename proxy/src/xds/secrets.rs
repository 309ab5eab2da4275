//! Subscriptions to secrets (SDS): one for each name and source, whoever uses it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use outrigger_config::ir::ConfigSourceKind;
use outrigger_stats::Slab;
use xds_client::protocol::{Push, Rejection};
use xds_client::types;

use super::Xds;
use super::apply::{each, names};
use super::stats::{self, Outcome, SecretStats, SubscriptionStats};
use super::subscriptions::{Need, scope_of};
use crate::snapshot::Snapshot;

/// Stats of subscriptions to secrets, `sds.<name>.`
#[derive(Default)]
pub(super) struct SecretSubscriptions {
    by_name: BTreeMap<Arc<str>, SecretSlabs>,
}

struct SecretSlabs {
    updates: Slab<SubscriptionStats>,
    _rotation: Slab<SecretStats>,
}

impl SecretSubscriptions {
    /// Counts what came of the subscription to a secret.
    pub(super) fn note(&self, name: &str, outcome: Outcome<'_>) {
        if let Some(slabs) = self.by_name.get(name) {
            stats::note(&slabs.updates, outcome);
        }
    }
}

impl Xds {
    /// What contexts of listeners and clusters need.
    pub(super) fn secret_needs(&mut self, snapshot: &mut Snapshot) -> Vec<Need> {
        let url = self.urls.get(types::SECRET);
        let mut needs = Vec::new();
        for secret in snapshot.wanted_secrets() {
            let scope = format!("sds.{}.", secret.name);
            if !self.secrets.by_name.contains_key(&secret.name) {
                let scope = self.store.scope(&scope);
                let slabs = SecretSlabs {
                    updates: scope.slab(),
                    _rotation: scope.slab(),
                };
                self.secrets.by_name.insert(secret.name.clone(), slabs);
                self.secrets.note(&secret.name, Outcome::Started);
            }
            needs.push(Need {
                wanted: (url.clone(), secret.name.clone()),
                kind: secret.source.source.clone(),
                scope: scope_of(&secret.source.source, || scope.clone()),
                fetch_timeout: secret.source.initial_fetch_timeout,
            });
        }
        let names = &mut self.secrets.by_name;
        names.retain(|name, _| needs.iter().any(|need| need.wanted.1 == *name));
        needs
    }

    /// A push of secrets. One that is absent, or taken away, serves on as it was.
    pub(super) fn apply_secrets(
        &mut self,
        source: usize,
        push: &Push,
        begin: Instant,
        snapshot: &mut Snapshot,
    ) -> Vec<Rejection> {
        let kind = self.kind_of(source);
        for name in names(push) {
            self.given_up.remove(&(push.type_url.clone(), name.clone()));
        }
        let (rejected, _) = each(push, |r| snapshot.apply_secret(&kind, r));
        if rejected.is_empty() && push.unreadable.is_empty() {
            let accepted = Outcome::Accepted(&push.version, begin.elapsed());
            names(push).for_each(|name| self.secrets.note(name, accepted));
        } else {
            // As in Envoy it is the response that is refused, to all who watch the type.
            let watched = self.sources[&source].subscribed.iter();
            let secrets = watched.filter(|(url, _)| *url == push.type_url);
            secrets.for_each(|(_, name)| self.secrets.note(name, Outcome::Rejected));
        }
        rejected
    }

    /// The first version of a secret is late.
    pub(super) fn secret_timed_out(&self, source: usize, name: &str, snapshot: &mut Snapshot) {
        self.secrets.note(name, Outcome::TimedOut);
        snapshot.secret_timed_out(&self.kind_of(source), name);
    }

    /// How a configuration names the source of a stream.
    fn kind_of(&self, source: usize) -> ConfigSourceKind {
        let source = &self.sources[&source];
        match source.purpose {
            None => ConfigSourceKind::Ads,
            Some(_) => ConfigSourceKind::Api(source.config.clone()),
        }
    }
}
