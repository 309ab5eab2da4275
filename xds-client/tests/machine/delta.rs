//! Subscriptions, answers and removals of incremental streams.

use std::time::Duration;

use xds_client::protocol::{Action, Event, Machine, Timer};
use xds_client::types::{CLUSTER, ENDPOINTS};

use crate::support::*;
use crate::{DELTA, drop_stream, respond, with_clusters};

#[test]
fn delta_asks_for_all_by_naming_nothing_and_acknowledges_by_nonce() {
    let mut m = machine(DELTA);
    m.handle(subscribe(CLUSTER, &["*"]));
    let first = m.handle(Event::StreamOpened);
    assert_eq!(
        sent(&first),
        ["CDS nonce= +[] -[] held=[] error=None node=true"]
    );
    let pushed = respond(
        &mut m,
        delta(CLUSTER, "n1", vec![resource(CLUSTER, "a", "1", "x")], &[]),
    );
    assert!(pushed.contains(&Action::Identified("test".into())));
    assert_eq!(
        describe(&pushed),
        "CDS changed=[\"a\"] unchanged=[] removed=[]"
    );
    assert!(m.is_busy());
    assert_eq!(
        sent(&m.handle(accepted())),
        ["CDS nonce=n1 +[] -[] held=[] error=None node=false"]
    );
    assert!(!m.is_busy());
}

#[test]
fn node_goes_with_every_message_unless_told_otherwise() {
    let mut settings = settings(DELTA);
    settings.node_on_first_message_only = false;
    let mut m = Machine::new(settings);
    m.handle(subscribe(CLUSTER, &["*"]));
    m.handle(Event::StreamOpened);
    let asked = m.handle(subscribe(ENDPOINTS, &["a"]));
    assert_eq!(
        sent(&asked),
        ["EDS nonce= +[\"a\"] -[] held=[] error=None node=true"]
    );
}

#[test]
fn delta_changes_of_subscriptions_go_apart_from_answers() {
    let mut m = with_clusters(DELTA);
    assert_eq!(
        sent(&m.handle(subscribe(ENDPOINTS, &["a", "b"]))),
        ["EDS nonce= +[\"a\", \"b\"] -[] held=[] error=None node=false"]
    );
    respond(
        &mut m,
        delta(
            ENDPOINTS,
            "n1",
            vec![resource(ENDPOINTS, "a", "1", "x")],
            &[],
        ),
    );
    // While the push is being looked at, another name is wanted.
    assert_eq!(
        sent(&m.handle(subscribe(ENDPOINTS, &["a", "c"]))),
        ["EDS nonce= +[\"c\"] -[] held=[] error=None node=false"]
    );
    assert_eq!(
        sent(&m.handle(accepted())),
        ["EDS nonce=n1 +[] -[] held=[] error=None node=false"]
    );
    assert_eq!(
        sent(&m.handle(unsubscribe(ENDPOINTS, &["b", "unknown"]))),
        ["EDS nonce= +[] -[\"b\"] held=[] error=None node=false"]
    );
    assert!(sent(&m.handle(unsubscribe(ENDPOINTS, &["b"]))).is_empty());
}

#[test]
fn delta_says_after_a_reconnect_what_it_wants_and_holds() {
    let mut m = with_clusters(DELTA);
    m.handle(subscribe(ENDPOINTS, &["a", "b", "c"]));
    let both = vec![
        resource(ENDPOINTS, "a", "1", "x"),
        resource(ENDPOINTS, "b", "2", "x"),
    ];
    respond(&mut m, delta(ENDPOINTS, "n1", both, &[]));
    m.handle(accepted());
    let closed = drop_stream(&mut m);
    assert_eq!(
        closed,
        [
            Action::Disconnected {
                reason: "gone".into(),
                types: arcs(&[CLUSTER, ENDPOINTS])
            },
            Action::OpenWithin(Duration::from_millis(500)),
        ]
    );
    assert!(
        m.handle(unsubscribe(ENDPOINTS, &["b"]))
            .iter()
            .all(|a| matches!(a, Action::Disarm(_)))
    );
    assert_eq!(
        m.handle(Event::TimerFired(Timer::Reconnect)),
        [Action::Open]
    );
    assert_eq!(
        sent(&m.handle(Event::StreamOpened)),
        [
            "CDS nonce= +[] -[] held=[] error=None node=true",
            "EDS nonce= +[\"a\", \"c\"] -[] held=[(\"a\", \"1\")] error=None node=false",
        ]
    );
}

#[test]
fn wildcard_and_names_together_are_both_said() {
    let mut m = with_clusters(DELTA);
    assert_eq!(
        sent(&m.handle(subscribe(CLUSTER, &["a"]))),
        ["CDS nonce= +[\"a\"] -[] held=[] error=None node=false"]
    );
    drop_stream(&mut m);
    assert_eq!(
        sent(&m.handle(Event::StreamOpened)),
        ["CDS nonce= +[\"*\", \"a\"] -[] held=[] error=None node=true"]
    );
    assert_eq!(
        sent(&m.handle(unsubscribe(CLUSTER, &["*"]))),
        ["CDS nonce= +[] -[\"*\"] held=[] error=None node=false"]
    );
}

#[test]
fn delta_removes_by_name_and_only_what_is_wanted() {
    let mut m = with_clusters(DELTA);
    m.handle(subscribe(ENDPOINTS, &["a"]));
    respond(
        &mut m,
        delta(
            ENDPOINTS,
            "n1",
            vec![resource(ENDPOINTS, "a", "1", "x")],
            &[],
        ),
    );
    m.handle(accepted());
    let pushed = respond(
        &mut m,
        delta(
            ENDPOINTS,
            "n2",
            vec![resource(ENDPOINTS, "unasked", "1", "x")],
            &["a", "b"],
        ),
    );
    assert_eq!(
        describe(&pushed),
        "EDS changed=[] unchanged=[] removed=[\"a\"]"
    );
    m.handle(accepted());
    let back = respond(
        &mut m,
        delta(
            ENDPOINTS,
            "n3",
            vec![resource(ENDPOINTS, "a", "1", "x")],
            &[],
        ),
    );
    assert_eq!(
        describe(&back),
        "EDS changed=[\"a\"] unchanged=[] removed=[]"
    );
}
