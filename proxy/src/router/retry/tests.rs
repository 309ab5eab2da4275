//! The retry state by examples, and against a plain model.

use super::*;
use outrigger_types::{HeaderValue, Method, StatusCode};

fn state(on: &str, retries: u32) -> RetryState {
    let policy = RetryPolicyConfig {
        retry_on: RetryOn::parse(on),
        num_retries: retries,
        ..(*without_policy()).clone()
    };
    RetryState::new(Some(&Arc::new(policy)), &RequestHead::new(Method::GET, "/")).unwrap()
}

fn head(status: u16, field: Option<(&'static str, &'static str)>) -> ResponseHead {
    let mut head = ResponseHead::new(StatusCode::from_u16(status).unwrap());
    if let Some((name, value)) = field {
        head.headers.append(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    head
}

fn reset(reason: ResetReason) -> Outcome<'static> {
    Outcome::Reset {
        reason,
        began: true,
    }
}

#[test]
fn each_condition_retries_what_it_names() {
    let unavailable = Some(("grpc-status", "14"));
    for (on, status, field, retried) in [
        ("5xx", 500, None, true),
        ("5xx", 404, None, false),
        ("gateway-error", 503, None, true),
        ("gateway-error", 500, None, false),
        ("retriable-4xx", 409, None, true),
        ("unavailable", 200, unavailable, true),
        ("internal", 200, unavailable, false),
        ("5xx", 503, Some(("x-envoy-ratelimited", "true")), false),
        (
            "envoy-ratelimited",
            429,
            Some(("x-envoy-ratelimited", "true")),
            true,
        ),
    ] {
        let head = head(status, field);
        assert_eq!(
            state(on, 1).wants(Outcome::Head(&head)),
            retried,
            "{on} {status}"
        );
    }
}

#[test]
fn resets_are_told_apart() {
    use ResetReason::{ConnectionFailure, Overflow, RemoteRefusedStreamReset, RemoteReset};
    for (on, reason, retried) in [
        ("reset", RemoteReset, true),
        ("connect-failure", ConnectionFailure, true),
        ("connect-failure", RemoteReset, false),
        ("refused-stream", RemoteRefusedStreamReset, true),
        ("refused-stream", RemoteReset, false),
        ("reset", Overflow, false),
    ] {
        assert_eq!(
            state(on, 1).wants(reset(reason)),
            retried,
            "{on} {reason:?}"
        );
    }
    let unsent = Outcome::Reset {
        reason: RemoteReset,
        began: false,
    };
    assert!(state("reset-before-request", 1).wants(unsent));
    assert!(!state("reset-before-request", 1).wants(reset(RemoteReset)));
}

#[test]
fn stops_at_the_limit_and_at_the_breaker() {
    let mut s = state("5xx", 1);
    let bad = head(503, None);
    assert_eq!(
        s.decide(Outcome::Head(&bad), || false, 0),
        RetryDecision::NoOverflow
    );
    assert!(matches!(
        s.decide(Outcome::Head(&bad), || true, 0),
        RetryDecision::Yes(_)
    ));
    assert_eq!(
        s.decide(Outcome::Head(&bad), || true, 0),
        RetryDecision::NoLimitExceeded
    );
    assert_eq!(
        s.decide(Outcome::Head(&head(200, None)), || true, 0),
        RetryDecision::No
    );
}

#[test]
fn back_off_grows_to_its_ceiling() {
    let mut s = state("5xx", 20);
    let bad = head(503, None);
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let RetryDecision::Yes(back_off) = s.decide(Outcome::Head(&bad), || true, u64::MAX - 1)
        else {
            panic!("a retry is left");
        };
        longest = longest.max(back_off.wait);
        assert!(back_off.wait < Duration::from_millis(250));
    }
    assert!(longest > Duration::from_millis(25));
}

/// What happened to an attempt, in plain words.
#[derive(Clone, Debug)]
enum Happened {
    Answered {
        status: u16,
        grpc: Option<u32>,
        ratelimited: bool,
    },
    Reset(ResetReason, bool),
    TooSlow,
}

const CONDITIONS: [&str; 15] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
    "nonsense",
];

const REASONS: [ResetReason; 7] = [
    ResetReason::ConnectionFailure,
    ResetReason::LocalConnectionFailure,
    ResetReason::ConnectionTimeout,
    ResetReason::ConnectionTermination,
    ResetReason::RemoteReset,
    ResetReason::RemoteRefusedStreamReset,
    ResetReason::Overflow,
];

/// Envoy's page on `x-envoy-retry-on` and `x-envoy-retry-grpc-on`, a sentence an arm.
fn one_condition_wants(condition: &str, happened: &Happened, listed: u16) -> bool {
    let no_answer = match happened {
        Happened::Reset(ResetReason::Overflow, _) => false,
        Happened::Reset(..) | Happened::TooSlow => true,
        Happened::Answered { .. } => false,
    };
    let status = |test: fn(u16) -> bool| matches!(happened, Happened::Answered { status, ratelimited: false, .. } if test(*status));
    let grpc = |wanted: u32| matches!(happened, Happened::Answered { grpc: Some(n), ratelimited: false, .. } if *n == wanted);
    let reset = |test: fn(ResetReason, bool) -> bool| {
        matches!(happened, Happened::Reset(reason, began)
            if *reason != ResetReason::Overflow && test(*reason, *began))
    };
    match condition {
        "5xx" => no_answer || status(|s| s / 100 == 5),
        "gateway-error" => no_answer || status(|s| [502, 503, 504].contains(&s)),
        "reset" => reset(|_, _| true),
        "reset-before-request" => reset(|_, began| !began),
        "connect-failure" => reset(|reason, _| {
            matches!(
                reason,
                ResetReason::ConnectionFailure
                    | ResetReason::LocalConnectionFailure
                    | ResetReason::ConnectionTimeout
            )
        }),
        "refused-stream" => reset(|reason, _| reason == ResetReason::RemoteRefusedStreamReset),
        "envoy-ratelimited" => {
            matches!(
                happened,
                Happened::Answered {
                    ratelimited: true,
                    ..
                }
            )
        }
        "retriable-4xx" => status(|s| s == 409),
        "retriable-status-codes" => {
            matches!(happened, Happened::Answered { status, ratelimited: false, .. } if *status == listed)
        }
        "cancelled" => grpc(1),
        "deadline-exceeded" => grpc(4),
        "resource-exhausted" => grpc(8),
        "internal" => grpc(13),
        "unavailable" => grpc(14),
        _ => false,
    }
}

fn head_of(happened: &Happened) -> Option<ResponseHead> {
    let Happened::Answered {
        status,
        grpc,
        ratelimited,
    } = happened
    else {
        return None;
    };
    let mut head = head(*status, None);
    if let Some(grpc) = grpc {
        head.headers
            .append(names::GRPC_STATUS, HeaderValue::from(*grpc));
    }
    if *ratelimited {
        let value = HeaderValue::from_static("true");
        head.headers.append(names::X_ENVOY_RATELIMITED, value);
    }
    Some(head)
}

fn happened() -> impl proptest::strategy::Strategy<Value = Happened> {
    use proptest::prelude::*;
    let statuses = proptest::sample::select(vec![200, 404, 409, 418, 429, 500, 502, 503, 504, 599]);
    let grpc = proptest::option::of(0u32..17);
    prop_oneof![
        (statuses, grpc, proptest::bool::weighted(0.2)).prop_map(|(status, grpc, ratelimited)| {
            Happened::Answered {
                status,
                grpc,
                ratelimited,
            }
        }),
        (proptest::sample::select(REASONS.to_vec()), any::<bool>())
            .prop_map(|(reason, began)| Happened::Reset(reason, began)),
        Just(Happened::TooSlow),
    ]
}

proptest::proptest! {
    #[test]
    fn decides_as_the_plain_model(
        on in proptest::sample::subsequence(CONDITIONS.to_vec(), 1..6),
        retries in 0u32..5,
        listed in proptest::sample::select(vec![404u16, 418, 503]),
        steps in proptest::collection::vec((happened(), proptest::bool::weighted(0.8), proptest::num::u64::ANY), 1..12),
    ) {
        let policy = RetryPolicyConfig {
            retry_on: RetryOn::parse(&on.join(", ")),
            num_retries: retries,
            retriable_status_codes: vec![listed],
            ..(*without_policy()).clone()
        };
        let request = RequestHead::new(Method::GET, "/");
        let known = on.iter().any(|c| *c != "nonsense");
        let state = RetryState::new(Some(&Arc::new(policy)), &request);
        proptest::prop_assert_eq!(state.is_some(), known);
        let Some(mut state) = state else { return Ok(()) };
        let mut left = retries;
        let mut made = 0u32;
        for (happened, slot_free, random) in steps {
            let head = head_of(&happened);
            let outcome = match (&happened, &head) {
                (Happened::Reset(reason, began), _) => Outcome::Reset { reason: *reason, began: *began },
                (_, Some(head)) => Outcome::Head(head),
                (_, None) => Outcome::PerTryTimeout,
            };
            let wanted = on.iter().any(|c| one_condition_wants(c, &happened, listed));
            let decision = state.decide(outcome, || slot_free, random);
            match (wanted, left, slot_free) {
                (false, _, _) => proptest::prop_assert_eq!(decision, RetryDecision::No),
                (true, 0, _) => proptest::prop_assert_eq!(decision, RetryDecision::NoLimitExceeded),
                (true, _, false) => proptest::prop_assert_eq!(decision, RetryDecision::NoOverflow),
                (true, _, true) => {
                    left -= 1;
                    made += 1;
                    let RetryDecision::Yes(back_off) = decision else {
                        return Err(proptest::test_runner::TestCaseError::fail(format!("{decision:?}")));
                    };
                    let ceiling = (25 * ((1u64 << made) - 1)).clamp(1, 250);
                    proptest::prop_assert!(back_off.wait < Duration::from_millis(ceiling));
                }
            }
            proptest::prop_assert_eq!(state.made(), made);
        }
    }
}
