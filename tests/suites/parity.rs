//! Every case of `tests/parity`, each a test named `family/name`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

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
    let again = Again::default();
    let trials = peers::subject().and_then(|subject| trials(&Binaries { envoy, subject }, &again));
    match trials {
        Ok(trials) => {
            let conclusion = libtest_mimic::run(&arguments, trials);
            match again.are_few() {
                true => conclusion.exit_code(),
                false => ExitCode::FAILURE,
            }
        }
        Err(e) => {
            eprintln!("parity: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Cases that differed at first.
#[derive(Clone, Default)]
struct Again(Arc<Mutex<Vec<String>>>);

impl Again {
    /// Both sides run on a machine with little to spare, where a few cases in a hundred may
    /// trip; more are a race in the product.
    const MOST: usize = 12;
    /// Of as many runs after that two have to agree.
    const TIMES: usize = 3;

    fn note(&self, case: &str) {
        if let Ok(mut cases) = self.0.lock() {
            cases.push(case.to_owned());
        }
    }

    /// Says which they were; whether there are no more than may be.
    fn are_few(&self) -> bool {
        let cases = self.0.lock().map(|cases| cases.clone()).unwrap_or_default();
        if !cases.is_empty() {
            let (count, names) = (cases.len(), cases.join(", "));
            eprintln!(
                "parity: {count} differed at first (of {} that may): {names}",
                Self::MOST
            );
        }
        cases.len() <= Self::MOST
    }
}

fn trials(binaries: &Binaries, again: &Again) -> Result<Vec<Trial>, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("parity");
    let trial = |(name, file): (String, PathBuf)| {
        let (binaries, again) = (binaries.clone(), again.clone());
        Trial::test(name.clone(), move || {
            let case = case::load(&file)?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let mut outcome = runtime.block_on(run::run(&case, &binaries));
            if let (None, Err(first)) = (&case.not_yet, &outcome) {
                eprintln!("once more, after: {first}");
                again.note(&name);
                let mut agreed = 0;
                for _ in 0..Again::TIMES {
                    match runtime.block_on(run::run(&case, &binaries)) {
                        Ok(()) => agreed += 1,
                        differs => outcome = differs,
                    }
                    if agreed == 2 {
                        outcome = Ok(());
                        break;
                    }
                }
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
