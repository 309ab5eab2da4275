//! Fields of requests that must be well formed (`strict_check_headers`).

use filter_api::LocalReply;
use outrigger_config::ir::{RetryOn, RouterConfig};
use outrigger_types::{HeaderName, RequestHead, ResponseFlag, StatusCode, names};

/// The answer to a request with a field that is to be checked and is malformed.
pub fn malformed(config: &RouterConfig, head: &RequestHead) -> Option<LocalReply> {
    let mut present = config.strict_check_headers.iter().filter_map(|name| {
        let value = head.headers.joined(name)?;
        Some((name, String::from_utf8_lossy(&value).into_owned()))
    });
    let (name, value) = present.find(|(name, value)| !is_well_formed(name, value))?;
    let body = format!("invalid header '{name}' with value '{value}'");
    let details = format!("request_headers_failed_strict_check{{{name}}}");
    let reply = LocalReply::new(StatusCode::BAD_REQUEST, body, details);
    Some(reply.with_flag(ResponseFlag::InvalidEnvoyRequestHeaders))
}

fn is_well_formed(name: &HeaderName, value: &str) -> bool {
    let every = |known: fn(&str) -> RetryOn| {
        let mut names = value.split(',').map(str::trim).filter(|n| !n.is_empty());
        names.all(|name| !known(name).is_empty())
    };
    if *name == names::X_ENVOY_RETRY_ON {
        every(RetryOn::parse_http)
    } else if *name == names::X_ENVOY_RETRY_GRPC_ON {
        every(RetryOn::parse_grpc)
    } else if *name == names::X_ENVOY_MAX_RETRIES {
        value.trim().parse::<u32>().is_ok()
    } else {
        value.trim().parse::<u64>().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_well_formed_as_their_field_wants() {
        let ok = |name: HeaderName, value| is_well_formed(&name, value);
        assert!(ok(names::X_ENVOY_RETRY_ON, "5xx, reset,,"));
        assert!(!ok(names::X_ENVOY_RETRY_ON, "5xx,cancelled"));
        assert!(ok(names::X_ENVOY_RETRY_GRPC_ON, "cancelled"));
        assert!(!ok(names::X_ENVOY_RETRY_GRPC_ON, "5xx"));
        assert!(ok(names::X_ENVOY_MAX_RETRIES, "3"));
        assert!(!ok(names::X_ENVOY_MAX_RETRIES, "-1"));
        assert!(!ok(names::X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS, ""));
        assert!(!ok(names::X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS, "1.5"));
    }
}
