//! RE2's dialect on top of the `regex` crate.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// A compiled RE2 expression. Cloning is cheap; equality is that of the source.
#[derive(Clone)]
pub struct Regex {
    source: Arc<str>,
    /// Finds a match anywhere.
    partial: Arc<regex::bytes::Regex>,
    /// The same, anchored at both ends.
    full: Arc<regex::bytes::Regex>,
}

impl Regex {
    /// Compiles an expression.
    ///
    /// # Errors
    /// What RE2 has against it, in RE2's words where it has some.
    pub fn new(source: &str) -> Result<Self, String> {
        let compile = |text: &str| {
            regex::bytes::RegexBuilder::new(text)
                .unicode(true)
                .build()
                .map(Arc::new)
                .map_err(|error| error.to_string())
        };
        Ok(Self {
            source: source.into(),
            partial: compile(source)?,
            full: compile(&format!("^(?:{source})$"))?,
        })
    }

    /// Whether the whole input matches, as `safe_regex` is evaluated.
    pub fn is_full_match(&self, input: &[u8]) -> bool {
        self.full.is_match(input)
    }

    /// The first match (leftmost, preferring earlier alternatives) as a byte
    /// range of `input`.
    pub fn find(&self, input: &[u8]) -> Option<std::ops::Range<usize>> {
        self.partial.find(input).map(|m| m.range())
    }

    /// `input` with every match replaced, as RE2's `GlobalReplace`.
    pub fn replace_all<'a>(&self, input: &'a [u8], with: &Substitution) -> Cow<'a, [u8]> {
        self.partial
            .replace_all(input, |captures: &regex::bytes::Captures<'_>| {
                with.expand(captures)
            })
    }

    /// Reads the substitution of a `RegexMatchAndSubstitute` for this
    /// expression: `\0` is the whole match, `\1`..`\9` its groups, `\\` a
    /// backslash.
    ///
    /// # Errors
    /// A backslash before anything else, or a group the expression has not.
    pub fn substitution(&self, text: &str) -> Result<Substitution, String> {
        Substitution::parse(text, self.partial.captures_len() - 1)
    }

    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        &self.source
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Regex").field(&self.source).finish()
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Regex {}

/// What replaces a match, compiled by [`Regex::substitution`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Substitution {
    source: Arc<str>,
    parts: Arc<[Part]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<[u8]>),
    Group(usize),
}

impl Substitution {
    fn parse(text: &str, groups: usize) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            if byte != b'\\' {
                literal.push(byte);
                continue;
            }
            match bytes.next() {
                Some(b'\\') => literal.push(b'\\'),
                Some(digit @ b'0'..=b'9') => {
                    let group = usize::from(digit - b'0');
                    if group > groups {
                        return Err(format!(
                            "Rewrite schema requests {group} matches, but the regexp only has {groups} parenthesized subexpressions."
                        ));
                    }
                    push_literal(&mut parts, &mut literal);
                    parts.push(Part::Group(group));
                }
                Some(_) => {
                    return Err(
                        "Rewrite schema error: '\\' must be followed by a digit or '\\'.".into(),
                    );
                }
                None => return Err("Rewrite schema error: '\\' not allowed at end.".into()),
            }
        }
        push_literal(&mut parts, &mut literal);
        Ok(Self {
            source: text.into(),
            parts: parts.into(),
        })
    }

    /// The substitution as it was written.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    fn expand(&self, captures: &regex::bytes::Captures<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        for part in &*self.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text),
                Part::Group(group) => {
                    if let Some(found) = captures.get(*group) {
                        out.extend_from_slice(found.as_bytes());
                    }
                }
            }
        }
        out
    }
}

fn push_literal(parts: &mut Vec<Part>, literal: &mut Vec<u8>) {
    if !literal.is_empty() {
        parts.push(Part::Literal(std::mem::take(literal).into()));
    }
}
