//! Listeners: bound before they are acknowledged, warm once their routes are
//! known, and updated without touching the connections of chains that stay.

use std::collections::BTreeSet;
use std::sync::Arc;

use filter_api::ConfigError;
use outrigger_config::convert;
use outrigger_config::ir::{
    ConfigSourceConfig, FilterChainConfig, ListenerConfig, NetworkTerminal, RouteSource,
    TrafficDirection,
};

use super::addresses::check_addresses;
use super::references::check_listener;
use super::stats::ListenerManagerStats;
use super::{Applied, Origin, Received, Snapshot};
use crate::listener::{ListenerSockets, ListenerSpec};
use crate::network::tls::ContextNames;
use crate::server::worker::Change;

/// A listener that is known.
pub struct ListenerEntry {
    /// As received.
    pub received: Received,
    /// From the bootstrap or from xDS.
    pub origin: Origin,
    /// What the workers run.
    pub spec: Arc<ListenerSpec>,
    /// Its sockets.
    pub sockets: Arc<ListenerSockets>,
    /// Routes that will not come in time are not waited for.
    given_up: BTreeSet<Arc<str>>,
    /// The stats of its TLS contexts.
    pub tls_names: Vec<ContextNames>,
}

impl ListenerEntry {
    /// Its filter chains, the default one last.
    pub fn chains(&self) -> impl Iterator<Item = &Arc<FilterChainConfig>> {
        let config = &self.spec.config;
        config
            .filter_chains
            .iter()
            .chain(&config.default_filter_chain)
    }

    /// The route configurations that it takes from RDS.
    pub fn rds(&self) -> impl Iterator<Item = RouteUse<'_>> {
        self.chains().filter_map(|chain| match &chain.terminal {
            NetworkTerminal::Http(hcm) => match &hcm.routes {
                RouteSource::Rds { name, source } => Some(RouteUse {
                    name,
                    source,
                    stat_prefix: &hcm.stat_prefix,
                }),
                RouteSource::Inline(_) => None,
            },
            NetworkTerminal::Tcp(_) | NetworkTerminal::None => None,
        })
    }

    /// Names of the route configurations that it takes from RDS.
    pub fn rds_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.rds().map(|route| route.name)
    }
}

/// A route configuration that a listener takes from RDS.
#[derive(Clone, Copy, Debug)]
pub struct RouteUse<'a> {
    /// Its name.
    pub name: &'a Arc<str>,
    /// Where it comes from.
    pub source: &'a ConfigSourceConfig,
    /// The stat prefix of the HTTP connection manager.
    pub stat_prefix: &'a Arc<str>,
}

impl Snapshot {
    /// Takes in a listener: binds it if its address is new, and publishes it
    /// once its routes are known.
    ///
    /// # Errors
    /// If it is refused, or its address cannot be bound; what there was serves
    /// on.
    pub fn apply_listener(
        &mut self,
        received: Received,
        origin: Origin,
    ) -> Result<Applied, ConfigError> {
        let config = self.convert(|cx| convert::listener(&received.bytes, cx))?;
        let name = config.name.clone();
        let newest = self
            .warming_listeners
            .get(&name)
            .or_else(|| self.listeners.get(&name));
        if let Some(known) = newest {
            let fixed = known.origin == Origin::Static && origin == Origin::Dynamic;
            if fixed || known.received.bytes == received.bytes {
                return Ok(Applied::Unchanged);
            }
        }
        check_listener(&config, self)?;
        if let Some(main) = &self.main {
            main.access_logs.open(&config)?;
        }
        let is_new = newest.is_none();
        let newest_spec = newest.map(|l| l.spec.clone());
        let kept = newest
            .filter(|l| same_binding(&l.spec.config, &config))
            .map(|l| l.sockets.clone());
        let sockets = match kept {
            Some(sockets) => sockets,
            None => {
                let others = self
                    .listeners
                    .values()
                    .chain(self.warming_listeners.values());
                check_addresses(&config, others.map(|other| &*other.spec.config))?;
                self.bind(&config)?
            }
        };
        let bound = sockets
            .bound()
            .first()
            .map(ToString::to_string)
            .unwrap_or_default();
        let last = newest_spec.as_ref().map(|spec| &spec.sockets);
        let transports = self.secrets.downstream_sockets(&config, last)?;
        let spec = ListenerSpec::new(Arc::new(config), transports, &bound);
        let scope = self.store.scope(&format!("listener.{}.", spec.stat_name));
        let tls_names = spec.sockets.register(&scope);
        self.listener_stats.inc(if is_new {
            ListenerManagerStats::listener_added
        } else {
            ListenerManagerStats::listener_modified
        });
        let entry = ListenerEntry {
            received,
            origin,
            spec,
            sockets,
            given_up: BTreeSet::new(),
            tls_names,
        };
        // One that takes the place of another that warms warms on until it is ready itself.
        self.warming_listeners.insert(name, entry);
        self.publish_warm_listeners();
        Ok(Applied::Changed)
    }

    fn bind(&self, config: &ListenerConfig) -> Result<Arc<ListenerSockets>, ConfigError> {
        match ListenerSockets::bind(config, self.workers.len()) {
            Ok(sockets) => Ok(Arc::new(sockets)),
            Err(reason) => {
                self.listener_stats
                    .inc(ListenerManagerStats::listener_create_failure);
                let path = format!("listener \"{}\"", config.name);
                Err(ConfigError::field("address", reason).within(path))
            }
        }
    }

    fn is_warm(&self, entry: &ListenerEntry) -> bool {
        entry.spec.sockets.are_settled() && self.has_routes(entry)
    }

    fn has_routes(&self, entry: &ListenerEntry) -> bool {
        entry
            .rds_names()
            .all(|n| self.routes.contains_key(n) || entry.given_up.contains(n))
    }

    fn publish_listener(&mut self, name: Arc<str>, entry: ListenerEntry) {
        if !self.workers_started {
            self.listeners.insert(name, entry);
            return;
        }
        let old = self.listeners.remove(&name);
        match &old {
            Some(old) if is_in_place(old, &entry) => {
                self.listener_stats
                    .inc(ListenerManagerStats::listener_in_place_updated);
                self.begin_chain_drain(old, &entry);
                self.pending.push(Change::FilterChains(entry.spec.clone()));
                self.count_created();
            }
            _ => {
                if let Some(old) = &old {
                    self.begin_drain(old);
                }
                self.serve(&entry);
            }
        }
        self.listeners.insert(name, entry);
    }

    /// Has the workers accept for a listener.
    fn serve(&mut self, entry: &ListenerEntry) {
        if let Err(error) = entry.sockets.listen() {
            tracing::error!(target: "config", listener = %entry.spec.config.name, %error, "cannot listen");
            self.listener_stats
                .inc(ListenerManagerStats::listener_create_failure);
            return;
        }
        self.pending
            .push(Change::Listener(entry.spec.clone(), entry.sockets.clone()));
        self.count_created();
    }

    fn count_created(&self) {
        let workers = u64::try_from(self.workers.len()).unwrap_or(u64::MAX);
        self.listener_stats
            .add(ListenerManagerStats::listener_create_success, workers);
    }

    /// The workers accept from now on, for the listeners that are ready, and for others as
    /// they become so.
    pub fn start_workers(&mut self) {
        self.workers_started = true;
        self.listener_stats
            .gauge_set(ListenerManagerStats::workers_started, 1);
        let ready = std::mem::take(&mut self.listeners);
        for entry in ready.values() {
            self.serve(entry);
        }
        self.listeners = ready;
    }

    /// Whether the workers accept.
    pub fn workers_started(&self) -> bool {
        self.workers_started
    }

    /// Publishes the listeners that waited only for what is known now.
    pub(super) fn publish_warm_listeners(&mut self) {
        let ready: Vec<Arc<str>> = self
            .warming_listeners
            .iter()
            .filter(|(_, entry)| self.is_warm(entry))
            .map(|(name, _)| name.clone())
            .collect();
        for name in ready {
            if let Some(entry) = self.warming_listeners.remove(&name) {
                self.publish_listener(name, entry);
            }
        }
        self.count_listeners();
    }

    /// RDS will not answer in time: those who wait go on without routes.
    pub fn routes_timed_out(&mut self, name: &Arc<str>) {
        for entry in self.warming_listeners.values_mut() {
            entry.given_up.insert(name.clone());
        }
        self.publish_warm_listeners();
    }

    /// Takes away a listener that xDS had sent; its connections drain.
    pub fn remove_listener(&mut self, name: &str) {
        if self
            .listeners
            .get(name)
            .is_some_and(|l| l.origin == Origin::Static)
        {
            return;
        }
        let warming = self.warming_listeners.remove(name).is_some();
        let removed = self.listeners.remove(name);
        let active = removed.is_some();
        if let Some(entry) = removed
            && self.workers_started
        {
            self.begin_drain(&entry);
            self.pending.push(Change::RemoveListener(name.into()));
        }
        if active || warming {
            self.listener_stats
                .inc(ListenerManagerStats::listener_removed);
        }
        self.count_listeners();
    }

    /// Asks the connections of listeners to end, by and by; `inbound_only` leaves out those of another
    /// direction.
    pub fn drain_listeners(&mut self, inbound_only: bool) {
        self.each_listener(inbound_only, Change::DrainListener);
    }

    /// Listeners end their connections as soon as they are idle.
    pub fn end_listeners(&mut self) {
        self.each_listener(false, Change::EndListener);
    }

    /// Listeners accept no more, and their sockets close.
    pub fn stop_listeners(&mut self, inbound_only: bool) {
        let stopped = self.each_listener(inbound_only, Change::StopListener);
        self.listener_stats
            .add(ListenerManagerStats::listener_stopped, stopped);
        for entry in self.listeners.values() {
            if !inbound_only || is_inbound(entry) {
                entry.sockets.close();
            }
        }
    }

    /// The process fails its health check on purpose, or does so no more.
    pub fn set_health_failed(&mut self, failed: bool) {
        self.pending.push(Change::HealthFailed(failed));
    }

    /// Connections that listeners serve, over all workers.
    pub fn active_connections(&self) -> u64 {
        let names: BTreeSet<&Arc<str>> =
            self.listeners.values().map(|l| &l.spec.stat_name).collect();
        let of = |name: &&Arc<str>| {
            self.store
                .gauge_value(&format!("listener.{name}.downstream_cx_active"))
        };
        names.iter().filter_map(of).sum()
    }

    /// Tells the workers of a change of many listeners; how many that were.
    fn each_listener(&mut self, inbound_only: bool, change: impl Fn(Arc<str>) -> Change) -> u64 {
        let mut told = 0;
        for (name, entry) in &self.listeners {
            if !inbound_only || is_inbound(entry) {
                self.pending.push(change(name.clone()));
                told += 1;
            }
        }
        told
    }

    /// Names that RDS is to be asked for, of active and warming listeners.
    pub fn rds_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.listeners
            .values()
            .chain(self.warming_listeners.values())
            .flat_map(ListenerEntry::rds_names)
    }

    /// Active listeners.
    pub fn listeners(&self) -> impl Iterator<Item = &ListenerEntry> {
        self.listeners.values()
    }

    /// Listeners that wait for their routes.
    pub fn warming_listeners(&self) -> impl Iterator<Item = &ListenerEntry> {
        self.warming_listeners.values()
    }

    fn count_listeners(&self) {
        let set = |id, n: usize| {
            self.listener_stats
                .gauge_set(id, i64::try_from(n).unwrap_or(i64::MAX))
        };
        // As in Envoy a listener warms only beside others that serve: before that all wait.
        let warming = match self.workers_started {
            true => self.warming_listeners.len(),
            false => 0,
        };
        let all = self.listeners.len() + self.warming_listeners.len();
        set(ListenerManagerStats::total_listeners_active, all - warming);
        set(ListenerManagerStats::total_listeners_warming, warming);
    }
}

fn is_inbound(entry: &ListenerEntry) -> bool {
    entry.spec.config.traffic_direction == TrafficDirection::Inbound
}

/// Whether an update may keep the sockets.
fn same_binding(old: &ListenerConfig, new: &ListenerConfig) -> bool {
    old.addresses == new.addresses
        && old.bind_to_port == new.bind_to_port
        && old.enable_reuse_port == new.enable_reuse_port
        && old.ipv4_compat == new.ipv4_compat
}

/// Whether a listener that serves only gets other filter chains. Any other change makes it
/// another listener, and all connections of the old one drain.
fn is_in_place(old: &ListenerEntry, new: &ListenerEntry) -> bool {
    Arc::ptr_eq(&old.sockets, &new.sockets)
        && !new.spec.config.filter_chains.is_empty()
        && convert::differ_in_chains_alone(&old.received.bytes, &new.received.bytes)
}
