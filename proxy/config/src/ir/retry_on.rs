//! Retry conditions by name (`RetryPolicy.retry_on`, `x-envoy-retry-on`,
//! `x-envoy-retry-grpc-on`).

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// A set of retry conditions.
///
/// The names are those of Envoy's router filter documentation; a name that is
/// not known is ignored, as Envoy does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RetryOn(pub u32);

macro_rules! conditions {
    ($($(#[$doc:meta])* $ident:ident = $bit:literal, $name:literal, $grpc:literal;)*) => {
        impl RetryOn {
            $($(#[$doc])* pub const $ident: Self = Self(1 << $bit);)*

            /// Every condition with its name, and whether it is one of gRPC's.
            const NAMES: &'static [(&'static str, Self, bool)] =
                &[$(($name, Self::$ident, $grpc),)*];
        }
    };
}

conditions! {
    /// `5xx`: any 5xx answer, or none at all (disconnect, reset, timeout).
    FIVE_XX = 0, "5xx", false;
    /// `gateway-error`: 502, 503 or 504, or no answer at all.
    GATEWAY_ERROR = 1, "gateway-error", false;
    /// `reset`: no answer at all.
    RESET = 2, "reset", false;
    /// `reset-before-request`: a reset before the head of the request was sent.
    RESET_BEFORE_REQUEST = 3, "reset-before-request", false;
    /// `connect-failure`: the connection could not be made.
    CONNECT_FAILURE = 4, "connect-failure", false;
    /// `envoy-ratelimited`: an answer with `x-envoy-ratelimited`.
    ENVOY_RATE_LIMITED = 5, "envoy-ratelimited", false;
    /// `retriable-4xx`: 409.
    RETRIABLE_4XX = 6, "retriable-4xx", false;
    /// `refused-stream`: a reset with REFUSED_STREAM.
    REFUSED_STREAM = 7, "refused-stream", false;
    /// `retriable-status-codes`: one of the policy's statuses.
    RETRIABLE_STATUS_CODES = 8, "retriable-status-codes", false;
    /// `retriable-headers`: an answer that one of the policy's matchers takes.
    RETRIABLE_HEADERS = 9, "retriable-headers", false;
    /// `http3-post-connect-failure`: a HTTP/3 request that failed after the
    /// handshake. HTTP/3 is not spoken here, so that it never applies.
    HTTP3_POST_CONNECT_FAILURE = 10, "http3-post-connect-failure", false;
    /// `cancelled`: gRPC status 1.
    GRPC_CANCELLED = 16, "cancelled", true;
    /// `deadline-exceeded`: gRPC status 4.
    GRPC_DEADLINE_EXCEEDED = 17, "deadline-exceeded", true;
    /// `internal`: gRPC status 13.
    GRPC_INTERNAL = 18, "internal", true;
    /// `resource-exhausted`: gRPC status 8.
    GRPC_RESOURCE_EXHAUSTED = 19, "resource-exhausted", true;
    /// `unavailable`: gRPC status 14.
    GRPC_UNAVAILABLE = 20, "unavailable", true;
}

impl RetryOn {
    /// No condition.
    pub const NONE: Self = Self(0);

    /// Whether all of `other` is in here. Nothing has everything of nothing.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is in here.
    pub const fn has_any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether there is no condition.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The conditions of a comma list, of HTTP and of gRPC: what a policy's
    /// `retry_on` takes. Blanks around a name are ignored, unknown names too.
    pub fn parse(list: &str) -> Self {
        Self::parse_http(list) | Self::parse_grpc(list)
    }

    /// Those of HTTP only: what `x-envoy-retry-on` takes.
    pub fn parse_http(list: &str) -> Self {
        Self::collect(list, false)
    }

    /// Those of gRPC only: what `x-envoy-retry-grpc-on` takes.
    pub fn parse_grpc(list: &str) -> Self {
        Self::collect(list, true)
    }

    /// The condition that a gRPC status meets; none for those that are never
    /// retried.
    pub const fn of_grpc_status(status: u32) -> Self {
        match status {
            1 => Self::GRPC_CANCELLED,
            4 => Self::GRPC_DEADLINE_EXCEEDED,
            8 => Self::GRPC_RESOURCE_EXHAUSTED,
            13 => Self::GRPC_INTERNAL,
            14 => Self::GRPC_UNAVAILABLE,
            _ => Self::NONE,
        }
    }

    fn collect(list: &str, of_grpc: bool) -> Self {
        let mut all = Self::NONE;
        for name in list.split(',').map(str::trim) {
            let known = Self::NAMES
                .iter()
                .find(|(known, _, grpc)| *known == name && *grpc == of_grpc);
            all |= known.map_or(Self::NONE, |(_, condition, _)| *condition);
        }
        all
    }
}

impl BitOr for RetryOn {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for RetryOn {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Display for RetryOn {
    /// The names, joined by `,`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Self::NAMES.iter().filter(|(_, c, _)| self.has(*c));
        for (i, (name, ..)) in names.enumerate() {
            write!(f, "{}{name}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_and_printed() {
        for (name, condition, grpc) in RetryOn::NAMES {
            assert_eq!(RetryOn::parse(name), *condition);
            assert_eq!(condition.to_string(), *name);
            assert_eq!(RetryOn::parse_grpc(name).is_empty(), !grpc, "{name}");
            assert_eq!(RetryOn::parse_http(name).is_empty(), *grpc, "{name}");
        }
    }

    #[test]
    fn unknown_names_are_ignored() {
        let set = RetryOn::parse("5xx, unavailable,no-such-thing,,reset ");
        assert_eq!(set.to_string(), "5xx,reset,unavailable");
        assert!(set.has(RetryOn::RESET) && !set.has(RetryOn::GATEWAY_ERROR));
        assert!(RetryOn::parse("5XX").is_empty());
    }

    #[test]
    fn statuses_of_grpc_have_their_conditions() {
        let set = RetryOn::parse("unavailable");
        assert!(set.has_any(RetryOn::of_grpc_status(14)));
        assert!(!set.has_any(RetryOn::of_grpc_status(2)));
    }
}
