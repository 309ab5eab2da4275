use std::net::SocketAddr;

use outrigger_config::ir::ListenerFilterPredicate;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client_hello::tests::named;
use super::*;

fn filters(kinds: Vec<ListenerFilterKind>, timeout: Option<Duration>) -> ListenerFilters {
    let filter = |kind| ListenerFilterConfig {
        name: "f".into(),
        disabled: None,
        kind,
    };
    let filters: Vec<ListenerFilterConfig> = kinds.into_iter().map(filter).collect();
    ListenerFilters {
        stats: FilterStats::new(&filters, &Store::default()),
        filters,
        timeout,
        goes_on: true,
    }
}

fn both(max_client_hello_size: usize) -> Vec<ListenerFilterKind> {
    vec![
        ListenerFilterKind::TlsInspector(TlsInspectorConfig {
            max_client_hello_size,
            close_on_error: false,
        }),
        ListenerFilterKind::HttpInspector,
    ]
}

fn facts() -> Facts {
    let end = |port| Address::from(SocketAddr::from(([127, 0, 0, 1], port)));
    Facts::new(end(80), end(5000))
}

/// What filters make of a client that says `pieces` and then ends.
async fn run(
    filters: &ListenerFilters,
    pieces: &[&[u8]],
) -> (Result<(), Rejected>, Facts, Vec<u8>) {
    let (mut client, mut server) = Io::pair(1 << 20);
    let mut facts = facts();
    let client_side = async move {
        for piece in pieces {
            client.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let (outcome, ()) = tokio::join!(filters.run(&mut server, &mut facts), client_side);
    let mut all = Vec::new();
    server.read_to_end(&mut all).await.unwrap();
    (outcome, facts, all)
}

#[tokio::test]
async fn a_client_hello_is_found_and_put_back() {
    let hello = named("A.example", &["h2", "istio"]);
    let filters = filters(both(1024), None);
    for pieces in [vec![&hello[..]], hello.chunks(7).collect()] {
        let (outcome, facts, all) = run(&filters, &pieces).await;
        assert_eq!((outcome, &all), (Ok(()), &hello));
        assert_eq!(
            (facts.transport_protocol, &*facts.server_name),
            ("tls", "a.example")
        );
        let protocols: Vec<&str> = facts.application_protocols.iter().map(|p| &**p).collect();
        assert_eq!(protocols, ["h2", "istio"]);
    }
}

#[tokio::test]
async fn the_version_of_http_is_found() {
    let filters = filters(both(1024), None);
    for (said, version) in [
        ("GET / HTTP/1.1\r\n\r\n", "http/1.1"),
        ("GET / HTTP/1.0\r\n\r\n", "http/1.0"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "h2c"),
    ] {
        let bytes: Vec<&[u8]> = said.as_bytes().chunks(1).collect();
        let (outcome, facts, all) = run(&filters, &bytes).await;
        assert_eq!((outcome, &*all), (Ok(()), said.as_bytes()));
        assert_eq!(facts.application_protocols, [version.into()]);
        assert_eq!(facts.transport_protocol, "raw_buffer");
    }
    let (outcome, facts, _) = run(&filters, &[b"hello\n"]).await;
    assert!(outcome.is_ok() && facts.application_protocols.is_empty());
}

#[tokio::test]
async fn what_is_too_long_is_refused_or_no_http() {
    let hello = named(&"a".repeat(200), &[]);
    let small = filters(both(hello.len() - 1), None);
    assert_eq!(run(&small, &[&hello]).await.0, Err(Rejected::Refused));
    let fits = filters(both(hello.len()), None);
    assert_eq!(run(&fits, &[&hello]).await.0, Ok(()));
    let endless = vec![b'a'; 2 * MAX_LINE];
    let (outcome, facts, all) = run(&fits, &[&endless]).await;
    assert_eq!((outcome, all.len()), (Ok(()), endless.len()));
    assert!(facts.application_protocols.is_empty());
}

#[tokio::test]
async fn an_early_end_is_told_apart() {
    let filters = filters(both(1024), None);
    assert_eq!(run(&filters, &[b"GET"]).await.0, Err(Rejected::Closed));
    assert_eq!(run(&filters, &[]).await.0, Err(Rejected::Closed));
}

#[tokio::test(start_paused = true)]
async fn what_is_known_in_time_is_kept() {
    let filters = filters(both(1024), Some(Duration::from_secs(1)));
    let (mut client, mut server) = Io::pair(64);
    client.write_all(b"GET / HT").await.unwrap();
    let mut facts = facts();
    let outcome = filters.run(&mut server, &mut facts).await;
    assert_eq!(outcome, Err(Rejected::Late));
    let mut said = [0; 8];
    server.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"GET / HT");
}

#[tokio::test]
async fn a_disabled_filter_reads_nothing() {
    let mut filters = filters(both(1024), None);
    for filter in &mut filters.filters {
        filter.disabled = Some(ListenerFilterPredicate::DestinationPort(80, 81));
    }
    let (outcome, facts, all) = run(&filters, &[]).await;
    assert!(outcome.is_ok() && all.is_empty() && facts.server_name.is_empty());
}
