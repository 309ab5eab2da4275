//! From the text of a bootstrap file to the bytes of `envoy.config.bootstrap.v3.Bootstrap`.

use thiserror::Error;

use crate::json::{self, JsonError};
use crate::text::{self, Format, TextError};

/// Full name of the message.
pub const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

/// How to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether names that the schema does not know are reported instead of refused
    /// (`--allow-unknown-static-fields`).
    pub allow_unknown: bool,
}

/// A bootstrap file.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// What it is written in.
    pub format: Format,
    /// What it says.
    pub bytes: &'a [u8],
}

impl<'a> File<'a> {
    /// The file of that name, which decides its format.
    pub fn named(path: &str, bytes: &'a [u8]) -> Self {
        Self {
            format: Format::of_path(path),
            bytes,
        }
    }
}

/// A bootstrap that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The message on the wire.
    pub bytes: Vec<u8>,
    /// Names that the schema does not know. They are not in `bytes`.
    pub unknown: Vec<JsonError>,
}

/// Why a bootstrap was not read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LoadError {
    /// The text is no YAML or JSON.
    #[error(transparent)]
    Syntax(#[from] TextError),
    /// A value does not fit its field, or a name is unknown.
    #[error(transparent)]
    Value(#[from] JsonError),
    /// The file is no text.
    #[error("not UTF-8")]
    Utf8,
    /// The format is not supported.
    #[error("protobuf text format is not supported; use YAML or JSON")]
    Format,
    /// Neither a file nor an overlay.
    #[error("at least one of --config-path and --config-yaml must be given")]
    Nothing,
}

/// Reads a bootstrap file and the overlay of `--config-yaml`, which is merged over it as protobuf merges messages:
/// single values are replaced, lists are appended to, messages are merged.
///
/// # Errors
/// When either cannot be read, or holds a name that the schema does not know and `options` do not allow that.
pub fn load(
    file: Option<File<'_>>,
    overlay_yaml: Option<&str>,
    options: Options,
) -> Result<Loaded, LoadError> {
    let mut loaded = Loaded::default();
    if file.is_none() && overlay_yaml.is_none() {
        return Err(LoadError::Nothing);
    }
    if let Some(file) = file {
        add_file(&mut loaded, file)?;
    }
    if let Some(yaml) = overlay_yaml {
        add_json(&mut loaded, &text::parse_yaml(yaml)?)?;
        if file.is_some_and(|file| file.format != Format::Binary) {
            // Written anew, so that what the overlay replaced is gone.
            loaded.bytes =
                json::from_json(BOOTSTRAP, &json::to_json(BOOTSTRAP, &loaded.bytes)?)?.bytes;
        }
    }
    match loaded.unknown.first() {
        Some(first) if !options.allow_unknown => Err(LoadError::Value(first.clone())),
        _ => Ok(loaded),
    }
}

fn add_file(loaded: &mut Loaded, file: File<'_>) -> Result<(), LoadError> {
    let text = || std::str::from_utf8(file.bytes).map_err(|_| LoadError::Utf8);
    match file.format {
        Format::Yaml => add_json(loaded, &text::parse_yaml(text()?)?),
        Format::Json => add_json(loaded, &text::parse_json(text()?)?),
        Format::Binary => {
            loaded.bytes.extend_from_slice(file.bytes);
            Ok(())
        }
        Format::ProtoText => Err(LoadError::Format),
    }
}

/// One message behind the other is the message merged.
fn add_json(loaded: &mut Loaded, value: &serde_json::Value) -> Result<(), LoadError> {
    let parsed = json::from_json(BOOTSTRAP, value)?;
    loaded.bytes.extend_from_slice(&parsed.bytes);
    loaded.unknown.extend(parsed.unknown);
    Ok(())
}
