//! RE2's dialect: any text, and expressions that a slow matcher knows the answer to.

use std::collections::BTreeSet;

use arbitrary::{Arbitrary, Result, Unstructured};
use outrigger_config::re2::Regex;

/// An even first byte: a line of expression, then a subject, as they stand.
/// An odd one: an expression and subjects made of the rest, compared with the oracle.
pub(crate) fn regex(data: &[u8]) {
    match data.split_first() {
        Some((first, rest)) if first % 2 == 1 => {
            // What is made of too few bytes is still an expression.
            let _ = compare(&mut Unstructured::new(rest));
        }
        Some((_, rest)) => raw(rest),
        None => {}
    }
}

fn raw(data: &[u8]) {
    let line = data.iter().position(|b| *b == b'\n').unwrap_or(data.len());
    let subject = data.get(line + 1..).unwrap_or_default();
    let Ok(source) = std::str::from_utf8(&data[..line]) else {
        return;
    };
    let compiled = Regex::new(source);
    let again = Regex::new(source);
    assert_eq!(compiled, again, "compiled twice");
    let Ok(regex) = compiled else { return };
    assert_eq!(regex.as_str(), source);
    let found = regex.find(subject);
    if regex.is_full_match(subject) {
        assert!(found.is_some(), "the whole matches, and no part of it");
    }
    let same = regex.substitution(r"\0").expect("the whole match is known");
    assert_eq!(regex.replace_all(subject, &same), subject);
    if is_plain(source) {
        let needle = source.as_bytes();
        assert_eq!(regex.is_full_match(subject), needle == subject);
        let slow = (0..=subject.len()).find(|at| subject[*at..].starts_with(needle));
        assert_eq!(found, slow.map(|at| at..at + needle.len()));
    }
}

/// Whether an expression stands for itself.
fn is_plain(source: &str) -> bool {
    source
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b" /-_=&%,;:<>!@#'\"~`".contains(&b))
}

/// An expression.
#[derive(Debug)]
enum Node {
    Byte(u8),
    Any,
    Class { not: bool, from: u8, to: u8 },
    Start,
    End,
    Both(Box<Node>, Box<Node>),
    Either(Box<Node>, Box<Node>),
    Repeat(Box<Node>, u8, Option<u8>),
}

/// Few letters, so that subjects match now and then; some that mean something
/// in an expression, a newline and a byte beyond ASCII.
const LETTERS: &[u8] = b"aab\n.+\\]-^";

impl Node {
    fn make(u: &mut Unstructured<'_>, depth: u8) -> Result<Self> {
        let kinds = if depth == 0 { 4 } else { 8 };
        let below = |u: &mut Unstructured<'_>| Self::make(u, depth - 1).map(Box::new);
        Ok(match u.int_in_range(0..=kinds - 1)? {
            0 | 1 => Self::Byte(*u.choose(LETTERS)?),
            2 => Self::Any,
            3 => {
                let (a, b) = (*u.choose(LETTERS)?, *u.choose(LETTERS)?);
                let (from, to) = (a.min(b), a.max(b));
                let not = bool::arbitrary(u)?;
                Self::Class { not, from, to }
            }
            4 => match u.ratio(1, 4)? {
                true => Self::Start,
                false => Self::End,
            },
            5 => Self::Either(below(u)?, below(u)?),
            6 => {
                let least = u.int_in_range(0..=2)?;
                let more = u.int_in_range(0..=3)?;
                Self::Repeat(below(u)?, least, (more < 3).then_some(least + more))
            }
            _ => Self::Both(below(u)?, below(u)?),
        })
    }

    /// In RE2's words.
    fn write(&self, out: &mut String) {
        match self {
            Self::Byte(byte) => literal(out, *byte),
            Self::Any => out.push('.'),
            Self::Class { not, from, to } => {
                out.push_str(if *not { "[^" } else { "[" });
                literal(out, *from);
                out.push('-');
                literal(out, *to);
                out.push(']');
            }
            Self::Start => out.push_str(r"\A"),
            Self::End => out.push_str(r"\z"),
            Self::Both(a, b) => {
                a.write(out);
                b.write(out);
            }
            Self::Either(a, b) => {
                out.push_str("(?:");
                a.write(out);
                out.push('|');
                b.write(out);
                out.push(')');
            }
            Self::Repeat(inner, least, most) => {
                out.push_str("(?:");
                inner.write(out);
                out.push(')');
                match (least, most) {
                    (0, None) => out.push('*'),
                    (1, None) => out.push('+'),
                    (0, Some(1)) => out.push('?'),
                    (least, None) => out.push_str(&format!("{{{least},}}")),
                    (least, Some(most)) => out.push_str(&format!("{{{least},{most}}}")),
                }
            }
        }
    }

    /// Where a match that begins at one of `starts` may end.
    fn ends(&self, subject: &[u8], starts: &BTreeSet<usize>) -> BTreeSet<usize> {
        let step = |takes: &dyn Fn(u8) -> bool| {
            let next = |at: &usize| subject.get(*at).filter(|b| takes(**b)).map(|_| at + 1);
            starts.iter().filter_map(next).collect()
        };
        match self {
            Self::Byte(byte) => step(&|b| b == *byte),
            Self::Any => step(&|b| b != b'\n'),
            Self::Class { not, from, to } => step(&|b| (*from <= b && b <= *to) != *not),
            Self::Start => starts.iter().copied().filter(|at| *at == 0).collect(),
            Self::End => {
                let end = |at: &usize| *at == subject.len();
                starts.iter().copied().filter(end).collect()
            }
            Self::Both(a, b) => b.ends(subject, &a.ends(subject, starts)),
            Self::Either(a, b) => {
                let mut all = a.ends(subject, starts);
                all.append(&mut b.ends(subject, starts));
                all
            }
            Self::Repeat(inner, least, most) => {
                let mut at = starts.clone();
                for _ in 0..*least {
                    at = inner.ends(subject, &at);
                }
                let mut all = at.clone();
                let more = most.map_or(subject.len() + 1, |most| usize::from(most - least));
                for _ in 0..more {
                    at = inner.ends(subject, &at);
                    all.extend(&at);
                }
                all
            }
        }
    }
}

/// A byte that stands for itself.
fn literal(out: &mut String, byte: u8) {
    match byte {
        b'\n' => out.push_str(r"\n"),
        _ => {
            if !byte.is_ascii_alphanumeric() {
                out.push('\\');
            }
            out.push(char::from(byte));
        }
    }
}

fn compare(u: &mut Unstructured<'_>) -> Result<()> {
    let node = Node::make(u, 4)?;
    let mut source = String::new();
    node.write(&mut source);
    let regex = match Regex::new(&source) {
        Ok(regex) => regex,
        Err(error) if error.contains("program size") => return Ok(()),
        Err(error) => panic!("{source:?} is refused: {error}"),
    };
    for _ in 0..4 {
        let length = u.int_in_range(0..=8)?;
        let letters = (0..length).map(|_| u.choose(LETTERS).copied());
        let subject = letters.collect::<Result<Vec<u8>>>()?;
        let fully = node.ends(&subject, &BTreeSet::from([0]));
        assert_eq!(
            regex.is_full_match(&subject),
            fully.contains(&subject.len()),
            "{source:?} on {:?}",
            String::from_utf8_lossy(&subject)
        );
        let first = (0..=subject.len()).find(|at| {
            let ends = node.ends(&subject, &BTreeSet::from([*at]));
            !ends.is_empty()
        });
        let found = regex.find(&subject);
        assert_eq!(found.as_ref().map(|range| range.start), first, "{source:?}");
        if let Some(range) = found {
            let ends = node.ends(&subject, &BTreeSet::from([range.start]));
            assert!(ends.contains(&range.end), "{source:?}: {range:?}");
        }
    }
    Ok(())
}
