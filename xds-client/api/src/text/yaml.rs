//! YAML as Envoy's loader (yaml-cpp and a heuristic) understands it.
//!
//! A plain scalar is null, a boolean of YAML 1.1 (`yes`, `On`, `y`), or a whole number (decimal, `0x`, or octal with a
//! leading zero) if it looks like one; everything else is text, fractions included: ProtoJSON turns text into the
//! number that its field wants. Whole numbers beyond 32 bits become text too. Quoted and block scalars are text. There
//! are anchors but no merge keys, and of several documents the first one counts.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use serde_json::{Map, Value as Json};

use super::{MAX_DEPTH, TextError, insert};

/// How many nodes aliases may add in all, against documents that explode.
const MAX_ALIASED: usize = 100_000;

/// Reads the first document.
pub(super) fn parse(text: &str) -> Result<Json, TextError> {
    let mut loader = Loader {
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        aliased: 0,
        depth: 0,
    };
    loop {
        match loader.next()? {
            (Event::StreamStart | Event::Nothing, _) => {}
            (Event::DocumentStart(_), _) => break,
            (_, span) => return error(&span, "the document is empty"),
        }
    }
    let (event, span) = loader.next()?;
    loader.node(event, &span)
}

struct Loader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    anchors: HashMap<usize, Json>,
    aliased: usize,
    depth: usize,
}

fn error<T>(span: &Span, reason: impl Into<String>) -> Result<T, TextError> {
    Err(TextError {
        line: span.start.line(),
        column: span.start.col() + 1,
        reason: reason.into(),
    })
}

fn syntax(error: &ScanError) -> TextError {
    TextError {
        line: error.marker().line(),
        column: error.marker().col() + 1,
        reason: error.info().to_owned(),
    }
}

impl<'t> Loader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), TextError> {
        match self.parser.next() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(syntax(&error)),
            None => Err(TextError {
                line: 1,
                column: 1,
                reason: "the document is empty".to_owned(),
            }),
        }
    }

    fn node(&mut self, event: Event<'t>, span: &Span) -> Result<Json, TextError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return error(span, "nested too deeply");
        }
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (anchor, scalar(&text, style, tag.as_deref()))
            }
            Event::SequenceStart(anchor, _) => (anchor, self.sequence()?),
            Event::MappingStart(anchor, _) => (anchor, self.mapping()?),
            Event::Alias(anchor) => (0, self.alias(anchor, span)?),
            _ => return error(span, "expected a value"),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, value.clone());
        }
        self.depth -= 1;
        Ok(value)
    }

    fn alias(&mut self, anchor: usize, span: &Span) -> Result<Json, TextError> {
        let Some(value) = self.anchors.get(&anchor) else {
            return error(span, "the alias refers to a node that is not complete");
        };
        self.aliased += size(value);
        if self.aliased > MAX_ALIASED {
            return error(span, "aliases make the document too large");
        }
        Ok(value.clone())
    }

    fn sequence(&mut self) -> Result<Json, TextError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Json::Array(items)),
                (event, span) => items.push(self.node(event, &span)?),
            }
        }
    }

    fn mapping(&mut self) -> Result<Json, TextError> {
        let mut object = Map::new();
        loop {
            let name = match self.next()? {
                (Event::MappingEnd, _) => return Ok(Json::Object(object)),
                (Event::Scalar(text, ..), _) => text.into_owned(),
                (Event::Alias(anchor), span) => match self.alias(anchor, &span)? {
                    Json::String(name) => name,
                    other => other.to_string(),
                },
                (_, span) => return error(&span, "a key must be a scalar"),
            };
            let (event, span) = self.next()?;
            let value = self.node(event, &span)?;
            insert(&mut object, name, value);
        }
    }
}

/// Count of nodes.
fn size(value: &Json) -> usize {
    match value {
        Json::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Json::Object(object) => 1 + object.values().map(size).sum::<usize>(),
        _ => 1,
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Json {
    let forced = tag.is_some_and(|tag| {
        tag.handle.is_empty() && tag.suffix == "!" || tag.handle == "!" && tag.suffix.is_empty()
    });
    if forced || (style != ScalarStyle::Plain && tag.is_none()) {
        return Json::String(text.to_owned());
    }
    if matches!(text, "" | "~" | "null" | "Null" | "NULL") && style == ScalarStyle::Plain {
        return Json::Null;
    }
    if let Some(flag) = boolean(text) {
        return Json::Bool(flag);
    }
    match whole_number(text) {
        Some(number) if i32::try_from(number).is_ok() => Json::from(number),
        Some(number) => Json::String(number.to_string()),
        None => Json::String(text.to_owned()),
    }
}

/// A boolean of YAML 1.1: lower case, UPPER CASE or Capitalised.
fn boolean(text: &str) -> Option<bool> {
    let lower = text.to_ascii_lowercase();
    let capitalised = text.get(1..).is_some_and(|tail| lower.ends_with(tail));
    let uniform = text == lower || text == text.to_ascii_uppercase();
    if !uniform && !capitalised {
        return None;
    }
    match lower.as_str() {
        "y" | "yes" | "true" | "on" => Some(true),
        "n" | "no" | "false" | "off" => Some(false),
        _ => None,
    }
}

/// A whole number of 64 bits: decimal, hexadecimal with `0x`, octal with a leading zero.
fn whole_number(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.strip_prefix("0x") {
        Some(digits) => (16, digits),
        None if lower.len() > 1 && lower.starts_with('0') => (8, &lower[1..]),
        None => (10, lower.as_str()),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    let number = i128::from_str_radix(digits, radix).ok()?;
    i64::try_from(if negative { -number } else { number }).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn guesses_plain_scalars_as_envoy_does() {
        for (text, value) in [
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("y", json!(true)),
            ("yEs", json!("yEs")),
            ("'yes'", json!("yes")),
            ("12", json!(12)),
            ("+5", json!(5)),
            ("-7", json!(-7)),
            ("0x64", json!(100)),
            ("0144", json!(100)),
            ("08", json!("08")),
            ("0o17", json!("0o17")),
            ("1_000", json!("1_000")),
            ("3000000000", json!("3000000000")),
            ("99999999999999999999", json!("99999999999999999999")),
            ("1.5", json!("1.5")),
            ("1e5", json!("1e5")),
            (".inf", json!(".inf")),
            ("2024-01-01", json!("2024-01-01")),
            ("!!str 5", json!(5)),
            ("! 5", json!("5")),
            ("\"5\"", json!("5")),
            ("|\n  5\n", json!("5\n")),
        ] {
            assert_eq!(
                parse(&format!("a: {text}")),
                Ok(json!({"a": value})),
                "{text}"
            );
        }
        for text in ["~", "null", "NULL", ""] {
            assert_eq!(
                parse(&format!("a: {text}")),
                Ok(json!({"a": null})),
                "{text}"
            );
        }
    }

    #[test]
    fn reads_what_envoy_reads() {
        assert_eq!(parse("a: 1\n---\na: 2\n"), Ok(json!({"a": 1})));
        assert_eq!(
            parse("x: &a {b: c}\ny: *a\n"),
            Ok(json!({"x": {"b": "c"}, "y": {"b": "c"}}))
        );
        assert_eq!(parse("{\"a\": [1, 2,],}"), Ok(json!({"a": [1, 2]})));
        assert_eq!(
            parse("x: &a {b: c}\ny:\n  <<: *a\n"),
            Ok(json!({"x": {"b": "c"}, "y": {"<<": {"b": "c"}}}))
        );
        assert_eq!(parse("a: {b: 1}\na: {c: 2}\n"), Ok(json!({"a": {"c": 2}})));
    }

    #[test]
    fn names_the_line_of_what_it_refuses() {
        for (text, line) in [
            ("a: {b: c\nd: : e\n", 2),
            ("a:\n  b: [1\n", 3),
            ("a: 1\nb: *nope\n", 2),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!(error.line, line, "{text}: {error}");
        }
        assert!(parse("").is_err());
        assert!(parse(&"[".repeat(10_000)).is_err());
    }

    #[test]
    fn refuses_documents_that_explode() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let before = level - 1;
            let items = vec![format!("*a{before}"); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{items}]\n"));
        }
        assert!(
            parse(&text)
                .expect_err("too large")
                .reason
                .contains("too large")
        );
    }
}
