//! Resources that are refused or cannot be read.

use xds_client::message::Request;
use xds_client::protocol::{Action, Event};
use xds_client::types::{CLUSTER, LISTENER};

use crate::support::*;
use crate::{DELTA, drop_stream, respond, with_clusters};

#[test]
fn a_bad_resource_is_named_in_the_nack_and_the_good_ones_hold() {
    let mut m = with_clusters(DELTA);
    let both = vec![
        resource(CLUSTER, "a", "1", "x"),
        resource(CLUSTER, "b", "1", "bad"),
    ];
    respond(&mut m, delta(CLUSTER, "n1", both, &[]));
    assert_eq!(
        sent(&m.handle(rejected("b", "connect_timeout: must be positive"))),
        [
            "CDS nonce=n1 +[] -[] held=[] error=Some(\"b: connect_timeout: must be positive\") node=false"
        ]
    );
    drop_stream(&mut m);
    assert_eq!(
        sent(&m.handle(Event::StreamOpened)),
        ["CDS nonce= +[] -[] held=[(\"a\", \"1\")] error=None node=true"]
    );
}

#[test]
fn the_last_good_version_survives_a_bad_one() {
    let mut m = with_clusters(DELTA);
    respond(
        &mut m,
        delta(CLUSTER, "n1", vec![resource(CLUSTER, "a", "1", "x")], &[]),
    );
    m.handle(accepted());
    respond(
        &mut m,
        delta(CLUSTER, "n2", vec![resource(CLUSTER, "a", "2", "bad")], &[]),
    );
    m.handle(rejected("a", "no"));
    let again = respond(
        &mut m,
        delta(CLUSTER, "n3", vec![resource(CLUSTER, "a", "3", "x")], &[]),
    );
    assert_eq!(
        describe(&again),
        "CDS changed=[] unchanged=[\"a\"] removed=[]"
    );
}

#[test]
fn a_bad_resource_that_comes_again_is_looked_at_again() {
    let mut m = with_clusters(DELTA);
    for nonce in ["n1", "n2"] {
        let bad = vec![resource(CLUSTER, "a", nonce, "bad")];
        let pushed = respond(&mut m, delta(CLUSTER, nonce, bad, &[]));
        assert_eq!(
            describe(&pushed),
            "CDS changed=[\"a\"] unchanged=[] removed=[]"
        );
        m.handle(rejected("a", "no"));
    }
}

#[test]
fn unreadable_resources_are_refused_without_asking() {
    let mut misnamed = resource(CLUSTER, "a", "1", "x");
    misnamed.name = "other".into();
    let mut mistyped = resource(CLUSTER, "b", "1", "x");
    mistyped.resource = Some(any(LISTENER, "b", "x"));
    let mut empty = resource(CLUSTER, "c", "1", "x");
    empty.resource = None;
    let mut garbage = resource(CLUSTER, "d", "1", "x");
    garbage.resource.as_mut().unwrap().value = vec![0xff; 3];
    let twice = [
        resource(CLUSTER, "e", "1", "x"),
        resource(CLUSTER, "e", "1", "y"),
    ];
    for (bad, reason) in [
        (vec![misnamed], "other: resource: it is named"),
        (vec![mistyped], "b: type URL"),
        (vec![empty], "c: resource: must be set"),
        (vec![garbage], "d: "),
        (twice.to_vec(), "e: duplicate name e found"),
    ] {
        let mut m = with_clusters(DELTA);
        let mut resources = vec![resource(CLUSTER, "good", "1", "x")];
        resources.extend(bad);
        let pushed = respond(&mut m, delta(CLUSTER, "n1", resources, &[]));
        assert_eq!(
            describe(&pushed),
            "CDS changed=[\"good\"] unchanged=[] removed=[]",
            "{reason}"
        );
        let answer = sent(&m.handle(accepted()));
        assert!(
            answer[0].contains(&format!("error=Some(\"{reason}")),
            "{answer:?}"
        );
    }
}

#[test]
fn a_long_list_of_refusals_is_cut() {
    let mut m = with_clusters(DELTA);
    let many = (0..1000)
        .map(|i| {
            let mut bad = resource(CLUSTER, &format!("cluster-{i}"), "1", "x");
            bad.resource = None;
            bad
        })
        .collect();
    respond(&mut m, delta(CLUSTER, "n1", many, &[]));
    let actions = m.handle(accepted());
    let Some(Action::Send(Request::Delta(nack))) = actions.first() else {
        panic!("{actions:?}");
    };
    let message = &nack.error_detail.as_ref().unwrap().message;
    assert!(
        message.len() < 10_000 && message.ends_with(" more"),
        "{message}"
    );
}
