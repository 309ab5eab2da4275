//! RE2's dialect on top of the `regex` crate.
//!
//! Envoy's expressions are RE2's, in its Latin-1 mode: a character is a byte.
//! They are translated; what RE2 refuses is refused.

mod class;
mod size;
mod translate;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Envoy's limit on programs, in instructions; see [`set_max_program_size`].
pub const DEFAULT_MAX_PROGRAM_SIZE: u32 = 100;

/// Largest program, in instructions.
static MAX_PROGRAM_SIZE: AtomicU32 = AtomicU32::new(DEFAULT_MAX_PROGRAM_SIZE);

/// Heap that a compiled expression may take, bytes: far above what the limit on
/// programs lets through, and a bound all the same.
const MAX_COMPILED_BYTES: usize = 64 << 20;

/// Groups may nest, and so may what the translation adds around them.
const NEST_LIMIT: u32 = 4096;

/// Sets the largest program that expressions compiled from now on may have: the
/// runtime key `re2.max_program_size.error_level`. Default 100, as in Envoy.
///
/// The size is RE2's as far as it can be told without RE2: exact for plain
/// expressions, and rather too small than too large for others.
pub fn set_max_program_size(instructions: u32) {
    MAX_PROGRAM_SIZE.store(instructions, Ordering::Relaxed);
}

/// A compiled RE2 expression. Cloning is cheap; equality is that of the source.
#[derive(Clone)]
pub struct Regex {
    source: Arc<str>,
    /// Finds a match anywhere.
    partial: regex::bytes::Regex,
    /// The same, anchored at both ends.
    full: regex::bytes::Regex,
    /// Groups that capture.
    groups: usize,
}

impl Regex {
    /// Compiles an expression.
    ///
    /// # Errors
    /// What RE2 has against it, in RE2's words.
    pub fn new(source: &str) -> Result<Self, String> {
        let limit = MAX_PROGRAM_SIZE.load(Ordering::Relaxed);
        let translated = translate::translate(source)?;
        let size = translated.program_size;
        if size > u64::from(limit) {
            return Err(format!(
                "regex '{source}' RE2 program size of {size} > max program size of {limit} set \
                 for the error level threshold. Increase configured max program size if necessary."
            ));
        }
        let text = translated.text;
        Ok(Self {
            source: source.into(),
            full: compile(&format!(r"\A(?:{text})\z"))?,
            partial: compile(&text)?,
            groups: translated.groups,
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
        Substitution::parse(text, self.groups)
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

fn compile(text: &str) -> Result<regex::bytes::Regex, String> {
    regex::bytes::RegexBuilder::new(text)
        .unicode(false)
        .size_limit(MAX_COMPILED_BYTES)
        .nest_limit(NEST_LIMIT)
        .build()
        .map_err(|error| error.to_string())
}

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

#[cfg(test)]
mod tests;
