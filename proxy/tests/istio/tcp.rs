//! The exchange of metadata over TCP: from sidecar to sidecar, and byte for byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::mesh::{
    Authority, EXCHANGE, Sidecar, cluster, exchange, listener, preamble, stats, tcp_proxy,
};

const LOG: &str = "%FILTER_STATE(downstream_peer)% %UPSTREAM_FILTER_STATE(upstream_peer)% \
     %FILTER_STATE(peer_not_found:PLAIN)% %UPSTREAM_FILTER_STATE(peer_not_found:PLAIN)% \
     %BYTES_RECEIVED% %BYTES_SENT%";

/// An application that sends back what it gets; one that greets speaks first.
async fn application(greeting: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                to.write_all(greeting).await.unwrap();
                // Who is gone wants nothing back.
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    });
    address
}

/// The sidecar of the server, which agrees on one of `alpn`.
fn inbound(ca: &Authority, application: SocketAddr, alpn: &[&str]) -> Sidecar {
    let filters = [exchange(), stats(), tcp_proxy(LOG)];
    let listener = listener(&filters, Some(ca.downstream("server", alpn)));
    Sidecar::start("server", &listener, &[cluster("a", application, json!({}))])
}

/// The sidecar of the client.
fn outbound(ca: &Authority, server: SocketAddr) -> Sidecar {
    let of_cluster = json!({"transport_socket": ca.upstream("client"), "filters": [exchange()]});
    let listener = listener(&[stats(), tcp_proxy(LOG)], None);
    Sidecar::start("client", &listener, &[cluster("a", server, of_cluster)])
}

/// What is logged of a peer.
fn peer(name: &str) -> String {
    format!(
        "{{\"@type\":\"type.googleapis.com/google.protobuf.Struct\",\"value\":{{\"app\":\"{name}\",\
         \"cluster\":\"Kubernetes\",\"name\":\"\",\"namespace\":\"{name}\",\
         \"workload\":\"{name}-v1\"}}}}"
    )
}

/// A client of the test's own, to a sidecar.
async fn connect(ca: &Authority, sidecar: &Sidecar, alpn: &[&str]) -> TlsStream<TcpStream> {
    let connector = TlsConnector::from(Arc::new(ca.client("client", alpn)));
    let stream = TcpStream::connect(sidecar.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from("server.test").unwrap();
    connector.connect(name, stream).await.unwrap()
}

async fn read(stream: &mut (impl tokio::io::AsyncRead + Unpin), n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    let reading = tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut bytes));
    reading.await.expect("in time").unwrap();
    bytes
}

#[tokio::test]
async fn bytes_pass_and_both_sidecars_know_the_peer() {
    let ca = Authority::new();
    let server = inbound(&ca, application(b"").await, &[EXCHANGE, "h2", "http/1.1"]);
    let client = outbound(&ca, server.address);
    let mut stream = TcpStream::connect(client.address).await.unwrap();
    let sent: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
    let (mut from, mut to) = stream.split();
    let (wrote, got) = tokio::join!(to.write_all(&sent), read(&mut from, sent.len()));
    wrote.unwrap();
    assert!(got == sent, "the bytes changed");
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);

    let (of_client, of_server) = (peer("client"), peer("server"));
    let client_says = format!("- {of_server} - - 300000 300000");
    assert_eq!(client.logged().await, client_says);
    let server_says = format!("{of_client} - - - 300000 300000");
    assert_eq!(server.logged().await, server_says);
    assert_eq!(client.exchanges(), [1, 0, 1, 0]);
    assert_eq!(server.exchanges(), [1, 0, 1, 0]);
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard() {
    let ca = Authority::new();
    let server = inbound(&ca, application(b"220 ready\r\n").await, &[EXCHANGE]);
    let client = outbound(&ca, server.address);
    let mut stream = TcpStream::connect(client.address).await.unwrap();
    assert_eq!(read(&mut stream, 11).await, b"220 ready\r\n");
    stream.write_all(b"EHLO").await.unwrap();
    assert_eq!(read(&mut stream, 4).await, b"EHLO");
}

#[tokio::test]
async fn the_inbound_sidecar_keeps_to_the_bytes_of_the_exchange() {
    let ca = Authority::new();
    let server = inbound(&ca, application(b"").await, &[EXCHANGE]);
    let mut stream = connect(&ca, &server, &[EXCHANGE, "istio"]).await;
    let said = [&preamble("client")[..], b"hello"].concat();
    for piece in said.chunks(7) {
        stream.write_all(piece).await.unwrap();
        stream.flush().await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let expected = [&preamble("server")[..], b"hello"].concat();
    assert_eq!(read(&mut stream, expected.len()).await, expected);
    drop(stream);
    let line = server.logged().await;
    assert!(line.starts_with(&peer("client")), "{line}");
}

#[tokio::test]
async fn the_outbound_sidecar_keeps_to_the_bytes_of_the_exchange() {
    let ca = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(ca.server("server", &[EXCHANGE])));
    let client = outbound(&ca, listener.local_addr().unwrap());
    let mut stream = TcpStream::connect(client.address).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut accepted = acceptor
        .accept(listener.accept().await.unwrap().0)
        .await
        .unwrap();
    let expected = [&preamble("client")[..], b"hello"].concat();
    assert_eq!(read(&mut accepted, expected.len()).await, expected);
    for byte in [&preamble("server")[..], b"bye"].concat() {
        accepted.write_all(&[byte]).await.unwrap();
        accepted.flush().await.unwrap();
    }
    assert_eq!(read(&mut stream, 3).await, b"bye");
}

#[tokio::test]
async fn another_protocol_or_none_is_left_as_it_is() {
    let ca = Authority::new();
    for alpn in [&["istio"][..], &[]] {
        let server = inbound(&ca, application(b"").await, &["istio", EXCHANGE]);
        let mut stream = connect(&ca, &server, alpn).await;
        stream.write_all(b"hello").await.unwrap();
        assert_eq!(read(&mut stream, 5).await, b"hello");
        drop(stream);
        assert_eq!(server.logged().await, "- - true - 5 5");
        assert_eq!(server.exchanges(), [0, 1, 0, 0]);
    }
}

#[tokio::test]
async fn a_peer_that_only_agreed_is_served_as_it_speaks() {
    let ca = Authority::new();
    let server = inbound(&ca, application(b"").await, &[EXCHANGE]);
    let mut stream = connect(&ca, &server, &[EXCHANGE]).await;
    stream.write_all(b"SSH-2.0-plain").await.unwrap();
    let expected = [&preamble("server")[..], b"SSH-2.0-plain"].concat();
    assert_eq!(read(&mut stream, expected.len()).await, expected);
    drop(stream);
    assert_eq!(server.logged().await, "- - true - 13 13");
    assert_eq!(server.exchanges(), [1, 0, 1, 1]);
}

#[tokio::test]
async fn a_peer_that_says_too_much_is_cut_off() {
    let ca = Authority::new();
    let server = inbound(&ca, application(b"").await, &[EXCHANGE]);
    let mut stream = connect(&ca, &server, &[EXCHANGE]).await;
    stream
        .write_all(&[0x3D, 0x23, 0x04, 0x67, 0x7F, 0xFF, 0xFF, 0xFF])
        .await
        .unwrap();
    let mut rest = Vec::new();
    // It may end in a reset as well.
    let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest));
    let _ = ended.await.expect("the connection ends");
    assert_eq!(rest, preamble("server"));
    assert_eq!(server.counter("metadata_exchange.header_not_found"), 1);
}
