//! One policy over one list of hosts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use outrigger_config::ir::{LbPolicyConfig, SlowStart};

use super::edf::Edf;
use crate::upstream::host::Host;

/// Chooses one of a list of hosts.
#[derive(Debug)]
pub(super) struct Picker {
    hosts: Vec<Arc<Host>>,
    rule: Rule,
}

#[derive(Debug)]
enum Rule {
    /// In turn.
    InTurn { next: usize },
    /// The least busy of some drawn at random.
    LeastOf { choices: u32 },
    /// One of the least busy of all.
    LeastOfAll,
    /// By a schedule of weights, less where a host is busy (bias over zero) or
    /// new.
    Weighted {
        edf: Edf,
        bias: f64,
        slow_start: SlowStart,
    },
    /// Any.
    Random,
}

impl Picker {
    /// A picker of a policy. `seed` shifts where turns begin, so that many
    /// proxies do not march in step.
    pub(super) fn new(policy: &LbPolicyConfig, hosts: &[Arc<Host>], seed: u64) -> Self {
        let rule = match policy {
            // Of hosts that the cluster makes itself none is ever drawn.
            LbPolicyConfig::Random | LbPolicyConfig::ClusterProvided => Rule::Random,
            LbPolicyConfig::RoundRobin(slow_start) => {
                if equal_weights(hosts) && slow_start.window == Duration::ZERO {
                    Rule::InTurn {
                        next: seed as usize % hosts.len().max(1),
                    }
                } else {
                    weighted(hosts, 0.0, *slow_start, seed)
                }
            }
            LbPolicyConfig::LeastRequest {
                choice_count,
                active_request_bias,
                full_scan,
                slow_start,
            } => {
                if !equal_weights(hosts) || slow_start.window != Duration::ZERO {
                    weighted(hosts, *active_request_bias, *slow_start, seed)
                } else if *full_scan {
                    Rule::LeastOfAll
                } else {
                    Rule::LeastOf {
                        choices: *choice_count,
                    }
                }
            }
        };
        Self {
            hosts: hosts.to_vec(),
            rule,
        }
    }

    /// Chooses a host; none if the list is empty.
    pub(super) fn pick(&mut self, random: &mut dyn FnMut() -> u64) -> Option<Arc<Host>> {
        if self.hosts.is_empty() {
            return None;
        }
        let hosts = &self.hosts;
        let index = match &mut self.rule {
            Rule::InTurn { next } => {
                let index = *next % hosts.len();
                *next = index + 1;
                index
            }
            Rule::Random => random() as usize % hosts.len(),
            Rule::LeastOf { choices } => least_busy(hosts, *choices, random),
            Rule::LeastOfAll => least_busy_of_all(hosts, random),
            Rule::Weighted {
                edf,
                bias,
                slow_start,
            } => edf.pick(|i| effective_weight(&hosts[i], *bias, slow_start))?,
        };
        Some(hosts[index].clone())
    }
}

fn equal_weights(hosts: &[Arc<Host>]) -> bool {
    hosts
        .windows(2)
        .all(|pair| pair[0].weight() == pair[1].weight())
}

fn weighted(hosts: &[Arc<Host>], bias: f64, slow_start: SlowStart, seed: u64) -> Rule {
    let mut edf = Edf::default();
    for (index, host) in hosts.iter().enumerate() {
        edf.add(index, effective_weight(host, bias, &slow_start));
    }
    for _ in 0..(seed as usize % hosts.len().max(1)) {
        edf.pick(|i| effective_weight(&hosts[i], bias, &slow_start));
    }
    Rule::Weighted {
        edf,
        bias,
        slow_start,
    }
}

fn least_busy(hosts: &[Arc<Host>], choices: u32, random: &mut dyn FnMut() -> u64) -> usize {
    let active = |i: usize| hosts[i].stats.rq_active.load(Ordering::Relaxed);
    let mut best = random() as usize % hosts.len();
    for _ in 1..choices {
        let other = random() as usize % hosts.len();
        if active(other) < active(best) {
            best = other;
        }
    }
    best
}

/// One of the least busy, each as likely as another.
fn least_busy_of_all(hosts: &[Arc<Host>], random: &mut dyn FnMut() -> u64) -> usize {
    let active = |host: &Arc<Host>| host.stats.rq_active.load(Ordering::Relaxed);
    let (mut best, mut least, mut ties) = (0, u32::MAX, 0);
    for (index, busy) in hosts.iter().map(active).enumerate() {
        if busy < least {
            (best, least, ties) = (index, busy, 1);
        } else if busy == least {
            ties += 1;
            if random().is_multiple_of(ties) {
                best = index;
            }
        }
    }
    best
}

/// The configured weight, less for a busy host and for one that is new.
fn effective_weight(host: &Host, bias: f64, slow_start: &SlowStart) -> f64 {
    let mut weight = f64::from(host.weight());
    if bias > 0.0 {
        let active = f64::from(host.stats.rq_active.load(Ordering::Relaxed));
        weight /= (active + 1.0).powf(bias);
    }
    let age = host.created.elapsed();
    if age < slow_start.window {
        let share = age.as_secs_f64().max(0.001) / slow_start.window.as_secs_f64();
        let aggression = if slow_start.aggression > 0.0 {
            slow_start.aggression
        } else {
            1.0
        };
        weight *= share
            .powf(1.0 / aggression)
            .max(slow_start.min_weight_percent / 100.0);
    }
    weight.max(1e-6)
}
