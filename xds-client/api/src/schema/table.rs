//! Reads the schema table where it lies: no copy, no parsing at start.

use std::sync::LazyLock;

use super::layout::{
    ENUM_SIZE, FIELD_SIZE, MAGIC, MESSAGE_SIZE, NONE, ONEOF_SIZE, SECTIONS, VALUE_SIZE,
};

/// The bytes that the generator wrote.
static BYTES: &[u8] = include_bytes!("schema.bin");

/// Where each section begins.
static SECTION_STARTS: LazyLock<[usize; SECTIONS]> = LazyLock::new(section_starts);

/// The sections, in their order.
#[derive(Clone, Copy)]
pub(super) enum Section {
    Messages,
    Fields,
    Oneofs,
    Enums,
    Values,
    Strings,
    Rules,
}

impl Section {
    /// Bytes of one record; strings and rules are addressed by byte.
    const fn record(self) -> usize {
        match self {
            Self::Messages => MESSAGE_SIZE,
            Self::Fields => FIELD_SIZE,
            Self::Oneofs => ONEOF_SIZE,
            Self::Enums => ENUM_SIZE,
            Self::Values => VALUE_SIZE,
            Self::Strings | Self::Rules => 1,
        }
    }
}

fn section_starts() -> [usize; SECTIONS] {
    let mut starts = [BYTES.len(); SECTIONS];
    if !BYTES.starts_with(&MAGIC) {
        return starts;
    }
    let mut at = MAGIC.len() + 4 * SECTIONS;
    for (index, start) in starts.iter_mut().enumerate() {
        *start = at;
        at += word(MAGIC.len() + 4 * index) as usize;
    }
    starts
}

/// The number at a byte offset, or [`NONE`] past the end.
fn word(at: usize) -> u32 {
    BYTES
        .get(at..at + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(NONE, u32::from_le_bytes)
}

/// Count of records in a section.
pub(super) fn count(section: Section) -> u32 {
    let length = match BYTES.starts_with(&MAGIC) {
        true => word(MAGIC.len() + 4 * section as usize) as usize,
        false => 0,
    };
    (length / section.record()) as u32
}

/// The 32-bit number at `offset` in record `index`.
pub(super) fn number(section: Section, index: u32, offset: usize) -> u32 {
    word(SECTION_STARTS[section as usize] + index as usize * section.record() + offset)
}

/// The 16-bit number at `offset` in record `index`.
pub(super) fn half(section: Section, index: u32, offset: usize) -> u16 {
    let at = SECTION_STARTS[section as usize] + index as usize * section.record() + offset;
    BYTES
        .get(at..at + 2)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(u16::MAX, u16::from_le_bytes)
}

/// The byte at `offset` in record `index`.
pub(super) fn byte(section: Section, index: u32, offset: usize) -> u8 {
    let at = SECTION_STARTS[section as usize] + index as usize * section.record() + offset;
    BYTES.get(at).copied().unwrap_or_default()
}

/// Length-prefixed bytes of a pool.
pub(super) fn blob(section: Section, offset: u32) -> &'static [u8] {
    let length = half(section, offset, 0) as usize;
    let at = SECTION_STARTS[section as usize] + offset as usize + 2;
    BYTES.get(at..at + length).unwrap_or_default()
}

/// A string of the pool.
pub(super) fn text(offset: u32) -> &'static str {
    std::str::from_utf8(blob(Section::Strings, offset)).unwrap_or_default()
}

/// Finds the record whose name (its first number) is `name` in a section sorted by name.
pub(super) fn find(section: Section, name: &str) -> Option<u32> {
    let (mut low, mut high) = (0, count(section));
    while low < high {
        let middle = low + (high - low) / 2;
        match blob(Section::Strings, number(section, middle, 0)).cmp(name.as_bytes()) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => return Some(middle),
        }
    }
    None
}
