//! The corpus, through the targets, without an engine: what was found once is
//! not to come back.

use std::fs;
use std::path::{Path, PathBuf};

use outrigger_fuzz::TARGETS;

/// Bytes that the whole corpus may take: it is kept in the repository.
const LARGEST: u64 = 300_000;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn inputs(of: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(of).unwrap_or_else(|error| panic!("{of:?}: {error}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_target_holds_on_its_corpus() {
    for (name, target) in TARGETS {
        let inputs = inputs(&corpus().join(name));
        assert!(!inputs.is_empty(), "{name} has no corpus");
        for path in inputs {
            println!("{}", path.display());
            target(&fs::read(&path).unwrap());
        }
        target(b"");
    }
}

#[test]
fn the_corpus_is_small_and_of_the_targets() {
    let mut bytes = 0;
    for folder in inputs(&corpus()) {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap();
        assert!(
            outrigger_fuzz::target(name).is_some(),
            "{name} is no target"
        );
        let sizes = inputs(&folder);
        bytes += sizes
            .iter()
            .map(|path| path.metadata().unwrap().len())
            .sum::<u64>();
    }
    assert!(bytes <= LARGEST, "{bytes} bytes");
}
