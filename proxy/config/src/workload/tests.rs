//! The wire forms, against bytes that Python's protobuf made of the same messages; it writes
//! maps in the order of their keys, as Istio asks C++'s to.

use serde_json::json;

use super::*;

const HEADER: &str = "ChkKEUFWQUlMQUJJTElUWV9aT05FEgQaAnoxChoKCkNMVVNURVJfSUQSDBoKS3ViZXJuZXRlcwqvAQoGTEFC\
    RUxTEqQBKqEBCg8KA2FwcBIIGgZjbGllbnQKKwofc2VydmljZS5pc3Rpby5pby9jYW5vbmljYWwtbmFtZRII\
    GgZjbGllbnQKKwojc2VydmljZS5pc3Rpby5pby9jYW5vbmljYWwtcmV2aXNpb24SBBoCdjEKIwobdG9wb2xv\
    Z3kua3ViZXJuZXRlcy5pby96b25lEgQaAnoxCg8KB3ZlcnNpb24SBBoCdjEKIwoETkFNRRIbGhljbGllbnQt\
    djEtOWM5YmZmOGRjLXhxcjlsChMKCU5BTUVTUEFDRRIGGgRkZW1vCkoKBU9XTkVSEkEaP2t1YmVybmV0ZXM6\
    Ly9hcGlzL2FwcHMvdjEvbmFtZXNwYWNlcy9kZW1vL2RlcGxveW1lbnRzL2NsaWVudC12MQoOCgZSRUdJT04S\
    BBoCcjEKHAoNV09SS0xPQURfTkFNRRILGgljbGllbnQtdjE=";
const PREAMBLE: &str = "PSMEZwAAAgMKKnR5cGUuZ29vZ2xlYXBpcy5jb20vZ29vZ2xlLnByb3RvYnVmLlN0cnVjdBLUAwroAgoVeC1l\
    bnZveS1wZWVyLW1ldGFkYXRhEs4CKssCChoKCkNMVVNURVJfSUQSDBoKS3ViZXJuZXRlcwqIAQoGTEFCRUxT\
    En4qfAoPCgNhcHASCBoGY2xpZW50CisKH3NlcnZpY2UuaXN0aW8uaW8vY2Fub25pY2FsLW5hbWUSCBoGY2xp\
    ZW50CisKI3NlcnZpY2UuaXN0aW8uaW8vY2Fub25pY2FsLXJldmlzaW9uEgQaAnYxCg8KB3ZlcnNpb24SBBoC\
    djEKIwoETkFNRRIbGhljbGllbnQtdjEtOWM5YmZmOGRjLXhxcjlsChMKCU5BTUVTUEFDRRIGGgRkZW1vCkoK\
    BU9XTkVSEkEaP2t1YmVybmV0ZXM6Ly9hcGlzL2FwcHMvdjEvbmFtZXNwYWNlcy9kZW1vL2RlcGxveW1lbnRz\
    L2NsaWVudC12MQocCg1XT1JLTE9BRF9OQU1FEgsaCWNsaWVudC12MQpnChh4LWVudm95LXBlZXItbWV0YWRh\
    dGEtaWQSSxpJc2lkZWNhcn4xMC4yNDQuMC4xNn5jbGllbnQtdjEtOWM5YmZmOGRjLXhxcjlsLmRlbW9+ZGVt\
    by5zdmMuY2x1c3Rlci5sb2NhbA==";

fn value(json: &serde_json::Value) -> MetadataValue {
    match json {
        serde_json::Value::Object(fields) => {
            let field = |(name, json): (&String, _)| (name.as_str().into(), value(json));
            MetadataValue::Struct(fields.iter().map(field).collect())
        }
        serde_json::Value::String(text) => MetadataValue::String(text.as_str().into()),
        serde_json::Value::Bool(flag) => MetadataValue::Bool(*flag),
        serde_json::Value::Array(items) => MetadataValue::List(items.iter().map(value).collect()),
        serde_json::Value::Number(number) => MetadataValue::Number(number.as_f64().unwrap()),
        serde_json::Value::Null => MetadataValue::Null,
    }
}

/// The node of a sidecar, as its agent writes it.
fn node() -> LocalNode {
    let metadata = json!({
        "ANNOTATIONS": { "istio.io/rev": "default" },
        "CLUSTER_ID": "Kubernetes",
        "ENVOY_PROMETHEUS_PORT": 15090,
        "LABELS": {
            "app": "client",
            "security.istio.io/tlsMode": "istio",
            "service.istio.io/canonical-name": "client",
            "service.istio.io/canonical-revision": "v1",
            "topology.kubernetes.io/region": "r1",
            "topology.kubernetes.io/zone": "z1",
            "version": "v1",
        },
        "MESH_ID": "cluster.local",
        "NAME": "client-v1-9c9bff8dc-xqr9l",
        "NAMESPACE": "demo",
        "OWNER": "kubernetes://apis/apps/v1/namespaces/demo/deployments/client-v1",
        "PILOT_SAN": ["istiod.istio-system.svc"],
        "WORKLOAD_NAME": "client-v1",
    });
    LocalNode {
        id: "sidecar~10.244.0.16~client-v1-9c9bff8dc-xqr9l.demo~demo.svc.cluster.local".into(),
        metadata: value(&metadata),
        region: "r1".into(),
        zone: "z1".into(),
    }
}

fn labels(names: &[&str]) -> Labels {
    names.iter().map(|name| (*name).into()).collect()
}

#[test]
fn the_header_is_what_the_mesh_expects() {
    let labels = labels(&["topology.kubernetes.io/zone", "not-there"]);
    assert_eq!(Workload::placed(&node(), &labels).to_header(), HEADER);
}

#[test]
fn the_preamble_is_what_the_mesh_expects() {
    let node = node();
    let sent = Workload::of_node(&node, &Labels::new()).to_preamble(&node.id);
    assert_eq!(BASE64.encode(&sent), PREAMBLE);
}

#[test]
fn who_is_told_knows_what_was_said() {
    let node = node();
    let labels = labels(&["topology.kubernetes.io/zone"]);
    let said = Workload::placed(&node, &labels);
    let heard = Workload::from_header(said.to_header().as_bytes(), &labels);
    assert_eq!(heard.as_ref(), Some(&said));
    let preamble = said.to_preamble(&node.id);
    assert_eq!(Workload::from_preamble(&preamble[8..], &labels), Ok(heard));
}

#[test]
fn a_header_needs_no_padding() {
    let said = Workload::placed(&node(), &Labels::new());
    let header = said.to_header();
    let bare = header.trim_end_matches('=');
    assert!(bare.len() < header.len());
    assert_eq!(
        Workload::from_header(bare.as_bytes(), &Labels::new()),
        Some(said)
    );
}

#[test]
fn what_is_no_header_speaks_of_nobody() {
    let nobody = Some(Workload::default());
    assert_eq!(Workload::from_header(b"$$$", &Labels::new()), nobody);
    // Base64 of bytes that are no message.
    assert_eq!(Workload::from_header(b"////", &Labels::new()), None);
    assert_eq!(
        Workload::from_preamble(b"\xff", &Labels::new()),
        Err(NoMetadata)
    );
    assert_eq!(Workload::from_preamble(b"", &Labels::new()), Ok(None));
}

#[test]
fn qualified_labels_come_before_plain_ones() {
    let metadata = value(&json!({ "LABELS": {
        "app": "plain", "app.kubernetes.io/name": "qualified",
        "version": "1", "app.kubernetes.io/version": "2",
    } }));
    let found = Workload::from_metadata(&metadata, &Labels::new());
    assert_eq!((&*found.app, &*found.version), ("qualified", "2"));
}

#[test]
fn the_owner_says_what_kind_it_is() {
    let owner = "kubernetes://apis/apps/v1/namespaces/demo/deployments/client-v1";
    assert_eq!(kind_of(owner, "client-v1"), Some("deployment"));
    assert_eq!(
        kind_of("kubernetes://apis/v1/namespaces/n/pods/p", "p"),
        Some("pod")
    );
    for (owner, workload) in [
        ("", ""),
        ("x", "client"),
        ("a/replicasets/w", "w"),
        ("\u{e9}x", ""),
    ] {
        assert_eq!(kind_of(owner, workload), None, "{owner}");
    }
}

#[test]
fn logs_see_the_message_the_text_and_the_fields() {
    let labels = labels(&["topology.kubernetes.io/zone"]);
    let peer = Workload::placed(&node(), &labels).to_filter_state();
    let mut state = FilterState::default();
    peer.leave(PeerSide::Downstream, &mut state);
    let message = state.get("downstream_peer").unwrap();
    let text = |path: [&str; 2]| message.typed.at(path).cloned();
    let namespace = MetadataValue::String("demo".into());
    assert_eq!(text(["value", "namespace"]), Some(namespace));
    let object = state.get("downstream_peer_obj").unwrap();
    assert_eq!(
        object.plain.as_deref(),
        Some(
            "type=deployment,workload=client-v1,name=client-v1-9c9bff8dc-xqr9l,cluster=Kubernetes,\
             namespace=demo,service=client,revision=v1,app=client,version=v1,region=r1,\
             availability_zone=z1,labels[]topology.kubernetes.io/zone=z1"
        )
    );
    assert_eq!(
        object.fields.get("workload").map(|f| &**f),
        Some("client-v1")
    );
    assert_eq!(object.fields.get("nothing"), None);
}
