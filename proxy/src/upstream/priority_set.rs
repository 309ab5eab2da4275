//! The hosts of a cluster by priority, and how load is spread over priorities.
//!
//! A set is immutable: an update makes a new one, which keeps the hosts that
//! have not changed. Percentages follow Envoy's "priority levels" and "panic
//! threshold" pages.

use std::collections::HashMap;
use std::sync::Arc;

use filter_api::FractionalPercent;
use outrigger_config::ir::{EndpointAddress, EndpointConfig, LoadAssignmentConfig, Locality};
use outrigger_types::Address;

use super::host::{Health, Host};

/// Percent by which a priority counts for more than its share where nothing else is said.
const OVERPROVISIONING: u32 = 140;

/// A host under its locality, for locality-weighted balancing.
#[derive(Debug, Default)]
pub struct LocalityHosts {
    /// The locality.
    pub locality: Locality,
    /// Weight among the localities of its priority.
    pub weight: u32,
    /// All of its hosts.
    pub hosts: Vec<Arc<Host>>,
    /// Those that are healthy.
    pub healthy: Vec<Arc<Host>>,
    /// Those that are degraded.
    pub degraded: Vec<Arc<Host>>,
    /// How many are draining: they count neither as usable nor as missing.
    pub excluded: usize,
}

/// The hosts of one priority.
#[derive(Debug, Default)]
pub struct HostSet {
    /// All of them.
    pub hosts: Vec<Arc<Host>>,
    /// Those that are healthy.
    pub healthy: Vec<Arc<Host>>,
    /// Those that are degraded.
    pub degraded: Vec<Arc<Host>>,
    /// How many are draining: they count neither as usable nor as missing.
    pub excluded: usize,
    /// The same by locality.
    pub localities: Vec<LocalityHosts>,
}

/// How many hosts there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All.
    pub total: usize,
    /// Healthy.
    pub healthy: usize,
    /// Degraded.
    pub degraded: usize,
    /// Draining.
    pub excluded: usize,
}

/// Load of one priority, per cent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PriorityLoad {
    /// To its healthy hosts.
    pub healthy: u32,
    /// To its degraded hosts.
    pub degraded: u32,
    /// Whether all hosts are used, healthy or not.
    pub panic: bool,
}

/// All hosts of a cluster.
#[derive(Debug, Default)]
pub struct PrioritySet {
    /// By priority; there may be empty ones between.
    pub priorities: Vec<HostSet>,
    /// Load, index-aligned with `priorities`.
    pub loads: Vec<PriorityLoad>,
    /// Share of requests to drop, by category.
    pub drop_overloads: Vec<(Arc<str>, FractionalPercent)>,
    /// Percent by which a priority counts for more than its share of healthy hosts.
    pub overprovisioning_factor: u32,
}

/// What an update changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Hosts added.
    pub added: usize,
    /// Hosts removed.
    pub removed: usize,
    /// Priorities with any of these.
    pub priorities: usize,
}

impl PrioritySet {
    /// The loads without some priorities; none if the others could take nothing.
    pub fn loads_without(&self, excluded: &[u32]) -> Option<Vec<PriorityLoad>> {
        let (mut health, mut degraded) =
            availability(&self.priorities, self.overprovisioning_factor);
        for priority in excluded {
            for shares in [&mut health, &mut degraded] {
                if let Some(share) = shares.get_mut(*priority as usize) {
                    *share = 0;
                }
            }
        }
        let available = health.iter().chain(&degraded).sum::<u32>().min(100);
        let mut loads = vec![PriorityLoad::default(); self.priorities.len()];
        (available > 0).then(|| {
            spread(&mut loads, &health, &degraded, available);
            loads
        })
    }

    /// Makes the set of an assignment whose addresses are resolved; endpoints
    /// with a DNS name are looked up in `resolved`. Hosts of `previous` that
    /// are still there keep their identity. A priority with less than `panic_threshold`
    /// per cent of usable hosts panics.
    pub fn build(
        previous: &PrioritySet,
        config: &LoadAssignmentConfig,
        panic_threshold: u64,
        resolved: &dyn Fn(&EndpointConfig) -> Vec<Address>,
    ) -> (Self, Changes) {
        let mut known: HashMap<&Address, &Arc<Host>> =
            previous.hosts().map(|h| (&h.address, h)).collect();
        let before = known.len();
        let mut kept = 0;
        let mut priorities: Vec<HostSet> = Vec::new();
        let mut total = 0;
        for group in &config.localities {
            let index = group.priority as usize;
            if priorities.len() <= index {
                priorities.resize_with(index + 1, HostSet::default);
            }
            let mut hosts = Vec::with_capacity(group.endpoints.len());
            for endpoint in &group.endpoints {
                for address in addresses(endpoint, resolved) {
                    let host = match known.remove(&address) {
                        Some(old) if old.is_same(endpoint, &group.locality, group.priority) => {
                            kept += 1;
                            old.update(endpoint.weight, endpoint.health);
                            old.clone()
                        }
                        _ => Arc::new(Host::new(
                            address,
                            endpoint,
                            group.locality.clone(),
                            group.priority,
                        )),
                    };
                    hosts.push(host);
                }
            }
            total += hosts.len();
            priorities[index].add(group.locality.clone(), group.weight.unwrap_or(0), hosts);
        }
        if priorities.is_empty() {
            priorities.push(HostSet::default());
        }
        let loads = priority_loads(&priorities, config.overprovisioning_factor, panic_threshold);
        let set = Self {
            priorities,
            loads,
            drop_overloads: config.drop_overloads.clone(),
            overprovisioning_factor: config.overprovisioning_factor,
        };
        let changes = Changes {
            added: total - kept,
            removed: before - kept,
            priorities: changed_priorities(previous, &set),
        };
        (set, changes)
    }

    /// The set of these hosts, all of one priority.
    pub fn of(hosts: Vec<Arc<Host>>) -> Self {
        let mut only = HostSet::default();
        only.add(Locality::default(), 0, hosts);
        let priorities = vec![only];
        Self {
            loads: priority_loads(&priorities, OVERPROVISIONING, 0),
            priorities,
            drop_overloads: Vec::new(),
            overprovisioning_factor: OVERPROVISIONING,
        }
    }

    /// Every host.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.priorities.iter().flat_map(|p| &p.hosts)
    }

    /// Number of hosts over all priorities.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for p in &self.priorities {
            counts.total += p.hosts.len();
            counts.healthy += p.healthy.len();
            counts.degraded += p.degraded.len();
            counts.excluded += p.excluded;
        }
        counts
    }

    /// Chooses a priority by a random number; true if its degraded hosts are
    /// meant. None if no priority takes load.
    pub fn choose_priority(&self, random: u64, loads: &[PriorityLoad]) -> Option<(usize, bool)> {
        let mut left = (random % 100) as u32 + 1;
        for (index, load) in loads.iter().enumerate() {
            if left <= load.healthy {
                return Some((index, false));
            }
            left -= load.healthy;
        }
        for (index, load) in loads.iter().enumerate() {
            if left <= load.degraded {
                return Some((index, true));
            }
            left -= load.degraded;
        }
        None
    }
}

/// Priorities that have other hosts than before.
fn changed_priorities(before: &PrioritySet, after: &PrioritySet) -> usize {
    let members = |set: &PrioritySet, index: usize| {
        let hosts = set.priorities.get(index).map(|p| p.hosts.iter());
        let mut all: Vec<_> = hosts.into_iter().flatten().map(Arc::as_ptr).collect();
        all.sort_unstable();
        all
    };
    let count = before.priorities.len().max(after.priorities.len());
    (0..count)
        .filter(|index| members(before, *index) != members(after, *index))
        .count()
}

fn addresses(
    endpoint: &EndpointConfig,
    resolved: &dyn Fn(&EndpointConfig) -> Vec<Address>,
) -> Vec<Address> {
    match &endpoint.address {
        EndpointAddress::Resolved(address) => vec![address.clone()],
        EndpointAddress::Name { .. } => resolved(endpoint),
    }
}

impl LocalityHosts {
    /// Hosts that count when the share of usable ones is taken.
    pub fn counted(&self) -> usize {
        self.hosts.len() - self.excluded
    }
}

impl HostSet {
    /// Hosts that count when the share of usable ones is taken.
    fn counted(&self) -> usize {
        self.hosts.len() - self.excluded
    }

    fn add(&mut self, locality: Locality, weight: u32, hosts: Vec<Arc<Host>>) {
        let mut group = LocalityHosts {
            locality,
            weight,
            ..LocalityHosts::default()
        };
        for host in &hosts {
            match host.health() {
                Health::Healthy => {
                    self.healthy.push(host.clone());
                    group.healthy.push(host.clone());
                }
                Health::Degraded => {
                    self.degraded.push(host.clone());
                    group.degraded.push(host.clone());
                }
                Health::Excluded => group.excluded += 1,
                Health::Unhealthy => {}
            }
        }
        self.excluded += group.excluded;
        self.hosts.extend_from_slice(&hosts);
        group.hosts = hosts;
        self.localities.push(group);
    }
}

/// The load of each priority, and which of them panic.
fn priority_loads(
    priorities: &[HostSet],
    overprovisioning: u32,
    panic_threshold: u64,
) -> Vec<PriorityLoad> {
    let (health, degraded) = availability(priorities, overprovisioning);
    let available = health.iter().chain(&degraded).sum::<u32>().min(100);
    let mut loads = vec![PriorityLoad::default(); priorities.len()];
    spread(&mut loads, &health, &degraded, available);
    mark_panic(&mut loads, priorities, available, panic_threshold);
    loads
}

/// How much of the load each priority could take, by its healthy and by its degraded
/// hosts, per cent.
fn availability(priorities: &[HostSet], overprovisioning: u32) -> (Vec<u32>, Vec<u32>) {
    let share = |part: usize, all: usize| -> u32 {
        if all == 0 {
            return 0;
        }
        let percent = u64::from(overprovisioning) * part as u64 / all as u64;
        percent.min(100) as u32
    };
    let of = |part: fn(&HostSet) -> usize| {
        let shares = priorities.iter().map(|p| share(part(p), p.counted()));
        shares.collect()
    };
    (of(|p| p.healthy.len()), of(|p| p.degraded.len()))
}

/// Gives each priority its share, the healthy hosts first; rounding goes to the
/// first that takes any.
fn spread(loads: &mut [PriorityLoad], health: &[u32], degraded: &[u32], available: u32) {
    if available == 0 {
        loads[0].healthy = 100;
        return;
    }
    let mut left = 100;
    for (load, percent) in loads.iter_mut().zip(health) {
        load.healthy = (percent * 100 / available).min(left);
        left -= load.healthy;
    }
    for (load, percent) in loads.iter_mut().zip(degraded) {
        load.degraded = (percent * 100 / available).min(left);
        left -= load.degraded;
    }
    if left > 0 {
        if let Some(first) = health.iter().position(|h| *h > 0) {
            loads[first].healthy += left;
        } else if let Some(first) = degraded.iter().position(|d| *d > 0) {
            loads[first].degraded += left;
        }
    }
}

fn mark_panic(loads: &mut [PriorityLoad], priorities: &[HostSet], available: u32, threshold: u64) {
    if threshold == 0 || available == 100 {
        return;
    }
    for (load, set) in loads.iter_mut().zip(priorities) {
        let usable = set.healthy.len() + set.degraded.len();
        let percent = match set.counted() {
            0 => 0.0,
            all => 100.0 * usable as f64 / all as f64,
        };
        load.panic = percent < threshold as f64;
    }
    if loads.iter().all(|l| l.panic) {
        spread_in_total_panic(loads, priorities);
    }
}

/// When every priority panics, load follows the number of hosts.
fn spread_in_total_panic(loads: &mut [PriorityLoad], priorities: &[HostSet]) {
    let total: usize = priorities.iter().map(|p| p.hosts.len()).sum();
    if total == 0 {
        return;
    }
    let mut left = 100;
    let mut first = None;
    for (index, (load, set)) in loads.iter_mut().zip(priorities).enumerate() {
        load.degraded = 0;
        load.healthy = (100 * set.hosts.len() / total) as u32;
        left -= load.healthy;
        if first.is_none() && !set.hosts.is_empty() {
            first = Some(index);
        }
    }
    if let Some(first) = first {
        loads[first].healthy += left;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrigger_config::ir::{HealthStatus, LocalityEndpointsConfig};

    fn assignment(priorities: &[&[HealthStatus]]) -> LoadAssignmentConfig {
        let mut port = 0;
        let localities = priorities.iter().enumerate().map(|(priority, hosts)| {
            let endpoints = hosts.iter().map(|health| {
                port += 1;
                EndpointConfig {
                    address: EndpointAddress::Resolved(Address::Ip(([127, 0, 0, 1], port).into())),
                    additional_addresses: vec![],
                    hostname: "".into(),
                    health: *health,
                    weight: 1,
                    metadata: None,
                    locality_metadata: None,
                }
            });
            LocalityEndpointsConfig {
                locality: Locality::default(),
                endpoints: endpoints.collect(),
                weight: None,
                priority: priority as u32,
            }
        });
        LoadAssignmentConfig {
            cluster_name: "c".into(),
            localities: localities.collect(),
            overprovisioning_factor: 140,
            drop_overloads: vec![],
            endpoint_stale_after: None,
            weighted_priority_health: false,
        }
    }

    fn loads(priorities: &[&[HealthStatus]]) -> Vec<PriorityLoad> {
        build(&PrioritySet::default(), priorities).0.loads
    }

    fn build(previous: &PrioritySet, priorities: &[&[HealthStatus]]) -> (PrioritySet, Changes) {
        PrioritySet::build(previous, &assignment(priorities), 50, &|_| vec![])
    }

    use HealthStatus::{Degraded as D, Draining as X, Healthy as H, Unhealthy as U};

    fn load(healthy: u32, degraded: u32, panic: bool) -> PriorityLoad {
        PriorityLoad {
            healthy,
            degraded,
            panic,
        }
    }

    #[test]
    fn load_spills_over_to_the_next_priority() {
        assert_eq!(
            loads(&[&[H, H, H, U], &[H]]),
            [load(100, 0, false), load(0, 0, false)]
        );
        assert_eq!(
            loads(&[&[H, U], &[H]]),
            [load(70, 0, false), load(30, 0, false)]
        );
        assert_eq!(
            loads(&[&[U, U], &[H]]),
            [load(0, 0, false), load(100, 0, false)]
        );
    }

    #[test]
    fn degraded_hosts_take_what_is_left() {
        assert_eq!(loads(&[&[H, D]]), [load(70, 30, false)]);
        assert_eq!(loads(&[&[D, D]]), [load(0, 100, false)]);
    }

    #[test]
    fn too_few_healthy_hosts_are_a_panic() {
        assert_eq!(loads(&[&[H, U, U, U]]), [load(100, 0, true)]);
        assert_eq!(
            loads(&[&[U, U, U], &[U]]),
            [load(75, 0, true), load(25, 0, true)]
        );
        assert_eq!(loads(&[&[H, U]])[0].healthy, 100);
    }

    #[test]
    fn draining_hosts_are_not_missing() {
        assert_eq!(loads(&[&[H, X, X]]), [load(100, 0, false)]);
        assert_eq!(
            loads(&[&[H, X], &[H]]),
            [load(100, 0, false), load(0, 0, false)]
        );
        assert_eq!(loads(&[&[H, D, X]]), [load(70, 30, false)]);
        assert_eq!(loads(&[&[X, X]]), [load(100, 0, true)]);
        let (set, _) = build(&PrioritySet::default(), &[&[H, X, U], &[X]]);
        let counts = set.counts();
        assert_eq!((counts.total, counts.healthy, counts.excluded), (4, 1, 2));
    }

    #[test]
    fn an_update_tells_which_priorities_changed() {
        let (first, changes) = build(&PrioritySet::default(), &[&[H], &[], &[H, U]]);
        assert_eq!(changes.priorities, 2);
        let (_, changes) = build(&first, &[&[U], &[], &[H]]);
        assert_eq!((changes.removed, changes.priorities), (1, 1));
        let (_, changes) = build(&first, &[&[H], &[], &[D, H]]);
        assert_eq!(changes.priorities, 0);
    }

    #[test]
    fn an_update_keeps_the_hosts_that_stay() {
        let (first, changes) = build(&PrioritySet::default(), &[&[H, H]]);
        assert_eq!(
            changes,
            Changes {
                added: 2,
                removed: 0,
                priorities: 1,
            }
        );
        let (second, changes) = build(&first, &[&[H, U, H]]);
        assert_eq!(
            changes,
            Changes {
                added: 1,
                removed: 0,
                priorities: 1,
            }
        );
        assert!(Arc::ptr_eq(
            &first.priorities[0].hosts[0],
            &second.priorities[0].hosts[0]
        ));
        let counts = second.counts();
        assert_eq!((counts.total, counts.healthy, counts.degraded), (3, 2, 0));
        let (_, changes) = build(&second, &[&[]]);
        assert_eq!(
            changes,
            Changes {
                added: 0,
                removed: 3,
                priorities: 1,
            }
        );
    }
}
