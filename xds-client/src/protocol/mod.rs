//! The protocol as a state machine: events in, actions out, no sockets and no clocks.
//!
//! One machine is one stream, which is opened again whenever it ends. A push is handed over as
//! [`Action::Deliver`] and answered when [`Event::Validated`] says what became of it; until then further
//! responses wait. Timers are named by [`Timer`]; arming one that is armed moves it.

mod subscription;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use xds_api::pb::envoy::config::core::v3::Node;

pub use crate::message::Rejection;
use crate::message::{Parsed, ParsedResource, Request, Response, Variant};
use subscription::Subscription;

/// The name that stands for all resources of a type.
pub const WILDCARD: &str = "*";

/// What a machine is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which protocol.
    pub variant: Variant,
    /// Who asks.
    pub node: Node,
    /// Send the node only in the first message of a stream; otherwise in every one.
    pub node_on_first_message_only: bool,
    /// The first interval between streams.
    pub back_off_base: Duration,
    /// The longest interval between streams.
    pub back_off_max: Duration,
}

/// What happens to a machine.
#[derive(Clone, Debug)]
pub enum Event {
    /// Resources are wanted; [`WILDCARD`] among the names asks for all of the type.
    Subscribe {
        /// The type.
        type_url: Arc<str>,
        /// Names. Those that are subscribed already stay so.
        names: Vec<Arc<str>>,
        /// How long to wait for the first answer on each name; none waits for ever.
        fetch_timeout: Option<Duration>,
    },
    /// Resources are not wanted any more, and forgotten.
    Unsubscribe {
        /// The type.
        type_url: Arc<str>,
        /// Names.
        names: Vec<Arc<str>>,
    },
    /// No requests of this type go out until [`Event::Resume`].
    Pause(Arc<str>),
    /// Requests of this type go out again.
    Resume(Arc<str>),
    /// A stream is open.
    StreamOpened,
    /// The server said something.
    Response(Response),
    /// The stream ended, or could not be opened.
    StreamClosed {
        /// Why, for the log.
        reason: String,
    },
    /// A timer has passed.
    TimerFired(Timer),
    /// What became of the resources handed over last: these were refused, all others hold.
    Validated {
        /// Those refused.
        rejected: Vec<Rejection>,
    },
}

/// A timer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The first answer on a name is late.
    Fetch(Arc<str>, Arc<str>),
    /// A resource's time to live.
    Ttl(Arc<str>, Arc<str>),
    /// Time for another stream.
    Reconnect,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Open a stream.
    Open,
    /// Open a stream after a random part of this time, by [`Timer::Reconnect`].
    OpenWithin(Duration),
    /// Send a message on the stream.
    Send(Request),
    /// Arm a timer.
    Arm(Timer, Duration),
    /// Disarm a timer.
    Disarm(Timer),
    /// Hand resources over, and answer with [`Event::Validated`].
    Deliver(Push),
    /// The first answer on these names is late; what waits for them goes on without.
    FetchTimedOut {
        /// The type.
        type_url: Arc<str>,
        /// The name.
        name: Arc<str>,
    },
    /// The time to live of a resource has passed: it is gone.
    Expired {
        /// The type.
        type_url: Arc<str>,
        /// The name.
        name: Arc<str>,
    },
    /// The server says who it is.
    Identified(String),
    /// The stream is open.
    Connected,
    /// The stream ended, or could not be opened.
    Disconnected {
        /// Why, for the log.
        reason: String,
        /// The types that are subscribed to.
        types: Vec<Arc<str>>,
    },
}

/// What a response holds for whoever subscribed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// The type.
    pub type_url: Arc<str>,
    /// The version of the response as a whole.
    pub version: Arc<str>,
    /// Resources that are new or other than those held.
    pub changed: Vec<Resource>,
    /// Names of resources that are there as they were.
    pub unchanged: Vec<Arc<str>>,
    /// Names of resources that are gone.
    pub removed: Vec<Arc<str>>,
    /// Resources that could not even be read, refused already; for logs and stats.
    pub unreadable: Vec<Rejection>,
}

/// A resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its name.
    pub name: Arc<str>,
    /// Its version.
    pub version: Arc<str>,
    /// The serialised message.
    pub bytes: Bytes,
}

/// A push that has been handed over.
#[derive(Debug)]
struct InFlight {
    at: usize,
    nonce: String,
    version: String,
    resources: Vec<ParsedResource>,
    unreadable: Vec<Rejection>,
    /// The stream that it came on is still there.
    answerable: bool,
}

/// One stream and all that it carries.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    subscriptions: Vec<Subscription>,
    state: Stream,
    node_sent: bool,
    /// Streams in a row that brought nothing.
    failures: u32,
    in_flight: Option<InFlight>,
    waiting: VecDeque<Parsed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    /// Nothing was ever asked for.
    Idle,
    /// Being opened, or waiting to be.
    Closed,
    Open,
}

impl Machine {
    /// A machine that opens its stream with the first subscription.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            subscriptions: Vec::new(),
            state: Stream::Idle,
            node_sent: false,
            failures: 0,
            in_flight: None,
            waiting: VecDeque::new(),
        }
    }

    /// Whether a push is out, so that the stream need not be read.
    pub fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Takes an event.
    pub fn handle(&mut self, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        match event {
            Event::Subscribe {
                type_url,
                names,
                fetch_timeout,
            } => self.subscribe(&type_url, names, fetch_timeout, &mut out),
            Event::Unsubscribe { type_url, names } => {
                self.unsubscribe(&type_url, &names, &mut out);
            }
            Event::Pause(type_url) => {
                let at = self.position(&type_url);
                self.subscriptions[at].paused = true;
            }
            Event::Resume(type_url) => {
                let at = self.position(&type_url);
                self.subscriptions[at].paused = false;
                self.flush(at, &mut out);
            }
            Event::StreamOpened => self.opened(&mut out),
            Event::Response(response) => self.response(response.parse(), &mut out),
            Event::StreamClosed { reason } => self.closed(reason, &mut out),
            Event::TimerFired(timer) => self.fired(timer, &mut out),
            Event::Validated { rejected } => self.validated(rejected, &mut out),
        }
        out
    }

    /// The subscription to a type, made if there is none.
    fn position(&mut self, type_url: &Arc<str>) -> usize {
        let found = self.subscriptions.iter().position(|s| s.url == *type_url);
        found.unwrap_or_else(|| {
            self.subscriptions
                .push(Subscription::new(type_url.clone(), self.settings.variant));
            self.subscriptions.len() - 1
        })
    }

    fn subscribe(
        &mut self,
        type_url: &Arc<str>,
        names: Vec<Arc<str>>,
        fetch_timeout: Option<Duration>,
        out: &mut Vec<Action>,
    ) {
        let at = self.position(type_url);
        for name in names {
            if self.subscriptions[at].add(&name)
                && let Some(timeout) = fetch_timeout
            {
                out.push(Action::Arm(Timer::Fetch(type_url.clone(), name), timeout));
            }
        }
        if self.state == Stream::Idle {
            self.state = Stream::Closed;
            out.push(Action::Open);
        }
        self.flush(at, out);
    }

    fn unsubscribe(&mut self, type_url: &Arc<str>, names: &[Arc<str>], out: &mut Vec<Action>) {
        let at = self.position(type_url);
        for name in names {
            if self.subscriptions[at].remove(name) {
                out.push(Action::Disarm(Timer::Fetch(type_url.clone(), name.clone())));
            }
        }
        for gone in self.subscriptions[at].forget_unwanted() {
            out.push(Action::Disarm(Timer::Ttl(type_url.clone(), gone)));
        }
        let subscription = &self.subscriptions[at];
        if let Some(push) = self.in_flight.as_mut().filter(|push| push.at == at) {
            // Even if it is wanted again before the verdict, its owner has dropped it by now.
            push.resources.retain(|r| subscription.wants(&r.name));
        }
        self.flush(at, out);
    }

    fn opened(&mut self, out: &mut Vec<Action>) {
        self.state = Stream::Open;
        self.node_sent = false;
        out.push(Action::Connected);
        for at in 0..self.subscriptions.len() {
            self.subscriptions[at].start_stream();
            self.flush(at, out);
        }
    }

    fn closed(&mut self, reason: String, out: &mut Vec<Action>) {
        self.state = Stream::Closed;
        self.waiting.clear();
        if let Some(push) = &mut self.in_flight {
            push.answerable = false;
        }
        let wanted = self.subscriptions.iter().filter(|s| s.is_wanted());
        out.push(Action::Disconnected {
            reason,
            types: wanted.map(|s| s.url.clone()).collect(),
        });
        let doubled = self
            .settings
            .back_off_base
            .saturating_mul(1 << self.failures.min(16));
        out.push(Action::OpenWithin(doubled.min(self.settings.back_off_max)));
        self.failures = self.failures.saturating_add(1);
    }

    fn fired(&mut self, timer: Timer, out: &mut Vec<Action>) {
        match timer {
            Timer::Reconnect if self.state == Stream::Closed => out.push(Action::Open),
            Timer::Reconnect => {}
            Timer::Fetch(type_url, name) => {
                let at = self.position(&type_url);
                if self.subscriptions[at].give_up_first(&name) {
                    out.push(Action::FetchTimedOut { type_url, name });
                }
            }
            Timer::Ttl(type_url, name) => {
                let at = self.position(&type_url);
                if self.subscriptions[at].forget(&name) {
                    if let Some(push) = self.in_flight.as_mut().filter(|push| push.at == at) {
                        push.resources.retain(|r| r.name != name);
                    }
                    out.push(Action::Expired { type_url, name });
                }
            }
        }
    }

    /// Sends what is due on a type.
    fn flush(&mut self, at: usize, out: &mut Vec<Action>) {
        // After a reconnect a type says what it holds, which a push without a verdict leaves open.
        let undecided = |push: &InFlight| push.at == at && !push.answerable;
        if self.state != Stream::Open || self.in_flight.as_ref().is_some_and(undecided) {
            return;
        }
        while let Some(mut request) = self.subscriptions[at].next_request() {
            if !(self.node_sent && self.settings.node_on_first_message_only) {
                self.node_sent = true;
                let node = Some(self.settings.node.clone());
                match &mut request {
                    Request::Whole(message) => message.node = node,
                    Request::Delta(message) => message.node = node,
                }
            }
            out.push(Action::Send(request));
        }
    }

    fn response(&mut self, parsed: Parsed, out: &mut Vec<Action>) {
        if self.state != Stream::Open {
            return;
        }
        self.failures = 0;
        if let Some(identifier) = &parsed.identifier {
            out.push(Action::Identified(identifier.clone()));
        }
        self.waiting.push_back(parsed);
        self.deliver(out);
    }

    /// Hands over the next push that waits.
    fn deliver(&mut self, out: &mut Vec<Action>) {
        while self.in_flight.is_none() {
            let Some(parsed) = self.waiting.pop_front() else {
                return;
            };
            let found = self
                .subscriptions
                .iter()
                .position(|s| *s.url == *parsed.type_url);
            let Some(at) = found else {
                // Nobody asked; an answer would say that somebody listens.
                tracing::warn!(target: "config", type_url = parsed.type_url, "response for a type that is not subscribed to");
                continue;
            };
            self.deliver_to(at, parsed, out);
        }
    }

    fn deliver_to(&mut self, at: usize, mut parsed: Parsed, out: &mut Vec<Action>) {
        parsed.refuse_duplicates();
        let subscription = &mut self.subscriptions[at];
        parsed.resources.retain(|r| subscription.wants(&r.name));
        parsed
            .unreadable
            .retain(|r| subscription.wants(&r.name) || r.name.starts_with("resources["));
        let push = subscription.compare(&parsed);
        let type_url = subscription.url.clone();
        for name in &push.removed {
            subscription.forget(name);
            out.push(Action::Disarm(Timer::Ttl(type_url.clone(), name.clone())));
        }
        for name in subscription.answered(&parsed) {
            out.push(Action::Disarm(Timer::Fetch(type_url.clone(), name)));
        }
        self.in_flight = Some(InFlight {
            at,
            nonce: parsed.nonce,
            version: parsed.version,
            resources: parsed.resources,
            unreadable: parsed.unreadable,
            answerable: true,
        });
        out.push(Action::Deliver(push));
    }

    fn validated(&mut self, rejected: Vec<Rejection>, out: &mut Vec<Action>) {
        let Some(mut push) = self.in_flight.take() else {
            return;
        };
        let subscription = &mut self.subscriptions[push.at];
        push.unreadable.extend(rejected);
        let rejected = push.unreadable;
        let refused: BTreeSet<&Arc<str>> = rejected.iter().map(|r| &r.name).collect();
        for resource in push.resources {
            if refused.contains(&resource.name) || !subscription.wants(&resource.name) {
                continue;
            }
            let timer = Timer::Ttl(subscription.url.clone(), resource.name.clone());
            let ttl = resource.ttl;
            if subscription.keep(resource) {
                out.push(match ttl {
                    Some(ttl) => Action::Arm(timer, ttl),
                    None => Action::Disarm(timer),
                });
            }
        }
        if push.answerable {
            subscription.answer(push.nonce, push.version, &rejected);
        }
        self.flush(push.at, out);
        self.deliver(out);
    }
}
