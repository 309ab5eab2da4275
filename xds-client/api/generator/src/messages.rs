//! The prost code of the messages that the published crate lacks.

use std::collections::BTreeSet;
use std::path::PathBuf;

use prost_reflect::FileDescriptor;
use prost_types::FileDescriptorSet;

use crate::Error;
use crate::sources::{Sources, api_dir, read};

/// Overlay files that only the schema table needs.
const TABLE_ONLY: [&str; 2] = ["envoy/extensions/", "envoy/type/"];

/// What the published crate has already: packages, and messages of packages that the overlay adds to.
const EXTERNAL: [(&str, &str); 14] = [
    (".google.protobuf", "::envoy_types::pb::google::protobuf"),
    (".google.api", "::envoy_types::pb::google::api"),
    (".cel.expr", "::envoy_types::pb::cel::expr"),
    (".validate", "::envoy_types::pb::validate"),
    (".udpa.annotations", "::envoy_types::pb::udpa::annotations"),
    (".xds.annotations", "::envoy_types::pb::xds::annotations"),
    (".xds.core", "::envoy_types::pb::xds::core"),
    (
        ".xds.type.v3.CelExpression",
        "::envoy_types::pb::xds::r#type::v3::CelExpression",
    ),
    (
        ".xds.type.v3.CelExtractString",
        "::envoy_types::pb::xds::r#type::v3::CelExtractString",
    ),
    (
        ".xds.type.matcher.v3.Matcher",
        "::envoy_types::pb::xds::r#type::matcher::v3::Matcher",
    ),
    (
        ".xds.type.matcher.v3.Matcher.OnMatch",
        "::envoy_types::pb::xds::r#type::matcher::v3::matcher::OnMatch",
    ),
    (
        ".xds.type.matcher.v3.RegexMatcher",
        "::envoy_types::pb::xds::r#type::matcher::v3::RegexMatcher",
    ),
    (
        ".xds.type.matcher.v3.StringMatcher",
        "::envoy_types::pb::xds::r#type::matcher::v3::StringMatcher",
    ),
    (
        ".xds.type.matcher.v3.ListStringMatcher",
        "::envoy_types::pb::xds::r#type::matcher::v3::ListStringMatcher",
    ),
];

/// Folder of the checked-in code.
pub fn folder() -> PathBuf {
    api_dir().join("src/pb/generated")
}

/// File name and text of each generated module.
///
/// # Errors
/// When prost cannot write or name a type.
pub fn build(sources: &Sources) -> Result<Vec<(String, String)>, Error> {
    let wanted: Vec<FileDescriptor> = sources
        .pool
        .files()
        .filter(|file| sources.overlay.iter().any(|mine| mine == file.name()))
        .filter(|file| {
            !TABLE_ONLY
                .iter()
                .any(|prefix| file.name().starts_with(prefix))
        })
        .collect();
    let packages: BTreeSet<String> = wanted
        .iter()
        .map(|file| file.package_name().replace("type", "r#type") + ".rs")
        .collect();
    let file = closure(wanted)
        .iter()
        .map(|file| file.file_descriptor_proto().clone())
        .collect();
    let out = std::env::temp_dir().join(format!("xds-api-generator-{}", std::process::id()));
    std::fs::create_dir_all(&out).map_err(|error| Error::io(&out, error))?;
    let mut config = prost_build::Config::new();
    config
        .out_dir(&out)
        .btree_map(["."])
        .compile_well_known_types();
    for (proto, rust) in EXTERNAL {
        config.extern_path(proto, rust);
    }
    config
        .compile_fds(FileDescriptorSet { file })
        .map_err(|error| Error::io(&out, error))?;
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&out).map_err(|error| Error::io(&out, error))? {
        let path = entry.map_err(|error| Error::io(&out, error))?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if packages.contains(&name) {
            files.push((name, read(&path)?));
        }
    }
    std::fs::remove_dir_all(&out).map_err(|error| Error::io(&out, error))?;
    files.sort();
    Ok(files)
}

/// The files and all that they import.
fn closure(files: Vec<FileDescriptor>) -> Vec<FileDescriptor> {
    let mut known = BTreeSet::new();
    let mut all = Vec::new();
    let mut pending = files;
    while let Some(file) = pending.pop() {
        if known.insert(file.name().to_owned()) {
            pending.extend(file.dependencies());
            all.push(file);
        }
    }
    all
}
