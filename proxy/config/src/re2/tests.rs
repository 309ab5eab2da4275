//! Verdicts and matches, against what Envoy 1.40 said.

use proptest::prelude::*;

use super::*;

/// An expression (a JSON string), a tab, and what `envoy --mode validate` said
/// of a route's `safe_regex`: `ok`, or the error.
const VERDICTS: &str = include_str!("verdicts.tsv");

#[test]
fn verdicts_are_envoys() {
    let mut wrong = Vec::new();
    for line in VERDICTS.lines() {
        let (source, expected) = line.split_once('\t').unwrap();
        let source: String = serde_json::from_str(source).unwrap();
        let verdict = Regex::new(&source).map_or_else(|error| error, |_| "ok".into());
        if verdict != expected {
            wrong.push(format!("{source}: {verdict:?}, Envoy: {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn full(source: &str, input: &[u8]) -> bool {
    Regex::new(source).unwrap().is_full_match(input)
}

#[test]
fn matches_the_whole_input() {
    assert!(full("a|ab", b"ab"));
    assert!(!full("a", b"ab"));
    assert!(!full("a$", b"a\n"));
    assert!(full("(?m)a$(?s).*", b"a\nb"));
    assert!(full("", b""));
}

#[test]
fn characters_are_bytes() {
    assert!(full("..", "é".as_bytes()));
    assert!(full("é", "é".as_bytes()));
    assert!(full("[é]{2}", "é".as_bytes()));
    assert!(full(r"\pL", b"\xe9"));
    assert!(full(r"(?i)\xe9", b"\xc9"));
    assert!(!full(r"\d", "٣".as_bytes()));
    assert!(full(r"\C", b"\xff"));
    assert!(!full(".", b"\n"));
    assert!(full("[^a]", b"\n"));
}

#[test]
fn the_crates_own_syntax_does_not_slip_in() {
    assert!(full("[a&&b]", b"&"));
    assert!(full("[a~~b]", b"~"));
    assert!(full("[[a]", b"["));
    assert!(full("[[a]b]", b"ab]"));
    assert!(full(r"\Qa.b\E+", b"a.bb"));
    assert!(full("a{,3}", b"a{,3}"));
    assert!(full("(?U)(a+?)b", b"aab"));
    assert!(full(r"\_\/\-", b"_/-"));
}

#[test]
fn the_limit_on_programs_is_the_runtimes() {
    let error = Regex::new("a{1000}").unwrap_err();
    assert!(error.contains("program size of 1004 > max program size of 100"));
}

#[test]
fn finds_the_leftmost_match() {
    let regex = Regex::new("b+").unwrap();
    assert_eq!(regex.find(b"abbcb"), Some(1..3));
    assert_eq!(regex.find(b"a"), None);
    assert_eq!(Regex::new("(?U)b+").unwrap().find(b"abb"), Some(1..2));
}

#[test]
fn replaces_every_match() {
    let regex = Regex::new(r"/(\w)(\w)?").unwrap();
    let with = regex.substitution(r"\2-\1\\\0").unwrap();
    assert_eq!(&*regex.replace_all(b"/ab/c", &with), br"b-a\/ab-c\/c");
    assert!(regex.substitution(r"\3").is_err());
    assert!(regex.substitution(r"\x").is_err());
    assert!(regex.substitution("a\\").is_err());
}

proptest! {
    #[test]
    fn no_expression_makes_it_panic(
        source in r"[ab()\[\]{}*+?|^$.\\:PQExpdw,0-9<>=!i-]{0,24}",
        input: Vec<u8>,
    ) {
        if let Ok(regex) = Regex::new(&source) {
            regex.is_full_match(&input);
            regex.find(&input);
        }
    }
}
