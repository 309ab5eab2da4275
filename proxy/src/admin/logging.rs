//! `/logging`: the levels of the process's own log.

use std::fmt::Write as _;

use outrigger_types::StatusCode;

use super::Page;
use super::query::Query;
use crate::server::logging::{self, COMPONENTS};

const USAGE: &str = "usage: /logging?<name>=<level> (change single level)\n\
    usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)\n\
    usage: /logging?level=<level> (change all levels)\n\
    usage: /logging?group=<group_name>:<level> (change group of loggers)\n\
    levels: trace debug info warning error critical off \n";

/// Changes what the query asks for, and lists all levels.
pub fn page(query: &Query) -> Page {
    match change(query) {
        Ok(()) => Page::text(active() + "\n"),
        Err(reason) => Page::error(
            StatusCode::BAD_REQUEST,
            format!("error: {reason}\n\n{USAGE}{}\n", active()),
        ),
    }
}

fn change(query: &Query) -> Result<(), &'static str> {
    let (name, value) = match query.pairs() {
        [] => return Ok(()),
        [pair] => pair,
        _ => return Err("invalid number of parameters"),
    };
    match name.as_str() {
        // Without a value Envoy lists only.
        "level" | "paths" | "group" if value.is_empty() => Ok(()),
        "level" => logging::set_levels(None, value),
        "paths" => {
            let pairs = value.split(',').filter(|p| !p.is_empty()).map(pair);
            for (name, level) in pairs.collect::<Result<Vec<_>, _>>()? {
                logging::set_levels(Some(name), level)?;
            }
            Ok(())
        }
        "group" => Err("group parameter requires fine-grain logging to be enabled"),
        name => logging::set_levels(Some(name), value),
    }
}

/// A pair that names a component and a level, both of which exist: all pairs are
/// looked at before the first has an effect.
fn pair(text: &str) -> Result<(&str, &str), &'static str> {
    let (name, level) = text
        .split_once(':')
        .filter(|(name, level)| !name.is_empty() && !level.is_empty())
        .ok_or("empty logger name or empty logger level")?;
    if !logging::is_level(level) {
        return Err("unknown logger level");
    }
    if !COMPONENTS.contains(&name) {
        return Err("unknown logger name");
    }
    Ok((name, level))
}

fn active() -> String {
    let mut text = String::from("active loggers:\n");
    for name in COMPONENTS {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {name}: {}", logging::level(name));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_no_change_of_levels() {
        for (query, reason) in [
            ("level=nope", "unknown logger level"),
            ("foo=debug", "unknown logger name"),
            ("http=bogus", "unknown logger level"),
            ("paths=http", "empty logger name or empty logger level"),
            ("paths=http:info,x:info", "unknown logger name"),
            ("http=info&router=info", "invalid number of parameters"),
        ] {
            let page = page(&Query::parse(query));
            assert_eq!(page.status, StatusCode::BAD_REQUEST, "{query}");
            let first = format!("error: {reason}\n\nusage: ");
            assert!(page.body.starts_with(&first), "{query}: {}", page.body);
        }
    }

    #[test]
    fn lists_every_component() {
        let body = page(&Query::default()).body;
        assert_eq!(body.lines().count(), COMPONENTS.len() + 2);
    }
}
