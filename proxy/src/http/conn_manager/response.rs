//! The rules for the head of a response on its way out.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use outrigger_config::ir::{HcmConfig, ServerHeaderTransformation};
use outrigger_types::{
    HeaderName, HeaderValue, Headers, Protocol, RequestHead, ResponseHead, StatusCode, StreamInfo,
    names,
};

/// Makes a response fit for the client: `date`, `server`, no fields of the
/// upstream's connection, and the request's id where it is asked for. Closing
/// of connections is the codec's.
pub fn mutate(
    head: &mut ResponseHead,
    hcm: &HcmConfig,
    request: &RequestHead,
    info: &StreamInfo,
    is_local: bool,
) {
    if !head.headers.contains(&names::DATE) {
        head.headers.append(names::DATE, date());
    }
    write_server(&mut head.headers, hcm);
    let upgraded = !is_local && takes_upgrade(head, request, info);
    remove_hop_by_hop(&mut head.headers, upgraded);
    if upgraded {
        finish_upgrade(head, request, info);
    }
    if (hcm.always_set_request_id_in_response
        || request.headers.contains(&names::X_ENVOY_FORCE_TRACE))
        && let Some(id) = request.headers.get(&names::X_REQUEST_ID)
    {
        head.headers.set(names::X_REQUEST_ID, id.clone());
    }
    if !hcm.via.is_empty() {
        append_via(&mut head.headers, &hcm.via);
    }
}

/// Appends to `via`, joined with what is there.
pub(super) fn append_via(headers: &mut Headers, via: &str) {
    let value = match headers.joined(&names::VIA) {
        Some(old) if !old.is_empty() => [&*old, b", ", via.as_bytes()].concat(),
        _ => via.as_bytes().to_vec(),
    };
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(value)) {
        headers.set(names::VIA, value);
    }
}

fn write_server(headers: &mut Headers, hcm: &HcmConfig) {
    let writes = match hcm.server_header {
        ServerHeaderTransformation::Overwrite => true,
        ServerHeaderTransformation::AppendIfAbsent => !headers.contains(&names::SERVER),
        ServerHeaderTransformation::PassThrough => false,
    };
    if writes {
        headers.set(names::SERVER, server_value(&hcm.server_name));
    }
}

/// The server's name as a value; the one of all HCMs by default costs nothing.
fn server_value(name: &str) -> HeaderValue {
    match name {
        "envoy" => HeaderValue::from_static("envoy"),
        name => HeaderValue::from_str(name).unwrap_or_else(|_| HeaderValue::from_static("envoy")),
    }
}

/// Whether the upstream takes the upgrade that was asked for: HTTP/2 says so
/// with a 200 to the extended CONNECT.
fn takes_upgrade(head: &ResponseHead, request: &RequestHead, info: &StreamInfo) -> bool {
    request.protocol.is_some()
        && match info.upstream.protocol {
            Some(Protocol::Http2) => head.status == StatusCode::OK,
            _ => head.status == StatusCode::SWITCHING_PROTOCOLS,
        }
}

/// Fields that are between the upstream and this proxy.
fn remove_hop_by_hop(headers: &mut Headers, upgraded: bool) {
    let removed = |name: &HeaderName| match name.as_str() {
        "connection" | "upgrade" => !upgraded,
        "transfer-encoding" | "keep-alive" | "proxy-connection" => true,
        _ => false,
    };
    if headers.iter().any(|(name, _)| removed(name)) {
        headers.retain(|name, _| !removed(name));
    }
}

/// Says that the upgrade was taken in the words of the client's protocol.
fn finish_upgrade(head: &mut ResponseHead, request: &RequestHead, info: &StreamInfo) {
    if info.protocol == Some(Protocol::Http2) {
        head.status = StatusCode::OK;
        head.headers.retain(|name, _| {
            *name != names::UPGRADE && *name != names::CONNECTION && *name != names::CONTENT_LENGTH
        });
    } else if info.upstream.protocol == Some(Protocol::Http2) {
        head.status = StatusCode::SWITCHING_PROTOCOLS;
        let protocol = request.protocol.clone().unwrap_or_default();
        if let Ok(protocol) = HeaderValue::from_maybe_shared(protocol) {
            head.headers.set(names::UPGRADE, protocol);
        }
        head.headers
            .set(names::CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

thread_local! {
    static DATE: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) };
}

/// The time as `date` writes it, formatted once a second.
fn date() -> HeaderValue {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    DATE.with_borrow_mut(|(second, text)| {
        if *second != now {
            *second = now;
            *text = format_date(now);
        }
        text.clone()
    })
}

/// Seconds of Unix time as RFC 9110's IMF-fixdate.
fn format_date(seconds: u64) -> HeaderValue {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let text = format!(
        "{}, {day:02} {} {year} {:02}:{:02}:{:02} GMT",
        DAYS[(days % 7) as usize],
        MONTHS[month],
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60,
    );
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Year, month from 0 and day from 1 of a day since 1970. Years begin in March
/// in here, so that the leap day is the last one.
fn civil(days: u64) -> (u64, usize, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = (month + 2) % 12;
    (era * 400 + year + u64::from(month < 2), month as usize, day)
}
