//! Compiles the verdict tables (`verdicts/*.txt`) into one sorted read-only table, so that editing a line is all it
//! takes to change a verdict.
//!
//! After the count come the records, by hash: `hash u64`, then `code << 24 | offset` as `u32`. At the offset, behind
//! the records, lie key, reason and topic, each with its length (`u16`). Keys that mean nothing are found by the tests.

use std::collections::BTreeMap;
use std::path::Path;

#[path = "src/verdict/format.rs"]
mod format;

/// The words of the tables.
const CODES: [(&str, u8); 4] = [
    ("supported", format::SUPPORTED),
    ("ignored", format::IGNORED),
    ("rejected", format::REJECTED),
    ("strict", format::STRICT),
];

/// Parses one line: key, verdict, reason.
fn parse(line: &str) -> Result<(String, u8, String), String> {
    let mut words = line.splitn(2, char::is_whitespace);
    let key = words.next().unwrap_or_default();
    let rest = words.next().unwrap_or_default().trim();
    let (verdict, reason) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let code = CODES
        .iter()
        .find(|(name, _)| *name == verdict)
        .map(|(_, code)| *code)
        .ok_or_else(|| format!("{verdict:?} is no verdict"))?;
    let reason = reason.trim();
    if reason.is_empty() && matches!(code, format::IGNORED | format::REJECTED) {
        return Err(format!("`{verdict}` needs a reason"));
    }
    Ok((key.to_owned(), code, reason.to_owned()))
}

fn compile(folder: &Path) -> Result<Vec<u8>, String> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .map_err(|error| error.to_string())?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    let mut records = BTreeMap::new();
    let mut texts: Vec<u8> = Vec::new();
    for path in &files {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let topic = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let place = |what: &str| format!("{}:{}: {what}", path.display(), index + 1);
            let (key, code, reason) = parse(line).map_err(|error| place(&error))?;
            let offset = texts.len() as u32;
            for text in [key.as_str(), reason.as_str(), topic.as_str()] {
                texts.extend_from_slice(&(text.len() as u16).to_le_bytes());
                texts.extend_from_slice(text.as_bytes());
            }
            if records
                .insert(format::hash(&[&key]), (code, offset))
                .is_some()
            {
                return Err(place(&format!("{key} has a verdict already")));
            }
        }
    }
    let mut out = (records.len() as u32).to_le_bytes().to_vec();
    for (hash, (code, offset)) in records {
        out.extend_from_slice(&hash.to_le_bytes());
        out.extend_from_slice(&(u32::from(code) << 24 | offset).to_le_bytes());
    }
    out.extend_from_slice(&texts);
    Ok(out)
}

fn main() {
    println!("cargo::rerun-if-changed=verdicts");
    println!("cargo::rerun-if-changed=src/verdict/format.rs");
    let out = std::env::var("OUT_DIR").unwrap_or_default();
    match compile(Path::new("verdicts")) {
        Ok(bytes) => {
            if let Err(error) = std::fs::write(Path::new(&out).join("verdicts.bin"), bytes) {
                println!("cargo::error={error}");
            }
        }
        Err(error) => println!("cargo::error={error}"),
    }
}
