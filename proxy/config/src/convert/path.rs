//! Errors that know where they are, and the shapes of fields that recur.

use std::time::Duration;

use filter_api::ConfigError;
use http::HeaderName;
use outrigger_types::StatusCode;

use super::Result;
use crate::pb::google::protobuf as wkt;

/// Puts the place before an error.
pub(super) trait Within {
    /// Within a field or a named resource.
    fn within(self, segment: &str) -> Self;
    /// Within an element of a repeated field.
    fn at(self, name: &str, index: usize) -> Self;
}

impl<T> Within for Result<T> {
    fn within(self, segment: &str) -> Self {
        self.map_err(|error| error.within(segment))
    }

    fn at(self, name: &str, index: usize) -> Self {
        self.map_err(|error| error.at(name, index))
    }
}

/// An error at a field.
pub(super) fn refuse<T>(field: &str, reason: impl Into<String>) -> Result<T> {
    Err(ConfigError::field(field, reason))
}

/// Converts every element of a repeated field.
pub(super) fn each<M, T>(
    name: &str,
    items: impl IntoIterator<Item = M>,
    mut convert: impl FnMut(M) -> Result<T>,
) -> Result<Vec<T>> {
    items
        .into_iter()
        .enumerate()
        .map(|(i, item)| convert(item).at(name, i))
        .collect()
}

/// Converts a field that must be there.
pub(super) fn required<M>(name: &str, field: Option<M>) -> Result<M> {
    field.ok_or_else(|| ConfigError::field(name, "value is required"))
}

/// Converts a field if it is there.
pub(super) fn optional<M, T>(
    name: &str,
    field: Option<M>,
    convert: impl FnOnce(M) -> Result<T>,
) -> Result<Option<T>> {
    field.map(convert).transpose().within(name)
}

/// The longest duration of a proto, and the longest that Envoy turns into
/// milliseconds.
const MAX_SECONDS: i64 = 9_223_372_036;

/// A duration as Envoy uses it: not negative, whole milliseconds.
pub(super) fn duration(name: &str, field: Option<wkt::Duration>) -> Result<Option<Duration>> {
    let Some(wkt::Duration { seconds, nanos }) = field else {
        return Ok(None);
    };
    let (Ok(whole), Ok(part)) = (u64::try_from(seconds), u32::try_from(nanos)) else {
        return refuse(name, "expected a positive duration");
    };
    if seconds > MAX_SECONDS || part > 999_999_999 {
        return refuse(name, "duration is out of range");
    }
    let millis = whole * 1_000 + u64::from(part / 1_000_000);
    Ok(Some(Duration::from_millis(millis)))
}

/// A duration with a default.
pub(super) fn duration_or(
    name: &str,
    field: Option<wkt::Duration>,
    default: Duration,
) -> Result<Duration> {
    Ok(duration(name, field)?.unwrap_or(default))
}

/// A timeout where zero means none at all.
pub(super) fn timeout_or(
    name: &str,
    field: Option<wkt::Duration>,
    default: Option<Duration>,
) -> Result<Option<Duration>> {
    Ok(duration(name, field)?
        .map_or(default, Some)
        .filter(|timeout| !timeout.is_zero()))
}

/// A wrapped number with a default.
pub(super) fn u32_or(field: Option<wkt::UInt32Value>, default: u32) -> u32 {
    field.map_or(default, |wrapped| wrapped.value)
}

/// A wrapped boolean with a default.
pub(super) fn bool_or(field: Option<wkt::BoolValue>, default: bool) -> bool {
    field.map_or(default, |wrapped| wrapped.value)
}

/// A flag that may be there as long as it is off.
pub(super) fn must_be_off(name: &str, field: Option<wkt::BoolValue>) -> Result<()> {
    match bool_or(field, false) {
        true => refuse(name, "is not supported"),
        false => Ok(()),
    }
}

/// A string, none if it is empty.
pub(super) fn non_empty<T: From<String>>(text: String) -> Option<T> {
    (!text.is_empty()).then(|| text.into())
}

/// The name of a field that cannot be a pseudo-header.
pub(super) fn header_name(text: &str) -> Result<HeaderName> {
    HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| ConfigError::new(format!("\"{text}\" is no header name")))
}

/// A status that a response may have.
pub(super) fn status(code: u32) -> Result<StatusCode> {
    u16::try_from(code)
        .ok()
        .and_then(|code| StatusCode::from_u16(code).ok())
        .filter(|code| code.as_u16() < 600)
        .ok_or_else(|| ConfigError::new(format!("{code} is no HTTP status")))
}

/// A port.
pub(super) fn port(number: u32) -> Result<u16> {
    u16::try_from(number).map_err(|_| ConfigError::new(format!("{number} is no port")))
}

/// The error for a number that an enum does not have.
pub(super) fn unknown_enum<T>(field: &str, number: i32) -> Result<T> {
    refuse(field, format!("value {number} is not defined"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn duration_of(seconds: i64, nanos: i32) -> Result<Option<Duration>> {
        duration("timeout", Some(wkt::Duration { seconds, nanos }))
    }

    #[test]
    fn durations_are_whole_milliseconds() {
        assert_eq!(
            duration_of(1, 1_999_999),
            Ok(Some(Duration::from_millis(1_001)))
        );
        assert_eq!(duration_of(0, 999_999), Ok(Some(Duration::ZERO)));
    }

    #[test]
    fn durations_that_no_clock_has_are_refused() {
        for (seconds, nanos) in [(-1, 0), (0, -1), (i64::MAX, 0), (0, 1_000_000_000)] {
            let error = duration_of(seconds, nanos).unwrap_err();
            assert_eq!(error.path(), "timeout");
        }
    }

    #[test]
    fn statuses_have_three_digits() {
        assert!(status(200).is_ok() && status(599).is_ok());
        assert!(status(99).is_err() && status(600).is_err() && status(70_000).is_err());
    }
}
