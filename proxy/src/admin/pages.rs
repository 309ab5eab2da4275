//! The table of pages, and those that need few words.

use std::fmt::Write as _;
use std::time::Instant;

use hyper::{Method, StatusCode};
use outrigger_stats::{PrometheusQuery, QueryError, Rendered, StatsQuery, Store};
use serde_json::{Map, Value, json};

use super::query::Query;
use super::{Call, Page, clusters, config_dump, server_info};
use crate::access_log::AccessLogManager;
use crate::bootstrap::LoadedBootstrap;
use crate::runtime::Runtime;
use crate::server::logging;
use crate::server::options::Options;
use crate::snapshot::Snapshot;

/// Where the process is in its life.
#[derive(Debug)]
pub struct ServerState {
    /// When it started.
    pub started: Instant,
    /// Everything that it was started with serves.
    pub initialized: bool,
    /// `/healthcheck/fail` was called.
    pub health_failed: bool,
    /// Listeners drain.
    pub draining: bool,
    /// `/quitquitquit` was called.
    pub quit: bool,
    /// Listeners are to be stopped once the drain time has passed: those of
    /// inbound traffic alone, or all.
    pub stop_after_drain: Option<bool>,
}

/// What pages show and change.
pub struct AdminContext<'a> {
    /// Resources.
    pub snapshot: &'a mut Snapshot,
    /// Stats.
    pub store: &'a Store,
    /// The command line.
    pub options: &'a Options,
    /// The bootstrap.
    pub bootstrap: &'a LoadedBootstrap,
    /// The runtime.
    pub runtime: &'a mut Runtime,
    /// Access logs.
    pub access_logs: &'a AccessLogManager,
    /// The process.
    pub state: &'a mut ServerState,
}

type Handler = fn(&mut AdminContext<'_>, &Query, &str) -> Page;

/// A page: its path, whether it changes anything, what it is for, and what
/// answers.
struct Entry(&'static str, bool, &'static str, Handler);

const PAGES: &[Entry] = &[
    Entry("/", false, "Admin home page", home),
    Entry("/certs", false, "print certs on machine", |_, _, _| {
        Page::json(&json!({ "certificates": [] }))
    }),
    Entry("/clusters", false, "upstream cluster status", |cx, q, _| {
        clusters::page(cx, q)
    }),
    Entry("/config_dump", false, "dump current configs", |cx, q, _| {
        config_dump::page(cx, q)
    }),
    Entry(
        "/contention",
        false,
        "dump current mutex contention stats (if enabled)",
        |_, _, _| {
            Page::error(
                StatusCode::OK,
                "Mutex contention tracing is not enabled. To enable, run Envoy with flag --enable-mutex-tracing.",
            )
        },
    ),
    Entry("/drain_listeners", true, "drain listeners", drain_listeners),
    Entry(
        "/healthcheck/fail",
        true,
        "cause the server to fail health checks",
        |cx, _, _| {
            cx.state.health_failed = true;
            Page::text("OK\n")
        },
    ),
    Entry(
        "/healthcheck/ok",
        true,
        "cause the server to pass health checks",
        |cx, _, _| {
            cx.state.health_failed = false;
            Page::text("OK\n")
        },
    ),
    Entry(
        "/help",
        false,
        "print out list of admin commands",
        |_, _, _| Page::text(help()),
    ),
    Entry(
        "/hot_restart_version",
        false,
        "print the hot restart compatibility version",
        |_, _, _| Page::text("disabled"),
    ),
    Entry(
        "/init_dump",
        false,
        "dump what is not initialised yet",
        init_dump,
    ),
    Entry("/listeners", false, "print listener info", listeners),
    Entry("/logging", true, "query/change logging levels", log_levels),
    Entry(
        "/memory",
        false,
        "print current allocation/heap usage",
        |_, _, _| Page::json(&server_info::memory()),
    ),
    Entry(
        "/metrics",
        false,
        "print this proxy's own families as OpenMetrics",
        |cx, _, _| rendered(Ok(cx.store.open_metrics())),
    ),
    Entry("/quitquitquit", true, "exit the server", |cx, _, _| {
        cx.state.quit = true;
        Page::text("OK\n")
    }),
    Entry(
        "/ready",
        false,
        "print server state, return 200 if LIVE, otherwise return 503",
        ready,
    ),
    Entry("/reopen_logs", true, "reopen access logs", |cx, _, _| {
        cx.access_logs.reopen_all();
        Page::text("OK\n")
    }),
    Entry(
        "/reset_counters",
        true,
        "reset all counters to zero",
        |cx, _, _| {
            cx.store.reset_counters();
            Page::text("OK\n")
        },
    ),
    Entry("/runtime", false, "print runtime values", runtime),
    Entry(
        "/runtime_modify",
        true,
        "add or modify runtime values: ?key1=value1&key2=value2",
        runtime_modify,
    ),
    Entry(
        "/server_info",
        false,
        "print server version/status information",
        |cx, _, _| Page::json(&server_info::page(cx)),
    ),
    Entry("/stats", false, "print server stats", |cx, _, raw| {
        rendered(StatsQuery::parse(raw).map(|q| cx.store.render(&q)))
    }),
    Entry(
        "/stats/prometheus",
        false,
        "print server stats in prometheus format",
        |cx, _, raw| rendered(PrometheusQuery::parse(raw).map(|q| cx.store.render_prometheus(&q))),
    ),
];

/// Answers a call.
pub fn answer(cx: &mut AdminContext<'_>, call: Call) {
    let page = page(cx, &call.method, &call.path, &call.query);
    // A client that is gone does not need it.
    let _ = call.reply.send(page);
}

fn page(cx: &mut AdminContext<'_>, method: &Method, path: &str, raw_query: &str) -> Page {
    let Some(Entry(_, mutates, _, handler)) = PAGES.iter().find(|p| p.0 == path) else {
        return Page::error(StatusCode::NOT_FOUND, format!("invalid path. {}", help()));
    };
    if *mutates && method != Method::POST {
        return Page::error(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("Method {method} not allowed, POST required."),
        );
    }
    handler(cx, &Query::parse(raw_query), raw_query)
}

fn help() -> String {
    let mut text = String::from("admin commands are:\n");
    for Entry(path, mutates, purpose, _) in PAGES {
        let post = if *mutates { " (POST)" } else { "" };
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {path}{post}: {purpose}");
    }
    text
}

fn rendered(outcome: Result<Rendered, QueryError>) -> Page {
    match outcome {
        Ok(Rendered { content_type, body }) => Page {
            status: StatusCode::OK,
            content_type,
            body,
        },
        Err(error) => Page::error(StatusCode::BAD_REQUEST, error.to_string()),
    }
}

fn home(_: &mut AdminContext<'_>, _: &Query, _: &str) -> Page {
    let mut rows = String::new();
    for Entry(path, mutates, purpose, _) in PAGES {
        let name = path.trim_start_matches('/');
        let _ = if *mutates {
            writeln!(
                rows,
                "<tr><td><form action='{name}' method='post'><button>{name}</button></form></td><td>{purpose}</td></tr>"
            )
        } else {
            writeln!(
                rows,
                "<tr><td><a href='{name}'>{name}</a></td><td>{purpose}</td></tr>"
            )
        };
    }
    Page {
        status: StatusCode::OK,
        content_type: "text/html; charset=UTF-8",
        body: format!(
            "<!DOCTYPE html>\n<html lang='en'><head><title>Outrigger Admin</title></head>\n<body><table>\n\
             <tr><th>Command</th><th>Description</th></tr>\n{rows}</table></body></html>\n"
        ),
    }
}

fn ready(cx: &mut AdminContext<'_>, _: &Query, _: &str) -> Page {
    let state = server_info::state(cx.state);
    let status = if state == "LIVE" {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Page::error(status, format!("{state}\n"))
}

fn drain_listeners(cx: &mut AdminContext<'_>, query: &Query, _: &str) -> Page {
    let inbound_only = query.has("inboundonly");
    let graceful = query.has("graceful");
    let skip_exit = query.has("skip_exit");
    if skip_exit && !graceful {
        return Page::error(StatusCode::BAD_REQUEST, "skip_exit requires graceful\n");
    }
    if graceful {
        cx.snapshot.drain_listeners(inbound_only);
        if !skip_exit && !cx.state.draining {
            cx.state.stop_after_drain = Some(inbound_only);
        }
        cx.state.draining = true;
    } else {
        cx.snapshot.stop_listeners(inbound_only);
    }
    cx.snapshot.publish();
    Page::text("OK\n")
}

fn listeners(cx: &mut AdminContext<'_>, query: &Query, _: &str) -> Page {
    let bound = cx
        .snapshot
        .listeners()
        .map(|l| (l.spec.config.name.clone(), l.sockets.bound().to_vec()));
    if query.get("format") == Some("json") {
        let statuses: Vec<Value> = bound
            .map(|(name, addresses)| {
                let mut status = json!({ "name": &*name });
                let mut addresses = addresses.iter().map(clusters::address_json);
                status["local_address"] = addresses.next().unwrap_or_default();
                let more: Vec<Value> = addresses.collect();
                if !more.is_empty() {
                    status["additional_local_addresses"] = more.into();
                }
                status
            })
            .collect();
        return Page::json(&json!({ "listener_statuses": statuses }));
    }
    let mut text = String::new();
    for (name, addresses) in bound {
        let joined: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "{name}::{}", joined.join(","));
    }
    Page::text(text)
}

fn init_dump(cx: &mut AdminContext<'_>, _: &Query, _: &str) -> Page {
    let waiting: Vec<Value> = cx
        .snapshot
        .warming_listeners()
        .map(|l| {
            let names: Vec<&str> = l.rds_names().map(|n| &**n).collect();
            json!({ "name": &*l.spec.config.name, "target_names": names })
        })
        .collect();
    let dump = if waiting.is_empty() {
        json!({})
    } else {
        json!({ "unready_targets_dumps": waiting })
    };
    Page::json(&dump)
}

/// Components whose level can be set.
const COMPONENTS: &[&str] = &[
    "admin", "config", "dns", "filter", "http", "main", "pool", "router", "runtime", "upstream",
    "xds",
];

fn log_levels(_: &mut AdminContext<'_>, query: &Query, _: &str) -> Page {
    const USAGE: &str = "usage: /logging?<name>=<level> (change single level)\n\
        usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)\n\
        usage: /logging?level=<level> (change all levels)\nlevels: trace debug info warning error critical off \n";
    for (name, value) in query.pairs() {
        let changed = match name.as_str() {
            "level" => logging::set_level(None, value),
            "paths" => value
                .split(',')
                .filter(|p| !p.is_empty())
                .try_for_each(|pair| match pair.split_once(':') {
                    Some((name, level)) if COMPONENTS.contains(&name) => {
                        logging::set_level(Some(name), level)
                    }
                    _ => Err("error: unknown logger name".to_owned()),
                }),
            name if COMPONENTS.contains(&name) => logging::set_level(Some(name), value),
            _ => Err("error: unknown logger name".to_owned()),
        };
        if let Err(error) = changed {
            return Page::error(StatusCode::BAD_REQUEST, format!("{error}\n\n{USAGE}"));
        }
    }
    let mut text = String::from("active loggers:\n");
    for name in COMPONENTS {
        let _ = writeln!(text, "  {name}: {}", logging::level(name));
    }
    text.push('\n');
    Page::text(text)
}

fn runtime(cx: &mut AdminContext<'_>, _: &Query, _: &str) -> Page {
    let layers = cx.runtime.layers();
    let mut entries = Map::new();
    let keys: std::collections::BTreeSet<_> = layers
        .iter()
        .flat_map(|(_, values)| values.keys())
        .collect();
    for key in keys {
        let of = |values: &crate::runtime::Values| values.get(key).map_or("", |v| &**v).to_owned();
        let values: Vec<String> = layers.iter().map(|(_, v)| of(v)).collect();
        let last = values
            .iter()
            .rev()
            .find(|v| !v.is_empty())
            .cloned()
            .unwrap_or_default();
        entries.insert(
            key.to_string(),
            json!({ "final_value": last, "layer_values": values }),
        );
    }
    let names: Vec<&str> = layers.iter().map(|(name, _)| &**name).collect();
    Page::json(&json!({ "entries": entries, "layers": names }))
}

fn runtime_modify(cx: &mut AdminContext<'_>, query: &Query, _: &str) -> Page {
    if query.pairs().is_empty() {
        return Page::error(
            StatusCode::BAD_REQUEST,
            "usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN\n\
             or send the parameters as form values\nuse an empty value to remove a previously added override",
        );
    }
    if let Err(error) = cx.runtime.modify(query.pairs()) {
        return Page::error(StatusCode::SERVICE_UNAVAILABLE, error);
    }
    let snapshot = cx.runtime.snapshot();
    crate::runtime::apply_to_process(&snapshot);
    cx.access_logs.set_runtime(snapshot.clone());
    cx.snapshot.set_runtime(snapshot);
    cx.snapshot.publish();
    Page::text("OK\n")
}
