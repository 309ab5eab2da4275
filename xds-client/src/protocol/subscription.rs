//! What is wanted and held of one type.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use xds_api::pb::envoy::service::discovery::v3 as pb;
use xds_api::pb::google::rpc::Status;

use super::{Push, Rejection, Resource, WILDCARD};
use crate::message::{Parsed, ParsedResource, Request, Variant};
use crate::types;

/// `INTERNAL`, the code that Envoy puts into a NACK.
const INTERNAL: i32 = 13;
/// Most bytes of the message of a NACK.
const MAX_ERROR: usize = 8 << 10;

/// One type on the stream.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) url: Arc<str>,
    pub(super) paused: bool,
    variant: Variant,
    wildcard: bool,
    names: BTreeSet<Arc<str>>,
    held: BTreeMap<Arc<str>, Held>,
    /// Names whose first answer is still to come.
    unanswered: BTreeSet<Arc<str>>,
    /// The version of the last response that was accepted (state-of-the-world).
    version: String,
    /// The nonce of the last response on this stream.
    nonce: String,
    /// Whether this stream has had a request.
    introduced: bool,
    /// The names changed since the last request (state-of-the-world).
    changed: bool,
    /// Names for the next request (delta).
    added: BTreeSet<Arc<str>>,
    dropped: BTreeSet<Arc<str>>,
    /// Answers that are due; more than one only while paused.
    answers: VecDeque<Answer>,
}

/// A resource that was accepted.
#[derive(Debug)]
struct Held {
    version: Arc<str>,
    bytes: Bytes,
}

/// An ACK, or a NACK, that is due.
#[derive(Debug)]
struct Answer {
    nonce: String,
    error: Option<String>,
}

impl Subscription {
    pub(super) fn new(url: Arc<str>, variant: Variant) -> Self {
        Self {
            url,
            paused: false,
            variant,
            wildcard: false,
            names: BTreeSet::new(),
            held: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            version: String::new(),
            nonce: String::new(),
            introduced: false,
            changed: false,
            added: BTreeSet::new(),
            dropped: BTreeSet::new(),
            answers: VecDeque::new(),
        }
    }

    /// Wants a name; false if it was wanted already.
    pub(super) fn add(&mut self, name: &Arc<str>) -> bool {
        let is_new = if **name == *WILDCARD {
            !std::mem::replace(&mut self.wildcard, true)
        } else {
            self.names.insert(name.clone())
        };
        if is_new {
            self.changed = true;
            self.dropped.remove(name);
            self.added.insert(name.clone());
            self.unanswered.insert(name.clone());
        }
        is_new
    }

    /// Wants a name no more; false if it was not wanted.
    pub(super) fn remove(&mut self, name: &Arc<str>) -> bool {
        let was_there = if **name == *WILDCARD {
            std::mem::replace(&mut self.wildcard, false)
        } else {
            self.names.remove(name)
        };
        if was_there {
            self.changed = true;
            self.unanswered.remove(name);
            if !self.added.remove(name) {
                self.dropped.insert(name.clone());
            }
        }
        was_there
    }

    /// Lets go of what nobody wants any more.
    pub(super) fn forget_unwanted(&mut self) -> Vec<Arc<str>> {
        let held = self.held.keys().filter(|n| !self.wants(n)).cloned();
        let gone: Vec<Arc<str>> = held.collect();
        for name in &gone {
            self.held.remove(name);
        }
        gone
    }

    /// Lets go of a resource; false if there was none.
    pub(super) fn forget(&mut self, name: &str) -> bool {
        self.held.remove(name).is_some()
    }

    pub(super) fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.wildcard || !self.names.is_empty()
    }

    /// The first answer will not be waited for; false if it has come.
    pub(super) fn give_up_first(&mut self, name: &str) -> bool {
        self.unanswered.remove(name)
    }

    /// Names on which this response is the first answer. Any response answers the wildcard.
    pub(super) fn answered(&mut self, parsed: &Parsed) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = Vec::new();
        let read = parsed.resources.iter().map(|r| &*r.name);
        let refused = parsed.unreadable.iter().map(|r| &*r.name);
        let removed = parsed.removed.iter().map(String::as_str);
        for name in read.chain(refused).chain(removed).chain([WILDCARD]) {
            names.extend(self.unanswered.take(name));
        }
        names
    }

    /// What a response changes.
    pub(super) fn compare(&self, parsed: &Parsed) -> Push {
        let mut push = Push {
            type_url: self.url.clone(),
            version: parsed.version.as_str().into(),
            changed: Vec::new(),
            unchanged: Vec::new(),
            removed: self.removed(parsed),
            unreadable: parsed.unreadable.clone(),
        };
        for resource in &parsed.resources {
            let held = self.held.get(&resource.name);
            match &resource.bytes {
                Some(bytes) if held.is_none_or(|h| h.bytes != *bytes) => {
                    push.changed.push(Resource {
                        name: resource.name.clone(),
                        version: resource.version.clone(),
                        bytes: bytes.clone(),
                    });
                }
                _ => push.unchanged.push(resource.name.clone()),
            }
        }
        push
    }

    fn removed(&self, parsed: &Parsed) -> Vec<Arc<str>> {
        match self.variant {
            Variant::Delta => parsed
                .removed
                .iter()
                .filter(|name| self.wants(name))
                .map(|name| name.as_str().into())
                .collect(),
            Variant::StateOfTheWorld if types::is_complete(&self.url) => self.absent(parsed),
            Variant::StateOfTheWorld => Vec::new(),
        }
    }

    /// What is held and not in a response that should have all. A resource without a readable name may be
    /// any of them, so then none is gone.
    fn absent(&self, parsed: &Parsed) -> Vec<Arc<str>> {
        let read = parsed.resources.iter().map(|r| &r.name);
        let refused = parsed.unreadable.iter().map(|r| &r.name);
        let present: BTreeSet<&Arc<str>> = read.chain(refused).collect();
        if present.iter().any(|name| name.starts_with("resources[")) {
            return Vec::new();
        }
        let absent = self.held.keys().filter(|name| !present.contains(name));
        absent.cloned().collect()
    }

    /// Holds a resource that was accepted; false for a heartbeat of one that is not held.
    pub(super) fn keep(&mut self, resource: ParsedResource) -> bool {
        let Some(bytes) = resource.bytes else {
            return self.held.contains_key(&resource.name);
        };
        let held = Held {
            version: resource.version,
            bytes,
        };
        self.held.insert(resource.name, held);
        true
    }

    /// Owes the server an answer.
    pub(super) fn answer(&mut self, nonce: String, version: String, rejected: &[Rejection]) {
        self.nonce.clone_from(&nonce);
        if rejected.is_empty() {
            self.version = version;
        }
        self.answers.push_back(Answer {
            nonce,
            error: (!rejected.is_empty()).then(|| describe(rejected)),
        });
    }

    /// Begins anew on a new stream.
    pub(super) fn start_stream(&mut self) {
        self.nonce.clear();
        self.answers.clear();
        self.introduced = false;
        self.changed = false;
        self.added.clear();
        self.dropped.clear();
    }

    /// The next request that is due.
    pub(super) fn next_request(&mut self) -> Option<Request> {
        if self.paused || !(self.introduced || self.is_wanted()) {
            return None;
        }
        match self.variant {
            Variant::StateOfTheWorld => self.next_whole().map(|m| Request::Whole(Box::new(m))),
            Variant::Delta => self.next_delta().map(|m| Request::Delta(Box::new(m))),
        }
    }

    fn next_whole(&mut self) -> Option<pb::DiscoveryRequest> {
        // The last answer stands for those before.
        let answer = self.answers.pop_back();
        self.answers.clear();
        let changed = std::mem::take(&mut self.changed);
        if self.introduced && answer.is_none() && !changed {
            return None;
        }
        self.introduced = true;
        let mut names: Vec<String> = self.names.iter().map(ToString::to_string).collect();
        if self.wildcard && !names.is_empty() {
            names.insert(0, WILDCARD.into());
        }
        Some(pb::DiscoveryRequest {
            version_info: self.version.clone(),
            resource_names: names,
            type_url: self.url.to_string(),
            response_nonce: self.nonce.clone(),
            error_detail: answer.and_then(|a| a.error).map(status),
            ..Default::default()
        })
    }

    fn next_delta(&mut self) -> Option<pb::DeltaDiscoveryRequest> {
        let mut request = pb::DeltaDiscoveryRequest {
            type_url: self.url.to_string(),
            ..Default::default()
        };
        if !self.introduced {
            self.introduced = true;
            self.added.clear();
            self.dropped.clear();
            self.introduce(&mut request);
            return Some(request);
        }
        // An answer goes out alone: one that changes subscriptions is an error to some servers.
        if let Some(answer) = self.answers.pop_front() {
            request.response_nonce = answer.nonce;
            request.error_detail = answer.error.map(status);
            return Some(request);
        }
        if self.added.is_empty() && self.dropped.is_empty() {
            return None;
        }
        request.resource_names_subscribe = strings(&std::mem::take(&mut self.added));
        request.resource_names_unsubscribe = strings(&std::mem::take(&mut self.dropped));
        Some(request)
    }

    /// The first request of a stream: all that is wanted, and what is there already. The wildcard alone is
    /// said by naming nothing.
    fn introduce(&self, request: &mut pb::DeltaDiscoveryRequest) {
        request.resource_names_subscribe = strings(&self.names);
        if self.wildcard && !self.names.is_empty() {
            request.resource_names_subscribe.insert(0, WILDCARD.into());
        }
        let version =
            |(name, held): (&Arc<str>, &Held)| (name.to_string(), held.version.to_string());
        request.initial_resource_versions = self.held.iter().map(version).collect();
    }
}

fn strings(names: &BTreeSet<Arc<str>>) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn status(message: String) -> Status {
    Status {
        code: INTERNAL,
        message,
        details: Vec::new(),
    }
}

/// One line for each resource that was refused, as many as there is room for.
fn describe(rejected: &[Rejection]) -> String {
    let mut text = String::new();
    for (index, rejection) in rejected.iter().enumerate() {
        if text.len() + rejection.name.len() + rejection.reason.len() > MAX_ERROR {
            let left = rejected.len() - index;
            // Writing to a string cannot fail.
            let _ = write!(text, "and {left} more");
            break;
        }
        let _ = writeln!(text, "{}: {}", rejection.name, rejection.reason);
    }
    text.truncate(text.trim_end().len());
    text
}
