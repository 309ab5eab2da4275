//! The messages of both variants.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use xds_api::pb::envoy::service::discovery::v3 as pb;
use xds_api::pb::google::protobuf::{self as wkt, Any};

use crate::types;

/// Which protocol a stream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// A request names all that is wanted, a response of CDS or LDS holds all that there is.
    StateOfTheWorld,
    /// Requests and responses hold differences.
    Delta,
}

/// A message to the server.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// State-of-the-world.
    Whole(Box<pb::DiscoveryRequest>),
    /// Delta.
    Delta(Box<pb::DeltaDiscoveryRequest>),
}

/// A message from the server.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// State-of-the-world.
    Whole(Box<pb::DiscoveryResponse>),
    /// Delta.
    Delta(Box<pb::DeltaDiscoveryResponse>),
}

/// A response, the same for both variants.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) type_url: String,
    pub(crate) version: String,
    pub(crate) nonce: String,
    pub(crate) identifier: Option<String>,
    pub(crate) resources: Vec<ParsedResource>,
    pub(crate) removed: Vec<String>,
    /// What could not be read: a place or a name, and why.
    pub(crate) unreadable: Vec<Rejection>,
}

/// One resource of a response.
#[derive(Debug)]
pub(crate) struct ParsedResource {
    pub(crate) name: Arc<str>,
    pub(crate) version: Arc<str>,
    /// None for a heartbeat, which only prolongs the life of what there is.
    pub(crate) bytes: Option<Bytes>,
    pub(crate) ttl: Option<Duration>,
}

/// A resource that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Its name.
    pub name: Arc<str>,
    /// The path inside it, and the reason.
    pub reason: String,
}

impl Response {
    pub(crate) fn parse(self) -> Parsed {
        match self {
            Self::Whole(message) => whole(*message),
            Self::Delta(message) => delta(*message),
        }
    }
}

fn whole(message: pb::DiscoveryResponse) -> Parsed {
    let mut parsed = Parsed {
        version: message.version_info,
        type_url: message.type_url,
        nonce: message.nonce,
        identifier: message.control_plane.map(|c| c.identifier),
        resources: Vec::with_capacity(message.resources.len()),
        removed: Vec::new(),
        unreadable: Vec::new(),
    };
    let version: Arc<str> = parsed.version.as_str().into();
    for (index, any) in message.resources.into_iter().enumerate() {
        let read = if any.type_url == types::WRAPPER {
            unwrap(&any.value, &parsed.type_url, &version)
        } else {
            plain(any, &parsed.type_url, &version)
        };
        parsed.take(read.map_err(|reason| Rejection {
            name: format!("resources[{index}]").into(),
            reason,
        }));
    }
    parsed
}

fn plain(any: Any, type_url: &str, version: &Arc<str>) -> Result<ParsedResource, String> {
    let bytes = body(any, type_url)?;
    Ok(ParsedResource {
        name: types::name_of(&bytes).map_err(|e| e.to_string())?.into(),
        version: version.clone(),
        bytes: Some(bytes),
        ttl: None,
    })
}

fn unwrap(bytes: &[u8], type_url: &str, version: &Arc<str>) -> Result<ParsedResource, String> {
    let wrapper = pb::Resource::decode(bytes).map_err(|e| e.to_string())?;
    let mut read = resource(wrapper, type_url).map_err(|r| r.reason)?;
    read.version = version.clone();
    Ok(read)
}

fn delta(message: pb::DeltaDiscoveryResponse) -> Parsed {
    let mut parsed = Parsed {
        version: message.system_version_info,
        type_url: message.type_url,
        nonce: message.nonce,
        identifier: message.control_plane.map(|c| c.identifier),
        resources: Vec::with_capacity(message.resources.len()),
        removed: message.removed_resources,
        unreadable: Vec::new(),
    };
    for message in message.resources {
        let read = resource(message, &parsed.type_url);
        parsed.take(read);
    }
    parsed
}

fn resource(message: pb::Resource, type_url: &str) -> Result<ParsedResource, Rejection> {
    let name: Arc<str> = message.name.into();
    let refuse = |reason: String| Rejection {
        name: name.clone(),
        reason,
    };
    let ttl = message.ttl.and_then(time_to_live);
    let bytes = match message.resource {
        None if ttl.is_none() => return Err(refuse("resource: must be set".into())),
        None => None,
        Some(any) => Some(body(any, type_url).map_err(refuse)?),
    };
    if let Some(bytes) = &bytes {
        let inner = types::name_of(bytes).map_err(|e| refuse(e.to_string()))?;
        if inner != *name {
            let reason = format!("resource: it is named \"{inner}\"");
            return Err(refuse(reason));
        }
    }
    Ok(ParsedResource {
        version: message.version.into(),
        name: name.clone(),
        bytes,
        ttl,
    })
}

/// A time to live; a negative one is none.
fn time_to_live(ttl: wkt::Duration) -> Option<Duration> {
    let seconds = u64::try_from(ttl.seconds).ok()?;
    let nanos = u32::try_from(ttl.nanos).ok()?;
    Some(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(u64::from(nanos))))
}

fn body(any: Any, type_url: &str) -> Result<Bytes, String> {
    if any.type_url == type_url {
        return Ok(any.value.into());
    }
    Err(format!(
        "type URL {} does not match the message-wide type URL {type_url}",
        any.type_url
    ))
}

impl Parsed {
    fn take(&mut self, read: Result<ParsedResource, Rejection>) {
        match read {
            Ok(resource) => self.resources.push(resource),
            Err(rejection) => self.unreadable.push(rejection),
        }
    }

    /// Takes out resources that are there more than once: none of them can be the right one.
    pub(crate) fn refuse_duplicates(&mut self) {
        let mut names: Vec<Arc<str>> = self.resources.iter().map(|r| r.name.clone()).collect();
        names.sort_unstable();
        let mut twice: Vec<Arc<str>> = names
            .windows(2)
            .filter(|pair| pair[0] == pair[1])
            .map(|pair| pair[0].clone())
            .collect();
        twice.dedup();
        self.resources
            .retain(|r| twice.binary_search(&r.name).is_err());
        self.unreadable
            .extend(twice.into_iter().map(|name| Rejection {
                reason: format!("duplicate name {name} found among added/updated resources"),
                name,
            }));
    }
}
