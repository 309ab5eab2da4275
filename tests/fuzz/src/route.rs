//! The choice of a route: small route tables and requests, compared with an
//! oracle that goes through the configuration as it was written.

use std::sync::Arc;

use arbitrary::{Arbitrary, Result, Unstructured};
use bytes::Bytes;
use outrigger::router::matcher::RouteTable;
use outrigger_config::convert;
use outrigger_types::{HeaderName, HeaderValue, Method, RequestHead};
use serde_json::{Value, json};
use xds_api::json::from_json;

use crate::config::context;
use crate::route_oracle;
use crate::stream::info;

/// Any bytes: a table and eight requests are made of them.
pub(crate) fn route_match(data: &[u8]) {
    // What is made of too few bytes is no less a table.
    let _ = compare(&mut Unstructured::new(data));
}

fn compare(u: &mut Unstructured<'_>) -> Result<()> {
    let config = table(u)?;
    let message = from_json("envoy.config.route.v3.RouteConfiguration", &config)
        .unwrap_or_else(|error| panic!("{error}: {config}"));
    let cx = context();
    let converted = convert::route_table(&message.bytes, &cx);
    let ready = match converted {
        Ok(converted) => RouteTable::new(Arc::new(converted.value), &cx.store),
        Err(error) => panic!("{error}: {config}"),
    };
    for _ in 0..8 {
        let head = request(u)?;
        let found = ready.find(&head, &info(), &Default::default(), 0);
        let found = found.and_then(|found| found.route);
        let found = found.map(|route| route.name.to_string());
        let expected = route_oracle::find(&config, &head);
        assert_eq!(found, expected, "{head:?} in {config:#}");
    }
    Ok(())
}

/// A word of these letters.
fn word(u: &mut Unstructured<'_>, letters: &[char], longest: usize) -> Result<String> {
    let length = u.int_in_range(0..=longest)?;
    (0..length).map(|_| u.choose(letters).copied()).collect()
}

fn host(u: &mut Unstructured<'_>) -> Result<String> {
    word(u, &['a', 'B', '.'], 4)
}

fn path(u: &mut Unstructured<'_>) -> Result<String> {
    Ok(format!("/{}", word(u, &['a', 'A', 'b', '/'], 4)?))
}

fn value(u: &mut Unstructured<'_>) -> Result<String> {
    word(u, &['a', 'A', '1', '-'], 3)
}

fn table(u: &mut Unstructured<'_>) -> Result<Value> {
    let mut taken = Vec::new();
    let mut names = 0..;
    let mut hosts = Vec::new();
    for index in 0..u.int_in_range(1..=4)? {
        let mut domains = vec![format!("only-{index}")];
        for _ in 0..u.int_in_range(1..=3)? {
            let domain = domain(u)?;
            let lower = domain.to_ascii_lowercase();
            // A domain twice is refused.
            if !domain.is_empty() && !taken.contains(&lower) {
                taken.push(lower);
                domains.push(domain);
            }
        }
        let routes = (0..u.int_in_range(0..=4)?).map(|_| route(u, names.next().unwrap_or(0)));
        let routes = routes.collect::<Result<Vec<Value>>>()?;
        hosts.push(json!({ "name": format!("h{index}"), "domains": domains, "routes": routes }));
    }
    Ok(json!({
        "name": "r",
        "virtual_hosts": hosts,
        "ignore_port_in_host_matching": bool::arbitrary(u)?,
        "ignore_path_parameters_in_path_matching": bool::arbitrary(u)?,
    }))
}

fn domain(u: &mut Unstructured<'_>) -> Result<String> {
    let host = host(u)?;
    Ok(match u.int_in_range(0..=3)? {
        0 => "*".to_owned(),
        1 => format!("*{host}"),
        2 => format!("{host}*"),
        _ => host,
    })
}

fn route(u: &mut Unstructured<'_>, name: usize) -> Result<Value> {
    let mut matches = match u.int_in_range(0..=4)? {
        0 => json!({ "prefix": path(u)? }),
        1 => json!({ "path": path(u)? }),
        2 => json!({ "safe_regex": { "regex": path(u)?.replace('b', ".*") } }),
        3 => {
            let path = path(u)?;
            let path = path.trim_end_matches('/');
            json!({ "path_separated_prefix": if path.is_empty() { "/a" } else { path } })
        }
        _ => json!({ "prefix": "/" }),
    };
    // Of an expression the case always counts.
    if matches.get("safe_regex").is_none() {
        matches["case_sensitive"] = bool::arbitrary(u)?.into();
    }
    if u.ratio(1, 8)? {
        matches["grpc"] = json!({});
    }
    let headers = (0..u.int_in_range(0..=2)?).map(|_| header(u));
    matches["headers"] = headers.collect::<Result<_>>()?;
    let parameters = (0..u.int_in_range(0..=1)?).map(|_| parameter(u));
    matches["query_parameters"] = parameters.collect::<Result<_>>()?;
    Ok(json!({
        "name": format!("r{name}"),
        "match": matches,
        "direct_response": { "status": 200 },
    }))
}

fn header(u: &mut Unstructured<'_>) -> Result<Value> {
    let name = *u.choose(&["x", "y", ":method", ":path", ":authority"])?;
    let mut matcher = match u.int_in_range(0..=2)? {
        0 => json!({ "present_match": bool::arbitrary(u)? }),
        1 => json!({ "range_match": {
            "start": u.int_in_range(-2..=12)?,
            "end": u.int_in_range(-2..=120)?,
        } }),
        _ => json!({ "string_match": string(u)? }),
    };
    matcher["name"] = name.into();
    matcher["invert_match"] = u.ratio(1, 3)?.into();
    matcher["treat_missing_header_as_empty"] = u.ratio(1, 4)?.into();
    Ok(matcher)
}

fn parameter(u: &mut Unstructured<'_>) -> Result<Value> {
    let name = *u.choose(&["q", "a"])?;
    Ok(match bool::arbitrary(u)? {
        true => json!({ "name": name, "present_match": bool::arbitrary(u)? }),
        false => json!({ "name": name, "string_match": string(u)? }),
    })
}

fn string(u: &mut Unstructured<'_>) -> Result<Value> {
    let kind = *u.choose(&["exact", "prefix", "suffix", "contains"])?;
    let text = value(u)?;
    // All but the whole string refuse the empty one.
    let text = if text.is_empty() { "a".into() } else { text };
    Ok(json!({ kind: text, "ignore_case": bool::arbitrary(u)? }))
}

fn request(u: &mut Unstructured<'_>) -> Result<RequestHead> {
    let parameters = word(u, &['a', 'b', ';', '/'], 3)?;
    let query = word(u, &['q', 'a', '=', '&', '1', '?'], 5)?;
    let path = match u.int_in_range(0..=3)? {
        0 => format!("{};{parameters}?{query}", path(u)?),
        1 => format!("{}?{query}", path(u)?),
        _ => path(u)?,
    };
    let method = u.choose(&[Method::GET, Method::POST])?.clone();
    let mut head = RequestHead::new(method, path);
    let port = *u.choose(&["", "", ":80", ":"])?;
    let only = u.ratio(1, 4)?;
    let host = if only { "ONLY-0".to_owned() } else { host(u)? };
    head.authority = Some(Bytes::from(format!("{host}{port}")));
    let mut add = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            head.headers.append(HeaderName::from_static(name), value);
        }
    };
    for _ in 0..u.int_in_range(0..=3)? {
        add(u.choose(&["x", "y"])?, &value(u)?);
    }
    if u.ratio(1, 4)? {
        let kinds = ["application/grpc", "application/grpc+proto", "text/plain"];
        add("content-type", u.choose(&kinds)?);
    }
    Ok(head)
}
