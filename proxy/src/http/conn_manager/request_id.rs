//! `x-request-id`: a random UUID.

use filter_api::RuntimeSnapshot;
use outrigger_config::ir::{HcmConfig, TracingConfig};
use outrigger_types::{HeaderValue, RequestHead, StreamInfo, names};

/// Where Envoy writes into an id why a request is traced; `4`, which a random
/// UUID has there, means that it is not.
const TRACE_REASON: usize = 14;
const NOT_TRACED: u8 = b'4';
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
    note(head, info);
}

fn note(head: &RequestHead, info: &mut StreamInfo) {
    info.request_id = head
        .headers
        .get(&names::X_REQUEST_ID)
        .and_then(|id| std::str::from_utf8(id.as_bytes()).ok())
        .map(Into::into);
}

/// Writes into the id whether the request is traced, and why, as far as the shares in
/// force say so.
pub fn mark_traced(
    head: &mut RequestHead,
    info: &mut StreamInfo,
    tracing: &TracingConfig,
    runtime: &RuntimeSnapshot,
    random: u64,
) -> TraceReason {
    let id = head.headers.get(&names::X_REQUEST_ID);
    let Some((number, id)) = id.and_then(|id| Some((number_of(id.as_bytes())?, id))) else {
        return TraceReason::NotTraceable;
    };
    let before = TraceReason::of(id.as_bytes()[TRACE_REASON]);
    let mut reason = before;
    if reason == TraceReason::NotTraceable {
        if head.headers.contains(&names::X_CLIENT_TRACE_ID)
            && tracing.client.resolve(runtime).picks(random)
        {
            reason = TraceReason::ClientForced;
        } else if head.headers.contains(&names::X_ENVOY_FORCE_TRACE) {
            reason = TraceReason::ServiceForced;
        } else if tracing.random.resolve(runtime).picks(number) {
            reason = TraceReason::Sampling;
        }
    }
    if reason != TraceReason::NotTraceable && !tracing.overall.resolve(runtime).picks(number) {
        reason = TraceReason::NotTraceable;
    }
    if reason != before {
        let mut id = id.as_bytes().to_vec();
        id[TRACE_REASON] = reason.digit();
        if let Ok(id) = HeaderValue::from_maybe_shared(bytes::Bytes::from(id)) {
            head.headers.set(names::X_REQUEST_ID, id);
            note(head, info);
        }
    }
    reason
}

/// Why a request is traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceReason {
    /// It is not.
    NotTraceable,
    /// It was drawn.
    Sampling,
    /// By `x-envoy-force-trace`.
    ServiceForced,
    /// By `x-client-trace-id`.
    ClientForced,
}

impl TraceReason {
    fn of(digit: u8) -> Self {
        match digit {
            b'9' => Self::Sampling,
            b'a' => Self::ServiceForced,
            b'b' => Self::ClientForced,
            _ => Self::NotTraceable,
        }
    }

    fn digit(self) -> u8 {
        match self {
            Self::NotTraceable => NOT_TRACED,
            Self::Sampling => b'9',
            Self::ServiceForced => b'a',
            Self::ClientForced => b'b',
        }
    }
}

/// The number by which an id is sampled; none for what is no UUID.
fn number_of(id: &[u8]) -> Option<u64> {
    if id.len() != UUID_LEN {
        return None;
    }
    let first = std::str::from_utf8(id.get(..8)?).ok()?;
    Some(u64::from_str_radix(first, 16).ok()? % 10_000)
}

/// The id without a reason to trace, if it had one.
fn not_traced(id: &[u8]) -> Option<HeaderValue> {
    if id.len() != UUID_LEN || id[TRACE_REASON] == NOT_TRACED {
        return None;
    }
    let mut id = id.to_vec();
    id[TRACE_REASON] = NOT_TRACED;
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
