//! Peers that flood, stall, half-close and vanish, on a live process: it stays up, its memory
//! is bounded, a neighbour's calls succeed, and nothing is left behind.
//!
//! Memory is measured as resident pages over what they were before the abuse. The bounds are
//! loose: they tell what is bounded from what is not.

mod backend;
mod bench;
mod chaos;
mod floods;
mod limits;
mod slow;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

/// What a trial gives: nothing, or what went wrong.
pub type Outcome = Result<(), String>;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(2);
    let mut trials = Vec::new();
    trials.extend(floods::trials());
    trials.extend(slow::trials());
    trials.extend(limits::trials());
    trials.extend(chaos::trials());
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A trial that runs on a runtime of its own.
pub fn trial<F: Future<Output = Outcome>>(
    name: &str,
    run: impl FnOnce() -> F + Send + 'static,
) -> Trial {
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        runtime.block_on(run()).map_err(Failed::from)
    })
}
