//! One field's rules: the message `validate.FieldRules`, interpreted where it lies.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::{LazyLock, Mutex, PoisonError};

use regex::Regex;

use super::number::{self, Number};
use crate::schema::{Field, Kind, WellKnown};
use crate::wire::{Reader, Value, WireError};

/// Numbers of the fields of `validate.FieldRules` that are no numeric rules.
mod kinds {
    pub(super) const BOOL: u32 = 13;
    pub(super) const STRING: u32 = 14;
    pub(super) const BYTES: u32 = 15;
    pub(super) const ENUM: u32 = 16;
    pub(super) const MESSAGE: u32 = 17;
    pub(super) const REPEATED: u32 = 18;
    pub(super) const MAP: u32 = 19;
    pub(super) const ANY: u32 = 20;
    pub(super) const DURATION: u32 = 21;
}

/// Every pattern of the schema, compiled when first met. There are few, all of them in the table.
static PATTERNS: LazyLock<Mutex<HashMap<String, Option<Regex>>>> = LazyLock::new(Mutex::default);

/// The rules of one field, of its items, or of a map's keys or values.
#[derive(Clone, Debug, Default)]
pub(super) struct FieldRules<'r> {
    /// What `validate.FieldRules` holds: which rules, and those.
    parts: Vec<(u32, &'r [u8])>,
}

/// Operands of one rules message: number of the rule and its operand.
fn operands(rules: &[u8]) -> impl Iterator<Item = (u32, Value<'_>)> {
    let mut reader = Reader::new(rules);
    std::iter::from_fn(move || reader.field().ok().flatten())
}

/// Whether a boolean rule is set.
fn flag(rules: &[u8], wanted: u32) -> bool {
    operands(rules).any(|(number, value)| number == wanted && value == Value::Varint(1))
}

/// A count that a rule names.
fn limit(rules: &[u8], wanted: u32) -> Option<u64> {
    operands(rules).find_map(|(number, value)| match value {
        Value::Varint(limit) if number == wanted => Some(limit),
        _ => None,
    })
}

impl<'r> FieldRules<'r> {
    /// Reads the rules.
    pub(super) fn read(bytes: &'r [u8]) -> Result<Self, WireError> {
        let mut parts = Vec::new();
        let mut reader = Reader::new(bytes);
        while let Some((number, value)) = reader.field()? {
            parts.push((number, value.bytes()?));
        }
        Ok(Self { parts })
    }

    fn part(&self, wanted: u32) -> Option<&'r [u8]> {
        self.parts
            .iter()
            .find(|(number, _)| *number == wanted)
            .map(|(_, rules)| *rules)
    }

    fn nested(&self, part: u32, wanted: u32) -> Result<Self, WireError> {
        let rules = self.part(part).unwrap_or_default();
        let inner = operands(rules).find(|(number, _)| *number == wanted);
        match inner {
            Some((_, value)) => Self::read(value.bytes()?),
            None => Ok(Self::default()),
        }
    }

    /// The rules of a list's items.
    pub(super) fn items(&self) -> Result<Self, WireError> {
        self.nested(kinds::REPEATED, 4)
    }

    /// The rules of a map's keys.
    pub(super) fn keys(&self) -> Result<Self, WireError> {
        self.nested(kinds::MAP, 4)
    }

    /// The rules of a map's values.
    pub(super) fn values(&self) -> Result<Self, WireError> {
        self.nested(kinds::MAP, 5)
    }

    /// Whether the field must be set.
    pub(super) fn is_required(&self) -> bool {
        [(kinds::MESSAGE, 2), (kinds::ANY, 1), (kinds::DURATION, 1)]
            .into_iter()
            .any(|(part, rule)| self.part(part).is_some_and(|rules| flag(rules, rule)))
    }

    /// Whether the rules of what is inside are not to be looked at.
    pub(super) fn skips(&self) -> bool {
        self.part(kinds::MESSAGE)
            .is_some_and(|rules| flag(rules, 1))
    }

    /// Checks one value; a wrapper's rules speak of what it wraps.
    pub(super) fn check(&self, field: Field, value: Value<'_>) -> Result<(), String> {
        for (part, rules) in &self.parts {
            match field
                .message()
                .map(|message| (message, message.well_known()))
            {
                Some((message, Some(WellKnown::Wrapper))) if *part <= kinds::ENUM => {
                    let inner = message.field_by_number(1).ok_or("no wrapper")?;
                    check_part(*part, rules, inner, wrapped(inner, value)?)?;
                }
                _ => check_part(*part, rules, field, value)?,
            }
        }
        Ok(())
    }

    /// Checks a list as a whole.
    pub(super) fn check_items(&self, items: &[Value<'_>]) -> Result<(), String> {
        let Some(rules) = self.part(kinds::REPEATED) else {
            return Ok(());
        };
        if items.is_empty() && flag(rules, 5) {
            return Ok(());
        }
        let count = items.len() as u64;
        check_count(count, limit(rules, 1), limit(rules, 2), "item(s)")?;
        let distinct: HashSet<&Value<'_>> = items.iter().collect();
        if flag(rules, 3) && distinct.len() != items.len() {
            return Err("repeated value must contain unique items".to_owned());
        }
        Ok(())
    }

    /// Checks the number of a map's entries.
    pub(super) fn check_pairs(&self, count: usize) -> Result<(), String> {
        let Some(rules) = self.part(kinds::MAP) else {
            return Ok(());
        };
        if count == 0 && flag(rules, 6) {
            return Ok(());
        }
        check_count(count as u64, limit(rules, 1), limit(rules, 2), "pair(s)")
    }
}

fn check_count(
    count: u64,
    least: Option<u64>,
    most: Option<u64>,
    what: &str,
) -> Result<(), String> {
    match (least, most) {
        (Some(least), _) if count < least => {
            Err(format!("value must contain at least {least} {what}"))
        }
        (_, Some(most)) if count > most => {
            Err(format!("value must contain no more than {most} {what}"))
        }
        _ => Ok(()),
    }
}

/// What a wrapper message wraps.
fn wrapped<'a>(inner: Field, value: Value<'a>) -> Result<Value<'a>, String> {
    let mut found = number::default(inner.kind());
    let mut reader = Reader::new(value.bytes().map_err(|error| error.to_string())?);
    while let Some((number, value)) = reader.field().map_err(|error| error.to_string())? {
        if number == 1 {
            found = value;
        }
    }
    Ok(found)
}

/// Checks a value against one kind of rules.
fn check_part(part: u32, rules: &[u8], field: Field, value: Value<'_>) -> Result<(), String> {
    let wire = |error: WireError| error.to_string();
    match part {
        kinds::BOOL => check_bool(rules, value),
        kinds::STRING => check_string(rules, value.text().map_err(wire)?),
        kinds::BYTES => check_bytes(rules, value.bytes().map_err(wire)?),
        kinds::ENUM => check_enum(rules, field, value),
        kinds::DURATION => {
            let found = number::duration(value.bytes().map_err(wire)?).map_err(wire)?;
            check_number(&duration_bounds(rules)?, found)
        }
        part => match number::kind_of_rules(part) {
            Some(kind) => {
                let found = number::read(kind, value).map_err(wire)?;
                if flag(rules, 8) && value == number::default(kind) {
                    return Ok(());
                }
                check_number(&number_bounds(kind, rules)?, found)
            }
            None => Ok(()),
        },
    }
}

fn check_bool(rules: &[u8], value: Value<'_>) -> Result<(), String> {
    match operands(rules).find(|(number, _)| *number == 1) {
        Some((_, wanted)) if wanted != value => {
            Err(format!("value must equal {}", wanted == Value::Varint(1)))
        }
        _ => Ok(()),
    }
}

fn check_enum(rules: &[u8], field: Field, value: Value<'_>) -> Result<(), String> {
    let Value::Varint(found) = value else {
        return Err(WireError::Mismatch.to_string());
    };
    let found = found as i32;
    if let Kind::Enum(kind) = field.kind()
        && flag(rules, 2)
        && kind.value_by_number(found).is_none()
    {
        return Err("value must be one of the defined enum values".to_owned());
    }
    check_number(
        &number_bounds_as(Kind::Int32, rules, [1, 0, 0, 0, 0, 3, 4])?,
        Number::Whole(i128::from(found)),
    )
}

/// What a number is compared with.
#[derive(Default)]
struct Bounds {
    equal: Option<Number>,
    below: Option<Number>,
    at_most: Option<Number>,
    above: Option<Number>,
    at_least: Option<Number>,
    any_of: Vec<Number>,
    none_of: Vec<Number>,
}

impl Bounds {
    /// Takes an operand, given the rules' numbers in the order of the fields.
    fn take(&mut self, rules: [u32; 7], number: u32, operand: Number) {
        let slot = rules.iter().position(|rule| *rule == number);
        match slot {
            Some(0) => self.equal = Some(operand),
            Some(1) => self.below = Some(operand),
            Some(2) => self.at_most = Some(operand),
            Some(3) => self.above = Some(operand),
            Some(4) => self.at_least = Some(operand),
            Some(5) => self.any_of.push(operand),
            Some(6) => self.none_of.push(operand),
            _ => {}
        }
    }
}

fn number_bounds(kind: Kind, rules: &[u8]) -> Result<Bounds, String> {
    number_bounds_as(kind, rules, [1, 2, 3, 4, 5, 6, 7])
}

fn number_bounds_as(kind: Kind, rules: &[u8], numbers: [u32; 7]) -> Result<Bounds, String> {
    let mut bounds = Bounds::default();
    for (number, operand) in operands(rules) {
        if numbers.contains(&number) {
            let operand = number::read(kind, operand).map_err(|error| error.to_string())?;
            bounds.take(numbers, number, operand);
        }
    }
    Ok(bounds)
}

fn duration_bounds(rules: &[u8]) -> Result<Bounds, String> {
    let mut bounds = Bounds::default();
    for (number, operand) in operands(rules) {
        if let Value::Bytes(operand) = operand {
            let operand = number::duration(operand).map_err(|error| error.to_string())?;
            bounds.take([2, 3, 4, 5, 6, 7, 8], number, operand);
        }
    }
    Ok(bounds)
}

fn check_number(bounds: &Bounds, found: Number) -> Result<(), String> {
    let is = |bound: Number, wanted: &[Ordering]| {
        found
            .order(bound)
            .is_some_and(|order| wanted.contains(&order))
    };
    let low = bounds
        .above
        .map(|bound| (bound, is(bound, &[Ordering::Greater]), "greater than"));
    let low = low.or(bounds.at_least.map(|bound| {
        (
            bound,
            is(bound, &[Ordering::Greater, Ordering::Equal]),
            "greater than or equal to",
        )
    }));
    let high = bounds
        .below
        .map(|bound| (bound, is(bound, &[Ordering::Less]), "less than"));
    let high = high.or(bounds.at_most.map(|bound| {
        (
            bound,
            is(bound, &[Ordering::Less, Ordering::Equal]),
            "less than or equal to",
        )
    }));
    // Bounds in the wrong order mean "outside of".
    let outside = matches!((low, high), (Some((low, ..)), Some((high, ..))) if low.order(high) == Some(Ordering::Greater));
    match (low, high) {
        (Some((low, above, _)), Some((high, below, _))) if outside && !above && !below => {
            return Err(format!("value must be outside of range {high} to {low}"));
        }
        (Some((low, above, _)), Some((high, below, _))) if !(outside || above && below) => {
            return Err(format!("value must be inside range {low} to {high}"));
        }
        (Some((bound, false, words)), None) | (None, Some((bound, false, words))) => {
            return Err(format!("value must be {words} {bound}"));
        }
        _ => {}
    }
    check_membership(bounds, |bound| is(bound, &[Ordering::Equal]))
}

fn check_membership(bounds: &Bounds, equals: impl Fn(Number) -> bool) -> Result<(), String> {
    if let Some(wanted) = bounds.equal.filter(|wanted| !equals(*wanted)) {
        return Err(format!("value must equal {wanted}"));
    }
    if !bounds.any_of.is_empty() && !bounds.any_of.iter().any(|bound| equals(*bound)) {
        return Err(format!("value must be in list {}", list(&bounds.any_of)));
    }
    if bounds.none_of.iter().any(|bound| equals(*bound)) {
        return Err(format!(
            "value must not be in list {}",
            list(&bounds.none_of)
        ));
    }
    Ok(())
}

fn list(items: &[impl ToString]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    format!("[{}]", items.join(", "))
}

/// Text operands of one rule.
fn texts(rules: &[u8], wanted: u32) -> Vec<&str> {
    operands(rules)
        .filter(|(number, _)| *number == wanted)
        .filter_map(|(_, value)| value.text().ok())
        .collect()
}

fn check_string(rules: &[u8], text: &str) -> Result<(), String> {
    if text.is_empty() && flag(rules, 26) {
        return Ok(());
    }
    let (characters, bytes) = (text.chars().count() as u64, text.len() as u64);
    for (number, operand) in operands(rules) {
        let broken = match (number, operand) {
            (2, Value::Varint(least)) if characters < least => {
                format!("value length must be at least {least} characters")
            }
            (3, Value::Varint(most)) if characters > most => {
                format!("value length must be at most {most} characters")
            }
            (4, Value::Varint(least)) if bytes < least => {
                format!("value length must be at least {least} bytes")
            }
            (5, Value::Varint(most)) if bytes > most => {
                format!("value length must be at most {most} bytes")
            }
            (19, Value::Varint(exact)) if characters != exact => {
                format!("value length must be {exact} characters")
            }
            (24, Value::Varint(known)) if !is_header(known, limit(rules, 25) != Some(0), text) => {
                "value does not match regex pattern of an HTTP header".to_owned()
            }
            (number, Value::Bytes(operand)) => match check_text(number, operand, text) {
                Some(broken) => broken,
                None => continue,
            },
            _ => continue,
        };
        return Err(broken);
    }
    let (any_of, none_of) = (texts(rules, 10), texts(rules, 11));
    if !any_of.is_empty() && !any_of.contains(&text) {
        return Err(format!("value must be in list {}", list(&any_of)));
    }
    if none_of.contains(&text) {
        return Err(format!("value must not be in list {}", list(&none_of)));
    }
    Ok(())
}

/// Rules whose operand is text: equal, pattern, prefix, suffix, contains, not contains.
fn check_text(rule: u32, operand: &[u8], text: &str) -> Option<String> {
    let operand = std::str::from_utf8(operand).unwrap_or_default();
    match rule {
        1 if text != operand => Some(format!("value must equal {operand:?}")),
        6 if !matches_pattern(operand, text) => {
            Some(format!("value does not match regex pattern {operand:?}"))
        }
        7 if !text.starts_with(operand) => Some(format!("value does not have prefix {operand:?}")),
        8 if !text.ends_with(operand) => Some(format!("value does not have suffix {operand:?}")),
        9 if !text.contains(operand) => {
            Some(format!("value does not contain substring {operand:?}"))
        }
        23 if text.contains(operand) => Some(format!("value contains substring {operand:?}")),
        _ => None,
    }
}

fn check_bytes(rules: &[u8], bytes: &[u8]) -> Result<(), String> {
    let length = bytes.len() as u64;
    if bytes.is_empty() && flag(rules, 14) {
        return Ok(());
    }
    for (number, operand) in operands(rules) {
        match (number, operand) {
            (2, Value::Varint(least)) if length < least => {
                return Err(format!("value length must be at least {least} bytes"));
            }
            (3, Value::Varint(most)) if length > most => {
                return Err(format!("value length must be at most {most} bytes"));
            }
            _ => {}
        }
    }
    Ok(())
}

fn matches_pattern(pattern: &str, text: &str) -> bool {
    let mut patterns = PATTERNS.lock().unwrap_or_else(PoisonError::into_inner);
    let compiled = patterns
        .entry(pattern.to_owned())
        .or_insert_with(|| Regex::new(&format!("^(?:{pattern})$")).ok());
    compiled
        .as_ref()
        .is_some_and(|pattern| pattern.is_match(text))
}

/// Whether text can be an HTTP header's name (`known` is 1) or value (2).
fn is_header(known: u64, strict: bool, text: &str) -> bool {
    let lenient = || !text.contains(['\0', '\n', '\r']);
    match (known, strict) {
        (1, true) => {
            let name = text.strip_prefix(':').unwrap_or(text);
            let token =
                |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_|~`".contains(&byte);
            !name.is_empty() && name.bytes().all(token)
        }
        (2, true) => !text
            .bytes()
            .any(|byte| (byte < b' ' && byte != b'\t') || byte == 0x7f),
        (1 | 2, false) => lenient(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;

    /// Rules that are understood, by the part of `validate.FieldRules` that holds them.
    fn understood(part: u32) -> &'static [u32] {
        match part {
            1..=12 => &[1, 2, 3, 4, 5, 6, 7, 8],
            kinds::BOOL => &[1],
            kinds::STRING => &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 19, 23, 24, 25, 26],
            kinds::BYTES => &[2, 3, 14],
            kinds::ENUM => &[1, 2, 3, 4],
            kinds::MESSAGE => &[1, 2],
            kinds::REPEATED => &[1, 2, 3, 4, 5],
            kinds::MAP => &[1, 2, 4, 5, 6],
            kinds::ANY => &[1],
            kinds::DURATION => &[1, 2, 3, 4, 5, 6, 7, 8],
            _ => &[],
        }
    }

    fn check_rules(field: Field, bytes: &[u8]) {
        let rules = FieldRules::read(bytes).expect("rules");
        for (part, operands_of) in &rules.parts {
            for (number, operand) in operands(operands_of) {
                assert!(
                    understood(*part).contains(&number),
                    "{field:?}: rule {part}.{number}"
                );
                let nested = matches!((*part, number), (kinds::REPEATED, 4) | (kinds::MAP, 4 | 5));
                if let (true, Value::Bytes(inner)) = (nested, operand) {
                    check_rules(field, inner);
                }
            }
        }
    }

    #[test]
    fn every_rule_of_the_schema_is_understood() {
        for field in schema::messages().flat_map(schema::Message::fields) {
            check_rules(field, field.rules().unwrap_or_default());
        }
    }

    #[test]
    fn every_pattern_of_the_schema_compiles() {
        for field in schema::messages().flat_map(schema::Message::fields) {
            let rules = FieldRules::read(field.rules().unwrap_or_default()).expect("rules");
            for pattern in rules
                .part(kinds::STRING)
                .map(|rules| texts(rules, 6))
                .unwrap_or_default()
            {
                assert!(
                    Regex::new(&format!("^(?:{pattern})$")).is_ok(),
                    "{field:?}: {pattern}"
                );
            }
        }
    }

    #[test]
    fn bounds_in_the_wrong_order_mean_outside_of() {
        let bounds = Bounds {
            above: Some(Number::Whole(5)),
            below: Some(Number::Whole(2)),
            ..Bounds::default()
        };
        assert!(check_number(&bounds, Number::Whole(6)).is_ok());
        assert!(check_number(&bounds, Number::Whole(1)).is_ok());
        assert!(check_number(&bounds, Number::Whole(3)).is_err());
    }

    #[test]
    fn header_names_are_tokens_only_when_strict() {
        assert!(is_header(1, true, ":path"));
        assert!(!is_header(1, true, "a b"));
        assert!(!is_header(1, true, ""));
        assert!(is_header(1, false, "a b"));
        assert!(is_header(1, false, ""));
        assert!(!is_header(2, false, "a\nb"));
        assert!(is_header(2, true, "a\tb"));
        assert!(!is_header(2, true, "a\u{1}b"));
    }
}
