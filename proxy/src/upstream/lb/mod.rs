//! Load balancing: chooses a host of a cluster, one balancer a worker.
//!
//! A balancer first chooses a priority by its load, then a source of hosts
//! within it (healthy, degraded, or all in panic; by locality where localities
//! have weights), then a host by its policy. Each source keeps its own state,
//! as in Envoy.

mod edf;
mod picker;

use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_config::ir::{LbCommonConfig, LbPolicyConfig};
use outrigger_types::Address;

use super::host::Host;
use super::priority_set::{HostSet, PriorityLoad, PrioritySet};
use picker::Picker;

/// What a request asks of the balancer.
#[derive(Debug, Default)]
pub struct LbContext<'a> {
    /// Addresses of hosts already tried, not to be chosen again.
    pub avoid: &'a [Address],
    /// Whether hosts that are canaries are not to be chosen.
    pub avoid_canaries: bool,
    /// Choices before one that was tried is taken after all.
    pub max_attempts: u32,
    /// Priorities that get no load; none where all get what they should.
    pub excluded_priorities: Option<&'a [u32]>,
    /// Where the connection or the request is for; only clusters that make their hosts at
    /// such addresses ask.
    pub destination: Option<SocketAddr>,
}

impl LbContext<'_> {
    fn avoids(&self, host: &Host) -> bool {
        self.avoid_canaries && host.canary || self.avoid.contains(&host.address)
    }
}

/// The outcome of a choice.
#[derive(Debug)]
pub struct Choice {
    /// The host; none if there is none to use.
    pub host: Option<Arc<Host>>,
    /// Whether the priority was in panic.
    pub panic: bool,
}

/// A cluster's balancer on one worker.
#[derive(Debug)]
pub struct LoadBalancer {
    policy: LbPolicyConfig,
    common: LbCommonConfig,
    set: Arc<PrioritySet>,
    priorities: Vec<Sources>,
}

/// The pickers of one priority.
#[derive(Debug)]
struct Sources {
    all: Picker,
    healthy: Picker,
    degraded: Picker,
    localities: Vec<LocalitySources>,
}

#[derive(Debug)]
struct LocalitySources {
    healthy_weight: f64,
    degraded_weight: f64,
    healthy: Picker,
    degraded: Picker,
}

impl LoadBalancer {
    /// A balancer over a set of hosts.
    pub fn new(
        policy: LbPolicyConfig,
        common: LbCommonConfig,
        set: Arc<PrioritySet>,
        seed: u64,
    ) -> Self {
        let mut lb = Self {
            policy,
            common,
            set: Arc::default(),
            priorities: Vec::new(),
        };
        lb.update(set, seed);
        lb
    }

    /// The hosts in use.
    pub fn hosts(&self) -> &Arc<PrioritySet> {
        &self.set
    }

    /// Takes over a new set of hosts.
    pub fn update(&mut self, set: Arc<PrioritySet>, seed: u64) {
        let by_locality = self.common.locality_weighted;
        let picker = |hosts: &[Arc<Host>]| Picker::new(&self.policy, hosts, seed);
        let sources = |p: &HostSet| Sources {
            all: picker(&p.hosts),
            healthy: picker(&p.healthy),
            degraded: picker(&p.degraded),
            localities: if by_locality {
                locality_sources(p, &picker)
            } else {
                Vec::new()
            },
        };
        self.priorities = set.priorities.iter().map(sources).collect();
        self.set = set;
    }

    /// Chooses a host; `random` draws a number.
    pub fn choose(&mut self, cx: &LbContext<'_>, random: &mut dyn FnMut() -> u64) -> Choice {
        let set = self.set.clone();
        let adjusted = cx
            .excluded_priorities
            .and_then(|excluded| set.loads_without(excluded));
        let loads = adjusted.as_deref().unwrap_or(&set.loads);
        let mut choice = self.choose_once(&set, loads, random);
        for _ in 1..=cx.max_attempts {
            if !choice.host.as_ref().is_some_and(|host| cx.avoids(host)) {
                break;
            }
            choice = self.choose_once(&set, loads, random);
        }
        choice
    }

    fn choose_once(
        &mut self,
        set: &PrioritySet,
        loads: &[PriorityLoad],
        random: &mut dyn FnMut() -> u64,
    ) -> Choice {
        let Some((index, degraded)) = set.choose_priority(random(), loads) else {
            return Choice {
                host: None,
                panic: false,
            };
        };
        let sources = &mut self.priorities[index];
        if set.loads[index].panic {
            let host = if self.common.fail_traffic_on_panic {
                None
            } else {
                sources.all.pick(random)
            };
            return Choice { host, panic: true };
        }
        let host = if sources.localities.is_empty() {
            let picker = if degraded {
                &mut sources.degraded
            } else {
                &mut sources.healthy
            };
            picker.pick(random)
        } else {
            sources.pick_by_locality(degraded, random)
        };
        Choice { host, panic: false }
    }
}

impl Sources {
    /// Draws a locality by its effective weight, then a host of it.
    fn pick_by_locality(
        &mut self,
        degraded: bool,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<Arc<Host>> {
        let weight = |l: &LocalitySources| {
            if degraded {
                l.degraded_weight
            } else {
                l.healthy_weight
            }
        };
        let total: f64 = self.localities.iter().map(weight).sum();
        if total <= 0.0 {
            let picker = if degraded {
                &mut self.degraded
            } else {
                &mut self.healthy
            };
            return picker.pick(random);
        }
        let mut left = (random() >> 11) as f64 / (1u64 << 53) as f64 * total;
        let at = self.localities.iter().position(|l| {
            left -= weight(l);
            left < 0.0
        });
        let last = self.localities.iter().rposition(|l| weight(l) > 0.0);
        let chosen = &mut self.localities[at.or(last)?];
        let picker = if degraded {
            &mut chosen.degraded
        } else {
            &mut chosen.healthy
        };
        picker.pick(random)
    }
}

/// A locality's weight shrinks with the share of its hosts that are usable,
/// after over-provisioning by 140 %.
fn locality_sources(
    set: &HostSet,
    picker: &dyn Fn(&[Arc<Host>]) -> Picker,
) -> Vec<LocalitySources> {
    let effective = |weight: u32, usable: usize, all: usize| {
        if all == 0 {
            0.0
        } else {
            f64::from(weight) * (1.4 * usable as f64 / all as f64).min(1.0)
        }
    };
    let sources = set.localities.iter().map(|l| LocalitySources {
        healthy_weight: effective(l.weight, l.healthy.len(), l.counted()),
        degraded_weight: effective(l.weight, l.degraded.len(), l.counted()),
        healthy: picker(&l.healthy),
        degraded: picker(&l.degraded),
    });
    sources.collect()
}

#[cfg(test)]
mod tests;
