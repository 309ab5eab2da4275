//! Which fields a captured configuration holds, and what becomes of them.

use std::collections::BTreeSet;

use super::{
    Verdict, enum_value, has_line, is_absent, is_on, of_enum_value, of_field, of_flag, of_type,
};
use super::{needs_no_line, type_has_line};
use crate::path::{FieldPath, Step};
use crate::scan::{Descend, ScanError, Trail, Visitor, scan};
use crate::schema::{self, Field, Message};
use crate::wire::Value;

/// What the schema does not know.
const UNKNOWN: Verdict = Verdict::Rejected("unknown to the schema");

/// One thing that a configuration holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Where, without indices and keys, and with the message that stands in an `Any`:
    /// `filter_chains[].filters[].typed_config<envoy...HttpConnectionManager>.stat_prefix`. A value of an enum that has a
    /// verdict of its own follows as ` = VALUE`.
    pub path: String,
    /// `message.field`, `message.Enum.VALUE`, or `type:message` for what stood in an `Any`.
    pub key: String,
    /// Its verdict, or that of what it stands in, if that is ignored or rejected.
    pub verdict: Verdict,
    /// The path of what it stands in, if the verdict is from there.
    pub within: Option<String>,
    /// Whether the tables name it, rather than reject it by default.
    pub listed: bool,
}

/// Lists everything that the message `type_name` (full name or type URL) holds, each once. Unlike a check it also
/// looks inside what is ignored or rejected.
///
/// # Errors
/// When the type is unknown or the bytes are no such message.
pub fn census(type_name: &str, bytes: &[u8]) -> Result<BTreeSet<Found>, ScanError> {
    let message = schema::message_by_url(type_name).ok_or_else(|| ScanError {
        path: FieldPath::default(),
        reason: format!("unknown message type {type_name:?}"),
    })?;
    let mut census = Census::default();
    scan(message, bytes, &mut census)?;
    Ok(census.found)
}

#[derive(Default)]
struct Census {
    found: BTreeSet<Found>,
    /// The messages in `Any`s around where the walk stands.
    types: Vec<(Vec<Step>, &'static str)>,
    /// The outermost thing around where the walk stands that is not supported.
    cover: Option<(Vec<Step>, String, Verdict)>,
}

impl Census {
    /// Leaves what the walk has left, and gives where it stands.
    fn arrive(&mut self, trail: &Trail<'_>) -> Vec<Step> {
        let steps = trail.to_path("").steps().to_vec();
        self.types.retain(|(at, _)| steps.starts_with(at));
        self.cover.take_if(|(at, ..)| !steps.starts_with(at));
        steps
    }

    /// A path without indices and keys, and with the messages that stand in `Any`s.
    fn pattern(&self, steps: &[Step]) -> String {
        let mut text = String::new();
        for (at, step) in steps.iter().enumerate() {
            match step {
                Step::Field(name) if text.is_empty() => text.push_str(name),
                Step::Field(name) => {
                    text.push('.');
                    text.push_str(name);
                }
                Step::Index(_) | Step::Key(_) => text.push_str("[]"),
            }
            for (_, name) in self.types.iter().filter(|(outer, _)| outer.len() == at + 1) {
                text.push('<');
                text.push_str(name);
                text.push('>');
            }
        }
        text
    }

    /// Notes something; what it stands in has the first word.
    fn note(&mut self, path: String, key: String, verdict: Verdict, listed: bool) {
        let cover = self.cover.as_ref();
        self.found.insert(Found {
            path,
            key,
            verdict: cover.map_or(verdict, |(.., verdict)| *verdict),
            within: cover.map(|(_, path, _)| path.clone()),
            listed,
        });
    }

    /// What stands inside of something noted shares its verdict, unless it is supported.
    fn cover(&mut self, steps: Vec<Step>, path: String, verdict: Verdict) {
        if self.cover.is_none() && verdict != Verdict::Supported {
            self.cover = Some((steps, path, verdict));
        }
    }

    fn note_unknown(&mut self, path: String, key: String) {
        self.note(path, key, UNKNOWN, false);
    }
}

impl Visitor for Census {
    fn field(&mut self, trail: &Trail<'_>, field: Field, value: Value<'_>) -> Descend {
        if needs_no_line(field.parent()) {
            return Descend::Into;
        }
        let steps = self.arrive(trail);
        let path = self.pattern(&steps);
        let key = format!("{}.{}", field.parent().name(), field.name());
        let verdict = of_field(field);
        self.note(path.clone(), key, verdict, has_line(field));
        if !is_absent(field, value)
            && let Some((kind, value)) = enum_value(field, value)
            && of_enum_value(kind, value) != Verdict::Supported
        {
            let path = format!("{path} = {}", value.name());
            let key = format!("{}.{}", kind.name(), value.name());
            self.note(path, key, of_enum_value(kind, value), true);
        }
        if is_on(field, value) && of_flag(field) != Verdict::Supported {
            let key = format!("{}.{}=true", field.parent().name(), field.name());
            self.note(format!("{path} = true"), key, of_flag(field), true);
        }
        self.cover(steps, path, verdict);
        Descend::Into
    }

    fn unknown_field(&mut self, trail: &Trail<'_>, message: Message, number: u32, _wire_type: u8) {
        let steps = self.arrive(trail);
        let path = format!("{}.{number}", self.pattern(&steps));
        self.note_unknown(path, format!("{}.{number}", message.name()));
    }

    fn unknown_name(&mut self, trail: &Trail<'_>, message: Message, path: &FieldPath) {
        let steps = self.arrive(trail);
        let outer = self.pattern(&steps);
        self.note_unknown(
            format!("{outer}.{path}"),
            format!("{}.{path}", message.name()),
        );
    }

    fn any(&mut self, trail: &Trail<'_>, message: Message) -> Descend {
        let steps = self.arrive(trail);
        self.types.push((steps.clone(), message.name()));
        let path = self.pattern(&steps);
        let key = format!("type:{}", message.name());
        let verdict = of_type(message);
        self.note(path.clone(), key, verdict, type_has_line(message));
        self.cover(steps, path, verdict);
        Descend::Into
    }

    fn unknown_any(&mut self, trail: &Trail<'_>, type_url: &str) {
        let steps = self.arrive(trail);
        let path = format!("{}<{type_url}>", self.pattern(&steps));
        self.note_unknown(path, format!("type:{type_url}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn find<'a>(found: &'a BTreeSet<Found>, path: &str) -> &'a Found {
        let wanted = found.iter().find(|found| found.path == path);
        wanted.unwrap_or_else(|| panic!("{path} is not among {found:#?}"))
    }

    fn of(type_name: &str, value: &serde_json::Value) -> BTreeSet<Found> {
        let parsed = crate::json::from_json(type_name, value).expect("the message is valid");
        census(type_name, &parsed.bytes).expect("the bytes are that message")
    }

    #[test]
    fn what_is_inside_of_something_rejected_shares_its_verdict() {
        let found = of(
            "envoy.config.cluster.v3.Cluster",
            &json!({
                "name": "c",
                "lb_policy": "MAGLEV",
                "lb_subset_config": {"list_as_any": true},
            }),
        );
        assert_eq!(find(&found, "name").verdict, Verdict::Supported);
        assert_eq!(find(&found, "lb_policy").verdict, Verdict::Supported);
        let value = find(&found, "lb_policy = MAGLEV");
        assert!(matches!(value.verdict, Verdict::Rejected(_)), "{value:?}");
        let inside = find(&found, "lb_subset_config.list_as_any");
        assert_eq!(inside.verdict, find(&found, "lb_subset_config").verdict);
        assert_eq!(inside.within.as_deref(), Some("lb_subset_config"));
    }

    #[test]
    fn a_path_names_the_messages_of_extensions() {
        let router = "envoy.extensions.filters.http.router.v3.Router";
        let hcm =
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
        let found = of(
            "envoy.config.listener.v3.Listener",
            &json!({"filter_chains": [{"name": "a", "filters": [{"typed_config": {
                "@type": format!("type.googleapis.com/{hcm}"),
                "stat_prefix": "i",
                "http_filters": [{"name": "r", "typed_config": {"@type": format!("type.googleapis.com/{router}")}}],
            }}]}], "stat_prefix": "l"}),
        );
        let inside = format!("filter_chains[].filters[].typed_config<{hcm}>");
        find(&found, &inside);
        find(&found, &format!("{inside}.stat_prefix"));
        find(
            &found,
            &format!("{inside}.http_filters[].typed_config<{router}>"),
        );
        find(&found, "filter_chains[].name");
        find(&found, "stat_prefix");
    }
}
