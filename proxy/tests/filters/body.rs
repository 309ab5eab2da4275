//! Filters that change bodies, collect them, and add trailers.

use filter_api::Side;
use outrigger_filters::http::testing::Behaviour;
use serde_json::{Value, json};

use crate::lab::{Lab, Setup};
use crate::peers::{Client, Manner, Upstream, VERSIONS, post};

const SIDES: [Side; 2] = [Side::Decode, Side::Encode];
const LIMIT: usize = 1000;

async fn lab(filters: Vec<Behaviour>, listener: Value, h2: bool) -> (Lab, Upstream) {
    let upstream = Upstream::start(Manner::Echo).await;
    let mut setup = Setup::new(filters, upstream.address, h2);
    setup.listener = listener;
    (Lab::start(setup).await, upstream)
}

#[tokio::test]
async fn a_body_may_be_rewritten_as_it_passes() {
    for h2 in VERSIONS {
        for side in SIDES {
            let (lab, _upstream) = lab(vec![Behaviour::Rewrite(side)], json!({}), h2).await;
            let mut client = Client::connect(lab.address, h2).await;
            let body = b"abc".repeat(100_000);
            let answer = client.call(post(&body, &[])).await.unwrap();
            assert_eq!(answer.status, 200);
            assert!(answer.body == body.to_ascii_uppercase(), "{side:?}, {h2}");
            lab.settles().await;
        }
    }
}

#[tokio::test]
async fn trailers_are_added_and_changed() {
    for h2 in VERSIONS {
        for side in SIDES {
            for sent in [&[][..], &[("x-own", "2")][..]] {
                // The ones that collect show that what is held keeps its trailers.
                let filters = vec![
                    Behaviour::Collect(Side::Encode),
                    Behaviour::AddTrailers(side),
                    Behaviour::Collect(Side::Decode),
                ];
                // Upstreams of hyper send trailers over HTTP/2 alone.
                let upstream = Upstream::start(Manner::Echo).await;
                let lab = Lab::start(Setup::new(filters, upstream.address, true)).await;
                let mut client = Client::connect(lab.address, h2).await;
                let request = post(b"body", sent);
                let answer = client.call(request).await.unwrap();
                assert_eq!((answer.status, &answer.body[..]), (200, &b"body"[..]));
                assert_eq!(answer.trailers["x-added"], "1", "{side:?} {sent:?} {h2}");
                assert_eq!(answer.trailers.contains_key("x-own"), !sent.is_empty());
                lab.settles().await;
            }
        }
    }
}

#[tokio::test]
async fn a_body_is_collected_up_to_the_limit_and_not_beyond() {
    let limited = || json!({"per_connection_buffer_limit_bytes": LIMIT});
    for h2 in VERSIONS {
        for (side, status, details) in [
            (Side::Decode, 413, "request_payload_too_large"),
            (Side::Encode, 500, "response_payload_too_large"),
        ] {
            let (lab, _upstream) = lab(vec![Behaviour::Collect(side)], limited(), h2).await;
            let mut client = Client::connect(lab.address, h2).await;
            for size in [1, LIMIT - 1, LIMIT] {
                let answer = client.call(post(&vec![b'x'; size], &[])).await.unwrap();
                assert_eq!((answer.status, answer.body.len()), (200, size), "{side:?}");
            }
            let large = vec![b'x'; 300 * LIMIT];
            let answer = client.call(post(&large, &[])).await.unwrap();
            assert_eq!(answer.status, status);
            let line = format!("{status} - {details}");
            assert_eq!(lab.logged(4).await[3], line);
            lab.settles().await;
        }
    }
}

#[tokio::test]
async fn what_is_collected_does_not_wait_for_a_window() {
    // The windows are smaller than the body, and what a filter collects is sent to
    // nobody until it is whole.
    let windows = json!({"initial_stream_window_size": 65535,
        "initial_connection_window_size": 65535});
    for side in SIDES {
        let upstream = Upstream::start(Manner::Echo).await;
        let mut setup = Setup::new(vec![Behaviour::Collect(side)], upstream.address, true);
        setup.hcm = json!({"http2_protocol_options": windows, "stream_idle_timeout": "2s"});
        setup.cluster = json!({"typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "explicit_http_config": {"http2_protocol_options": windows}}}});
        let lab = Lab::start(setup).await;
        let mut client = Client::connect(lab.address, true).await;
        let answer = client.call(post(&vec![b'x'; 500_000], &[])).await.unwrap();
        assert_eq!(
            (answer.status, answer.body.len()),
            (200, 500_000),
            "{side:?}"
        );
        lab.settles().await;
    }
}
