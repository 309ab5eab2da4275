//! Supported, ignored or rejected: the verdict on every field that a control plane may send.
//!
//! The tables are plain text, `verdicts/*.txt`, one topic a file:
//!
//! ```text
//! # a comment
//! envoy.config.cluster.v3.Cluster.name             supported
//! envoy.config.cluster.v3.Cluster.alt_stat_name    ignored   no reason given here would do
//! envoy.config.cluster.v3.Cluster.DiscoveryType.LOGICAL_DNS  rejected  an enum value
//! envoy.config.listener.v3.Listener.freebind=true  rejected  a flag that may only be off
//! envoy.config.core.v3.Locality.*                  supported
//! type:envoy.extensions.filters.http.router.v3.Router  supported
//! envoy.config.rbac.v3.*                           strict
//! ```
//!
//! `Message.*` speaks for the message's fields that have no line of their own. A field without a line is rejected, and
//! so is a message inside an `Any` without a `type:` line; an enum value without a line is as good as its field.
//! `strict` names messages (or a prefix of their names) in which a field unknown to the schema is an error. Nothing is
//! looked at inside what is ignored or rejected.

use crate::path::FieldPath;
use crate::scan::{Descend, ScanError, Trail, Visitor, scan};
use crate::schema::{self, EnumValue, Field, Kind, Message};
use crate::wire::Value;

mod census;
mod format;
mod table;

pub use census::{Found, census};
pub use table::{Entry, entries};

/// Why what has no line is rejected.
const NOT_SUPPORTED: &str = "not supported";

/// What becomes of a field, an enum value or a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It takes effect as in Envoy.
    Supported,
    /// It has no effect on traffic; why that is so.
    Ignored(&'static str),
    /// It would change matching, security or routing; why it is refused.
    Rejected(&'static str),
}

impl Verdict {
    /// `supported`, `ignored` or `rejected`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Supported => "supported",
            Self::Ignored(_) => "ignored",
            Self::Rejected(_) => "rejected",
        }
    }
}

/// Whether a message's parts need no line: the well-known types and map entries.
fn needs_no_line(message: Message) -> bool {
    message.is_map_entry() || message.name().starts_with("google.protobuf.")
}

/// The line that speaks for a field.
fn line_of(field: Field) -> Option<Verdict> {
    let message = field.parent().name();
    table::find(&[message, ".", field.name()]).or_else(|| table::find(&[message, ".*"]))
}

/// Whether the tables speak of a field.
pub fn has_line(field: Field) -> bool {
    field.parent().well_known().is_some() || line_of(field).is_some()
}

/// Whether the tables speak of a message inside an `Any`.
pub fn type_has_line(message: Message) -> bool {
    needs_no_line(message) || table::find(&["type:", message.name()]).is_some()
}

/// The verdict on a field.
pub fn of_field(field: Field) -> Verdict {
    if needs_no_line(field.parent()) || field.parent().well_known().is_some() {
        return Verdict::Supported;
    }
    line_of(field).unwrap_or(Verdict::Rejected(NOT_SUPPORTED))
}

/// The verdict on a value of the enum of that full name.
pub fn of_enum_value(enumeration: schema::Enum, value: EnumValue) -> Verdict {
    table::find(&[enumeration.name(), ".", value.name()]).unwrap_or(Verdict::Supported)
}

/// The verdict on a flag that is on, whether or not it is wrapped.
fn of_flag(field: Field) -> Verdict {
    let message = field.parent().name();
    table::find(&[message, ".", field.name(), "=true"]).unwrap_or(Verdict::Supported)
}

/// The verdict on a message inside an `Any` or a `TypedStruct`.
pub fn of_type(message: Message) -> Verdict {
    if needs_no_line(message) {
        return Verdict::Supported;
    }
    table::find(&["type:", message.name()]).unwrap_or(Verdict::Rejected(NOT_SUPPORTED))
}

/// Whether a field that the schema does not know is an error in this message: matchers, RBAC, TLS contexts, filter
/// chain matches.
pub fn is_strict(message: Message) -> bool {
    table::is_strict(message.name())
}

/// A field that the schema does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// The message that holds it; for a name inside a `TypedStruct`, the name itself.
    pub path: FieldPath,
    /// Its number; zero for a name.
    pub number: u32,
    /// Whether it is an error where it stands.
    pub strict: bool,
}

/// What was found in one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What must be refused, and why.
    pub rejected: Vec<(FieldPath, String)>,
    /// What has no effect on traffic, and why.
    pub ignored: Vec<(FieldPath, &'static str)>,
    /// What the schema does not know.
    pub unknown: Vec<Unknown>,
}

impl Report {
    /// Whether the resource may be used: nothing rejected, nothing unknown in a strict message.
    pub fn is_acceptable(&self) -> bool {
        self.rejected.is_empty() && !self.unknown.iter().any(|unknown| unknown.strict)
    }
}

/// Checks the message `type_name` (full name or type URL); paths begin with `root`.
///
/// # Errors
/// When the type is unknown or the bytes are no such message.
pub fn check(type_name: &str, bytes: &[u8], root: &str) -> Result<Report, ScanError> {
    let message = schema::message_by_url(type_name).ok_or_else(|| ScanError {
        path: FieldPath::new(root),
        reason: format!("unknown message type {type_name:?}"),
    })?;
    let mut checker = Checker {
        root,
        report: Report::default(),
    };
    scan(message, bytes, &mut checker).map_err(|error| ScanError {
        path: error.path.below(&FieldPath::new(root)),
        reason: error.reason,
    })?;
    Ok(checker.report)
}

struct Checker<'r> {
    root: &'r str,
    report: Report,
}

impl Checker<'_> {
    fn note(&mut self, trail: &Trail<'_>, verdict: Verdict) -> Descend {
        match verdict {
            Verdict::Supported => return Descend::Into,
            Verdict::Ignored(reason) => {
                self.report.ignored.push((trail.to_path(self.root), reason))
            }
            Verdict::Rejected(reason) => {
                self.report
                    .rejected
                    .push((trail.to_path(self.root), reason.to_owned()));
            }
        }
        Descend::Over
    }
}

/// Whether a value says no more than its absence would.
fn is_absent(field: Field, value: Value<'_>) -> bool {
    let zero = match value {
        Value::Varint(number) | Value::Fixed64(number) => number == 0,
        Value::Fixed32(number) => number == 0,
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::Group(_) => false,
    };
    zero && !field.has_presence() && field.message().is_none() && !field.is_repeated()
}

/// The enum value that a field holds, if it holds one that the schema knows.
fn enum_value(field: Field, value: Value<'_>) -> Option<(schema::Enum, EnumValue)> {
    match (field.kind(), value) {
        (Kind::Enum(kind), Value::Varint(number)) => {
            Some((kind, kind.value_by_number(number as i32)?))
        }
        _ => None,
    }
}

/// Whether the field is a flag, wrapped or not, that is on.
fn is_on(field: Field, value: Value<'_>) -> bool {
    match value {
        Value::Varint(number) => field.kind() == Kind::Bool && number != 0,
        Value::Bytes(bytes) => {
            let wrapped = field.message().map(Message::name);
            wrapped == Some("google.protobuf.BoolValue") && bytes == [8, 1]
        }
        _ => false,
    }
}

impl Visitor for Checker<'_> {
    fn field(&mut self, trail: &Trail<'_>, field: Field, value: Value<'_>) -> Descend {
        if is_absent(field, value) {
            return Descend::Over;
        }
        let descend = self.note(trail, of_field(field));
        match enum_value(field, value) {
            Some((kind, value)) if descend == Descend::Into => {
                self.note(trail, of_enum_value(kind, value))
            }
            None if descend == Descend::Into && is_on(field, value) => {
                self.note(trail, of_flag(field))
            }
            _ => descend,
        }
    }

    fn unknown_field(&mut self, trail: &Trail<'_>, message: Message, number: u32, _wire_type: u8) {
        let path = trail.to_path(self.root);
        self.report.unknown.push(Unknown {
            path,
            number,
            strict: is_strict(message),
        });
    }

    fn unknown_name(&mut self, trail: &Trail<'_>, message: Message, path: &FieldPath) {
        let path = path.below(&trail.to_path(self.root));
        self.report.unknown.push(Unknown {
            path,
            number: 0,
            strict: is_strict(message),
        });
    }

    fn any(&mut self, trail: &Trail<'_>, message: Message) -> Descend {
        match of_type(message) {
            Verdict::Rejected(reason) => {
                let reason = format!("{}: {reason}", message.name());
                self.report
                    .rejected
                    .push((trail.to_path(self.root), reason));
                Descend::Over
            }
            verdict => self.note(trail, verdict),
        }
    }

    fn unknown_any(&mut self, trail: &Trail<'_>, type_url: &str) {
        if trail.is_within("envoy.config.cluster.v3.LoadBalancingPolicy", "policies") {
            let reason = "a policy of a type that nobody knows gives way to the next of the list";
            self.report.ignored.push((trail.to_path(self.root), reason));
            return;
        }
        self.report.rejected.push((
            trail.to_path(self.root),
            format!("unknown type {type_url:?}"),
        ));
    }
}
