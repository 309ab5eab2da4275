//! The support matrix, written from the verdict tables.

use std::path::PathBuf;

use crate::sources::workspace_dir;

/// Where the matrix is checked in.
pub fn path() -> PathBuf {
    workspace_dir().join("docs/support-matrix.md")
}

/// The matrix as Markdown.
pub fn render() -> String {
    String::new()
}
