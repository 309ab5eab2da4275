//! The exchange of peer metadata over TCP (`envoy.tcp.metadataexchange.config.MetadataExchange`).

use bytes::Bytes;

use crate::workload::Labels;

/// What peers of a mesh send each other before the bytes of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataExchangeConfig {
    /// The protocol of ALPN that agrees on it.
    pub protocol: Box<[u8]>,
    /// Labels of the peer that are kept beside those that always are.
    pub labels: Labels,
    /// What is sent.
    pub preamble: Bytes,
}
