//! The `outrigger` binary.

use std::process::ExitCode;

use outrigger::server::options::{self, Command};
use outrigger::server::process;

/// Returns freed pages to the system soon, and scales with the workers.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match options::read(std::env::args_os().skip(1)) {
        Ok(Command::Run(options)) => process::run(*options),
        Ok(Command::Print(text)) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Command::Report(text)) => {
            eprint!("{text}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
