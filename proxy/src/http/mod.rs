//! HTTP: the codecs, and what stands on them.

pub mod codec;
