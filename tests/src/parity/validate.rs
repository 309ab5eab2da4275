//! Cases that compare only what `--mode validate` says of a bootstrap.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::run::Binaries;
use super::template::{self, Config};
use crate::proxy;

/// A bootstrap and what is known of its verdict.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// What it is.
    pub name: String,
    /// The bootstrap.
    #[serde(default)]
    pub config: Config,
    /// The file instead, as text.
    #[serde(default)]
    pub text: Option<String>,
    /// The exit status that Envoy must give, 0 when unset.
    #[serde(default)]
    pub exit: i32,
    /// What Outrigger's message must contain when it refuses: the field.
    #[serde(default)]
    pub names: Option<String>,
    /// Why Outrigger refuses what Envoy takes.
    #[serde(default)]
    pub differs: Option<String>,
    /// More command-line arguments.
    #[serde(default)]
    pub args: Vec<String>,
}

/// Compares one verdict; the text says what is wrong, if anything.
pub async fn check(verdict: &Verdict, binaries: &Binaries, dir: &Path) -> String {
    match outcome(verdict, binaries, dir).await {
        Ok(()) => String::new(),
        Err(e) => format!("  {}: {e}\n", verdict.name),
    }
}

async fn outcome(verdict: &Verdict, binaries: &Binaries, dir: &Path) -> Result<(), String> {
    let file = dir.join("bootstrap.yaml");
    let text = match &verdict.text {
        Some(text) => text.clone(),
        None => verdict.config.bootstrap(&BTreeMap::new())?.to_string(),
    };
    let values =
        ["admin", "listener.a", "upstream.a", "upstream.b"].map(|n| (n.to_owned(), "0".to_owned()));
    let mut values = BTreeMap::from(values);
    values.insert("log".to_owned(), "/dev/null".to_owned());
    std::fs::write(&file, template::fill(&text, &values)).map_err(|e| e.to_string())?;
    let mut args: Vec<String> = ["--mode", "validate", "--disable-hot-restart", "-c"]
        .map(str::to_owned)
        .into();
    args.push(file.to_string_lossy().into_owned());
    args.extend(verdict.args.iter().cloned());
    let envoy = run(&binaries.envoy, &args).await?;
    if envoy.0 != verdict.exit {
        return Err(format!(
            "envoy exits {}, the case says {}\n{}",
            envoy.0, verdict.exit, envoy.1
        ));
    }
    let ours = run(&binaries.subject, &args).await?;
    if verdict.differs.is_some() && !binaries.same() {
        return match (envoy.0, ours.0) {
            (0, 1) => Ok(()),
            _ => Err("listed under `differs` but does not differ".to_owned()),
        };
    }
    if ours.0 != envoy.0 {
        return Err(format!(
            "envoy exits {}, outrigger {}\n    envoy: {}\n    outrigger: {}",
            envoy.0, ours.0, envoy.1, ours.1
        ));
    }
    match &verdict.names {
        Some(field) if !binaries.same() && !ours.1.contains(field) => {
            Err(format!("the message does not name {field:?}: {}", ours.1))
        }
        _ => Ok(()),
    }
}

async fn run(binary: &Path, args: &[String]) -> Result<(i32, String), String> {
    let done = proxy::finish(binary, args)
        .await
        .map_err(|e| format!("{}: {e}", binary.display()))?;
    let lines: Vec<&str> = done
        .output
        .lines()
        .filter(|l| !l.contains("[info]"))
        .collect();
    let tail = lines[lines.len().saturating_sub(6)..].join("\n      ");
    Ok((done.status.code().unwrap_or(-1), tail))
}
