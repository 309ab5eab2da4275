//! Random interleavings of pushes, verdicts, drops and subscriptions, against a plain model: once all is
//! quiet, the client holds what the server has.

mod support;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;
use support::*;
use xds_client::message::{Rejection, Request, Response, Variant};
use xds_client::protocol::{Action, Event, Machine, Push, Timer, WILDCARD};
use xds_client::types::{CLUSTER, ENDPOINTS};

const TYPES: [&str; 2] = [CLUSTER, ENDPOINTS];
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// A content that the client refuses.
const BAD: u8 = 0;

#[derive(Clone, Debug)]
enum Step {
    Set(usize, usize, u8),
    Remove(usize, usize),
    Subscribe(usize),
    Unsubscribe(usize),
    /// One message reaches the server.
    Request,
    /// One message reaches the client.
    Response,
    /// The client says what it thinks of the last push.
    Verdict,
    Drop,
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..NAMES.len();
    prop_oneof![
        4 => (0..2usize, name.clone(), 0..4u8).prop_map(|(t, n, c)| Step::Set(t, n, c)),
        1 => (0..2usize, name.clone()).prop_map(|(t, n)| Step::Remove(t, n)),
        2 => name.clone().prop_map(Step::Subscribe),
        1 => name.prop_map(Step::Unsubscribe),
        5 => Just(Step::Request),
        5 => Just(Step::Response),
        4 => Just(Step::Verdict),
        1 => Just(Step::Drop),
        1 => Just(Step::Reconnect),
    ]
}

type Key = (&'static str, String);

/// What one stream has asked for and been sent.
#[derive(Default)]
struct Session {
    wildcard: BTreeSet<&'static str>,
    names: BTreeSet<Key>,
    seen: BTreeSet<&'static str>,
    sent: BTreeMap<Key, u64>,
}

struct World {
    variant: Variant,
    machine: Machine,
    /// Resources by name: version and content.
    server: BTreeMap<Key, (u64, u8)>,
    version: u64,
    session: Option<Session>,
    up: VecDeque<Request>,
    down: VecDeque<Response>,
    client: BTreeMap<Key, u8>,
    verdict: Option<Vec<Rejection>>,
    wanted: BTreeSet<String>,
}

fn known(url: &str) -> &'static str {
    TYPES.into_iter().find(|t| *t == url).expect("a known type")
}

impl World {
    fn new(variant: Variant) -> Self {
        let mut world = Self {
            variant,
            machine: machine(variant),
            server: BTreeMap::new(),
            version: 0,
            session: None,
            up: VecDeque::new(),
            down: VecDeque::new(),
            client: BTreeMap::new(),
            verdict: None,
            wanted: BTreeSet::new(),
        };
        world.event(subscribe(CLUSTER, &[WILDCARD]));
        world
    }

    fn event(&mut self, event: Event) {
        for action in self.machine.handle(event) {
            match action {
                Action::Send(request) => self.up.push_back(request),
                Action::Deliver(push) => self.apply(push),
                _ => {}
            }
        }
    }

    fn apply(&mut self, push: Push) {
        assert!(self.verdict.is_none(), "one push at a time");
        let url = known(&push.type_url);
        let mut rejected = Vec::new();
        for resource in push.changed {
            let content = content(&resource.bytes);
            if content == BAD {
                rejected.push(Rejection {
                    name: resource.name,
                    reason: "bad".into(),
                });
                continue;
            }
            let old = self
                .client
                .insert((url, resource.name.to_string()), content);
            assert_ne!(old, Some(content), "an unchanged resource is no change");
        }
        for name in push.removed {
            self.client.remove(&(url, name.to_string()));
        }
        self.verdict = Some(rejected);
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Set(t, n, content) => self.set(TYPES[t], NAMES[n], content),
            Step::Remove(t, n) => self.remove(TYPES[t], NAMES[n]),
            Step::Subscribe(n) => {
                self.wanted.insert(NAMES[n].into());
                self.event(subscribe(ENDPOINTS, &[NAMES[n]]));
            }
            Step::Unsubscribe(n) => {
                self.wanted.remove(NAMES[n]);
                self.client.remove(&(ENDPOINTS, NAMES[n].into()));
                self.event(unsubscribe(ENDPOINTS, &[NAMES[n]]));
            }
            Step::Request => self.request(),
            Step::Response => {
                if let Some(response) = self.down.pop_front() {
                    self.event(Event::Response(response));
                }
            }
            Step::Verdict => {
                if let Some(rejected) = self.verdict.take() {
                    self.event(Event::Validated { rejected });
                }
            }
            Step::Drop if self.session.is_some() => {
                self.session = None;
                self.up.clear();
                self.down.clear();
                self.event(Event::StreamClosed {
                    reason: "dropped".into(),
                });
            }
            Step::Reconnect if self.session.is_none() => {
                self.session = Some(Session::default());
                self.event(Event::TimerFired(Timer::Reconnect));
                self.event(Event::StreamOpened);
            }
            Step::Drop | Step::Reconnect => {}
        }
    }

    fn set(&mut self, url: &'static str, name: &str, content: u8) {
        self.version += 1;
        self.server
            .insert((url, name.into()), (self.version, content));
        self.push(url, false);
    }

    fn remove(&mut self, url: &'static str, name: &str) {
        // State-of-the-world cannot say that endpoints are gone.
        if url == CLUSTER || self.variant == Variant::Delta {
            self.version += 1;
            self.server.remove(&(url, name.into()));
            self.push(url, false);
        }
    }

    /// The server takes a request.
    fn request(&mut self) {
        let (Some(request), Some(session)) = (self.up.pop_front(), &mut self.session) else {
            return;
        };
        // The first request of a type on a stream is answered in any case.
        let first;
        let url = match request {
            Request::Delta(m) => {
                let url = known(&m.type_url);
                first = session.seen.insert(url);
                if first && m.resource_names_subscribe.is_empty() {
                    session.wildcard.insert(url);
                }
                for (name, version) in m.initial_resource_versions {
                    session.sent.insert((url, name), version.parse().unwrap());
                }
                for name in m.resource_names_subscribe {
                    let key = (url, name);
                    if !self.server.contains_key(&key) {
                        // What does not exist is answered as gone: an older answer may be on its way.
                        session.sent.insert(key.clone(), 0);
                    }
                    session.names.insert(key);
                }
                for name in m.resource_names_unsubscribe {
                    session.names.remove(&(url, name.clone()));
                    session.sent.remove(&(url, name));
                }
                url
            }
            Request::Whole(m) => {
                let url = known(&m.type_url);
                first = session.seen.insert(url);
                if first && m.resource_names.is_empty() {
                    session.wildcard.insert(url);
                }
                let before: BTreeSet<Key> =
                    session.names.extract_if(.., |key| key.0 == url).collect();
                let asked: BTreeSet<Key> = m.resource_names.into_iter().map(|n| (url, n)).collect();
                // What is asked for anew is sent anew.
                for key in asked.difference(&before) {
                    session.sent.remove(key);
                }
                session.names.extend(asked);
                url
            }
        };
        self.push(url, first);
    }

    /// The server sends what the client lacks of a type.
    fn push(&mut self, url: &'static str, first: bool) {
        let Some(session) = &mut self.session else {
            return;
        };
        if !session.seen.contains(url) {
            return;
        }
        let all = session.wildcard.contains(url);
        let wanted: BTreeMap<Key, (u64, u8)> = self
            .server
            .iter()
            .filter(|(key, _)| key.0 == url && (all || session.names.contains(key)))
            .map(|(key, value)| (key.clone(), *value))
            .collect();
        let now: BTreeMap<Key, u64> = wanted.iter().map(|(k, v)| (k.clone(), v.0)).collect();
        let before: BTreeMap<Key, u64> = session
            .sent
            .iter()
            .filter(|(k, _)| k.0 == url)
            .map(|(k, v)| (k.clone(), *v))
            .collect();
        if now == before && !first {
            return;
        }
        session.sent.retain(|k, _| k.0 != url);
        session.sent.extend(now.clone());
        self.version += 1;
        let nonce = self.version.to_string();
        self.down.push_back(match self.variant {
            Variant::StateOfTheWorld => {
                let all = wanted
                    .iter()
                    .map(|(k, v)| support::any(url, &k.1, &v.1.to_string()))
                    .collect();
                whole(url, &nonce, &nonce, all)
            }
            Variant::Delta => {
                let changed = wanted
                    .iter()
                    .filter(|(k, v)| before.get(*k) != Some(&v.0))
                    .map(|(k, v)| resource(url, &k.1, &v.0.to_string(), &v.1.to_string()))
                    .collect();
                let gone: Vec<&str> = before
                    .keys()
                    .filter(|k| !now.contains_key(*k))
                    .map(|k| k.1.as_str())
                    .collect();
                delta(url, &nonce, changed, &gone)
            }
        });
    }

    /// Lets everything happen that is still to happen.
    fn settle(&mut self) {
        let bad: Vec<Key> = self
            .server
            .iter()
            .filter(|(_, v)| v.1 == BAD)
            .map(|(k, _)| k.clone())
            .collect();
        for (url, name) in bad {
            self.set(url, &name, 9);
        }
        self.take(&Step::Reconnect);
        for _ in 0..1000 {
            if self.up.is_empty() && self.down.is_empty() && self.verdict.is_none() {
                return;
            }
            self.take(&Step::Request);
            self.take(&Step::Response);
            self.take(&Step::Verdict);
        }
        panic!("it does not come to rest");
    }

    fn expected(&self) -> BTreeMap<Key, u8> {
        self.server
            .iter()
            .filter(|((url, name), _)| *url == CLUSTER || self.wanted.contains(name))
            .map(|(key, value)| (key.clone(), value.1))
            .collect()
    }
}

fn content(bytes: &[u8]) -> u8 {
    use prost::Message;
    use xds_api::pb::envoy::config::cluster::v3::Cluster;
    Cluster::decode(bytes)
        .unwrap()
        .alt_stat_name
        .parse()
        .unwrap()
}

fn run(variant: Variant, steps: &[Step]) {
    let mut world = World::new(variant);
    for step in steps {
        world.take(step);
    }
    world.settle();
    assert_eq!(world.client, world.expected());
    // A reconnect after that changes nothing.
    let before = world.client.clone();
    world.take(&Step::Drop);
    world.settle();
    assert_eq!(world.client, before);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn delta_comes_to_hold_what_the_server_has(steps in prop::collection::vec(step(), 0..80)) {
        run(Variant::Delta, &steps);
    }

    #[test]
    fn whole_comes_to_hold_what_the_server_has(steps in prop::collection::vec(step(), 0..80)) {
        run(Variant::StateOfTheWorld, &steps);
    }
}

#[test]
fn a_name_dropped_and_wanted_again_during_a_verdict_is_fetched_anew() {
    let mut m = machine(Variant::Delta);
    m.handle(subscribe(ENDPOINTS, &["a"]));
    m.handle(Event::StreamOpened);
    let one = vec![resource(ENDPOINTS, "a", "1", "x")];
    m.handle(Event::Response(delta(ENDPOINTS, "n1", one.clone(), &[])));
    m.handle(unsubscribe(ENDPOINTS, &["a"]));
    m.handle(subscribe(ENDPOINTS, &["a"]));
    m.handle(accepted());
    let again = m.handle(Event::Response(delta(ENDPOINTS, "n2", one, &[])));
    let names: Vec<Arc<str>> = push(&again)
        .unwrap()
        .changed
        .iter()
        .map(|r| r.name.clone())
        .collect();
    assert_eq!(names, arcs(&["a"]));
}
