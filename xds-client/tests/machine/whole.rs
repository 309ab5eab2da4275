//! State-of-the-world streams: what is said in full, and what absence means.

use std::time::Duration;

use xds_client::protocol::{Action, Event, Timer};
use xds_client::types::{CLUSTER, ENDPOINTS, LISTENER, ROUTES};

use crate::support::*;
use crate::{WHOLE, drop_stream, respond, with_clusters};

#[test]
fn whole_versions_move_only_with_what_was_accepted() {
    let mut m = machine(WHOLE);
    m.handle(subscribe(CLUSTER, &["*"]));
    assert_eq!(
        sent(&m.handle(Event::StreamOpened)),
        ["CDS version= nonce= names=[] error=None node=true"]
    );
    respond(
        &mut m,
        whole(CLUSTER, "1", "n1", vec![any(CLUSTER, "a", "x")]),
    );
    assert_eq!(
        sent(&m.handle(accepted())),
        ["CDS version=1 nonce=n1 names=[] error=None node=false"]
    );
    respond(
        &mut m,
        whole(CLUSTER, "2", "n2", vec![any(CLUSTER, "a", "y")]),
    );
    assert_eq!(
        sent(&m.handle(rejected("a", "no"))),
        ["CDS version=1 nonce=n2 names=[] error=Some(\"a: no\") node=false"]
    );
    drop_stream(&mut m);
    assert_eq!(
        sent(&m.handle(Event::StreamOpened)),
        ["CDS version=1 nonce= names=[] error=None node=true"]
    );
}

#[test]
fn whole_absence_removes_clusters_and_listeners_alone() {
    for (url, gone) in [
        (CLUSTER, "[\"a\"]"),
        (LISTENER, "[\"a\"]"),
        (ENDPOINTS, "[]"),
        (ROUTES, "[]"),
    ] {
        let mut m = machine(WHOLE);
        m.handle(subscribe(url, &["*"]));
        m.handle(Event::StreamOpened);
        let both = vec![any(url, "a", "x"), any(url, "b", "x")];
        respond(&mut m, whole(url, "1", "n1", both));
        m.handle(accepted());
        let pushed = respond(&mut m, whole(url, "2", "n2", vec![any(url, "b", "x")]));
        let expected = format!("{} changed=[] unchanged=[\"b\"] removed={gone}", short(url));
        assert_eq!(describe(&pushed), expected);
    }
}

#[test]
fn whole_a_refused_resource_is_not_absent() {
    let mut m = with_clusters(WHOLE);
    respond(
        &mut m,
        whole(CLUSTER, "1", "n1", vec![any(CLUSTER, "a", "x")]),
    );
    m.handle(accepted());
    let mut garbage = any(CLUSTER, "a", "x");
    garbage.value = vec![0xff; 3];
    let pushed = respond(&mut m, whole(CLUSTER, "2", "n2", vec![garbage]));
    assert_eq!(describe(&pushed), "CDS changed=[] unchanged=[] removed=[]");
    let answer = sent(&m.handle(accepted()));
    assert!(
        answer[0].contains("error=Some(\"resources[0]: "),
        "{answer:?}"
    );
}

#[test]
fn whole_names_are_said_in_full_and_answers_carry_them() {
    let mut m = with_clusters(WHOLE);
    m.handle(subscribe(ENDPOINTS, &["b"]));
    assert_eq!(
        sent(&m.handle(subscribe(ENDPOINTS, &["a"]))),
        ["EDS version= nonce= names=[\"a\", \"b\"] error=None node=false"]
    );
    respond(
        &mut m,
        whole(ENDPOINTS, "1", "n1", vec![any(ENDPOINTS, "a", "x")]),
    );
    assert_eq!(
        sent(&m.handle(accepted())),
        ["EDS version=1 nonce=n1 names=[\"a\", \"b\"] error=None node=false"]
    );
    assert_eq!(
        sent(&m.handle(unsubscribe(ENDPOINTS, &["a", "b"]))),
        ["EDS version=1 nonce=n1 names=[] error=None node=false"]
    );
    drop_stream(&mut m);
    // Nothing is wanted of EDS: to name nothing would ask for all.
    let reopened = sent(&m.handle(Event::StreamOpened));
    assert!(
        reopened.iter().all(|r| r.starts_with("CDS")),
        "{reopened:?}"
    );
}

#[test]
fn whole_resources_may_be_wrapped() {
    use prost::Message;
    let mut m = with_clusters(WHOLE);
    let inner = with_ttl(resource(CLUSTER, "a", "ignored", "x"), 5);
    let wrapped = xds_api::pb::google::protobuf::Any {
        type_url: "type.googleapis.com/envoy.service.discovery.v3.Resource".into(),
        value: inner.encode_to_vec(),
    };
    let pushed = respond(&mut m, whole(CLUSTER, "7", "n1", vec![wrapped]));
    assert_eq!(&*push(&pushed).unwrap().changed[0].version, "7");
    let timer = Timer::Ttl(CLUSTER.into(), "a".into());
    assert!(
        m.handle(accepted())
            .contains(&Action::Arm(timer, Duration::from_secs(5)))
    );
}
