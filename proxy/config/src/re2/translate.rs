//! Reads RE2's syntax and writes the `regex` crate's.
//!
//! Nothing of RE2's syntax is passed through: literals become `\xNN`, classes
//! become explicit sets of bytes, flags are worked out here. So what the crate's
//! dialect understands beyond RE2 cannot slip in.

use super::class::{self, ByteSet};
use super::size::{Atom, Level, repeated_size};

/// The highest count of a repetition, nested ones multiplied.
const MAX_REPEAT: u64 = 1000;

/// How deep groups may nest.
const MAX_NESTING: usize = 1000;

/// An expression in the `regex` crate's syntax.
#[derive(Debug)]
pub(super) struct Translated {
    pub(super) text: String,
    /// Groups that capture.
    pub(super) groups: usize,
    /// About how many instructions RE2's program for it has.
    pub(super) program_size: u64,
}

/// Translates an expression.
pub(super) fn translate(source: &str) -> Result<Translated, String> {
    let mut parser = Parser {
        source: source.as_bytes(),
        at: 0,
        flags: Flags::default(),
        out: String::from("(?-u)"),
        groups: 0,
        open: Vec::new(),
        level: Level::new(5),
        last_repeat: None,
    };
    parser.run()?;
    let level = parser.level.close(&parser.out);
    Ok(Translated {
        text: parser.out,
        groups: parser.groups,
        program_size: level.size.saturating_add(4),
    })
}

#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    ignore_case: bool,
    multi_line: bool,
    dot_all: bool,
    swap_greed: bool,
}

/// A group under way.
#[derive(Debug)]
struct Open {
    outer: Level,
    flags: Flags,
    captures: bool,
}

struct Parser<'a> {
    source: &'a [u8],
    at: usize,
    flags: Flags,
    out: String,
    groups: usize,
    open: Vec<Open>,
    level: Level,
    /// Where the repetition that was just read begins.
    last_repeat: Option<usize>,
}

impl Parser<'_> {
    fn run(&mut self) -> Result<(), String> {
        while let Some(byte) = self.peek() {
            let last_repeat = self.last_repeat.take();
            match byte {
                b'(' => self.open_group()?,
                b')' => self.close_group()?,
                b'|' => {
                    self.at += 1;
                    self.level.end_branch(&self.out);
                    self.out.push('|');
                    self.level.branch = self.out.len();
                }
                b'*' | b'+' | b'?' => self.repeat(last_repeat)?,
                b'{' => match self.counts() {
                    Some(_) => self.repeat(last_repeat)?,
                    None => self.literal(),
                },
                b'[' => self.class()?,
                b'\\' => self.escape()?,
                b'.' => {
                    self.at += 1;
                    let dot_all = self.flags.dot_all;
                    self.set(ByteSet::from_fn(|b| dot_all || b != b'\n'));
                }
                b'^' | b'$' => self.anchor(byte),
                _ => self.literal(),
            }
        }
        if self.open.is_empty() {
            Ok(())
        } else {
            Err(format!("missing ): {}", self.text(0)))
        }
    }

    fn peek(&self) -> Option<u8> {
        self.source.get(self.at).copied()
    }

    /// The source from a place to where the parser is.
    fn since(&self, start: usize) -> String {
        let end = self.at.min(self.source.len());
        String::from_utf8_lossy(&self.source[start..end]).into_owned()
    }

    /// The source from a place to its end.
    fn text(&self, start: usize) -> String {
        String::from_utf8_lossy(&self.source[start..]).into_owned()
    }

    fn literal(&mut self) {
        let byte = self.source[self.at];
        self.at += 1;
        self.byte(byte);
    }

    fn byte(&mut self, byte: u8) {
        self.set(ByteSet::single(byte));
    }

    fn set(&mut self, set: ByteSet) {
        let set = if self.flags.ignore_case {
            set.folded()
        } else {
            set
        };
        let start = self.out.len();
        set.write(&mut self.out);
        self.atom(start, set.instructions() as u64);
    }

    fn atom(&mut self, start: usize, size: u64) {
        self.level.atoms.push(Atom {
            start,
            size,
            repeat: 1,
        });
    }

    fn assertion(&mut self, text: &str) {
        let start = self.out.len();
        self.out.push_str(text);
        self.atom(start, 1);
    }

    fn anchor(&mut self, byte: u8) {
        self.at += 1;
        self.assertion(match (byte, self.flags.multi_line) {
            (b'^', false) => r"\A",
            (b'^', true) => "(?m:^)",
            (_, false) => r"\z",
            (_, true) => "(?m:$)",
        });
    }

    fn open_group(&mut self) -> Result<(), String> {
        let start = self.at;
        self.at += 1;
        if self.peek() != Some(b'?') {
            return self.push_group(true, self.flags);
        }
        self.at += 1;
        let rest = &self.source[self.at..];
        if rest.starts_with(b"<=") || rest.starts_with(b"<!") {
            self.at += 2;
            return Err(format!("invalid perl operator: {}", self.since(start)));
        }
        if rest.starts_with(b"P<") || rest.starts_with(b"<") {
            return self.named_group(start);
        }
        self.flag_group(start)
    }

    fn named_group(&mut self, start: usize) -> Result<(), String> {
        let name = start + if self.peek() == Some(b'P') { 4 } else { 3 };
        let length = self.source[name..].iter().position(|b| *b == b'>');
        let end = length.map_or(self.source.len(), |length| name + length + 1);
        self.at = end;
        let is_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
        match length {
            Some(length) if length > 0 && self.source[name..][..length].iter().all(is_word) => {
                self.push_group(true, self.flags)
            }
            _ => Err(format!(
                "invalid named capture group: {}",
                self.since(start)
            )),
        }
    }

    /// `(?flags)` and `(?flags:`
    fn flag_group(&mut self, start: usize) -> Result<(), String> {
        let mut flags = self.flags;
        let (mut clear, mut any) = (false, false);
        loop {
            let byte = self.peek();
            self.at += 1;
            let on = !clear;
            match byte {
                Some(b'i') => flags.ignore_case = on,
                Some(b'm') => flags.multi_line = on,
                Some(b's') => flags.dot_all = on,
                Some(b'U') => flags.swap_greed = on,
                Some(b'-') if !clear => {
                    clear = true;
                    any = false;
                    continue;
                }
                Some(b':' | b')') if clear && !any => break,
                Some(b':') => return self.push_group(false, flags),
                Some(b')') => {
                    self.flags = flags;
                    return Ok(());
                }
                _ => break,
            }
            any = true;
        }
        Err(format!("invalid perl operator: {}", self.since(start)))
    }

    fn push_group(&mut self, captures: bool, inside: Flags) -> Result<(), String> {
        if self.open.len() >= MAX_NESTING {
            return Err("expression nests too deeply".into());
        }
        self.groups += usize::from(captures);
        let start = self.out.len();
        self.out.push_str(if captures { "(" } else { "(?:" });
        let inner = Level::new(self.out.len());
        let mut outer = std::mem::replace(&mut self.level, inner);
        outer.atoms.push(Atom {
            start,
            size: 0,
            repeat: 1,
        });
        self.open.push(Open {
            outer,
            flags: std::mem::replace(&mut self.flags, inside),
            captures,
        });
        Ok(())
    }

    fn close_group(&mut self) -> Result<(), String> {
        self.at += 1;
        let Some(group) = self.open.pop() else {
            return Err(format!("unexpected ): {}", self.text(0)));
        };
        let inner = std::mem::replace(&mut self.level, group.outer).close(&self.out);
        self.out.push(')');
        self.flags = group.flags;
        if let Some(atom) = self.level.atoms.last_mut() {
            atom.size = inner
                .size
                .saturating_add(if group.captures { 2 } else { 0 });
            atom.repeat = inner.repeat;
        }
        Ok(())
    }

    /// `{n}`, `{n,}` or `{n,m}` where the parser is: the counts and the length.
    fn counts(&self) -> Option<(u64, Option<u64>, usize)> {
        let text = &self.source[self.at..];
        let end = text.iter().position(|b| *b == b'}')?;
        let inside = std::str::from_utf8(&text[1..end]).ok()?;
        let number = |digits: &str| {
            let valid = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            valid.then(|| digits.parse().unwrap_or(u64::MAX))
        };
        let (min, max) = match inside.split_once(',') {
            None => (number(inside)?, Some(number(inside)?)),
            Some((min, "")) => (number(min)?, None),
            Some((min, max)) => (number(min)?, Some(number(max)?)),
        };
        Some((min, max, end + 1))
    }

    fn repeat(&mut self, last_repeat: Option<usize>) -> Result<(), String> {
        let start = self.at;
        let (min, max, length) = match self.source[self.at] {
            b'*' => (0, None, 1),
            b'+' => (1, None, 1),
            b'?' => (0, Some(1), 1),
            _ => self.counts().unwrap_or((0, None, 1)),
        };
        let is_counted = self.source[self.at] == b'{';
        self.at += length;
        let operator = self.since(start);
        let lazy = self.peek() == Some(b'?');
        self.at += usize::from(lazy);
        let Some(mut atom) = self.level.atoms.pop() else {
            return Err(format!("no argument for repetition operator: {operator}"));
        };
        if let Some(previous) = last_repeat {
            return Err(format!("bad repetition operator: {}", self.since(previous)));
        }
        if is_counted {
            let count = max.unwrap_or(min);
            let product = atom.repeat.saturating_mul(count.max(1));
            let disorder = max.is_some_and(|max| max < min);
            if product > MAX_REPEAT || min > MAX_REPEAT || disorder {
                return Err(format!("invalid repetition size: {operator}"));
            }
            atom.repeat = product;
        }
        atom.size = repeated_size(atom.size, min, max);
        self.out.insert_str(atom.start, "(?:");
        self.out.push(')');
        self.out.push_str(&operator);
        if lazy != self.flags.swap_greed {
            self.out.push('?');
        }
        self.level.atoms.push(atom);
        self.last_repeat = Some(start);
        Ok(())
    }

    fn class(&mut self) -> Result<(), String> {
        let start = self.at;
        self.at += 1;
        let negated = self.peek() == Some(b'^');
        self.at += usize::from(negated);
        let mut set = ByteSet::empty();
        let first = self.at;
        loop {
            match self.peek() {
                None => return Err(format!("missing ]: {}", self.text(start))),
                Some(b']') if self.at > first => break,
                Some(_) => set.union(&self.class_item(start)?),
            }
        }
        self.at += 1;
        if self.flags.ignore_case {
            set = set.folded();
        }
        let set = if negated { set.negated() } else { set };
        let at = self.out.len();
        set.write(&mut self.out);
        self.atom(at, set.instructions() as u64);
        Ok(())
    }

    /// One item of a class that began at `start`.
    fn class_item(&mut self, start: usize) -> Result<ByteSet, String> {
        let rest = &self.source[self.at..];
        if rest.starts_with(b"[:")
            && let Some(end) = rest[2..].windows(2).position(|w| w == b":]")
        {
            let text = &rest[..end + 4];
            self.at += text.len();
            return class::posix(text).ok_or_else(|| {
                let text = String::from_utf8_lossy(text);
                format!("invalid character class range: {text}")
            });
        }
        if let [b'\\', b'p' | b'P', ..] = rest {
            return self.unicode_class();
        }
        if let [b'\\', letter, ..] = *rest
            && let Some(set) = class::perl(letter)
        {
            self.at += 2;
            return Ok(set);
        }
        let from = self.at;
        let low = self.class_byte(start)?;
        let is_range = self.peek() == Some(b'-')
            && self
                .source
                .get(self.at + 1)
                .is_some_and(|next| *next != b']');
        if !is_range {
            return Ok(ByteSet::single(low));
        }
        self.at += 1;
        let high = self.class_byte(start)?;
        if high < low {
            return Err(format!(
                "invalid character class range: {}",
                self.since(from)
            ));
        }
        Ok(ByteSet::range(low, high))
    }

    fn class_byte(&mut self, start: usize) -> Result<u8, String> {
        match self.peek() {
            None => Err(format!("missing ]: {}", self.text(start))),
            Some(b'\\') => self.escaped_byte(),
            Some(byte) => {
                self.at += 1;
                Ok(byte)
            }
        }
    }

    fn escape(&mut self) -> Result<(), String> {
        let Some(letter) = self.source.get(self.at + 1).copied() else {
            return Err("trailing \\".into());
        };
        match letter {
            b'b' | b'B' | b'A' | b'z' => {
                self.at += 2;
                let text = format!("\\{}", char::from(letter));
                self.assertion(&text);
            }
            b'C' => {
                self.at += 2;
                self.set(ByteSet::empty().negated());
            }
            b'Q' => self.quoted(),
            b'p' | b'P' => {
                let set = self.unicode_class()?;
                self.set(set);
            }
            _ => match class::perl(letter) {
                Some(set) => {
                    self.at += 2;
                    self.set(set);
                }
                None => {
                    let byte = self.escaped_byte()?;
                    self.byte(byte);
                }
            },
        }
        Ok(())
    }

    /// `\Q...\E`, or up to the end.
    fn quoted(&mut self) {
        self.at += 2;
        while self.at < self.source.len() {
            if self.source[self.at..].starts_with(b"\\E") {
                self.at += 2;
                return;
            }
            self.literal();
        }
    }

    /// `\pN`, `\p{Name}`, `\p{^Name}` and their opposites.
    fn unicode_class(&mut self) -> Result<ByteSet, String> {
        let start = self.at;
        let mut negated = self.source[self.at + 1] == b'P';
        self.at += 2;
        let invalid =
            |parser: &Self| format!("invalid character class range: {}", parser.since(start));
        let name = match self.peek() {
            Some(b'{') => {
                let rest = &self.source[self.at..];
                let Some(end) = rest.iter().position(|b| *b == b'}') else {
                    self.at = self.source.len();
                    return Err(invalid(self));
                };
                self.at += end + 1;
                &rest[1..end]
            }
            Some(_) => {
                self.at += 1;
                &self.source[self.at - 1..self.at]
            }
            None => return Err(invalid(self)),
        };
        let name = match name.strip_prefix(b"^") {
            Some(name) => {
                negated = !negated;
                name
            }
            None => name,
        };
        let set = std::str::from_utf8(name).ok().and_then(class::unicode);
        let set = set.ok_or_else(|| invalid(self))?;
        Ok(if negated { set.negated() } else { set })
    }

    /// An escape that stands for one byte.
    fn escaped_byte(&mut self) -> Result<u8, String> {
        let start = self.at;
        let Some(letter) = self.source.get(self.at + 1).copied() else {
            return Err("trailing \\".into());
        };
        self.at += 2;
        let byte = match letter {
            b'a' => Some(7),
            b'f' => Some(0x0c),
            b'n' => Some(b'\n'),
            b'r' => Some(b'\r'),
            b't' => Some(b'\t'),
            b'v' => Some(0x0b),
            b'x' => self.hexadecimal(),
            b'0' => self.octal(0, 2),
            b'1'..=b'7' if matches!(self.peek(), Some(b'0'..=b'7')) => {
                self.octal(u32::from(letter - b'0'), 2)
            }
            _ if letter.is_ascii() && !letter.is_ascii_alphanumeric() => Some(letter),
            _ => None,
        };
        byte.ok_or_else(|| format!("invalid escape sequence: {}", self.since(start)))
    }

    fn octal(&mut self, mut value: u32, digits: usize) -> Option<u8> {
        for _ in 0..digits {
            match self.peek() {
                Some(digit @ b'0'..=b'7') => {
                    value = value * 8 + u32::from(digit - b'0');
                    self.at += 1;
                }
                _ => break,
            }
        }
        u8::try_from(value).ok()
    }

    /// What follows `\x`: two digits, or any number of them in braces.
    fn hexadecimal(&mut self) -> Option<u8> {
        let mut digit = || {
            let byte = self.peek();
            self.at += usize::from(byte.is_some());
            byte
        };
        let value = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let first = digit();
        if first != Some(b'{') {
            let high = value(first)?;
            let low = value(digit())?;
            return u8::try_from(high * 16 + low).ok();
        }
        let mut sum = u8::try_from(value(digit())?).ok()?;
        loop {
            match digit() {
                Some(b'}') => return Some(sum),
                other => {
                    let next = u32::from(sum) * 16 + value(other)?;
                    sum = u8::try_from(next).ok()?;
                }
            }
        }
    }
}
