//! An insertion-ordered multimap of header fields.
//!
//! `http::HeaderMap` groups duplicates and reorders on removal; a proxy must
//! pass fields on in the order in which they came. The fields of a request are
//! few, so a scan over a vector beats hashing.

use http::{HeaderName, HeaderValue};

/// Names that the data path looks up often and `http` has no constant for.
pub mod names {
    use http::HeaderName;

    macro_rules! names {
        ($($ident:ident = $text:literal;)*) => {
            $(#[doc = concat!("`", $text, "`")]
            pub const $ident: HeaderName = HeaderName::from_static($text);)*
        };
    }

    pub use http::header::{
        ACCEPT_ENCODING, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE,
        COOKIE, DATE, EXPECT, HOST, LOCATION, REFERER, RETRY_AFTER, SEC_WEBSOCKET_KEY, SERVER, TE,
        TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT, VIA,
    };

    names! {
        GRPC_STATUS = "grpc-status";
        GRPC_MESSAGE = "grpc-message";
        GRPC_TIMEOUT = "grpc-timeout";
        HTTP2_SETTINGS = "http2-settings";
        KEEP_ALIVE = "keep-alive";
        PROXY_CONNECTION = "proxy-connection";
        X_CLIENT_TRACE_ID = "x-client-trace-id";
        X_ENVOY_ATTEMPT_COUNT = "x-envoy-attempt-count";
        X_ENVOY_DECORATOR_OPERATION = "x-envoy-decorator-operation";
        X_ENVOY_DEGRADED = "x-envoy-degraded";
        X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER = "x-envoy-downstream-service-cluster";
        X_ENVOY_DOWNSTREAM_SERVICE_NODE = "x-envoy-downstream-service-node";
        X_ENVOY_EXPECTED_RQ_TIMEOUT_MS = "x-envoy-expected-rq-timeout-ms";
        X_ENVOY_EXTERNAL_ADDRESS = "x-envoy-external-address";
        X_ENVOY_FORCE_TRACE = "x-envoy-force-trace";
        X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT = "x-envoy-hedge-on-per-try-timeout";
        X_ENVOY_IMMEDIATE_HEALTH_CHECK_FAIL = "x-envoy-immediate-health-check-fail";
        X_ENVOY_INTERNAL = "x-envoy-internal";
        X_ENVOY_IP_TAGS = "x-envoy-ip-tags";
        X_ENVOY_IS_TIMEOUT_RETRY = "x-envoy-is-timeout-retry";
        X_ENVOY_MAX_RETRIES = "x-envoy-max-retries";
        X_ENVOY_ORIGINAL_DST_HOST = "x-envoy-original-dst-host";
        X_ENVOY_ORIGINAL_HOST = "x-envoy-original-host";
        X_ENVOY_ORIGINAL_METHOD = "x-envoy-original-method";
        X_ENVOY_ORIGINAL_PATH = "x-envoy-original-path";
        X_ENVOY_ORIGINAL_URL = "x-envoy-original-url";
        X_ENVOY_OVERLOADED = "x-envoy-overloaded";
        X_ENVOY_DROP_OVERLOAD = "x-envoy-drop-overload";
        X_ENVOY_UNCONDITIONAL_DROP_OVERLOAD = "x-envoy-unconditional-drop-overload";
        X_ENVOY_RATELIMITED = "x-envoy-ratelimited";
        X_ENVOY_RETRIABLE_HEADER_NAMES = "x-envoy-retriable-header-names";
        X_ENVOY_RETRIABLE_STATUS_CODES = "x-envoy-retriable-status-codes";
        X_ENVOY_RETRY_GRPC_ON = "x-envoy-retry-grpc-on";
        X_ENVOY_RETRY_ON = "x-envoy-retry-on";
        X_ENVOY_UPSTREAM_ALT_STAT_NAME = "x-envoy-upstream-alt-stat-name";
        X_ENVOY_UPSTREAM_CANARY = "x-envoy-upstream-canary";
        X_ENVOY_UPSTREAM_HEALTHCHECKED_CLUSTER = "x-envoy-upstream-healthchecked-cluster";
        X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS = "x-envoy-upstream-rq-per-try-timeout-ms";
        X_ENVOY_UPSTREAM_RQ_TIMEOUT_ALT_RESPONSE = "x-envoy-upstream-rq-timeout-alt-response";
        X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS = "x-envoy-upstream-rq-timeout-ms";
        X_ENVOY_UPSTREAM_SERVICE_TIME = "x-envoy-upstream-service-time";
        X_ENVOY_UPSTREAM_STREAM_DURATION_MS = "x-envoy-upstream-stream-duration-ms";
        X_FORWARDED_CLIENT_CERT = "x-forwarded-client-cert";
        X_FORWARDED_FOR = "x-forwarded-for";
        X_FORWARDED_HOST = "x-forwarded-host";
        X_FORWARDED_PORT = "x-forwarded-port";
        X_FORWARDED_PROTO = "x-forwarded-proto";
        X_REQUEST_ID = "x-request-id";
    }
}

/// How a name is passed to a look-up: a reference to a (usually constant) name.
pub type NameRef<'a> = &'a HeaderName;

/// Header fields in the order in which they were received or added.
///
/// Names are lower case. Pseudo-headers are not in here but in
/// [`RequestHead`](crate::RequestHead) and [`ResponseHead`](crate::ResponseHead).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl Headers {
    /// No fields.
    pub const fn new() -> Self {
        Self { fields: Vec::new() }
    }

    /// No fields, with room for `n`.
    pub fn with_capacity(n: usize) -> Self {
        Self {
            fields: Vec::with_capacity(n),
        }
    }

    /// Number of fields, duplicates counted.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The fields in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&HeaderName, &HeaderValue)> {
        self.fields.iter().map(|(n, v)| (n, v))
    }

    /// The fields in order, values open to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&HeaderName, &mut HeaderValue)> {
        self.fields.iter_mut().map(|(n, v)| (&*n, v))
    }

    /// The first value of `name`.
    pub fn get(&self, name: NameRef<'_>) -> Option<&HeaderValue> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    /// The bytes of the first value of `name`.
    pub fn get_bytes(&self, name: NameRef<'_>) -> Option<&[u8]> {
        self.get(name).map(HeaderValue::as_bytes)
    }

    /// Every value of `name`, in order.
    pub fn get_all<'a>(
        &'a self,
        name: NameRef<'a>,
    ) -> impl DoubleEndedIterator<Item = &'a HeaderValue> {
        self.fields
            .iter()
            .filter(move |(n, _)| n == name)
            .map(|(_, v)| v)
    }

    /// Whether `name` is there at least once.
    pub fn contains(&self, name: NameRef<'_>) -> bool {
        self.get(name).is_some()
    }

    /// Adds a field at the end, beside any of the same name.
    pub fn append(&mut self, name: HeaderName, value: HeaderValue) {
        self.fields.push((name, value));
    }

    /// Makes `value` the only value of `name`: in the place of the first one if
    /// there is one, else at the end.
    pub fn set(&mut self, name: HeaderName, value: HeaderValue) {
        match self.fields.iter().position(|(n, _)| *n == name) {
            Some(at) => {
                self.fields[at].1 = value;
                let mut index = 0;
                self.fields.retain(|(n, _)| {
                    index += 1;
                    index - 1 <= at || *n != name
                });
            }
            None => self.fields.push((name, value)),
        }
    }

    /// Removes every field called `name`; true if there was one.
    pub fn remove(&mut self, name: NameRef<'_>) -> bool {
        let before = self.fields.len();
        self.fields.retain(|(n, _)| n != name);
        self.fields.len() != before
    }

    /// Keeps the fields for which `keep` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(&HeaderName, &HeaderValue) -> bool) {
        self.fields.retain(|(n, v)| keep(n, v));
    }

    /// Sum of the bytes of names and values.
    pub fn byte_size(&self) -> usize {
        self.fields
            .iter()
            .map(|(n, v)| n.as_str().len() + v.len())
            .sum()
    }

    /// All values of `name` joined by `,`, as Envoy joins them for matching and
    /// for formats. Borrows when there is only one.
    pub fn joined<'a>(&'a self, name: NameRef<'_>) -> Option<std::borrow::Cow<'a, [u8]>> {
        let mut values = self
            .fields
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, v)| v.as_bytes());
        let first = values.next()?;
        let Some(second) = values.next() else {
            return Some(first.into());
        };
        let mut all = first.to_vec();
        for value in std::iter::once(second).chain(values) {
            all.push(b',');
            all.extend_from_slice(value);
        }
        Some(all.into())
    }
}

impl IntoIterator for Headers {
    type Item = (HeaderName, HeaderValue);
    type IntoIter = std::vec::IntoIter<(HeaderName, HeaderValue)>;
    fn into_iter(self) -> Self::IntoIter {
        self.fields.into_iter()
    }
}

impl FromIterator<(HeaderName, HeaderValue)> for Headers {
    fn from_iter<I: IntoIterator<Item = (HeaderName, HeaderValue)>>(fields: I) -> Self {
        Self {
            fields: fields.into_iter().collect(),
        }
    }
}

impl Extend<(HeaderName, HeaderValue)> for Headers {
    fn extend<I: IntoIterator<Item = (HeaderName, HeaderValue)>>(&mut self, fields: I) {
        self.fields.extend(fields);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> Headers {
        fields
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect()
    }

    #[test]
    fn keeps_the_order_of_duplicates() {
        let h = headers(&[("a", "1"), ("b", "2"), ("a", "3")]);
        let order: Vec<_> = h
            .iter()
            .map(|(n, v)| (n.as_str(), v.to_str().unwrap()))
            .collect();
        assert_eq!(order, [("a", "1"), ("b", "2"), ("a", "3")]);
        assert_eq!(&*h.joined(&HeaderName::from_static("a")).unwrap(), b"1,3");
    }

    #[test]
    fn set_replaces_in_place_and_drops_the_rest() {
        let mut h = headers(&[("a", "1"), ("b", "2"), ("a", "3")]);
        h.set(HeaderName::from_static("a"), HeaderValue::from_static("9"));
        assert_eq!(h, headers(&[("a", "9"), ("b", "2")]));
        h.set(HeaderName::from_static("c"), HeaderValue::from_static("7"));
        assert_eq!(h, headers(&[("a", "9"), ("b", "2"), ("c", "7")]));
        assert!(h.remove(&HeaderName::from_static("a")));
        assert!(!h.remove(&HeaderName::from_static("a")));
    }
}
