//! Our own families as OpenMetrics text, 1.0.0.

use std::sync::Arc;

use crate::family::FamilyCore;
use crate::query::Rendered;

/// All families, and what fell into their overflows.
pub(crate) fn render(families: &[Arc<FamilyCore>]) -> Rendered {
    let mut body = String::new();
    for family in families {
        family.render(&mut body, true);
    }
    body.push_str(
        "# HELP outrigger_stats_overflow What was counted beyond the cap of label sets.\n",
    );
    body.push_str("# TYPE outrigger_stats_overflow counter\n");
    for family in families {
        let (name, count) = (family.options.name, family.overflowed());
        body += &format!("outrigger_stats_overflow_total{{family=\"{name}\"}} {count}\n");
    }
    body.push_str("# EOF\n");
    Rendered {
        content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8",
        body,
    }
}
