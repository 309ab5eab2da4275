//! Where the `.proto` sources are, and how they become one descriptor pool.
//!
//! The published message crate ships Envoy's sources; ours lie in `xds-client/api/proto`: whole files that it lacks,
//! and `additions.txt`, the handful of fields by which Envoy 1.40 differs from it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost_reflect::DescriptorPool;
use protox::Compiler;
use protox::file::{
    ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver,
};

use crate::Error;

/// The crate whose `.proto` sources are the base of the schema.
const MESSAGE_CRATE: &str = "envoy-types";

/// Source folders of the message crate, relative to its root.
const INCLUDES: [&str; 8] = [
    "proto/data-plane-api",
    "proto/xds",
    "proto/protoc-gen-validate",
    "proto/googleapis",
    "proto/opentelemetry-proto",
    "proto/client_model",
    "proto/cel-spec/proto",
    "proto/ratelimit",
];

/// Packages below `envoy.extensions.common` that are referred to as `common.…`.
const COMMON: [&str; 5] = [
    "async_files",
    "aws",
    "dynamic_forward_proxy",
    "ratelimit",
    "tap",
];

/// Folder of package `xds-api`, which holds what is generated.
pub fn api_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default()
}

/// Root folder of the workspace.
pub fn workspace_dir() -> PathBuf {
    api_dir()
        .ancestors()
        .nth(2)
        .map(Path::to_path_buf)
        .unwrap_or_default()
}

/// Reads a file as text, naming it when that fails.
pub(crate) fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|error| Error::io(path, error))
}

/// This machine's target triple: crates of other platforms need not be at hand.
fn host() -> Result<String, Error> {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let output = Command::new(rustc)
        .arg("-vV")
        .output()
        .map_err(|error| Error::Metadata(error.to_string()))?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| line.strip_prefix("host: ").map(str::to_owned))
        .ok_or_else(|| Error::Metadata("rustc does not name its host".to_owned()))
}

/// Root of the message crate's sources, as Cargo knows it.
fn message_crate_dir() -> Result<PathBuf, Error> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--offline",
            "--filter-platform",
            &host()?,
            "--manifest-path",
        ])
        .arg(workspace_dir().join("Cargo.toml"))
        .output()
        .map_err(|error| Error::Metadata(error.to_string()))?;
    if !output.status.success() {
        return Err(Error::Metadata(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| Error::Metadata(error.to_string()))?;
    let manifest = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == MESSAGE_CRATE)
        .and_then(|package| package["manifest_path"].as_str())
        .ok_or_else(|| Error::Metadata(format!("no package {MESSAGE_CRATE}")))?;
    Ok(Path::new(manifest)
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default())
}

/// One amendment of a source file.
enum Amendment {
    Import(String),
    Message { path: Vec<String>, text: String },
    Top(String),
    Replace { old: String, new: String },
}

/// The amendments by source file.
struct Additions(BTreeMap<String, Vec<Amendment>>);

impl Additions {
    fn parse(text: &str) -> Result<Self, Error> {
        let mut files: BTreeMap<String, Vec<Amendment>> = BTreeMap::new();
        let mut current: Option<String> = None;
        for (index, line) in text.lines().enumerate() {
            let bad = |what: &str| Error::Additions(format!("line {}: {what}", index + 1));
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(file) = line.strip_prefix("file ") {
                files.entry(file.to_owned()).or_default();
                current = Some(file.to_owned());
                continue;
            }
            let file = current.as_ref().ok_or_else(|| bad("no file named yet"))?;
            let amendments = files.entry(file.clone()).or_default();
            if line.starts_with("  ") {
                match amendments.last_mut() {
                    Some(Amendment::Message { text, .. } | Amendment::Top(text)) => {
                        text.push_str(line);
                        text.push('\n');
                    }
                    _ => return Err(bad("text belongs to no message")),
                }
            } else {
                amendments.push(Amendment::parse(line).ok_or_else(|| bad("unknown word"))?);
            }
        }
        Ok(Self(files))
    }

    /// The amended text of `name`, or `source` as it is.
    fn apply(&self, name: &str, mut source: String) -> Result<String, Error> {
        for amendment in self.0.get(name).into_iter().flatten() {
            amendment
                .apply(&mut source)
                .map_err(|what| Error::Additions(format!("{name}: {what}")))?;
        }
        Ok(source)
    }
}

impl Amendment {
    fn parse(line: &str) -> Option<Self> {
        if let Some(path) = line.strip_prefix("import ") {
            return Some(Self::Import(path.to_owned()));
        }
        if let Some(path) = line.strip_prefix("message ") {
            let path = path.split('.').map(str::to_owned).collect();
            return Some(Self::Message {
                path,
                text: String::new(),
            });
        }
        if let Some((old, new)) = line
            .strip_prefix("replace ")
            .and_then(|rest| rest.split_once(" => "))
        {
            return Some(Self::Replace {
                old: old.to_owned(),
                new: new.to_owned(),
            });
        }
        (line == "top").then(|| Self::Top(String::new()))
    }

    fn apply(&self, source: &mut String) -> Result<(), String> {
        match self {
            Self::Import(path) => {
                let at = source
                    .find("\nimport ")
                    .ok_or("no import to stand beside")?;
                source.insert_str(at + 1, &format!("import \"{path}\";\n"));
            }
            Self::Message { path, text } => {
                let at = body_of(source, path)
                    .ok_or_else(|| format!("no message {}", path.join(".")))?;
                source.insert_str(at, &format!("\n{text}"));
            }
            Self::Top(text) => source.push_str(&format!("\n{text}")),
            Self::Replace { old, new } => {
                if !source.contains(old.as_str()) {
                    return Err(format!("{old:?} does not occur"));
                }
                *source = source.replace(old.as_str(), new);
            }
        }
        Ok(())
    }
}

/// Offset just behind the opening brace of the nested message `path`.
fn body_of(source: &str, path: &[String]) -> Option<usize> {
    let mut at = 0;
    for name in path {
        let opening = format!("message {name} {{");
        at += source.get(at..)?.find(&opening)? + opening.len();
    }
    Some(at)
}

/// Resolves the message crate's files, amended.
struct AmendedFiles {
    includes: Vec<IncludeFileResolver>,
    additions: Additions,
}

impl FileResolver for AmendedFiles {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        for include in &self.includes {
            match include.open_file(name) {
                Ok(file) => {
                    let source = qualified(file.source().unwrap_or_default());
                    let source = self
                        .additions
                        .apply(name, source)
                        .map_err(protox::Error::new)?;
                    return File::from_source(name, &source);
                }
                Err(error) if error.is_file_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Err(protox::Error::file_not_found(name))
    }
}

/// The source with those names spelled out that would be taken for another package: the compiler looks among all
/// loaded packages, not only the imported ones, so `common` within `envoy.extensions.filters` is ambiguous.
fn qualified(source: &str) -> String {
    COMMON.iter().fold(source.to_owned(), |source, package| {
        source.replace(
            &format!(" common.{package}.v3."),
            &format!(" .envoy.extensions.common.{package}.v3."),
        )
    })
}

/// Every `.proto` below `root`, relative to it, sorted.
fn proto_files(root: &Path) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|error| Error::io(&folder, error))?;
        for entry in entries {
            let path = entry.map_err(|error| Error::io(&folder, error))?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "proto")
            {
                found.push(
                    path.strip_prefix(root)
                        .unwrap_or(&path)
                        .to_string_lossy()
                        .into_owned(),
                );
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Files of the data plane API that can be a root of the schema.
fn is_root(name: &str) -> bool {
    [
        "envoy/config/",
        "envoy/extensions/",
        "envoy/admin/v3/",
        "envoy/service/",
        "envoy/data/",
        "envoy/type/",
    ]
    .iter()
    .any(|prefix| name.starts_with(prefix))
        && name != RENAMED
}

/// A file of the published crate that Envoy 1.40 has under another name, with the same values.
const RENAMED: &str = "envoy/type/ai/v3/api_protocol.proto";

/// Files whose package hides another one behind a relative name (`config.core` within `envoy.extensions`). Nothing
/// imports them, so they come last.
const SHADOWING: [&str; 1] = ["envoy/extensions/config/"];

/// The compiled schema: the message crate's sources, amended, and the overlay.
pub struct Sources {
    /// Every message, enum and option.
    pub pool: DescriptorPool,
    /// The overlay's own files, by path.
    pub overlay: Vec<String>,
}

/// Compiles everything.
///
/// # Errors
/// When a source is missing, an amendment does not fit, or a file does not compile.
pub fn compile() -> Result<Sources, Error> {
    let overlay_dir = api_dir().join("proto");
    let additions = Additions::parse(&read(&overlay_dir.join("additions.txt"))?)?;
    let base = message_crate_dir()?;
    let overlay = proto_files(&overlay_dir)?;
    let mut roots = proto_files(&base.join(INCLUDES[0]))?;
    roots.retain(|name| is_root(name));
    roots.sort_by_key(|name| SHADOWING.iter().any(|prefix| name.starts_with(prefix)));

    let mut resolver = ChainFileResolver::new();
    resolver.add(IncludeFileResolver::new(overlay_dir));
    let includes = INCLUDES
        .iter()
        .map(|include| IncludeFileResolver::new(base.join(include)))
        .collect();
    resolver.add(AmendedFiles {
        includes,
        additions,
    });
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    for name in roots.iter().chain(&overlay) {
        compiler.open_file(name)?;
    }
    Ok(Sources {
        pool: compiler.descriptor_pool(),
        overlay,
    })
}
