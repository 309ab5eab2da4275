//! Choosing, redirecting and rewriting by tables, on route configurations as they are
//! received.

use std::sync::Arc;

use outrigger_config::convert::{self, ConvertContext};
use outrigger_config::ir::RouteActionConfig;
use outrigger_filters::Registry;
use outrigger_stats::Store;
use outrigger_types::{Headers, Method, RequestHead};
use serde_json::{Value, json};

use super::matcher::{RouteMatch, RouteTable};
use super::{redirect, rewrite};
use crate::http::conn_manager::request::tests::info;

fn table(virtual_hosts: Value) -> Arc<RouteTable> {
    let config = json!({ "name": "r", "virtual_hosts": virtual_hosts });
    let message = xds_api::json::from_json("envoy.config.route.v3.RouteConfiguration", &config)
        .unwrap_or_else(|e| panic!("{}: {}", e.path, e.reason));
    let cx = ConvertContext {
        registry: &Registry,
        store: Store::default(),
        node: Default::default(),
        reject_unknown_fields: false,
    };
    let config = convert::route_table(&message.bytes, &cx).expect("a valid configuration");
    RouteTable::new(Arc::new(config.value), &cx.store)
}

fn request(authority: &str, path: &str) -> RequestHead {
    let mut head = RequestHead::new(Method::GET, path.to_owned());
    head.authority = Some(authority.to_owned().into());
    head
}

fn find(table: &Arc<RouteTable>, head: &RequestHead) -> Option<RouteMatch> {
    table.find(head, &info(), &Default::default(), 0)
}

/// The name of the route that a path on any host takes; `-` for none.
fn route_of(routes: Value, path: &str) -> String {
    let table = table(json!([{ "name": "v", "domains": ["*"], "routes": routes }]));
    let found = find(&table, &request("x", path)).and_then(|m| m.route);
    found.map_or_else(|| "-".to_owned(), |route| route.name.to_string())
}

fn to_cluster(name: &str, matches: Value) -> Value {
    json!({ "name": name, "match": matches, "route": { "cluster": "c" } })
}

#[test]
fn the_most_specific_domain_wins() {
    let host = |name: &str, domains: &[&str]| {
        let route = to_cluster(name, json!({ "prefix": "/" }));
        json!({ "name": name, "domains": domains, "routes": [route] })
    };
    let table = table(json!([
        host("any", &["*"]),
        host("suffix", &["*.example.com"]),
        host("longer suffix", &["*.a.example.com"]),
        host("prefix", &["www.*"]),
        host("exact", &["www.example.com", "with.port:8080"]),
    ]));
    for (authority, wanted) in [
        ("www.example.com", "exact"),
        ("WWW.Example.COM", "exact"),
        ("with.port:8080", "exact"),
        ("with.port", "any"),
        ("b.example.com", "suffix"),
        ("b.a.example.com", "longer suffix"),
        (".example.com", "any"),
        ("www.example.org", "prefix"),
        ("www.", "any"),
        ("", "any"),
    ] {
        let found = find(&table, &request(authority, "/")).expect("a route");
        assert_eq!(&*found.vhost.name, wanted, "{authority}");
    }
}

#[test]
fn the_first_route_that_matches_wins() {
    let routes = json!([
        to_cluster("exact", json!({ "path": "/a" })),
        to_cluster(
            "insensitive",
            json!({ "path": "/B", "case_sensitive": false })
        ),
        to_cluster("separated", json!({ "path_separated_prefix": "/sep" })),
        to_cluster("regex", json!({ "safe_regex": { "regex": "/r[0-9]+" } })),
        to_cluster(
            "query",
            json!({ "prefix": "/q", "query_parameters": [{ "name": "k", "present_match": true }] })
        ),
        to_cluster("prefix", json!({ "prefix": "/pre" })),
    ]);
    for (path, wanted) in [
        ("/a", "exact"),
        ("/a?x=/b", "exact"),
        ("/A", "-"),
        ("/a/", "-"),
        ("/b", "insensitive"),
        ("/sep", "separated"),
        ("/sep/x", "separated"),
        ("/sepx", "-"),
        ("/r12", "regex"),
        ("/r12x", "-"),
        ("/q?k", "query"),
        ("/q?kk=1", "-"),
        ("/prefixed", "prefix"),
    ] {
        assert_eq!(route_of(routes.clone(), path), wanted, "{path}");
    }
}

#[test]
fn a_redirect_changes_what_it_names_and_keeps_the_rest() {
    for (action, authority, path, wanted) in [
        (
            json!({ "https_redirect": true }),
            "h:80",
            "/p?q",
            "https://h/p?q",
        ),
        (
            json!({ "https_redirect": true }),
            "h:8080",
            "/p",
            "https://h:8080/p",
        ),
        (
            json!({ "port_redirect": 8443 }),
            "h:80",
            "/p",
            "http://h:8443/p",
        ),
        (
            json!({ "host_redirect": "o:1" }),
            "h",
            "/p?q",
            "http://o:1/p?q",
        ),
        (
            json!({ "path_redirect": "/n" }),
            "h",
            "/p?q",
            "http://h/n?q",
        ),
        (
            json!({ "path_redirect": "/n?x" }),
            "h",
            "/p?q",
            "http://h/n?x",
        ),
        (
            json!({ "prefix_rewrite": "/n", "strip_query": true }),
            "h",
            "/pre/x?q",
            "http://h/n/x",
        ),
    ] {
        let routes = json!([
            { "match": { "prefix": "/pre" }, "redirect": action },
            { "match": { "prefix": "/" }, "redirect": action },
        ]);
        let table = table(json!([{ "name": "v", "domains": ["*"], "routes": routes }]));
        let head = request(authority, path);
        let matched = find(&table, &head).expect("a route");
        let route = matched.route.clone().expect("a route");
        let RouteActionConfig::Redirect(config) = &route.action else {
            panic!("{action} is a redirect");
        };
        let (status, location) = redirect::location(&matched, config, &head);
        assert_eq!(status, 301);
        assert_eq!(location.as_bytes(), wanted.as_bytes(), "{action} {path}");
    }
}

#[test]
fn a_rewrite_replaces_what_was_matched_and_notes_what_there_was() {
    for (matches, action, path, wanted) in [
        (
            json!({ "prefix": "/old" }),
            json!({ "prefix_rewrite": "/new" }),
            "/old/x?q",
            "/new/x?q",
        ),
        (
            json!({ "path": "/old" }),
            json!({ "prefix_rewrite": "/new" }),
            "/old?q",
            "/new?q",
        ),
        (
            json!({ "prefix": "/" }),
            json!({ "regex_rewrite": { "pattern": { "regex": "/(a)/(b)" }, "substitution": "/\\2/\\1" } }),
            "/a/b/c?q",
            "/b/a/c?q",
        ),
    ] {
        let mut action = action;
        action["cluster"] = json!("c");
        let routes = json!([{ "match": matches, "route": action }]);
        let table = table(json!([{ "name": "v", "domains": ["*"], "routes": routes }]));
        let mut head = request("h", path);
        let matched = find(&table, &head).expect("a route");
        let forward = matched.forward().expect("it goes upstream");
        rewrite::request(&matched, forward, &mut head, &info(), true);
        assert_eq!(&*head.path, wanted.as_bytes(), "{path}");
        let original = |headers: &Headers| {
            let name = outrigger_types::names::X_ENVOY_ORIGINAL_PATH;
            headers.get_bytes(&name).map(<[u8]>::to_vec)
        };
        assert_eq!(original(&head.headers).as_deref(), Some(path.as_bytes()));
    }
}
