//! The page that says where Outrigger differs from Envoy: written from the cases, and from
//! what no case can show.

use std::path::{Path, PathBuf};

use super::case::{find, load};

/// What stands above the table.
const HEAD: &str = "\
# Where Outrigger differs from Envoy

Written by `cargo run -p integration-tests --bin parity-differs` from the parity cases; \"not yet\" is what is missing.

";

/// What no case shows.
const BESIDE: &str = "
Beside these:
- SIGTERM and SIGINT drain for up to 10 s (`--shutdown-timeout-s`); Envoy ends within 20 ms and cuts calls.
- A NACK concerns the refused resource alone; the good ones of the same push are applied.
- HTTP/2 stands on the `h2` library: a `:path` loses what follows a `#`, a path with bytes that no URI may hold is
  refused, and fields of one name come together.
- `x-envoy-hedge-on-per-try-timeout` is removed and has no effect: requests are not hedged.
- What ends no line within 64 KiB is no HTTP for the HTTP inspector, where Envoy waits on; a client that resets its
  connection before the TLS inspector has decided is gone at once.
- Secrets that SDS names by file are shown in the dump by that name, where Envoy shows what the file holds.
- The admin endpoint says how long its answers are, where Envoy sends them in chunks.
- A wrong chunk size at once is no cancelled request of the cluster (`upstream_rq_cancelled`).
";

/// Where the page is checked in.
#[must_use]
pub fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/differences.md")
}

/// The page.
///
/// # Errors
/// When a case does not load.
pub fn page() -> Result<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("parity");
    Ok(format!("{HEAD}{}{BESIDE}", table(&root)?))
}

/// Every `differs` entry below `root` as a Markdown table: what is shown, where, why.
///
/// # Errors
/// When a case does not load.
fn table(root: &Path) -> Result<String, String> {
    let mut table = "| case | where | why |\n|---|---|---|\n".to_owned();
    for (name, file) in find(root)? {
        let case = load(&file)?;
        let not_yet = case
            .not_yet
            .map(|reason| ("all (not yet)".to_owned(), reason));
        for (place, reason) in case.differs.into_iter().chain(not_yet) {
            let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
            table += &format!("| {name} | {} | {} |\n", cell(&place), cell(&reason));
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_current() {
        let checked_in = std::fs::read_to_string(path()).expect("it is checked in");
        assert!(
            page().expect("every case loads") == checked_in,
            "stale: run `cargo run -p integration-tests --bin parity-differs`"
        );
    }
}
