//! Peer metadata in headers, from sidecar to sidecar.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::mesh::{
    Authority, EXCHANGE, Sidecar, alpn, cluster, exchange, hcm, listener, peer_metadata, stats,
};

const LOG: &str = "%FILTER_STATE(downstream_peer_obj:FIELD:workload)% \
     %FILTER_STATE(upstream_peer_obj:FIELD:workload)% %PROTOCOL% %UPSTREAM_PROTOCOL%";

/// An application that answers with the headers that it got.
async fn application() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = |request: Request<_>| async move {
                let text = format!("{:?}", request.headers());
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
            };
            tokio::spawn(async move {
                // How the connection ends is up to the proxy.
                let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service_fn(answer))
                    .await;
            });
        }
    });
    address
}

/// The sidecar of the server, with mutual TLS.
fn inbound(ca: &Authority, application: SocketAddr) -> Sidecar {
    let manager = hcm(vec![peer_metadata("downstream"), stats()], &["a"], LOG);
    let socket = ca.downstream("server", &[EXCHANGE, "h2", "http/1.1"]);
    let listener = listener(&[exchange(), manager], Some(socket));
    Sidecar::start("server", &listener, &[cluster("a", application, json!({}))])
}

/// The sidecar of the client, before that of the server.
fn outbound(ca: &Authority, server: SocketAddr, flags: serde_json::Value) -> Sidecar {
    let manager = hcm(
        vec![peer_metadata("upstream"), alpn(), stats()],
        &["a"],
        LOG,
    );
    let of_cluster = json!({
        "transport_socket": ca.upstream("client"),
        "filters": [exchange()],
        "metadata": {"filter_metadata": {"istio": flags}},
    });
    let cluster = cluster("a", server, of_cluster);
    Sidecar::start("client", &listener(&[manager], None), &[cluster])
}

async fn get(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = b"GET /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    answer
}

#[tokio::test]
async fn both_sidecars_know_the_peer_and_nobody_else_does() {
    let ca = Authority::new();
    let server = inbound(&ca, application().await);
    let client = outbound(&ca, server.address, json!({}));
    let answer = get(client.address).await;
    assert!(!answer.contains("x-envoy-peer-metadata"), "{answer}");
    assert_eq!(client.logged().await, "- server-v1 HTTP/1.1 HTTP/1.1");
    assert_eq!(server.logged().await, "client-v1 - HTTP/1.1 HTTP/1.1");
    // HTTP agrees on a protocol of its own, and nothing is sent before it.
    assert_eq!(client.exchanges(), [0, 1, 0, 0]);
    assert_eq!(server.exchanges(), [0, 1, 0, 0]);
}

#[tokio::test]
async fn a_cluster_that_is_not_to_be_told_says_nothing_either() {
    let ca = Authority::new();
    let server = inbound(&ca, application().await);
    let client = outbound(&ca, server.address, json!({"disable_mx": true}));
    get(client.address).await;
    assert_eq!(client.logged().await, "- - HTTP/1.1 HTTP/1.1");
    assert_eq!(server.logged().await, "- - HTTP/1.1 HTTP/1.1");
}

#[tokio::test]
async fn http_on_a_connection_for_the_exchange_follows_the_metadata() {
    let ca = Authority::new();
    let server = inbound(&ca, application().await);
    // Without the override the cluster offers the exchange, and gets it.
    let client = outbound(&ca, server.address, json!({"alpn_override": "false"}));
    for _ in 0..2 {
        get(client.address).await;
    }
    assert_eq!(client.exchanges(), [1, 0, 1, 0]);
    assert_eq!(server.exchanges(), [1, 0, 1, 0]);
    assert_eq!(client.counter("cluster.a.upstream_cx_total"), 1);
}
