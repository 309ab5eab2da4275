//! The steps of a control plane within a case.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::observe::Section;
use super::template::{self, Config};
use crate::ads::{Ads, Resource, Seen};
use crate::upstream::Script;

/// What the control plane does next.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Waits until the proxy asks for a type for the `times`-th time (once when unset).
    Await(Await),
    /// Sends resources and waits for the answer to them.
    Push(Push),
    /// Ends the stream; the proxy comes back by itself.
    Disconnect,
    /// Ends the stream and stops listening.
    Stop,
    /// Listens again.
    Start,
}

/// A request to wait for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Await {
    /// Short name of the type.
    pub kind: String,
    /// A name that must be asked for.
    #[serde(default)]
    pub name: Option<String>,
    /// A name that must be given up (incremental).
    #[serde(default)]
    pub unsubscribed: Option<String>,
    /// On this stream, counted from 1; on any when unset.
    #[serde(default)]
    pub stream: Option<usize>,
}

/// Resources to send.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Push {
    /// Short name of the type.
    pub kind: String,
    /// Version.
    pub version: String,
    /// The resources: `{from: NAME, merge: {...}}` takes the one that `config` describes,
    /// anything else stands for itself.
    #[serde(default)]
    pub resources: Vec<Value>,
    /// Names removed (incremental).
    #[serde(default)]
    pub removed: Vec<String>,
}

/// How long the proxy may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Performs a step; the section tells how it went.
pub async fn perform(
    step: &Step,
    ads: &mut Ads,
    config: &Config,
    upstreams: &BTreeMap<String, Script>,
    values: &BTreeMap<String, String>,
    title: &str,
) -> Section {
    let line = match step {
        Step::Await(wanted) => await_request(wanted, ads).await,
        Step::Push(push) => match send(push, ads, config, upstreams, values).await {
            Ok(answer) => answer,
            Err(e) => e,
        },
        Step::Disconnect => {
            ads.disconnect();
            "disconnected".to_owned()
        }
        Step::Stop => {
            ads.stop().await;
            "stopped".to_owned()
        }
        Step::Start => ads
            .listen()
            .await
            .map_or_else(|e| e.to_string(), |()| "started".to_owned()),
    };
    Section::new(title, vec![line])
}

async fn await_request(wanted: &Await, ads: &Ads) -> String {
    let found = ads.until(PATIENCE, |seen| {
        seen.kind == wanted.kind
            && wanted.stream.is_none_or(|stream| seen.stream == stream)
            && wanted
                .name
                .as_ref()
                .is_none_or(|name| seen.names.contains(name))
            && wanted
                .unsubscribed
                .as_ref()
                .is_none_or(|name| seen.unsubscribed.contains(name))
    });
    let asked = found.await.is_some();
    format!(
        "{}: {}",
        wanted.kind,
        if asked { "asked for" } else { "not asked for" }
    )
}

async fn send(
    push: &Push,
    ads: &Ads,
    config: &Config,
    upstreams: &BTreeMap<String, Script>,
    values: &BTreeMap<String, String>,
) -> Result<String, String> {
    let mut resources = Vec::new();
    for value in &push.resources {
        let value = match value.get("from").and_then(Value::as_str) {
            Some(name) => {
                let mut made = config.resource(&push.kind, name, upstreams)?;
                template::merge(&mut made, value.get("merge").unwrap_or(&Value::Null));
                made
            }
            None => value.clone(),
        };
        let text = template::fill(&value.to_string(), values);
        let value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        resources.push(Resource::from_json(&push.kind, &value)?);
    }
    let nonce = ads.push(&push.kind, &push.version, &resources, &push.removed);
    let Some(nonce) = nonce else {
        return Ok("no stream to send on".to_owned());
    };
    let answer = ads.until(PATIENCE, |seen| seen.nonce == nonce).await;
    Ok(match answer {
        Some(Seen { error: Some(_), .. }) => format!("{nonce} NACK"),
        Some(_) => format!("{nonce} ACK"),
        None => format!("{nonce} no answer"),
    })
}

/// What was asked, a section for each type.
#[must_use]
pub fn sections(ads: &Ads) -> Vec<Section> {
    let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for seen in ads.seen() {
        kinds
            .entry(seen.kind.clone())
            .or_default()
            .push(seen.line());
    }
    let section = |(kind, lines)| Section::new(format!("xds / {kind}"), lines);
    kinds.into_iter().map(section).collect()
}
