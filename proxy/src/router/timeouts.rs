//! The timeouts of one request: from the route, `grpc-timeout` and the
//! `x-envoy-*` headers. Follows Envoy's router filter page.

use std::time::Duration;

use outrigger_config::ir::{ForwardConfig, RetryPolicyConfig};
use outrigger_types::{HeaderName, HeaderValue, Headers, RequestHead, names};

/// What applies to one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Whole response, from the end of the request; none for any time.
    pub global: Option<Duration>,
    /// One attempt.
    pub per_try: Option<Duration>,
    /// Pause within one attempt.
    pub per_try_idle: Option<Duration>,
    /// Life of the stream, from `max_stream_duration` and `grpc-timeout`.
    pub max_duration: Option<Duration>,
    /// Life of one attempt, in place of the cluster's; zero for any time.
    pub attempt_duration: Option<Duration>,
}

impl Timeouts {
    /// What an attempt may expect to have: the whole less what has passed, at least a
    /// millisecond.
    fn expected(&self, elapsed: Duration) -> Option<Duration> {
        let expected = self.per_try.or(self.global)?;
        let left = self.global.map(|g| g.saturating_sub(elapsed));
        Some(left.map_or(expected, |left| {
            expected.min(left).max(Duration::from_millis(1))
        }))
    }
}

/// Milliseconds in a header; a malformed value counts as absent.
fn millis(headers: &Headers, name: &HeaderName) -> Option<Duration> {
    let text = std::str::from_utf8(headers.get_bytes(name)?).ok()?;
    text.parse().ok().map(Duration::from_millis)
}

/// Reads `grpc-timeout`: at most eight digits and a unit.
pub fn grpc_timeout(headers: &Headers) -> Option<Duration> {
    let value = headers.get_bytes(&names::GRPC_TIMEOUT)?;
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(n * 3600),
        b'M' => Duration::from_secs(n * 60),
        b'S' => Duration::from_secs(n),
        b'm' => Duration::from_millis(n),
        b'u' => Duration::from_micros(n),
        b'n' => Duration::from_nanos(n),
        _ => return None,
    })
}

/// Writes a duration as `grpc-timeout`: milliseconds, or a larger unit when
/// they need more than eight digits.
pub fn to_grpc_timeout(timeout: Duration) -> HeaderValue {
    let mut n = timeout.as_millis();
    for unit in ["m", "S", "M", "H"] {
        if n <= 99_999_999 || unit == "H" {
            let text = format!("{}{unit}", n.min(99_999_999));
            return HeaderValue::try_from(text).expect("digits and a letter");
        }
        n /= if unit == "m" { 1000 } else { 60 };
    }
    unreachable!("the last unit always fits")
}

/// A `grpc-timeout` capped, less the offset; a cap of zero is none.
fn capped(timeout: Duration, max: Duration, offset: Option<Duration>) -> Duration {
    let timeout = if !max.is_zero() && timeout > max {
        max
    } else {
        timeout
    };
    timeout.saturating_sub(offset.unwrap_or_default())
}

/// The deprecated `max_grpc_timeout`: no header means the cap, or for ever.
fn of_max_grpc_timeout(head: &RequestHead, max: Duration, offset: Option<Duration>) -> Duration {
    match grpc_timeout(&head.headers) {
        Some(asked) if !asked.is_zero() => {
            let less = asked.saturating_sub(offset.unwrap_or_default());
            let asked = if less.is_zero() { asked } else { less };
            if !max.is_zero() && asked > max {
                max
            } else {
                asked
            }
        }
        _ => max,
    }
}

/// The life of the stream: a `grpc-timeout` where the route takes it, else the
/// route's own, else the HCM's.
fn stream_duration(
    forward: &ForwardConfig,
    head: &RequestHead,
    hcm: Option<Duration>,
) -> Option<Duration> {
    let config = forward.max_stream_duration.unwrap_or_default();
    match (grpc_timeout(&head.headers), config.grpc_timeout_header_max) {
        (Some(asked), Some(max)) => Some(capped(asked, max, config.grpc_timeout_header_offset)),
        _ => match config.max_stream_duration {
            Some(own) => Some(own).filter(|d| !d.is_zero()),
            None => hcm,
        },
    }
}

/// The timeouts of a request. The headers that ask for them were already
/// removed if the request may not use them.
pub fn of_request(
    forward: &ForwardConfig,
    retry: Option<&RetryPolicyConfig>,
    head: &RequestHead,
    hcm_max_duration: Option<Duration>,
    respect_expected: bool,
) -> Timeouts {
    // A route with `max_stream_duration` has no timeout of the old kind.
    let mut global = match (forward.max_stream_duration, forward.max_grpc_timeout) {
        (Some(_), _) => None,
        (None, Some(max)) if head.is_grpc() => {
            Some(of_max_grpc_timeout(head, max, forward.grpc_timeout_offset))
        }
        (None, _) => forward.timeout,
    };
    let mut per_try = retry.and_then(|r| r.per_try_timeout);
    if let Some(asked) = millis(&head.headers, &asked_by(head, respect_expected)) {
        global = Some(asked);
    }
    if let Some(asked) = millis(
        &head.headers,
        &names::X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS,
    ) {
        per_try = Some(asked);
    }
    global = global.filter(|t| !t.is_zero());
    per_try = per_try.filter(|t| !t.is_zero());
    // A try that may last longer than the whole is bounded by the whole alone.
    if global.is_some() && per_try >= global {
        per_try = None;
    }
    Timeouts {
        global,
        per_try,
        per_try_idle: retry.and_then(|r| r.per_try_idle_timeout),
        max_duration: stream_duration(forward, head, hcm_max_duration),
        attempt_duration: millis(&head.headers, &names::X_ENVOY_UPSTREAM_STREAM_DURATION_MS),
    }
}

/// The field that asks for the timeout of the whole response.
fn asked_by(head: &RequestHead, respect_expected: bool) -> HeaderName {
    let expected = names::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS;
    if respect_expected && head.headers.contains(&expected) {
        expected
    } else {
        names::X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS
    }
}

/// Removes the fields that asked for the timeouts. One that was not looked at goes
/// on upstream, as in Envoy.
pub fn strip(head: &mut RequestHead, respect_expected: bool) {
    let asked = asked_by(head, respect_expected);
    if asked != names::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS {
        head.headers.remove(&asked);
    }
    head.headers
        .remove(&names::X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS);
    head.headers
        .remove(&names::X_ENVOY_UPSTREAM_STREAM_DURATION_MS);
}

/// Tells the upstream how long it has: `x-envoy-expected-rq-timeout-ms` where
/// `insert_expected`, and `grpc-timeout` of the older kind. `elapsed` has passed since the request was
/// complete; none of it has for a first attempt.
pub fn announce(
    timeouts: &Timeouts,
    forward: &ForwardConfig,
    head: &mut RequestHead,
    insert_expected: bool,
    elapsed: Duration,
) {
    let expected = timeouts.expected(elapsed);
    if let (true, Some(expected)) = (insert_expected, expected) {
        let value = HeaderValue::from(u64::try_from(expected.as_millis()).unwrap_or(u64::MAX));
        head.headers
            .set(names::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, value);
    }
    let old_kind = forward.max_stream_duration.is_none() && forward.max_grpc_timeout.is_some();
    if let (true, true, Some(expected)) = (old_kind, head.is_grpc(), expected) {
        head.headers
            .set(names::GRPC_TIMEOUT, to_grpc_timeout(expected));
    }
}

/// Tells a gRPC upstream by `grpc-timeout` how long the stream lives, if the route says
/// anything of it. What a route allows for ever although the HCM (`hcm_max_duration`)
/// would not, has no `grpc-timeout`.
pub fn announce_life(
    timeouts: &Timeouts,
    forward: &ForwardConfig,
    head: &mut RequestHead,
    hcm_max_duration: Option<Duration>,
) {
    if forward.max_stream_duration.is_none() || !head.is_grpc() {
        return;
    }
    match timeouts.max_duration {
        Some(life) => head.headers.set(names::GRPC_TIMEOUT, to_grpc_timeout(life)),
        None if hcm_max_duration.is_some() => {
            head.headers.remove(&names::GRPC_TIMEOUT);
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrigger_types::Method;

    fn head(fields: &[(&'static str, &'static str)]) -> RequestHead {
        let mut head = RequestHead::new(Method::POST, "/");
        for (name, value) in fields {
            head.headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        head
    }

    #[test]
    fn reads_every_unit_of_grpc_timeout() {
        for (text, millis) in [("1H", 3_600_000), ("2M", 120_000), ("3S", 3_000), ("4m", 4)] {
            let got = grpc_timeout(&head(&[("grpc-timeout", text)]).headers);
            assert_eq!(got, Some(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "S", "1", "1x", "123456789S", "-1S"] {
            assert_eq!(
                grpc_timeout(&head(&[("grpc-timeout", bad)]).headers),
                None,
                "{bad}"
            );
        }
    }

    #[test]
    fn writes_what_fits_into_eight_digits() {
        assert_eq!(to_grpc_timeout(Duration::from_millis(150)), "150m");
        assert_eq!(to_grpc_timeout(Duration::from_secs(200_000)), "200000S");
    }
}
