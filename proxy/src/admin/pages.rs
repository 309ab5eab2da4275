//! The table of pages, and those that need few words.

use std::fmt::Write as _;
use std::time::Instant;

use outrigger_stats::{PrometheusQuery, QueryError, Rendered, StatsQuery, Store};
use outrigger_types::{Method, StatusCode};
use serde_json::{Value, json};

use super::memory::MemoryUse;
use super::query::Query;
use super::{
    Call, Page, clusters, config_dump, endpoint_stats, logging, profiling, runtime, server_info,
};
use crate::access_log::AccessLogManager;
use crate::bootstrap::LoadedBootstrap;
use crate::runtime::Runtime;
use crate::server::options::Options;
use crate::snapshot::Snapshot;
use crate::xds::InitState;

/// Where the process is in its life.
#[derive(Debug)]
pub struct ServerState {
    /// When it started.
    pub started: Instant,
    /// How far the start has come.
    pub init: InitState,
    /// `/healthcheck/fail` was called.
    pub health_failed: bool,
    /// Listeners drain.
    pub draining: bool,
    /// `/quitquitquit` was called.
    pub quit: bool,
    /// Listeners are to be stopped once the drain time has passed: those of
    /// inbound traffic alone, or all.
    pub stop_after_drain: Option<bool>,
    /// Whether look-ups of stats by name are listed.
    pub lookups: Lookups,
}

impl ServerState {
    /// A process that starts now.
    pub fn starting() -> Self {
        Self {
            started: Instant::now(),
            init: InitState::Primary,
            health_failed: false,
            draining: false,
            quit: false,
            stop_after_drain: None,
            lookups: Lookups::Off,
        }
    }
}

/// `/stats/recentlookups`: whether look-ups are listed. Stats are not looked up by
/// name while there is traffic, so that none ever are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookups {
    /// They are.
    On,
    /// They are not.
    Off,
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

/// What a page is asked: its parameters, as they came and taken apart, and those of
/// a form.
struct Asked<'a> {
    raw: &'a str,
    query: Query,
    form: Query,
}

type Handler = fn(&mut AdminContext<'_>, &Asked<'_>) -> Page;

/// A page.
struct Entry {
    path: &'static str,
    /// Whether it changes anything, and asks for POST.
    mutates: bool,
    purpose: &'static str,
    /// Its parameters: name and meaning.
    parameters: &'static [(&'static str, &'static str)],
    answer: Handler,
}

/// A page to look at.
const fn get(path: &'static str, purpose: &'static str, answer: Handler) -> Entry {
    Entry {
        path,
        mutates: false,
        purpose,
        parameters: &[],
        answer,
    }
}

/// A page that changes something.
const fn post(path: &'static str, purpose: &'static str, answer: Handler) -> Entry {
    Entry {
        mutates: true,
        ..get(path, purpose, answer)
    }
}

impl Entry {
    const fn with(self, parameters: &'static [(&'static str, &'static str)]) -> Self {
        Self { parameters, ..self }
    }
}

const FILTER: (&str, &str) = ("filter", "regex (RE2) that names must hold");
const INVERT: (&str, &str) = ("invert_filter", "show what the filter leaves out");
const USED: (&str, &str) = ("usedonly", "only stats that were ever written");
const ENABLE: &[(&str, &str)] = &[("enable", "y to start, n to end")];

/// All pages, in the order of `/help`.
const PAGES: &[Entry] = &[
    get("/", "this list with links", |_, _| home()),
    post(
        "/allocprofiler",
        "allocation profiler (not built in)",
        |_, asked| profiling::profiler(&asked.query, "allocation profiler"),
    )
    .with(ENABLE),
    get("/certs", "certificates in use", |_, _| {
        Page::json(&json!({ "certificates": [] }))
    }),
    get(
        "/clusters",
        "state of upstream clusters and hosts",
        |cx, asked| clusters::page(cx, &asked.query),
    )
    .with(&[FILTER, ("format", "text or json")]),
    get(
        "/config_dump",
        "configuration as it was received",
        |cx, asked| config_dump::page(cx, &asked.query),
    )
    .with(&[
        ("resource", "one repeated field of the dump"),
        (
            "mask",
            "field mask on the dump, or on every element of the resource",
        ),
        ("name_regex", "regex that names of resources must match"),
        ("include_eds", "endpoints too"),
    ]),
    get("/contention", "contention of locks", |_, _| {
        Page::text(
            "Mutex contention tracing is not enabled. To enable, run Envoy with flag --enable-mutex-tracing.",
        )
    }),
    post("/cpuprofiler", "CPU profiler (not built in)", |_, asked| {
        profiling::profiler(&asked.query, "profiler")
    })
    .with(ENABLE),
    post("/drain_listeners", "drain listeners", |cx, asked| {
        drain_listeners(cx, &asked.query)
    })
    .with(&[
        ("graceful", "stop them only after the drain time"),
        ("skip_exit", "never stop them"),
        ("inboundonly", "only those of inbound traffic"),
    ]),
    post("/healthcheck/fail", "be DRAINING from now on", |cx, _| {
        cx.state.health_failed = true;
        cx.snapshot.set_health_failed(true);
        cx.snapshot.publish();
        Page::text("OK\n")
    }),
    post("/healthcheck/ok", "be LIVE again", |cx, _| {
        cx.state.health_failed = false;
        cx.snapshot.set_health_failed(false);
        cx.snapshot.publish();
        Page::text("OK\n")
    }),
    get("/heap_dump", "heap (not built in)", |_, _| {
        profiling::not_supported("heap dump")
    }),
    post("/heapprofiler", "heap profiler (not built in)", |_, _| {
        profiling::not_supported("heap profiler")
    })
    .with(ENABLE),
    get("/help", "this list", |_, _| Page::text(help())),
    get(
        "/hot_restart_version",
        "version of the hot restart protocol",
        |_, _| Page::text("disabled"),
    ),
    get("/init_dump", "what the start waits for", |cx, asked| {
        init_dump(cx, &asked.query)
    })
    .with(&[("mask", "field mask: listener")]),
    get("/listeners", "addresses of listeners", |cx, asked| {
        listeners(cx, &asked.query)
    })
    .with(&[("format", "text or json")]),
    post("/logging", "show or change log levels", |_, asked| {
        logging::page(&asked.query)
    })
    .with(&[
        ("<component>", "its level"),
        ("paths", "several: component:level,component:level"),
        ("level", "that of all"),
    ]),
    get("/memory", "memory of the process", |_, _| {
        Page::json(&MemoryUse::now().page())
    }),
    get(
        "/memory/tcmalloc",
        "another allocator's figures (not built in)",
        |_, _| profiling::not_supported("tcmalloc"),
    ),
    get(
        "/metrics",
        "this proxy's own families as OpenMetrics",
        |cx, _| rendered(cx, Ok(cx.store.open_metrics())),
    ),
    get(
        "/peak_heap_dump",
        "heap at its peak (not built in)",
        |_, _| profiling::not_supported("peak heap dump"),
    ),
    post("/quitquitquit", "end the process", |cx, _| {
        cx.state.quit = true;
        Page::text("OK\n")
    }),
    get("/ready", "state; 200 if LIVE, else 503", |cx, _| ready(cx)),
    post("/reopen_logs", "open log files anew", |cx, _| {
        cx.access_logs.reopen_all();
        Page::text("OK\n")
    }),
    post("/reset_counters", "set all counters to zero", |cx, _| {
        cx.store.reset_counters();
        Page::text("OK\n")
    }),
    get("/runtime", "values of the runtime by layer", |cx, _| {
        runtime::page(cx)
    }),
    post(
        "/runtime_modify",
        "set values of the admin layer",
        |cx, asked| {
            let from_query = !asked.query.pairs().is_empty();
            runtime::modify(
                cx,
                if from_query {
                    &asked.query
                } else {
                    &asked.form
                },
            )
        },
    )
    .with(&[("<key>", "its value; empty to remove it")]),
    get(
        "/server_info",
        "version, state, command line and node",
        |cx, _| Page::json(&server_info::page(cx)),
    ),
    get("/stats", "stats", |cx, asked| {
        let outside = || endpoint_stats::rows(cx);
        let query = StatsQuery::parse(asked.raw);
        rendered(cx, query.map(|q| cx.store.render_with(&q, &outside)))
    })
    .with(&[
        USED,
        FILTER,
        INVERT,
        ("format", "html, active-html, text, json or prometheus"),
        ("type", "All, Counters, Histograms, Gauges or TextReadouts"),
        (
            "histogram_buckets",
            "cumulative, disjoint, detailed or summary",
        ),
    ]),
    get("/stats/prometheus", "stats for Prometheus", |cx, asked| {
        let outside = || endpoint_stats::rows(cx);
        let query = PrometheusQuery::parse(asked.raw);
        rendered(
            cx,
            query.map(|q| cx.store.render_prometheus_with(&q, &outside)),
        )
    })
    .with(&[
        USED,
        ("text_readouts", "text readouts as gauges too"),
        FILTER,
        INVERT,
        ("histogram_buckets", "cumulative or summary"),
    ]),
    get(
        "/stats/recentlookups",
        "stats looked up by name",
        |cx, _| {
            Page::text(match cx.state.lookups {
                Lookups::On => "   Count Lookup\n\ntotal: 0\n",
                Lookups::Off => {
                    "Lookup tracking is not enabled. Use /stats/recentlookups/enable to enable.\n\ntotal: 0\n"
                }
            })
        },
    ),
    post("/stats/recentlookups/clear", "forget look-ups", |_, _| {
        Page::text("OK\n")
    }),
    post(
        "/stats/recentlookups/disable",
        "list look-ups no more",
        |cx, _| {
            cx.state.lookups = Lookups::Off;
            Page::text("OK\n")
        },
    ),
    post("/stats/recentlookups/enable", "list look-ups", |cx, _| {
        cx.state.lookups = Lookups::On;
        Page::text("OK\n")
    }),
];

/// Answers a call.
pub fn answer(cx: &mut AdminContext<'_>, call: Call) {
    let form = call.form.unwrap_or_default();
    let asked = Asked {
        raw: &call.query,
        query: Query::parse(&call.query),
        form: Query::parse(&String::from_utf8_lossy(&form)),
    };
    let page = page(cx, &call.method, &call.path, &asked);
    // A client that is gone does not need it.
    let _ = call.reply.send(page);
}

fn page(cx: &mut AdminContext<'_>, method: &Method, path: &str, asked: &Asked<'_>) -> Page {
    let path = if path.is_empty() { "/" } else { path };
    let Some(entry) = PAGES.iter().find(|p| p.path == path) else {
        return Page::error(StatusCode::NOT_FOUND, format!("invalid path. {}", help()));
    };
    if entry.mutates && method != Method::POST {
        return Page::error(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("Method {method} not allowed, POST required."),
        );
    }
    (entry.answer)(cx, asked)
}

fn help() -> String {
    let mut text = String::from("admin commands are:\n");
    for entry in PAGES {
        let post = if entry.mutates { " (POST)" } else { "" };
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {}{post}: {}", entry.path, entry.purpose);
        for (name, meaning) in entry.parameters {
            let _ = writeln!(text, "      {name}: {meaning}");
        }
    }
    text
}

/// Stats as they were when they were asked for, which may be what flushes them.
fn rendered(cx: &AdminContext<'_>, outcome: Result<Rendered, QueryError>) -> Page {
    match outcome {
        Ok(Rendered { content_type, body }) => {
            if cx.bootstrap.config.stats_flush_interval.is_none() {
                cx.store.flush();
            }
            Page {
                status: StatusCode::OK,
                content_type,
                body,
            }
        }
        Err(error) => Page::error(StatusCode::BAD_REQUEST, error.to_string()),
    }
}

fn home() -> Page {
    let mut rows = String::new();
    for entry in PAGES {
        let (name, purpose) = (entry.path.trim_start_matches('/'), entry.purpose);
        let _ = if entry.mutates {
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

fn ready(cx: &AdminContext<'_>) -> Page {
    let state = server_info::state(cx.state);
    let status = match state {
        server_info::State::Live => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    Page::error(status, format!("{}\n", state.name()))
}

/// Without `graceful` listeners stop at once, with it after the drain time, and
/// with `skip_exit` never.
fn drain_listeners(cx: &mut AdminContext<'_>, query: &Query) -> Page {
    let inbound_only = query.has("inboundonly");
    let skip_exit = query.has("skip_exit");
    if query.has("graceful") || skip_exit {
        cx.snapshot.drain_listeners(inbound_only);
        if !skip_exit && !cx.state.draining {
            cx.state.stop_after_drain = Some(inbound_only);
        }
        cx.state.draining = true;
    } else {
        cx.snapshot.drain_listeners(inbound_only);
        cx.snapshot.stop_listeners(inbound_only);
    }
    cx.snapshot.publish();
    Page::text("OK\n")
}

fn listeners(cx: &AdminContext<'_>, query: &Query) -> Page {
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

/// Only listeners are shown, which is all that a mask can name.
fn init_dump(cx: &AdminContext<'_>, query: &Query) -> Page {
    if query.get("mask").is_some_and(|mask| mask != "listener") {
        return Page::json(&json!({}));
    }
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
