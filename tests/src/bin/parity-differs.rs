//! Writes `docs/differences.md`: where Outrigger differs from Envoy on purpose, with every
//! `differs` entry of every parity case and its reason.

use std::process::ExitCode;

use integration_tests::parity::differences;

fn main() -> ExitCode {
    let page = differences::page();
    let written = page.and_then(|page| {
        std::fs::write(differences::path(), page).map_err(|e| format!("docs/differences.md: {e}"))
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("parity-differs: {e}");
            ExitCode::FAILURE
        }
    }
}
