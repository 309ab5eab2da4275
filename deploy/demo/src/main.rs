//! `cargo demo`: see the crate's documentation.

use std::process::ExitCode;

use outrigger_demo::args::{Args, HELP};
use outrigger_demo::story::Stage;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
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
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(&args)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Plays until the end or a signal, and says whether the run was sound. Either way the stage is dropped,
/// and with it the proxy.
async fn run(args: &Args) -> Result<bool, String> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| e.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    let mut signalled = async || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let (mut stage, sound) = tokio::select! {
        played = play(args) => played?,
        () = signalled() => return Err("interrupted before the summary".to_owned()),
    };
    if args.keep {
        stage.say("");
        tokio::select! {
            ended = stage.keep() => ended?,
            () = signalled() => {}
        }
    }
    Ok(sound)
}

/// The whole story, with its summary. Says whether the run was sound.
async fn play(args: &Args) -> Result<(Stage, bool), String> {
    let mut stage = Stage::set(args).await?;
    stage.introduce();
    let findings = stage.play(args.duration).await?;
    stage.say("\nWhat this run showed:");
    findings
        .sentences()
        .iter()
        .for_each(|sentence| stage.say(&format!("  {sentence}")));
    let failures = findings.failures();
    failures
        .iter()
        .for_each(|failure| stage.say(&format!("  FAILED: {failure}")));
    Ok((stage, failures.is_empty()))
}
