//! Prints, as a Markdown table, where Outrigger differs from Envoy on purpose: every `differs`
//! entry of every parity case, with its reason.

use std::path::Path;
use std::process::ExitCode;

use integration_tests::parity::case;

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("parity");
    match case::differences(&root) {
        Ok(table) => {
            print!("{table}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("parity-differs: {e}");
            ExitCode::FAILURE
        }
    }
}
