//! gRPC's framing: what the statistics count.

use bytes::Bytes;
use outrigger_filters::http::grpc_stats::FrameCounter;
use outrigger_types::Buffer;

use crate::bytes::{first, pieces};

/// Messages are counted alike wherever the body is cut, and as the slow way does.
pub(crate) fn frames(data: &[u8]) {
    let (seed, body) = first(data);
    let mut counter = FrameCounter::default();
    let mut total = 0;
    let mut came = 0;
    for piece in pieces(body, seed) {
        total += counter.count(&Buffer::from(Bytes::copy_from_slice(piece)));
        came += piece.len();
        assert_eq!(total, messages(&body[..came]), "after {came} bytes");
    }
}

/// Messages of which the first byte is there.
fn messages(mut body: &[u8]) -> u64 {
    let mut count = 0;
    while !body.is_empty() {
        count += 1;
        let Some((header, rest)) = body.split_first_chunk::<5>() else {
            break;
        };
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        body = rest.get(length as usize..).unwrap_or_default();
    }
    count
}
