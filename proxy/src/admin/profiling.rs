//! Pages that look into the program itself, of which this build has none: they
//! answer as Envoy does when it was built without.

use outrigger_types::StatusCode;

use super::Page;
use super::query::Query;

/// `/cpuprofiler` and `/allocprofiler`: there is nothing that could be started,
/// and stopping what does not run is no error.
pub fn profiler(query: &Query, what: &str) -> Page {
    match query.get("enable") {
        Some("y") => Page::error(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("failure to start the {what}"),
        ),
        Some("n") => Page::text("OK\n"),
        _ => Page::error(StatusCode::BAD_REQUEST, "?enable=<y|n>\n"),
    }
}

/// What this build does not have.
pub fn not_supported(what: &str) -> Page {
    Page::error(
        StatusCode::NOT_IMPLEMENTED,
        format!("The current build does not support {what}\n"),
    )
}
