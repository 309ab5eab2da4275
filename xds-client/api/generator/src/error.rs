//! What can go wrong while generating.

/// Why nothing was generated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// `cargo metadata` did not tell where the message crate lies.
    #[error("cargo metadata: {0}")]
    Metadata(String),
    /// The additions file is wrong or does not fit the sources.
    #[error("additions.txt: {0}")]
    Additions(String),
    /// The `.proto` sources do not compile.
    #[error(transparent)]
    Proto(#[from] protox::Error),
    /// The schema does not fit the table's layout.
    #[error("table: {0}")]
    Table(String),
}

impl Error {
    /// An I/O error that names its file.
    pub(crate) fn io(path: &std::path::Path, source: std::io::Error) -> Self {
        Self::Io {
            path: path.display().to_string(),
            source,
        }
    }
}
