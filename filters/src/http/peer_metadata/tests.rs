//! The filter by hand.

use std::collections::BTreeMap;

use filter_api::{FactoryContext, LocalNode, WorkerContext};
use outrigger_config::workload::Labels;
use outrigger_stats::Store;
use outrigger_types::{FilterStateObject, HeaderValue, StatusCode};
use prost::Message;
use xds_api::pb::io::istio::http::peer_metadata as pb;

use super::*;
use crate::testing::{TestStream, factory_context};

fn metadata(namespace: &str) -> MetadataValue {
    let text = |text: &str| MetadataValue::String(text.into());
    MetadataValue::Struct([("NAMESPACE".into(), text(namespace))].into())
}

fn context() -> FactoryContext {
    FactoryContext {
        node: Arc::new(LocalNode {
            id: "me".into(),
            metadata: metadata("mine"),
            ..LocalNode::default()
        }),
        ..factory_context()
    }
}

fn headers_of(skip_external_clusters: bool) -> pb::config::IstioHeaders {
    pb::config::IstioHeaders {
        skip_external_clusters,
    }
}

fn discovery() -> Vec<pb::config::DiscoveryMethod> {
    use pb::config::discovery_method::MethodSpecifier;
    [
        MethodSpecifier::IstioHeaders(headers_of(false)),
        MethodSpecifier::WorkloadDiscovery(pb::config::WorkloadDiscovery {}),
    ]
    .map(|method| pb::config::DiscoveryMethod {
        method_specifier: Some(method),
    })
    .into()
}

fn propagation(spares_external: bool) -> Vec<pb::config::PropagationMethod> {
    use pb::config::propagation_method::MethodSpecifier;
    let method = MethodSpecifier::IstioHeaders(headers_of(spares_external));
    vec![pb::config::PropagationMethod {
        method_specifier: Some(method),
    }]
}

fn inbound() -> pb::Config {
    pb::Config {
        downstream_discovery: discovery(),
        downstream_propagation: propagation(false),
        ..pb::Config::default()
    }
}

fn outbound(spares_external: bool) -> pb::Config {
    pb::Config {
        upstream_discovery: discovery(),
        upstream_propagation: propagation(spares_external),
        ..pb::Config::default()
    }
}

fn made(config: &pb::Config) -> Arc<dyn HttpFilterConfig> {
    filter(&config.encode_to_vec(), &context()).unwrap()
}

/// What a peer of this namespace sends.
fn value(namespace: &str) -> String {
    Workload::from_metadata(&metadata(namespace), &Labels::new()).to_header()
}

fn response(fields: &[(&HeaderName, &str)]) -> ResponseHead {
    let mut head = ResponseHead::new(StatusCode::OK);
    for (name, value) in fields {
        let value = HeaderValue::from_str(value).unwrap();
        head.headers.append((*name).clone(), value);
    }
    head
}

fn sent(headers: &Headers) -> (Option<&[u8]>, Option<&[u8]>) {
    (headers.get_bytes(&ID_HEADER), headers.get_bytes(&HEADER))
}

fn namespace(stream: &TestStream, key: &str) -> Option<String> {
    let object: &FilterStateObject = stream.info.filter_state_object(key)?;
    object.fields.get("namespace").map(ToString::to_string)
}

#[test]
fn inbound_the_caller_is_known_and_its_headers_go_no_further() {
    let config = made(&inbound());
    let mut stream = TestStream::new(&Store::default(), "/")
        .header(PEER_METADATA_ID, "caller")
        .header(PEER_METADATA, &value("theirs"));
    let mut filter = stream.filter(&*config, None).unwrap();
    filter.decode_headers(&mut stream.context(), true);
    assert_eq!(sent(&stream.request.headers), (None, None));
    let found = namespace(&stream, "downstream_peer_obj");
    assert_eq!(found.as_deref(), Some("theirs"));

    let mut head = response(&[(&HEADER, "the application's own")]);
    filter.encode_headers(&mut stream.context(), &mut head, true);
    let mine = value("mine");
    let expected = (Some(&b"me"[..]), Some(mine.as_bytes()));
    assert_eq!(sent(&head.headers), expected);
    assert!(stream.info.filter_state_object("upstream_peer").is_none());
}

#[test]
fn inbound_each_header_is_answered_by_its_like() {
    let config = made(&inbound());
    for (name, id, metadata) in [
        (None, false, false),
        (Some(PEER_METADATA_ID), true, false),
        (Some(PEER_METADATA), false, true),
    ] {
        let mut stream = TestStream::new(&Store::default(), "/");
        if let Some(name) = name {
            stream = stream.header(name, &value("theirs"));
        }
        let mut filter = stream.filter(&*config, None).unwrap();
        filter.decode_headers(&mut stream.context(), true);
        let mut head = response(&[]);
        filter.encode_headers(&mut stream.context(), &mut head, true);
        let (sent_id, sent_metadata) = sent(&head.headers);
        assert_eq!((sent_id.is_some(), sent_metadata.is_some()), (id, metadata));
    }
}

#[test]
fn outbound_the_host_is_told_and_its_answer_kept_from_the_caller() {
    let config = made(&outbound(false));
    // What the application says of itself is not believed.
    let mut stream = TestStream::new(&Store::default(), "/").header(PEER_METADATA_ID, "forged");
    let mut filter = stream.filter(&*config, None).unwrap();
    filter.decode_headers(&mut stream.context(), true);
    let mine = value("mine");
    let expected = (Some(&b"me"[..]), Some(mine.as_bytes()));
    assert_eq!(sent(&stream.request.headers), expected);

    let mut head = response(&[(&ID_HEADER, "host"), (&HEADER, &value("theirs"))]);
    filter.encode_headers(&mut stream.context(), &mut head, true);
    assert_eq!(sent(&head.headers), (None, None));
    let found = namespace(&stream, "upstream_peer_obj");
    assert_eq!(found.as_deref(), Some("theirs"));
}

/// Whether a cluster is told, by its name and its flag of Istio.
fn is_told(spares_external: bool, cluster: &str, flag: &str) -> bool {
    let config = made(&outbound(spares_external));
    let mut stream = TestStream::new(&Store::default(), "/");
    let mut metadata = Metadata::default();
    let flags: BTreeMap<_, _> = [(flag.into(), MetadataValue::Bool(true))].into();
    metadata.set("istio", MetadataValue::Struct(flags));
    stream.info.upstream.cluster_raw = Some(cluster.into());
    stream.info.upstream.cluster_metadata = Some(Arc::new(metadata));
    let mut filter = stream.filter(&*config, None).unwrap();
    filter.decode_headers(&mut stream.context(), true);
    let told = stream.request.headers.contains(&ID_HEADER);
    assert_eq!(stream.request.headers.contains(&HEADER), told);
    told
}

#[test]
fn some_clusters_are_not_told() {
    assert!(is_told(false, "outbound", "x"));
    assert!(!is_told(false, "outbound", "disable_mx"));
    assert!(is_told(false, "outbound", "external"));
    assert!(!is_told(true, "outbound", "external"));
    assert!(is_told(false, "PassthroughCluster", "x"));
    assert!(!is_told(true, "PassthroughCluster", "x"));
    assert!(is_told(true, "outbound", "x"));
}

#[test]
fn a_peer_that_is_known_already_is_kept() {
    let config = made(&inbound());
    let mut stream = TestStream::new(&Store::default(), "/").header(PEER_METADATA, &value("b"));
    let earlier = Workload::from_metadata(&metadata("a"), &Labels::new()).to_filter_state();
    earlier.leave(PeerSide::Downstream, stream.info.filter_state_mut());
    let mut filter = stream.filter(&*config, None).unwrap();
    filter.decode_headers(&mut stream.context(), true);
    let found = namespace(&stream, "downstream_peer_obj");
    assert_eq!(found.as_deref(), Some("a"));
}

#[test]
fn what_cannot_be_understood_is_removed_all_the_same() {
    let config = made(&inbound());
    let mut stream = TestStream::new(&Store::default(), "/").header(PEER_METADATA, "////");
    let mut filter = stream.filter(&*config, None).unwrap();
    filter.decode_headers(&mut stream.context(), true);
    assert_eq!(sent(&stream.request.headers), (None, None));
    assert!(stream.info.filter_state.is_none());
}

#[test]
fn an_id_is_looked_up_once_and_the_cache_is_bounded() {
    let cache = Cache::default();
    let peer = || Workload::default().to_filter_state();
    for id in 0..2000 {
        let id = format!("id-{id}");
        let found = cache.find(id.as_bytes(), b"v", |_| Some(peer()));
        assert_eq!(found, Some(peer()));
        let again = cache.find(id.as_bytes(), b"w", |_| panic!("it is known"));
        assert_eq!(again, Some(peer()));
        assert!(cache.len() <= 500);
    }
    let before = cache.len();
    cache.find(b"", b"v", |_| Some(peer()));
    cache.find(b"long", &[b'x'; 5000], |_| Some(peer()));
    assert_eq!(cache.find(b"none", b"v", |_| None), None);
    assert_eq!(cache.len(), before);
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    use pb::config::discovery_method::MethodSpecifier;
    let baggage = pb::config::DiscoveryMethod {
        method_specifier: Some(MethodSpecifier::Baggage(pb::config::Baggage {})),
    };
    let shared = pb::Config {
        shared_with_upstream: true,
        ..inbound()
    };
    let by_baggage = pb::Config {
        downstream_discovery: vec![baggage],
        ..inbound()
    };
    for (config, path) in [(shared, "shared_with_upstream"), (by_baggage, "baggage")] {
        let error = filter(&config.encode_to_vec(), &context()).unwrap_err();
        assert!(error.to_string().contains(path), "{error}");
    }
}

#[test]
fn the_cache_of_a_worker_serves_all_its_streams() {
    let config = made(&inbound());
    let worker = WorkerContext {
        index: 0,
        store: Store::default(),
    };
    let factory = config.factory(&worker);
    for said in ["first", "second"] {
        let mut stream = TestStream::new(&worker.store, "/")
            .header(PEER_METADATA_ID, "caller")
            .header(PEER_METADATA, &value(said));
        let services = TestStream::new(&worker.store, "/").services;
        let cx = CreateContext {
            overrides: &Vec::new,
            services: &services,
        };
        let mut filter = factory.create(None, &cx).unwrap();
        filter.decode_headers(&mut stream.context(), true);
        // As in Envoy a known id is believed without reading the rest.
        let found = namespace(&stream, "downstream_peer_obj");
        assert_eq!(found.as_deref(), Some("first"));
    }
}
