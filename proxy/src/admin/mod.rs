//! Draft.
use http_body_util::Full;
use hyper::{Request, Response};
use outrigger_stats::{PrometheusQuery, StatsQuery, Store};
use std::sync::Arc;
pub async fn serve(store: Store, listener: tokio::net::TcpListener) {
    let store = Arc::new(store);
    loop {
        let Ok((io, _)) = listener.accept().await else {
            continue;
        };
        let store = store.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |req: Request<hyper::body::Incoming>| {
                let store = store.clone();
                async move {
                    let query = req.uri().query().unwrap_or("");
                    let body = match req.uri().path() {
                        "/ready" => "LIVE\n".to_owned(),
                        "/stats" => {
                            store.flush();
                            StatsQuery::parse(query)
                                .map(|q| store.render(&q).body)
                                .unwrap_or_default()
                        }
                        "/stats/prometheus" => {
                            store.flush();
                            PrometheusQuery::parse(query)
                                .map(|q| store.render_prometheus(&q).body)
                                .unwrap_or_default()
                        }
                        "/quitquitquit" => std::process::exit(0),
                        _ => String::new(),
                    };
                    Ok::<_, std::convert::Infallible>(Response::new(Full::new(bytes::Bytes::from(
                        body,
                    ))))
                }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(hyper_util::rt::TokioIo::new(io), service)
                .await;
        });
    }
}
