//! What formats and routes read of a stream: made up, the same every time.

use std::sync::Arc;
use std::time::Instant;

use outrigger_types::{Address, ConnectionInfo, StreamInfo};

/// The facts of a stream that has just begun.
pub(crate) fn info() -> StreamInfo {
    let address = |port| Address::Ip(([127, 0, 0, 1], port).into());
    let connection = ConnectionInfo {
        id: 1,
        local: address(80),
        direct_local: address(80),
        local_restored: false,
        remote: address(40_000),
        direct_remote: address(40_000),
        requested_server_name: "".into(),
        tls: Default::default(),
        transport_failure: Default::default(),
        start: Instant::now(),
        listener_name: "listener".into(),
        filter_chain_name: "".into(),
        listener_metadata: None,
        filter_chain_metadata: None,
        filter_state: Default::default(),
    };
    StreamInfo::new(Arc::new(connection), "".into())
}
