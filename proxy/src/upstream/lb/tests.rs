//! The balancer against plain expectations of its shares.

use std::collections::HashMap;

use outrigger_config::ir::{
    EndpointAddress, EndpointConfig, HealthStatus, LoadAssignmentConfig, LocalityEndpointsConfig,
    SlowStart,
};

use super::*;

fn endpoint(port: u16, weight: u32, health: HealthStatus) -> EndpointConfig {
    EndpointConfig {
        address: EndpointAddress::Resolved(Address::Ip(([127, 0, 0, 1], port).into())),
        additional_addresses: vec![],
        hostname: "".into(),
        health,
        weight,
        metadata: None,
        locality_metadata: None,
    }
}

fn group(
    priority: u32,
    weight: Option<u32>,
    endpoints: Vec<EndpointConfig>,
) -> LocalityEndpointsConfig {
    let locality = Locality {
        zone: format!("z{}", endpoints.len()).into(),
        ..Locality::default()
    };
    LocalityEndpointsConfig {
        locality,
        endpoints,
        weight,
        priority,
    }
}

use outrigger_config::ir::Locality;

fn common(locality_weighted: bool) -> LbCommonConfig {
    LbCommonConfig {
        healthy_panic_threshold: 50.0,
        fail_traffic_on_panic: false,
        locality_weighted,
        close_connections_on_host_set_change: false,
    }
}

fn balancer(
    policy: LbPolicyConfig,
    lb: LbCommonConfig,
    localities: Vec<LocalityEndpointsConfig>,
) -> LoadBalancer {
    let config = LoadAssignmentConfig {
        cluster_name: "c".into(),
        localities,
        overprovisioning_factor: 140,
        drop_overloads: vec![],
        endpoint_stale_after: None,
        weighted_priority_health: false,
    };
    let set = PrioritySet::build(&PrioritySet::default(), &config, 50, &|_| vec![]).0;
    LoadBalancer::new(policy, lb, Arc::new(set), 0)
}

/// A fixed sequence of numbers that is even enough for shares.
fn numbers() -> impl FnMut() -> u64 {
    let mut state = 1u64;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn shares(lb: &mut LoadBalancer, picks: usize) -> HashMap<u16, usize> {
    let mut random = numbers();
    let mut counts = HashMap::new();
    for _ in 0..picks {
        if let Some(host) = lb.choose(&LbContext::default(), &mut random).host {
            *counts.entry(host.address.port().unwrap()).or_default() += 1;
        }
    }
    counts
}

fn round_robin() -> LbPolicyConfig {
    LbPolicyConfig::RoundRobin(SlowStart::default())
}

use HealthStatus::{Healthy as H, Unhealthy as U};

#[test]
fn round_robin_takes_hosts_in_turn() {
    let hosts = vec![endpoint(1, 1, H), endpoint(2, 1, H), endpoint(3, 1, H)];
    let mut lb = balancer(round_robin(), common(false), vec![group(0, None, hosts)]);
    assert_eq!(
        shares(&mut lb, 300),
        HashMap::from([(1, 100), (2, 100), (3, 100)])
    );
}

#[test]
fn round_robin_follows_weights() {
    let hosts = vec![endpoint(1, 1, H), endpoint(2, 3, H)];
    let mut lb = balancer(round_robin(), common(false), vec![group(0, None, hosts)]);
    assert_eq!(shares(&mut lb, 400), HashMap::from([(1, 100), (2, 300)]));
}

#[test]
fn least_request_prefers_the_idle_host() {
    let policy = LbPolicyConfig::LeastRequest {
        choice_count: 2,
        active_request_bias: 1.0,
        full_scan: false,
        slow_start: SlowStart::default(),
    };
    let hosts = vec![endpoint(1, 1, H), endpoint(2, 1, H)];
    let mut lb = balancer(policy, common(false), vec![group(0, None, hosts)]);
    let busy = lb.hosts().priorities[0].hosts[0].clone();
    busy.stats
        .rq_active
        .store(50, std::sync::atomic::Ordering::Relaxed);
    let counts = shares(&mut lb, 1000);
    // Both draws must hit the busy host for it to be taken.
    assert!((150..350).contains(&counts[&1]), "{counts:?}");
}

#[test]
fn unhealthy_hosts_are_used_only_in_panic() {
    let hosts = vec![endpoint(1, 1, H), endpoint(2, 1, H), endpoint(3, 1, U)];
    let mut lb = balancer(round_robin(), common(false), vec![group(0, None, hosts)]);
    assert!(!shares(&mut lb, 100).contains_key(&3));
    let hosts = vec![endpoint(1, 1, H), endpoint(2, 1, U), endpoint(3, 1, U)];
    let mut lb = balancer(round_robin(), common(false), vec![group(0, None, hosts)]);
    assert_eq!(shares(&mut lb, 99).len(), 3);
}

#[test]
fn panic_may_be_set_to_fail() {
    let mut lb = common(false);
    lb.fail_traffic_on_panic = true;
    let mut lb = balancer(
        round_robin(),
        lb,
        vec![group(0, None, vec![endpoint(1, 1, U)])],
    );
    let choice = lb.choose(&LbContext::default(), &mut numbers());
    assert!(choice.panic && choice.host.is_none());
}

#[test]
fn locality_weights_share_the_load() {
    let groups = vec![
        group(0, Some(1), vec![endpoint(1, 1, H)]),
        group(0, Some(3), vec![endpoint(2, 1, H), endpoint(3, 1, H)]),
    ];
    let mut lb = balancer(round_robin(), common(true), groups);
    let counts = shares(&mut lb, 4000);
    assert!((850..1150).contains(&counts[&1]), "{counts:?}");
}

#[test]
fn hosts_already_tried_are_avoided() {
    let hosts = vec![endpoint(1, 1, H), endpoint(2, 1, H)];
    let mut lb = balancer(round_robin(), common(false), vec![group(0, None, hosts)]);
    let tried = [Address::Ip(([127, 0, 0, 1], 1).into())];
    let cx = LbContext {
        avoid: &tried,
        max_attempts: 3,
        ..LbContext::default()
    };
    let mut random = numbers();
    for _ in 0..10 {
        let host = lb.choose(&cx, &mut random).host.unwrap();
        assert_eq!(host.address.port(), Some(2));
    }
}

#[test]
fn priorities_already_tried_give_way() {
    let groups = vec![
        group(0, None, vec![endpoint(1, 1, H)]),
        group(1, None, vec![endpoint(2, 1, H), endpoint(3, 1, H)]),
    ];
    let mut lb = balancer(round_robin(), common(false), groups);
    let cx = LbContext {
        excluded_priorities: Some(&[0]),
        ..LbContext::default()
    };
    let host = lb.choose(&cx, &mut numbers()).host.unwrap();
    assert_ne!(host.address.port(), Some(1));
}

#[test]
fn a_full_scan_finds_the_least_busy_of_all() {
    let hosts = (1..=50).map(|port| endpoint(port, 1, H)).collect();
    let policy = LbPolicyConfig::LeastRequest {
        choice_count: 2,
        active_request_bias: 1.0,
        full_scan: true,
        slow_start: SlowStart::default(),
    };
    let mut lb = balancer(policy, common(false), vec![group(0, None, hosts)]);
    for host in lb.hosts().hosts().filter(|h| h.address.port() > Some(2)) {
        host.stats
            .rq_active
            .store(1, std::sync::atomic::Ordering::Relaxed);
    }
    let counts = shares(&mut lb, 1000);
    assert_eq!(counts[&1] + counts[&2], 1000);
    assert!((400..600).contains(&counts[&1]), "{counts:?}");
}

proptest::proptest! {
    /// Over one priority, whatever the weights and the health: healthy hosts share by
    /// weight; below the panic threshold all hosts do.
    #[test]
    fn round_robin_shares_by_weight_among_the_usable(
        hosts in proptest::collection::vec((1u32..10, proptest::bool::ANY), 1..12),
    ) {
        let endpoints: Vec<_> = (1..)
            .zip(&hosts)
            .map(|(port, (weight, healthy))| endpoint(port, *weight, if *healthy { H } else { U }))
            .collect();
        let usable = hosts.iter().filter(|(_, healthy)| *healthy).count();
        let panic = usable * 2 < hosts.len();
        let expected: HashMap<u16, f64> = (1..)
            .zip(&hosts)
            .filter(|(_, (_, healthy))| panic || *healthy)
            .map(|(port, (weight, _))| (port, f64::from(*weight)))
            .collect();
        let total: f64 = expected.values().sum();
        let mut lb = balancer(round_robin(), common(false), vec![group(0, None, endpoints)]);
        // Some whole turns: every share is then exact but for one turn's ends.
        let turns = 20;
        let counts = shares(&mut lb, turns * total as usize);
        proptest::prop_assert_eq!(counts.len(), expected.len());
        for (port, weight) in expected {
            let wanted = weight * turns as f64;
            let got = counts[&port] as f64;
            proptest::prop_assert!((got - wanted).abs() <= 2.0, "{port}: {got} for {wanted}");
        }
    }

    /// Priorities take load in order, each as far as 140 % of its healthy share goes; what
    /// they cannot take in sum is scaled up.
    #[test]
    fn priorities_take_load_in_order(
        sizes in proptest::collection::vec((0usize..6, 0usize..6), 1..4),
    ) {
        let mut port = 0;
        let mut groups = Vec::new();
        for (priority, (healthy, unhealthy)) in (0..).zip(&sizes) {
            let mut endpoints = Vec::new();
            for at in 0..healthy + unhealthy {
                port += 1;
                endpoints.push(endpoint(port, 1, if at < *healthy { H } else { U }));
            }
            groups.push(group(priority, None, endpoints));
        }
        let availability: Vec<u32> = sizes
            .iter()
            .map(|(h, u)| (*h * 140).checked_div(h + u).unwrap_or(0).min(100) as u32)
            .collect();
        let total = availability.iter().sum::<u32>().min(100);
        let lb = balancer(round_robin(), common(false), groups);
        if total < 100 {
            // Panic may set in: the loads still hold what there is, in sum 100 or none.
            let sum: u32 = lb.hosts().loads.iter().map(|l| l.healthy + l.degraded).sum();
            proptest::prop_assert!(sum == 100 || sum == 0, "{sum}");
            return Ok(());
        }
        let mut left = 100;
        for (load, available) in lb.hosts().loads.iter().zip(availability) {
            let taken = available.min(left);
            proptest::prop_assert_eq!(load.healthy, taken);
            left -= taken;
        }
    }
}
