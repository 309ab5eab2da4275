//! What the proxy says of its version.
//!
//! Control planes and tools read Envoy's version out of these texts, so that they say
//! the release of Envoy whose API and behaviour this proxy has, in Envoy's shape; the
//! proxy's own name and version stand where Envoy has the name of its TLS library.

use xds_api::pb::envoy::config::core::v3::{BuildVersion, node::UserAgentVersionType};
use xds_api::pb::envoy::r#type::v3::SemanticVersion;
use xds_api::pb::google::protobuf::{Struct, Value, value::Kind};

/// The release of Envoy whose API and behaviour this proxy has.
const ENVOY: SemanticVersion = SemanticVersion {
    major_number: 1,
    minor_number: 40,
    patch: 0,
};

/// The commit that the binary was built from, as the build tells in the variable
/// `OUTRIGGER_REVISION`; zeros where it does not.
pub const REVISION: &str = match option_env!("OUTRIGGER_REVISION") {
    Some(revision) => revision,
    None => "0000000000000000000000000000000000000000",
};

/// The proxy itself.
const SELF: &str = concat!("Outrigger-", env!("CARGO_PKG_VERSION"));

const fn build_type() -> &'static str {
    if cfg!(debug_assertions) {
        "DEBUG"
    } else {
        "RELEASE"
    }
}

/// Revision, release, state of the tree, kind of build, and who it is.
pub fn full() -> String {
    let SemanticVersion {
        major_number,
        minor_number,
        patch,
    } = ENVOY;
    let build = build_type();
    format!("{REVISION}/{major_number}.{minor_number}.{patch}/Clean/{build}/{SELF}")
}

/// The first bytes of the revision as a number, for stat `server.version`.
pub fn gauge() -> i64 {
    let digits = REVISION.get(..6).unwrap_or_default();
    i64::from_str_radix(digits, 16).unwrap_or(0)
}

/// What the node says of the version.
pub fn of_node() -> UserAgentVersionType {
    let fields = [
        ("revision.sha", REVISION),
        ("revision.status", "Clean"),
        ("build.type", build_type()),
        ("ssl.version", SELF),
    ];
    let field = |(name, text): (&str, &str)| {
        let kind = Kind::StringValue(text.to_owned());
        (name.to_owned(), Value { kind: Some(kind) })
    };
    UserAgentVersionType::UserAgentBuildVersion(BuildVersion {
        version: Some(ENVOY),
        metadata: Some(Struct {
            fields: fields.into_iter().map(field).collect(),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_in_envoys_shape() {
        let text = full();
        let parts: Vec<&str> = text.split('/').collect();
        let [sha, release, "Clean", _, name] = parts[..] else {
            panic!("{text}")
        };
        assert_eq!((sha.len(), release), (40, "1.40.0"));
        assert!(name.starts_with("Outrigger-"));
    }
}
