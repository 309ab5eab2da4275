//! Every case of `tests/parity`, each a test named `family/name`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use integration_tests::parity::run::Binaries;
use integration_tests::parity::{case, run};
use integration_tests::peers;
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // A case waits far more than it works.
    arguments.test_threads.get_or_insert(6);
    let envoy = match peers::envoy() {
        Ok(envoy) => envoy,
        Err(e) => return peers::missing("parity", &e),
    };
    match peers::subject().and_then(|subject| trials(&Binaries { envoy, subject })) {
        Ok(trials) => libtest_mimic::run(&arguments, trials).exit_code(),
        Err(e) => {
            eprintln!("parity: {e}");
            ExitCode::FAILURE
        }
    }
}

fn trials(binaries: &Binaries) -> Result<Vec<Trial>, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("parity");
    let trial = |(name, file): (String, PathBuf)| {
        let binaries = binaries.clone();
        Trial::test(name, move || {
            let case = case::load(&file)?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let mut outcome = runtime.block_on(run::run(&case, &binaries));
            if let (None, Err(first)) = (&case.not_yet, &outcome) {
                // Both sides run on a machine with little to spare: a difference
                // counts if it is there twice.
                eprintln!("once more, after: {first}");
                outcome = runtime.block_on(run::run(&case, &binaries));
            }
            match (&case.not_yet, outcome) {
                (None, outcome) => outcome.map_err(Failed::from),
                (Some(_), Ok(())) if !binaries.same() => {
                    Err("agrees now: take `not_yet` out".into())
                }
                (Some(_), _) => Ok(()),
            }
        })
    };
    Ok(case::find(&root)?.into_iter().map(trial).collect())
}
