//! Outrigger beside Envoy, HAProxy and nginx: `cargo side-by-side [--quick] [--row NAME] [--write]`.
//!
//! The method is in the crate's documentation, the options in `--help`.

use std::process::ExitCode;

use outrigger_bench::args::{Args, HELP};
use outrigger_bench::measure::{self, Sample};
use outrigger_bench::process;
use outrigger_bench::report::{Measured, Outcome, markdown};
use outrigger_bench::rows::{self, Row};
use outrigger_bench::subject::{self, Subject};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

fn main() -> ExitCode {
    if !outrigger_bench::runs_as_bench() {
        return ExitCode::SUCCESS;
    }
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    if args.help {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    if args.list {
        rows::all()
            .iter()
            .for_each(|row| println!("{:<24} {}", row.name, row.title));
        return ExitCode::SUCCESS;
    }
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Says whether every subject did every row it was asked for.
fn run(args: &Args) -> Result<bool, String> {
    let rows = rows::chosen(&args.rows);
    if rows.is_empty() {
        return Err("no row has such a name; see --list".to_owned());
    }
    let (subjects, missing) = subject::find(args);
    process::pin_self().map_err(|e| format!("cannot pin the load to its core: {e}"))?;
    let mut preamble = vec![today(), process::machine()];
    preamble.extend(
        subjects
            .iter()
            .map(|s| format!("{}: {}", s.name, s.version())),
    );
    preamble.extend(missing);
    preamble.push(format!(
        "medians of {} rounds of {:?}, subjects interleaved",
        args.rounds, args.window
    ));
    preamble.iter().for_each(|line| println!("{line}"));
    println!();
    let measured = measure_all(&rows, &subjects, args)?;
    if args.write {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/RESULTS.md");
        std::fs::write(path, markdown(&measured, &preamble)).map_err(|e| format!("{path}: {e}"))?;
        println!("wrote {path}");
    }
    Ok(!measured.iter().any(Measured::has_failure))
}

/// One thread for load and backend; ended early by a signal, so that no proxy outlives the harness.
fn measure_all(rows: &[Row], subjects: &[Subject], args: &Args) -> Result<Vec<Measured>, String> {
    // The I/O driver is looked at often, because an open loop never rests.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(11)
        .build()
        .map_err(|e| e.to_string())?;
    LocalSet::new().block_on(&runtime, async {
        let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| e.to_string())?;
        let measuring = async {
            let mut measured = Vec::new();
            for row in rows {
                let result = measure_row(row, subjects, args).await;
                println!("{}", result.text());
                measured.push(result);
            }
            measured
        };
        tokio::select! {
            measured = measuring => Ok(measured),
            _ = terminate.recv() => Err("terminated".to_owned()),
            _ = interrupt.recv() => Err("interrupted".to_owned()),
        }
    })
}

/// All rounds of a row: every subject once, then every subject again.
async fn measure_row(row: &Row, subjects: &[Subject], args: &Args) -> Measured {
    let start = |s: &Subject| {
        (
            s.name.clone(),
            s.supports(row.config, row.variant)
                .then(|| Outcome::Ok(Vec::new())),
        )
    };
    let mut outcomes: Vec<_> = subjects.iter().map(start).collect();
    for _ in 0..args.rounds {
        for (subject, (_, outcome)) in subjects.iter().zip(&mut outcomes) {
            if let Some(Ok(samples)) = outcome {
                match measure::once(row, subject, args).await {
                    Ok(sample) => samples.push(sample),
                    Err(error) => *outcome = Some(Err::<Vec<Sample>, _>(error)),
                }
            }
        }
    }
    Measured {
        row: row.clone(),
        outcomes,
    }
}

/// The date as `date` of the system writes it.
fn today() -> String {
    let output = std::process::Command::new("date").arg("+%Y-%m-%d").output();
    output.map_or_else(
        |_| "no date".to_owned(),
        |o| String::from_utf8_lossy(&o.stdout).trim().to_owned(),
    )
}
