//! The machine, event by event.

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::*;
use xds_client::message::{Request, Response, Variant};
use xds_client::protocol::{Action, Event, Machine, Timer};
use xds_client::types::{CLUSTER, ENDPOINTS, LISTENER, ROUTES};

const DELTA: Variant = Variant::Delta;
const WHOLE: Variant = Variant::StateOfTheWorld;

/// A machine with an open stream that has asked for all clusters.
fn with_clusters(variant: Variant) -> Machine {
    let mut machine = machine(variant);
    assert_eq!(machine.handle(subscribe(CLUSTER, &["*"])), [Action::Open]);
    let first = machine.handle(Event::StreamOpened);
    assert_eq!(first[0], Action::Connected);
    assert_eq!(sent(&first).len(), 1);
    machine
}

fn respond(machine: &mut Machine, response: Response) -> Vec<Action> {
    machine.handle(Event::Response(response))
}

fn drop_stream(machine: &mut Machine) -> Vec<Action> {
    machine.handle(Event::StreamClosed {
        reason: "gone".into(),
    })
}

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

#[test]
fn responses_wait_while_a_push_is_looked_at() {
    let mut m = with_clusters(DELTA);
    m.handle(subscribe(ENDPOINTS, &["a"]));
    respond(
        &mut m,
        delta(CLUSTER, "n1", vec![resource(CLUSTER, "a", "1", "x")], &[]),
    );
    let second = respond(
        &mut m,
        delta(
            ENDPOINTS,
            "n2",
            vec![resource(ENDPOINTS, "a", "1", "x")],
            &[],
        ),
    );
    assert_eq!(describe(&second), "none");
    let after = m.handle(accepted());
    assert_eq!(
        sent(&after),
        ["CDS nonce=n1 +[] -[] held=[] error=None node=false"]
    );
    assert_eq!(
        describe(&after),
        "EDS changed=[\"a\"] unchanged=[] removed=[]"
    );
}

#[test]
fn a_verdict_that_comes_after_the_stream_ended_is_not_sent_but_counts() {
    let mut m = with_clusters(DELTA);
    respond(
        &mut m,
        delta(CLUSTER, "n1", vec![resource(CLUSTER, "a", "1", "x")], &[]),
    );
    drop_stream(&mut m);
    // What it holds is not known yet, so the new stream waits for that.
    assert!(sent(&m.handle(Event::StreamOpened)).is_empty());
    assert_eq!(
        sent(&m.handle(accepted())),
        ["CDS nonce= +[] -[] held=[(\"a\", \"1\")] error=None node=true"]
    );
}

#[test]
fn a_type_that_nobody_asked_for_is_not_answered() {
    let mut m = with_clusters(DELTA);
    let pushed = respond(
        &mut m,
        delta(ROUTES, "n1", vec![resource(ROUTES, "a", "1", "x")], &[]),
    );
    assert_eq!(pushed, [Action::Identified("test".into())]);
    assert!(!m.is_busy());
}

#[test]
fn a_paused_type_says_nothing_until_it_is_resumed() {
    let mut m = with_clusters(DELTA);
    m.handle(Event::Pause(ENDPOINTS.into()));
    assert!(m.handle(subscribe(ENDPOINTS, &["a"])).is_empty());
    assert!(m.handle(subscribe(ENDPOINTS, &["b"])).is_empty());
    assert_eq!(
        sent(&m.handle(Event::Resume(ENDPOINTS.into()))),
        ["EDS nonce= +[\"a\", \"b\"] -[] held=[] error=None node=false"]
    );
    m.handle(Event::Pause(ENDPOINTS.into()));
    for nonce in ["n1", "n2"] {
        let one = vec![resource(ENDPOINTS, "a", nonce, nonce)];
        respond(&mut m, delta(ENDPOINTS, nonce, one, &[]));
        assert!(sent(&m.handle(accepted())).is_empty());
    }
    assert_eq!(
        sent(&m.handle(Event::Resume(ENDPOINTS.into()))),
        [
            "EDS nonce=n1 +[] -[] held=[] error=None node=false",
            "EDS nonce=n2 +[] -[] held=[] error=None node=false",
        ]
    );
}

#[test]
fn the_first_answer_is_waited_for_only_so_long() {
    let mut m = with_clusters(DELTA);
    let timeout = Duration::from_secs(15);
    let names = arcs(&["a", "b"]);
    let asked = m.handle(Event::Subscribe {
        type_url: ENDPOINTS.into(),
        names,
        fetch_timeout: Some(timeout),
    });
    let fetch = |name: &str| Timer::Fetch(ENDPOINTS.into(), name.into());
    assert!(asked.contains(&Action::Arm(fetch("a"), timeout)));
    assert!(asked.contains(&Action::Arm(fetch("b"), timeout)));
    let answered = respond(
        &mut m,
        delta(
            ENDPOINTS,
            "n1",
            vec![resource(ENDPOINTS, "a", "1", "x")],
            &[],
        ),
    );
    assert!(answered.contains(&Action::Disarm(fetch("a"))));
    assert!(!answered.contains(&Action::Disarm(fetch("b"))));
    let late = Action::FetchTimedOut {
        type_url: ENDPOINTS.into(),
        name: "b".into(),
    };
    assert_eq!(m.handle(Event::TimerFired(fetch("b"))), [late]);
    assert_eq!(m.handle(Event::TimerFired(fetch("b"))), []);
    assert_eq!(m.handle(Event::TimerFired(fetch("a"))), []);
}

#[test]
fn a_resource_lives_as_long_as_it_is_told_to() {
    let mut m = with_clusters(DELTA);
    let timer = Timer::Ttl(CLUSTER.into(), "a".into());
    let mortal = with_ttl(resource(CLUSTER, "a", "1", "x"), 3);
    respond(&mut m, delta(CLUSTER, "n1", vec![mortal.clone()], &[]));
    let armed = Action::Arm(timer.clone(), Duration::from_secs(3));
    assert!(m.handle(accepted()).contains(&armed));
    let mut heartbeat = mortal;
    heartbeat.resource = None;
    let beat = respond(&mut m, delta(CLUSTER, "n2", vec![heartbeat.clone()], &[]));
    assert_eq!(
        describe(&beat),
        "CDS changed=[] unchanged=[\"a\"] removed=[]"
    );
    assert!(m.handle(accepted()).contains(&armed));
    let expired = Action::Expired {
        type_url: CLUSTER.into(),
        name: "a".into(),
    };
    assert_eq!(m.handle(Event::TimerFired(timer.clone())), [expired]);
    assert_eq!(m.handle(Event::TimerFired(timer.clone())), []);
    // A heartbeat of what is gone revives nothing.
    respond(&mut m, delta(CLUSTER, "n3", vec![heartbeat], &[]));
    assert!(!m.handle(accepted()).contains(&armed));
    let eternal = vec![resource(CLUSTER, "a", "2", "x")];
    respond(&mut m, delta(CLUSTER, "n4", eternal, &[]));
    assert!(m.handle(accepted()).contains(&Action::Disarm(timer)));
}

#[test]
fn back_off_doubles_to_its_ceiling_and_an_answer_ends_it() {
    let mut m = with_clusters(DELTA);
    let wait = |actions: &[Action]| {
        actions.iter().find_map(|a| match a {
            Action::OpenWithin(wait) => Some(wait.as_millis()),
            _ => None,
        })
    };
    let mut waits = Vec::new();
    for _ in 0..8 {
        waits.extend(wait(&drop_stream(&mut m)));
        m.handle(Event::TimerFired(Timer::Reconnect));
        m.handle(Event::StreamOpened);
    }
    assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
    respond(&mut m, delta(CLUSTER, "n1", vec![], &[]));
    assert_eq!(wait(&drop_stream(&mut m)), Some(500));
}

#[test]
fn what_is_forgotten_while_it_is_looked_at_is_not_held() {
    let mut m = with_clusters(DELTA);
    m.handle(subscribe(ENDPOINTS, &["a"]));
    let one = vec![resource(ENDPOINTS, "a", "1", "x")];
    respond(&mut m, delta(ENDPOINTS, "n1", one.clone(), &[]));
    m.handle(unsubscribe(ENDPOINTS, &["a"]));
    m.handle(accepted());
    m.handle(subscribe(ENDPOINTS, &["a"]));
    let pushed = respond(&mut m, delta(ENDPOINTS, "n2", one, &[]));
    let changed: Vec<Arc<str>> = arcs(&["a"]);
    assert_eq!(push(&pushed).unwrap().changed[0].name, changed[0]);
}
