//! Decides which streams are logged (`AccessLogFilter`).

use filter_api::RuntimeSnapshot;
use outrigger_config::format::FormatContext;
use outrigger_config::ir::{AccessLogFilter, Comparison, ComparisonOp};

/// Whether a filter lets a stream through. Local replies are mapped by the same
/// filters.
pub fn accepts(
    filter: &AccessLogFilter,
    context: &FormatContext<'_>,
    runtime: &RuntimeSnapshot,
) -> bool {
    let info = context.info;
    match filter {
        AccessLogFilter::StatusCode(comparison) => {
            compare(comparison, info.response_code.unwrap_or(0).into(), runtime)
        }
        AccessLogFilter::Duration(comparison) => {
            let millis = u64::try_from(info.elapsed().as_millis()).unwrap_or(u64::MAX);
            compare(comparison, millis, runtime)
        }
        AccessLogFilter::NotHealthCheck => !info.health_check,
        AccessLogFilter::Traceable => info.traced,
        AccessLogFilter::Runtime {
            fraction,
            independent,
        } => {
            let from_id = if *independent {
                None
            } else {
                info.request_id.as_deref().and_then(number_of_id)
            };
            let random = from_id.unwrap_or_else(rand::random);
            fraction.resolve(runtime).picks(random)
        }
        AccessLogFilter::And(filters) => filters.iter().all(|f| accepts(f, context, runtime)),
        AccessLogFilter::Or(filters) => filters.iter().any(|f| accepts(f, context, runtime)),
        AccessLogFilter::Header(matcher) => context
            .request
            .is_some_and(|head| matcher.matches_request(head)),
        AccessLogFilter::ResponseFlag(flags) if flags.is_empty() => !info.flags.is_empty(),
        AccessLogFilter::ResponseFlag(flags) => flags.iter().any(|flag| info.flags.has(flag)),
        AccessLogFilter::GrpcStatus { statuses, exclude } => {
            let status = context.grpc_status_or_mapped();
            let listed = statuses.iter().any(|s| Some(u64::from(*s)) == status);
            listed != *exclude
        }
        AccessLogFilter::Expression(expression) => expression.holds(context),
        AccessLogFilter::LogType { types, exclude } => {
            types.contains(&context.access_log_type) != *exclude
        }
    }
}

fn compare(comparison: &Comparison, actual: u64, runtime: &RuntimeSnapshot) -> bool {
    let default = u64::from(comparison.value);
    let value = match &*comparison.runtime_key {
        "" => default,
        key => runtime.integer(key, default),
    };
    match comparison.op {
        ComparisonOp::Eq => actual == value,
        ComparisonOp::Ge => actual >= value,
        ComparisonOp::Le => actual <= value,
        ComparisonOp::Ne => actual != value,
    }
}

/// The number that a request id (a UUID) stands for: its first eight digits. All
/// that decide by it decide alike for one request.
fn number_of_id(id: &str) -> Option<u64> {
    const LENGTH: usize = 36;
    if id.len() != LENGTH {
        return None;
    }
    u64::from_str_radix(id.get(..8)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use filter_api::{FractionalPercent, RuntimeFraction};
    use outrigger_types::{ResponseFlag, ResponseFlags, StreamInfo};

    use super::super::tests::info;
    use super::*;

    fn passes(filter: &AccessLogFilter, info: &StreamInfo) -> bool {
        let runtime = RuntimeSnapshot::new([("key".into(), "500".into())].into());
        accepts(filter, &FormatContext::new(info), &runtime)
    }

    fn status(op: ComparisonOp, value: u32, key: &str) -> AccessLogFilter {
        AccessLogFilter::StatusCode(Comparison {
            op,
            value,
            runtime_key: key.into(),
        })
    }

    #[test]
    fn compares_the_status_with_what_runtime_says() {
        let mut info = info();
        assert!(passes(&status(ComparisonOp::Eq, 0, ""), &info));
        info.response_code = Some(404);
        for (op, value, key, expected) in [
            (ComparisonOp::Ge, 400, "", true),
            (ComparisonOp::Ge, 400, "key", false),
            (ComparisonOp::Le, 404, "", true),
            (ComparisonOp::Ne, 404, "", false),
            (ComparisonOp::Ge, 405, "other", false),
        ] {
            assert_eq!(passes(&status(op, value, key), &info), expected, "{op:?}");
        }
    }

    #[test]
    fn an_empty_list_of_flags_means_any() {
        let mut info = info();
        let any = AccessLogFilter::ResponseFlag(ResponseFlags::default());
        let mut wanted = ResponseFlags::default();
        wanted.set(ResponseFlag::NoRouteFound);
        let one = AccessLogFilter::ResponseFlag(wanted);
        assert!(!passes(&any, &info) && !passes(&one, &info));
        info.flags.set(ResponseFlag::UpstreamOverflow);
        assert!(passes(&any, &info) && !passes(&one, &info));
        info.flags.set(ResponseFlag::NoRouteFound);
        assert!(passes(&one, &info));
    }

    #[test]
    fn combinations_need_all_or_any() {
        let info = info();
        let (yes, no) = (
            status(ComparisonOp::Eq, 0, ""),
            status(ComparisonOp::Ne, 0, ""),
        );
        let both = vec![yes, no];
        assert!(!passes(&AccessLogFilter::And(both.clone()), &info));
        assert!(passes(&AccessLogFilter::Or(both), &info));
        assert!(passes(&AccessLogFilter::NotHealthCheck, &info));
        assert!(!passes(&AccessLogFilter::Traceable, &info));
    }

    #[test]
    fn a_share_is_the_same_for_one_request_id() {
        let mut info = info();
        info.request_id = Some("00000031-7fd6-4774-a122-9e587954a500".into());
        let share = |numerator| AccessLogFilter::Runtime {
            fraction: RuntimeFraction {
                default: FractionalPercent {
                    numerator,
                    denominator: 100,
                },
                key: "".into(),
            },
            independent: false,
        };
        assert!(!passes(&share(49), &info) && passes(&share(50), &info));
        assert_eq!(number_of_id("not a uuid"), None);
    }

    #[test]
    fn grpc_statuses_are_listed_or_left_out() {
        let mut info = info();
        info.response_code = Some(503);
        let filter = |exclude| AccessLogFilter::GrpcStatus {
            statuses: vec![14],
            exclude,
        };
        assert!(passes(&filter(false), &info) && !passes(&filter(true), &info));
    }
}
