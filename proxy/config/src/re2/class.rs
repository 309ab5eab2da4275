//! Sets of bytes: RE2 runs in its Latin-1 mode, where a character is a byte.

/// A set of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ByteSet([bool; 256]);

impl ByteSet {
    pub(super) const fn empty() -> Self {
        Self([false; 256])
    }

    /// The bytes for which `is_in` holds.
    pub(super) fn from_fn(is_in: impl Fn(u8) -> bool) -> Self {
        let mut set = Self::empty();
        for byte in 0..=u8::MAX {
            set.0[usize::from(byte)] = is_in(byte);
        }
        set
    }

    pub(super) fn single(byte: u8) -> Self {
        Self::from_fn(|b| b == byte)
    }

    pub(super) fn range(low: u8, high: u8) -> Self {
        Self::from_fn(|b| (low..=high).contains(&b))
    }

    pub(super) fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte)]
    }

    pub(super) fn union(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine |= theirs;
        }
    }

    pub(super) fn negated(&self) -> Self {
        Self(self.0.map(|is_in| !is_in))
    }

    /// With the other case of every letter.
    pub(super) fn folded(&self) -> Self {
        Self::from_fn(|b| self.has(b) || other_case(b).is_some_and(|other| self.has(other)))
    }

    /// Neighbouring bytes as inclusive ranges, in order.
    pub(super) fn ranges(&self) -> Vec<(u8, u8)> {
        let mut ranges: Vec<(u8, u8)> = Vec::new();
        for byte in (0..=u8::MAX).filter(|byte| self.has(*byte)) {
            match ranges.last_mut() {
                Some((_, high)) if *high == byte.wrapping_sub(1) && byte > 0 => *high = byte,
                _ => ranges.push((byte, byte)),
            }
        }
        ranges
    }

    /// Instructions of a program: one a range, lower and upper case of ASCII
    /// letters sharing one.
    pub(super) fn instructions(&self) -> usize {
        let ranges = self.ranges();
        let twins = ranges.iter().filter(|(low, high)| {
            low.is_ascii_lowercase()
                && high.is_ascii_lowercase()
                && ranges.contains(&(low.to_ascii_uppercase(), high.to_ascii_uppercase()))
        });
        (ranges.len() - twins.count()).max(1)
    }

    /// Appends it in the syntax of the `regex` crate.
    pub(super) fn write(&self, out: &mut String) {
        use std::fmt::Write;
        let ranges = self.ranges();
        match &*ranges {
            // An empty class never matches.
            [] => out.push_str("[a&&b]"),
            [(low, high)] if low == high => {
                let _ = write!(out, "\\x{low:02x}");
            }
            _ => {
                out.push('[');
                for (low, high) in ranges {
                    let _ = write!(out, "\\x{low:02x}-\\x{high:02x}");
                }
                out.push(']');
            }
        }
    }
}

fn other_case(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' | 0xc0..=0xd6 | 0xd8..=0xde => Some(byte + 32),
        b'a'..=b'z' | 0xe0..=0xf6 | 0xf8..=0xfe => Some(byte - 32),
        _ => None,
    }
}

/// `\d`, `\s`, `\w` and their opposites.
pub(super) fn perl(letter: u8) -> Option<ByteSet> {
    let set = match letter.to_ascii_lowercase() {
        b'd' => ByteSet::from_fn(|b| b.is_ascii_digit()),
        b's' => ByteSet::from_fn(|b| matches!(b, b'\t' | b'\n' | 0x0c | b'\r' | b' ')),
        b'w' => ByteSet::from_fn(|b| b.is_ascii_alphanumeric() || b == b'_'),
        _ => return None,
    };
    Some(if letter.is_ascii_uppercase() {
        set.negated()
    } else {
        set
    })
}

/// `[:name:]` and `[:^name:]`, brackets included.
pub(super) fn posix(text: &[u8]) -> Option<ByteSet> {
    let name = text.strip_prefix(b"[:")?.strip_suffix(b":]")?;
    let (name, negated) = match name.strip_prefix(b"^") {
        Some(name) => (name, true),
        None => (name, false),
    };
    let is_in: fn(u8) -> bool = match name {
        b"alnum" => |b| b.is_ascii_alphanumeric(),
        b"alpha" => |b| b.is_ascii_alphabetic(),
        b"ascii" => |b| b.is_ascii(),
        b"blank" => |b| matches!(b, b' ' | b'\t'),
        b"cntrl" => |b| b.is_ascii_control(),
        b"digit" => |b| b.is_ascii_digit(),
        b"graph" => |b| b.is_ascii_graphic(),
        b"lower" => |b| b.is_ascii_lowercase(),
        b"print" => |b| b.is_ascii_graphic() || b == b' ',
        b"punct" => |b| b.is_ascii_punctuation(),
        b"space" => |b| matches!(b, b'\t'..=b'\r' | b' '),
        b"upper" => |b| b.is_ascii_uppercase(),
        b"word" => |b| b.is_ascii_alphanumeric() || b == b'_',
        b"xdigit" => |b| b.is_ascii_hexdigit(),
        _ => return None,
    };
    let set = ByteSet::from_fn(is_in);
    Some(if negated { set.negated() } else { set })
}

/// General categories that RE2 knows.
const CATEGORIES: &[&str] = &[
    "C", "Cc", "Cf", "Co", "Cs", "L", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn", "N",
    "Nd", "Nl", "No", "P", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm", "So",
    "Z", "Zl", "Zp", "Zs",
];

/// Scripts whose whole name has four letters; others of that length are codes,
/// which RE2 does not know.
const SHORT_SCRIPTS: &[&str] = &["Cham", "Kawi", "Lisu", "Modi", "Newa", "Thai", "Toto"];

/// `\p{name}`: the Latin-1 characters of a category or a script.
pub(super) fn unicode(name: &str) -> Option<ByteSet> {
    if name == "Any" {
        return Some(ByteSet::empty().negated());
    }
    // No surrogate is a Latin-1 character.
    if name == "Cs" {
        return Some(ByteSet::empty());
    }
    let class = if CATEGORIES.contains(&name) {
        format!(r"\p{{{name}}}")
    } else if is_script_name(name) {
        format!(r"\p{{Script={name}}}")
    } else {
        return None;
    };
    let class = regex::Regex::new(&class).ok()?;
    let mut buffer = [0; 4];
    let mut set = ByteSet::empty();
    for byte in 0..=u8::MAX {
        let character = char::from(byte).encode_utf8(&mut buffer);
        set.0[usize::from(byte)] = class.is_match(character);
    }
    Some(set)
}

fn is_script_name(name: &str) -> bool {
    let is_word = |word: &str| {
        let mut letters = word.chars();
        letters
            .next()
            .is_some_and(|first| first.is_ascii_uppercase())
            && letters.all(|letter| letter.is_ascii_lowercase())
    };
    name.split('_').all(is_word)
        && (name.len() != 4 || SHORT_SCRIPTS.contains(&name))
        && name != "Unknown"
}
