//! `x-request-id`: a random UUID.

use outrigger_config::ir::HcmConfig;
use outrigger_types::{HeaderValue, RequestHead, StreamInfo, names};

/// Where Envoy writes into an id why a request is traced; `4`, which a random
/// UUID has there, means that it is not.
const TRACE_REASON: usize = 14;
const UUID_LEN: usize = 36;

/// Makes sure that there is an id. One that comes from outside is replaced
/// unless it is to be kept.
pub(super) fn apply(
    head: &mut RequestHead,
    hcm: &HcmConfig,
    info: &mut StreamInfo,
    edge: bool,
    random: u64,
) {
    join(head);
    let old = head
        .headers
        .get(&names::X_REQUEST_ID)
        .filter(|id| !id.is_empty());
    if hcm.generate_request_id {
        match old.map(HeaderValue::as_bytes) {
            Some(id) if edge && hcm.preserve_external_request_id => {
                if let Some(id) = not_traced(id) {
                    head.headers.set(names::X_REQUEST_ID, id);
                }
            }
            Some(_) if !edge => {}
            _ => head.headers.set(names::X_REQUEST_ID, new_id(random)),
        }
    }
    info.request_id = head
        .headers
        .get(&names::X_REQUEST_ID)
        .and_then(|id| std::str::from_utf8(id.as_bytes()).ok())
        .map(Into::into);
}

/// Two lines are one, as Envoy reads them.
fn join(head: &mut RequestHead) {
    let joined = head.headers.joined(&names::X_REQUEST_ID);
    if let Some(std::borrow::Cow::Owned(all)) = joined
        && let Ok(all) = HeaderValue::from_bytes(&all)
    {
        head.headers.set(names::X_REQUEST_ID, all);
    }
}

/// The id without a reason to trace, if it had one.
fn not_traced(id: &[u8]) -> Option<HeaderValue> {
    if id.len() != UUID_LEN || id[TRACE_REASON] == b'4' {
        return None;
    }
    let mut id = id.to_vec();
    id[TRACE_REASON] = b'4';
    HeaderValue::from_maybe_shared(bytes::Bytes::from(id)).ok()
}

/// A UUID of version 4. `random` makes one half, so that shares that are drawn
/// by the stream's number and by its id are not the same draw twice.
fn new_id(random: u64) -> HeaderValue {
    let other = rand::random::<u64>();
    let high = (random & !0xf000) | 0x4000;
    let low = (other & !(0xc << 60)) | (0x8 << 60);
    let mut text = [b'-'; UUID_LEN];
    let mut at = 0;
    for (bits, digits) in [(high, 16), (low, 16)] {
        for digit in (0..digits).rev() {
            if matches!(at, 8 | 13 | 18 | 23) {
                at += 1;
            }
            text[at] = b"0123456789abcdef"[(bits >> (digit * 4)) as usize & 0xf];
            at += 1;
        }
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
