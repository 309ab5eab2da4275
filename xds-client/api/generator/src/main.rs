//! Rewrites what is generated and checked in: the schema table, the overlay's message code, the support matrix
//! and its summary in the README.
//!
//! `xds-api-generator [schema | matrix | bad FOLDER]`; without a word, the first two.

use std::path::Path;
use std::process::ExitCode;

use xds_api_generator::{Error, bad_bootstraps, matrix, messages, sources, table};

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    std::fs::write(path, bytes).map_err(|source| Error::Io {
        path: path.display().to_string(),
        source,
    })?;
    println!("{} ({} bytes)", path.display(), bytes.len());
    Ok(())
}

fn generate_schema() -> Result<(), Error> {
    let compiled = sources::compile()?;
    write(&table::path(), &table::build(&compiled.pool)?)?;
    for (name, text) in messages::build(&compiled)? {
        write(&messages::folder().join(name), text.as_bytes())?;
    }
    Ok(())
}

/// Writes the bad bootstraps into a folder, to be tried by hand.
fn write_bad(folder: &str) -> Result<(), Error> {
    for (index, bad) in bad_bootstraps().into_iter().enumerate() {
        println!("{index}: {}", bad.name);
        write(
            &Path::new(folder).join(format!("{index}.json")),
            bad.text.as_bytes(),
        )?;
    }
    Ok(())
}

fn write_matrix() -> Result<(), Error> {
    write(&matrix::path(), matrix::render()?.as_bytes())?;
    write(&matrix::readme_path(), matrix::readme()?.as_bytes())
}

fn run() -> Result<(), Error> {
    match std::env::args().nth(1).as_deref() {
        Some("schema") => generate_schema(),
        Some("bad") => write_bad(std::env::args().nth(2).as_deref().unwrap_or(".")),
        Some("matrix") => write_matrix(),
        None => {
            generate_schema()?;
            write_matrix()
        }
        Some(other) => Err(Error::Table(format!(
            "{other:?} is neither `schema`, `matrix` nor `bad`"
        ))),
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
