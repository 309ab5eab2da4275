//! HTTP: the codecs, and what stands on them.

pub mod codec;
pub mod codec_options;
pub mod codec_stats;
pub mod conn_manager;
pub mod filter_chain;
pub mod header_mutation;
pub mod stream;
