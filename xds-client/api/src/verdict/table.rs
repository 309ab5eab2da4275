//! Reads the table that the build script made of `verdicts/*.txt`.

use std::sync::LazyLock;

use super::Verdict;
use super::format::{IGNORED, REJECTED, STRICT, SUPPORTED, hash};

static BYTES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/verdicts.bin"));

/// Bytes of a record.
const RECORD: usize = 12;
/// Offset of the first record.
const RECORDS: usize = 4;

/// Prefixes and names of the strict messages: few, and asked for only when a field is unknown.
static STRICT_NAMES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    records()
        .filter(|record| record.code == STRICT)
        .map(|record| record.text(0))
        .collect()
});

fn bytes<const N: usize>(at: usize) -> [u8; N] {
    BYTES
        .get(at..at + N)
        .and_then(|bytes| bytes.try_into().ok())
        .unwrap_or([0; N])
}

fn count() -> usize {
    u32::from_le_bytes(bytes(0)) as usize
}

/// One line of the tables.
#[derive(Clone, Copy)]
struct Record {
    code: u8,
    offset: usize,
}

impl Record {
    fn at(index: usize) -> Self {
        let packed = u32::from_le_bytes(bytes(RECORDS + index * RECORD + 8));
        Self {
            code: (packed >> 24) as u8,
            offset: (packed & 0x00ff_ffff) as usize,
        }
    }

    /// Key, reason or topic.
    fn text(self, which: usize) -> &'static str {
        let mut at = RECORDS + count() * RECORD + self.offset;
        for _ in 0..which {
            at += 2 + u16::from_le_bytes(bytes(at)) as usize;
        }
        let length = u16::from_le_bytes(bytes(at)) as usize;
        let text = BYTES.get(at + 2..at + 2 + length).unwrap_or_default();
        std::str::from_utf8(text).unwrap_or_default()
    }

    fn verdict(self) -> Option<Verdict> {
        match self.code {
            IGNORED => Some(Verdict::Ignored(self.text(1))),
            REJECTED => Some(Verdict::Rejected(self.text(1))),
            SUPPORTED => Some(Verdict::Supported),
            _ => None,
        }
    }
}

fn records() -> impl Iterator<Item = Record> {
    (0..count()).map(Record::at)
}

/// The verdict on the key that the parts make.
pub(super) fn find(key: &[&str]) -> Option<Verdict> {
    let wanted = hash(key);
    let (mut low, mut high) = (0, count());
    while low < high {
        let middle = low + (high - low) / 2;
        match u64::from_le_bytes(bytes(RECORDS + middle * RECORD)).cmp(&wanted) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => return Record::at(middle).verdict(),
        }
    }
    None
}

/// Whether a line makes the message strict.
pub(super) fn is_strict(message: &str) -> bool {
    STRICT_NAMES
        .iter()
        .any(|name| match name.strip_suffix('*') {
            Some(prefix) => message.starts_with(prefix),
            None => *name == message,
        })
}

/// A line of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What the line speaks of.
    pub key: &'static str,
    /// The file it stands in.
    pub topic: &'static str,
    /// Its verdict; `None` for `strict`.
    pub verdict: Option<Verdict>,
}

/// Every line, by topic and key.
pub fn entries() -> Vec<Entry> {
    let mut entries: Vec<Entry> = records()
        .map(|record| Entry {
            key: record.text(0),
            topic: record.text(2),
            verdict: record.verdict(),
        })
        .collect();
    entries.sort_by_key(|entry| (entry.topic, entry.key));
    entries
}
