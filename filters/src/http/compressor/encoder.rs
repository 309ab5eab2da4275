//! The libraries that compress: gzip, brotli and zstd.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::GzEncoder;
use outrigger_types::Buffer;

/// Which library, and how it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Library {
    /// RFC 1952.
    Gzip {
        /// 1 to 9, the more the smaller.
        level: u32,
    },
    /// RFC 7932.
    Brotli {
        /// 0 to 11, the more the smaller.
        quality: u32,
        /// Logarithm of the window's size.
        window: u32,
    },
    /// RFC 8878.
    Zstd {
        /// 1 to 22, the more the smaller.
        level: i32,
        /// Ends with a checksum.
        checksum: bool,
    },
}

impl Library {
    /// The name in `content-encoding`.
    pub(super) const fn encoding(self) -> &'static str {
        match self {
            Self::Gzip { .. } => "gzip",
            Self::Brotli { .. } => "br",
            Self::Zstd { .. } => "zstd",
        }
    }

    /// The name in stats.
    pub(super) const fn stat_name(self) -> &'static str {
        match self {
            Self::Gzip { .. } => "gzip",
            Self::Brotli { .. } => "brotli",
            Self::Zstd { .. } => "zstd",
        }
    }
}

/// Compresses one body.
pub(super) enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

/// Bytes that brotli collects before it works on them.
const BROTLI_CHUNK: usize = 4096;

impl Encoder {
    /// An encoder with nothing written.
    ///
    /// # Errors
    /// When the library has no memory.
    pub(super) fn new(library: Library) -> io::Result<Self> {
        Ok(match library {
            Library::Gzip { level } => {
                let level = flate2::Compression::new(level);
                Self::Gzip(GzEncoder::new(Vec::new(), level))
            }
            Library::Brotli { quality, window } => {
                let made = brotli::CompressorWriter::new(Vec::new(), BROTLI_CHUNK, quality, window);
                Self::Brotli(Box::new(made))
            }
            Library::Zstd { level, checksum } => {
                let mut made = zstd::stream::write::Encoder::new(Vec::new(), level)?;
                made.include_checksum(checksum)?;
                Self::Zstd(made)
            }
        })
    }

    /// Compresses a piece, all of which can be read at once by who gets the answer.
    ///
    /// # Errors
    /// The library's.
    pub(super) fn compress(&mut self, data: &Buffer) -> io::Result<Bytes> {
        for chunk in data.chunks() {
            self.writer().write_all(chunk)?;
        }
        self.writer().flush()?;
        Ok(std::mem::take(self.output()).into())
    }

    /// Compresses what is left, and ends.
    ///
    /// # Errors
    /// The library's.
    pub(super) fn finish(mut self, data: &Buffer) -> io::Result<Bytes> {
        for chunk in data.chunks() {
            self.writer().write_all(chunk)?;
        }
        let output = match self {
            Self::Gzip(encoder) => encoder.finish()?,
            // It ends with its writer.
            Self::Brotli(encoder) => encoder.into_inner(),
            Self::Zstd(encoder) => encoder.finish()?,
        };
        Ok(output.into())
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Gzip(encoder) => encoder,
            Self::Brotli(encoder) => &mut **encoder,
            Self::Zstd(encoder) => encoder,
        }
    }

    fn output(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn read(library: Library, compressed: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        match library {
            Library::Gzip { .. } => {
                let mut decoder = flate2::read::MultiGzDecoder::new(compressed);
                decoder.read_to_end(&mut text).unwrap();
            }
            Library::Brotli { .. } => {
                let mut decoder = brotli::Decompressor::new(compressed, 4096);
                decoder.read_to_end(&mut text).unwrap();
            }
            Library::Zstd { .. } => text = zstd::stream::decode_all(compressed).unwrap(),
        }
        text
    }

    const LIBRARIES: [Library; 3] = [
        Library::Gzip { level: 6 },
        Library::Brotli {
            quality: 3,
            window: 18,
        },
        Library::Zstd {
            level: 3,
            checksum: true,
        },
    ];

    #[test]
    fn what_is_compressed_in_pieces_is_the_whole() {
        for library in LIBRARIES {
            let mut encoder = Encoder::new(library).unwrap();
            let mut all = Vec::new();
            let mut text = Vec::new();
            for piece in ["one ", "", "two ", &"three ".repeat(1000)] {
                let compressed = encoder.compress(&Buffer::from(Bytes::from(piece.to_owned())));
                all.extend_from_slice(&compressed.unwrap());
                text.extend_from_slice(piece.as_bytes());
            }
            let rest = Buffer::from(Bytes::from_static(b"end"));
            all.extend_from_slice(&encoder.finish(&rest).unwrap());
            text.extend_from_slice(b"end");
            assert!(all.len() < text.len());
            assert_eq!(read(library, &all), text, "{library:?}");
        }
    }

    #[test]
    fn nothing_is_something_too() {
        for library in LIBRARIES {
            let encoder = Encoder::new(library).unwrap();
            let all = encoder.finish(&Buffer::new()).unwrap();
            assert_eq!(read(library, &all), b"", "{library:?}");
        }
    }
}
