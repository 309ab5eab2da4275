//! The rules for the head of a response on its way out.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use outrigger_config::ir::{HcmConfig, ServerHeaderTransformation};
use outrigger_types::{
    HeaderName, HeaderValue, Headers, RequestHead, ResponseHead, StatusCode, names,
};

/// Makes a response fit for the client: `date`, `server`, no fields of the
/// upstream's connection, and the request's id where it is asked for. Closing
/// of connections is the codec's.
pub fn mutate(head: &mut ResponseHead, hcm: &HcmConfig, request: &RequestHead, is_local: bool) {
    if !head.headers.contains(&names::DATE) {
        head.headers.append(names::DATE, date());
    }
    write_server(&mut head.headers, hcm);
    let upgraded =
        !is_local && request.protocol.is_some() && head.status == StatusCode::SWITCHING_PROTOCOLS;
    remove_hop_by_hop(&mut head.headers, upgraded);
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

/// The answer of an HTTP/2 upstream to the extended CONNECT that an upgrade became, in
/// the words of HTTP/1: 200 takes the upgrade.
pub fn upgrade_from_http2(head: &mut ResponseHead, protocol: &bytes::Bytes) {
    if head.status != StatusCode::OK {
        return;
    }
    head.status = StatusCode::SWITCHING_PROTOCOLS;
    if let Ok(protocol) = HeaderValue::from_maybe_shared(protocol.clone()) {
        head.headers.set(names::UPGRADE, protocol);
    }
    head.headers
        .set(names::CONNECTION, HeaderValue::from_static("upgrade"));
}

/// The answer that takes an upgrade, in the words of HTTP/2.
pub fn upgrade_to_http2(head: &mut ResponseHead) {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        head.status = StatusCode::OK;
        head.headers.retain(|name, _| {
            *name != names::UPGRADE && *name != names::CONNECTION && *name != names::CONTENT_LENGTH
        });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::conn_manager::request::tests::{hcm, request};

    fn names_after(hcm: &HcmConfig, fields: &[(&str, &str)]) -> String {
        let mut head = ResponseHead::new(StatusCode::OK);
        head.headers = request("/", fields).headers;
        mutate(
            &mut head,
            hcm,
            &request("/", &[("x-request-id", "id")]),
            false,
        );
        let fields = head.headers.iter().filter(|(n, _)| **n != names::DATE);
        let fields = fields.map(|(n, v)| format!("{n}={}", v.to_str().unwrap()));
        fields.collect::<Vec<_>>().join("|")
    }

    #[test]
    fn the_server_names_itself_as_configured() {
        use ServerHeaderTransformation as Server;
        for (server, with, without) in [
            (Server::Overwrite, "server=me", "server=me"),
            (Server::AppendIfAbsent, "server=up", "server=me"),
            (Server::PassThrough, "server=up", ""),
        ] {
            let hcm = HcmConfig {
                server_header: server,
                server_name: "me".into(),
                ..hcm()
            };
            assert_eq!(names_after(&hcm, &[("server", "up")]), with);
            assert_eq!(names_after(&hcm, &[]), without);
        }
    }

    #[test]
    fn fields_of_the_upstreams_connection_end_here() {
        let fields = [
            ("connection", "keep-alive, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "1"),
            ("upgrade", "foo"),
            ("proxy-connection", "a"),
            ("te", "x"),
            ("via", "z"),
        ];
        let hcm = HcmConfig {
            via: "v".into(),
            always_set_request_id_in_response: true,
            ..hcm()
        };
        let expected = "x-hop=1|te=x|via=z, v|server=envoy|x-request-id=id";
        assert_eq!(names_after(&hcm, &fields), expected);
    }

    #[test]
    fn an_upgrade_is_told_in_the_words_of_each_protocol() {
        for (given, http1, http2) in [(200, 101, 200), (201, 201, 201), (403, 403, 403)] {
            let mut head = ResponseHead::new(StatusCode::from_u16(given).unwrap());
            upgrade_from_http2(&mut head, &"websocket".into());
            assert_eq!(head.status.as_u16(), http1);
            let named = head.headers.get_bytes(&names::UPGRADE);
            assert_eq!(named.is_some(), http1 == 101);
            upgrade_to_http2(&mut head);
            assert_eq!(head.status.as_u16(), http2);
            assert!(head.headers.is_empty());
        }
    }

    #[test]
    fn only_an_upgrade_that_was_taken_keeps_its_fields() {
        for (asked, status, kept) in [(true, 101, true), (true, 200, false), (false, 101, false)] {
            let mut request = request("/", &[]);
            request.protocol = asked.then(|| "websocket".into());
            let mut head = ResponseHead::new(StatusCode::from_u16(status).unwrap());
            head.headers
                .set(names::UPGRADE, HeaderValue::from_static("websocket"));
            mutate(&mut head, &hcm(), &request, false);
            assert_eq!(head.headers.contains(&names::UPGRADE), kept, "{status}");
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            assert_eq!(format_date(seconds).to_str().unwrap(), expected);
        }
    }
}
