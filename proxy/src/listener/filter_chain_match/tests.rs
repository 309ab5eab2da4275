//! The choice of a chain, by tables.

use super::*;
use outrigger_config::ir::NetworkTerminal;

fn chain(name: &str, matches: FilterChainMatchConfig) -> Arc<FilterChainConfig> {
    Arc::new(FilterChainConfig {
        name: name.into(),
        matches,
        exchange: None,
        terminal: NetworkTerminal::None,
        transport: Default::default(),
        transport_socket_connect_timeout: None,
        metadata: None,
        fingerprint: 0,
    })
}

fn matcher(chains: Vec<Arc<FilterChainConfig>>) -> ChainMatcher {
    ChainMatcher {
        chains,
        default: Some(chain("default", FilterChainMatchConfig::default())),
    }
}

fn any() -> FilterChainMatchConfig {
    FilterChainMatchConfig::default()
}

fn range(text: &str, len: u8) -> Vec<CidrRange> {
    vec![CidrRange::new(text.parse().unwrap(), len)]
}

/// The name of the chain for a connection to `local` from `remote`.
fn find(
    matcher: &ChainMatcher,
    local: &str,
    remote: &str,
    change: impl Fn(&mut Peer<'_>),
) -> String {
    let local = Address::Ip(local.parse().unwrap());
    let remote = Address::Ip(remote.parse().unwrap());
    let mut peer = Peer {
        local: &local,
        remote: &remote,
        direct_remote: &remote,
        server_name: "",
        transport_protocol: "raw_buffer",
        application_protocols: &[],
    };
    change(&mut peer);
    matcher
        .find(&peer)
        .map_or_else(String::new, |c| c.name.to_string())
}

#[test]
fn a_lone_chain_without_criteria_takes_all() {
    let m = matcher(vec![chain("only", any())]);
    assert_eq!(find(&m, "1.2.3.4:80", "5.6.7.8:9", |_| {}), "only");
}

#[test]
fn a_port_beats_no_port_and_nothing_goes_back() {
    let port = FilterChainMatchConfig {
        destination_port: Some(80),
        server_names: vec!["a.com".into()],
        ..any()
    };
    let m = matcher(vec![chain("port", port), chain("any", any())]);
    assert_eq!(find(&m, "1.2.3.4:81", "5.6.7.8:9", |_| {}), "any");
    assert_eq!(
        find(&m, "1.2.3.4:80", "5.6.7.8:9", |p| p.server_name = "a.com"),
        "port"
    );
    // The port is taken; that its chain then fails does not bring back the other.
    assert_eq!(find(&m, "1.2.3.4:80", "5.6.7.8:9", |_| {}), "default");
}

#[test]
fn the_longest_prefix_wins() {
    let of = |ranges| FilterChainMatchConfig {
        prefix_ranges: ranges,
        ..any()
    };
    let m = matcher(vec![
        chain("wide", of(range("10.0.0.0", 8))),
        chain("narrow", of(range("10.1.0.0", 16))),
    ]);
    assert_eq!(find(&m, "10.1.2.3:1", "9.9.9.9:1", |_| {}), "narrow");
    assert_eq!(find(&m, "10.2.2.3:1", "9.9.9.9:1", |_| {}), "wide");
    assert_eq!(find(&m, "11.2.2.3:1", "9.9.9.9:1", |_| {}), "default");
}

#[test]
fn an_exact_name_beats_a_suffix() {
    let of = |name: &str| FilterChainMatchConfig {
        server_names: vec![name.into()],
        ..any()
    };
    let m = matcher(vec![
        chain("com", of("*.com")),
        chain("suffix", of("*.example.com")),
        chain("exact", of("www.example.com")),
    ]);
    for (name, wanted) in [
        ("www.example.com", "exact"),
        ("api.example.com", "suffix"),
        ("example.com", "com"),
        ("example.org", "default"),
    ] {
        assert_eq!(
            find(&m, "1.1.1.1:1", "2.2.2.2:2", |p| p.server_name = name),
            wanted,
            "{name}"
        );
    }
}

#[test]
fn transport_application_and_source_are_told_apart() {
    let tls = FilterChainMatchConfig {
        transport_protocol: "tls".into(),
        ..any()
    };
    let h2 = FilterChainMatchConfig {
        transport_protocol: "tls".into(),
        application_protocols: vec!["h2".into()],
        ..any()
    };
    let local = FilterChainMatchConfig {
        transport_protocol: "raw_buffer".into(),
        source_type: SourceType::SameIpOrLoopback,
        ..any()
    };
    let port = FilterChainMatchConfig {
        transport_protocol: "raw_buffer".into(),
        source_ports: vec![7],
        ..any()
    };
    let m = matcher(vec![
        chain("tls", tls),
        chain("h2", h2),
        chain("local", local),
        chain("port", port),
    ]);
    assert_eq!(
        find(&m, "1.1.1.1:1", "2.2.2.2:2", |p| p.transport_protocol =
            "tls"),
        "tls"
    );
    let alpn = |p: &mut Peer<'_>| {
        p.transport_protocol = "tls";
        p.application_protocols = &["h2", "http/1.1"];
    };
    assert_eq!(find(&m, "1.1.1.1:1", "2.2.2.2:2", alpn), "h2");
    assert_eq!(find(&m, "1.1.1.1:1", "127.0.0.1:2", |_| {}), "local");
    assert_eq!(find(&m, "1.1.1.1:1", "1.1.1.1:2", |_| {}), "local");
    assert_eq!(find(&m, "1.1.1.1:1", "2.2.2.2:7", |_| {}), "port");
    assert_eq!(find(&m, "1.1.1.1:1", "2.2.2.2:8", |_| {}), "default");
}

#[test]
fn a_prefix_of_no_length_leaves_chains_without_one_in() {
    let zero = FilterChainMatchConfig {
        prefix_ranges: range("0.0.0.0", 0),
        source_type: SourceType::External,
        ..any()
    };
    let m = matcher(vec![chain("zero", zero), chain("none", any())]);
    assert_eq!(find(&m, "10.0.0.1:80", "127.0.0.1:9", |_| {}), "none");
    assert_eq!(find(&m, "10.0.0.1:80", "10.0.0.2:9", |_| {}), "zero");
    assert_eq!(find(&m, "[::1]:80", "[::1]:9", |_| {}), "none");
}
