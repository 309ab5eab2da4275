//! What TLS offers upstream, as a server sees it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{Empty, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::LazyConfigAcceptor;

use crate::mesh::{Authority, Sidecar, alpn, cluster, exchange, hcm, listener, merge, speaking};

const HTTP10: &str = "istio-http/1.0 istio http/1.0";
const HTTP11: &str = "istio-http/1.1 istio http/1.1";
const HTTP2: &str = "istio-h2 istio h2";
const OF_CONTEXT: &str = "istio-peer-exchange istio";

/// A server that notes what each connection offers, and answers on all of them.
struct Server {
    address: SocketAddr,
    offers: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(ca: &Authority) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = Arc::new(ca.server("server", &["h2", "http/1.1", "http/1.0", "istio"]));
        let offers: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = offers.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (noted, config) = (noted.clone(), config.clone());
                tokio::spawn(async move {
                    let accepting = LazyConfigAcceptor::new(Default::default(), stream);
                    let accepted = accepting.await.unwrap();
                    let names = accepted.client_hello().alpn().into_iter().flatten();
                    let names: Vec<_> = names.map(String::from_utf8_lossy).collect();
                    noted.lock().push(names.join(" "));
                    let stream = accepted.into_stream(config).await.unwrap();
                    let answer = |_: Request<_>| async {
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("ok"))))
                    };
                    // How the connection ends is up to the proxy.
                    let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service_fn(answer))
                        .await;
                });
            }
        });
        Self { address, offers }
    }

    /// The offers since the last time.
    fn offers(&self) -> Vec<String> {
        std::mem::take(&mut *self.offers.lock())
    }
}

fn sidecar(ca: &Authority, server: &Server, name: &str, over: Value) -> Sidecar {
    let mut of_cluster = json!({
        "transport_socket": ca.upstream("client"), "filters": [exchange()]});
    merge(&mut of_cluster, over);
    let filters = [hcm(vec![alpn()], &[name], "-")];
    let cluster = cluster(name, server.address, of_cluster);
    Sidecar::start("client", &listener(&filters, None), &[cluster])
}

async fn get(sidecar: &Sidecar, version: &str) {
    let mut stream = TcpStream::connect(sidecar.address).await.unwrap();
    let request = format!("GET /a HTTP/{version}\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains(" 200 OK\r\n"), "{answer}");
}

async fn get_h2(sidecar: &Sidecar) {
    let stream = TcpStream::connect(sidecar.address).await.unwrap();
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut client, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://a/a")
        .body(Empty::<Bytes>::new())
        .unwrap();
    assert_eq!(client.send_request(request).await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_version_spoken_upstream_chooses_the_offer() {
    let ca = Authority::new();
    let server = Server::start(&ca).await;
    let h2 = json!({"explicit_http_config": {"http2_protocol_options": {}}});
    for (how, expected) in [(json!({}), HTTP11), (speaking(h2), HTTP2)] {
        let sidecar = sidecar(&ca, &server, "a", how);
        get(&sidecar, "1.1").await;
        get(&sidecar, "1.1").await;
        get_h2(&sidecar).await;
        assert_eq!(server.offers(), [expected]);
        assert_eq!(sidecar.exchanges(), [0, 1, 0, 0]);
    }
}

#[tokio::test]
async fn different_offers_are_different_pools() {
    let ca = Authority::new();
    let server = Server::start(&ca).await;
    let downstream = json!({"use_downstream_protocol_config": {
        "http_protocol_options": {"accept_http_10": true}, "http2_protocol_options": {}}});
    let sidecar = sidecar(&ca, &server, "a", speaking(downstream));
    for _ in 0..2 {
        get(&sidecar, "1.0").await;
        get(&sidecar, "1.1").await;
        get_h2(&sidecar).await;
    }
    assert_eq!(server.offers(), [HTTP10, HTTP11, HTTP2]);
    assert_eq!(sidecar.counter("cluster.a.upstream_cx_total"), 3);
}

#[tokio::test]
async fn metadata_of_the_cluster_keeps_its_own_offer() {
    let ca = Authority::new();
    let server = Server::start(&ca).await;
    for (value, expected) in [("false", OF_CONTEXT), ("true", HTTP11)] {
        let metadata =
            json!({"metadata": {"filter_metadata": {"istio": {"alpn_override": value}}}});
        let sidecar = sidecar(&ca, &server, "a", metadata);
        get(&sidecar, "1.1").await;
        assert_eq!(server.offers(), [expected]);
    }
}
