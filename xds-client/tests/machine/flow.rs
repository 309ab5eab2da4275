//! Order, time and the ends of streams.

use std::sync::Arc;
use std::time::Duration;

use xds_client::protocol::{Action, Event, Timer};
use xds_client::types::{CLUSTER, ENDPOINTS, ROUTES};

use crate::support::*;
use crate::{DELTA, drop_stream, respond, with_clusters};

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
