//! Which fields a captured configuration holds, and what becomes of them.

use std::collections::BTreeSet;

use super::{Verdict, has_line, of_field, of_type, type_has_line};
use crate::path::FieldPath;
use crate::scan::{Descend, ScanError, Trail, Visitor, scan};
use crate::schema::{self, Field, Message};
use crate::wire::Value;

/// One thing that a configuration holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// `message.field`, or `type:message` for what stood in an `Any`.
    pub key: String,
    /// Its verdict.
    pub verdict: Verdict,
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
    let mut census = Census(BTreeSet::new());
    scan(message, bytes, &mut census)?;
    Ok(census.0)
}

struct Census(BTreeSet<Found>);

impl Visitor for Census {
    fn field(&mut self, _trail: &Trail<'_>, field: Field, _value: Value<'_>) -> Descend {
        let name = field.parent().name();
        if !name.starts_with("google.protobuf.") && !field.parent().is_map_entry() {
            let key = format!("{name}.{}", field.name());
            self.0.insert(Found {
                key,
                verdict: of_field(field),
                listed: has_line(field),
            });
        }
        Descend::Into
    }

    fn unknown_field(&mut self, _trail: &Trail<'_>, message: Message, number: u32, _wire_type: u8) {
        let verdict = Verdict::Rejected("unknown to the schema");
        self.0.insert(Found {
            key: format!("{}.{number}", message.name()),
            verdict,
            listed: false,
        });
    }

    fn unknown_name(&mut self, _trail: &Trail<'_>, message: Message, path: &FieldPath) {
        let verdict = Verdict::Rejected("unknown to the schema");
        self.0.insert(Found {
            key: format!("{}.{path}", message.name()),
            verdict,
            listed: false,
        });
    }

    fn any(&mut self, _trail: &Trail<'_>, message: Message) -> Descend {
        let key = format!("type:{}", message.name());
        self.0.insert(Found {
            key,
            verdict: of_type(message),
            listed: type_has_line(message),
        });
        Descend::Into
    }

    fn unknown_any(&mut self, _trail: &Trail<'_>, type_url: &str) {
        let verdict = Verdict::Rejected("unknown to the schema");
        self.0.insert(Found {
            key: format!("type:{type_url}"),
            verdict,
            listed: false,
        });
    }
}
