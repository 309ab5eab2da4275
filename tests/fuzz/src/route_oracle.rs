//! Which route a request takes, read slowly from the configuration's JSON, as
//! Envoy's documentation of `RouteConfiguration` says it.

use outrigger_types::{RequestHead, names};
use serde_json::Value;

/// The name of the route.
pub(crate) fn find(config: &Value, head: &RequestHead) -> Option<String> {
    let host = head.authority.as_deref().unwrap_or_default();
    let mut host = String::from_utf8_lossy(host).to_ascii_lowercase();
    if is(config, "ignore_port_in_host_matching")
        && let Some((name, port)) = host.rsplit_once(':')
        && port.chars().all(|c| c.is_ascii_digit())
    {
        host = name.to_owned();
    }
    let full = String::from_utf8_lossy(&head.path).into_owned();
    let (path, query) = full.split_once('?').unwrap_or((&full, ""));
    let path = match is(config, "ignore_path_parameters_in_path_matching") {
        true => without_parameters(path),
        false => path.to_owned(),
    };
    let routes = list(virtual_host(config, &host)?, "routes");
    let route = routes.iter().find(|route| {
        let matches = &route["match"];
        path_matches(matches, &path)
            && (matches.get("grpc").is_none() || is_grpc(head))
            && list(matches, "headers").iter().all(|m| header(m, head))
            && list(matches, "query_parameters")
                .iter()
                .all(|m| parameter(m, query))
    })?;
    route["name"].as_str().map(str::to_owned)
}

fn is(value: &Value, field: &str) -> bool {
    value[field].as_bool().unwrap_or(false)
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

fn without_parameters(path: &str) -> String {
    let segments = path.split('/');
    let plain = segments.map(|segment| segment.split(';').next().unwrap_or(""));
    plain.collect::<Vec<_>>().join("/")
}

/// Of all domains that fit, the best: the whole name, then the longest `*name`,
/// then the longest `name*`, then `*`.
fn virtual_host<'a>(config: &'a Value, host: &str) -> Option<&'a Value> {
    let mut best = None;
    for virtual_host in list(config, "virtual_hosts") {
        for domain in list(virtual_host, "domains") {
            let domain = domain.as_str().unwrap_or("").to_ascii_lowercase();
            let rank = if domain == "*" {
                Some((0, 0))
            } else if let Some(end) = domain.strip_prefix('*') {
                let fits = host.ends_with(end) && host.len() > end.len();
                fits.then_some((2, end.len()))
            } else if let Some(start) = domain.strip_suffix('*') {
                let fits = host.starts_with(start) && host.len() > start.len();
                fits.then_some((1, start.len()))
            } else {
                (domain == host).then_some((3, 0))
            };
            if let Some(rank) = rank
                && best.is_none_or(|(of_best, _)| rank > of_best)
            {
                best = Some((rank, virtual_host));
            }
        }
    }
    best.map(|(_, virtual_host)| virtual_host)
}

fn path_matches(matches: &Value, path: &str) -> bool {
    let text = |field: &str| matches[field].as_str().map(str::to_owned);
    if let Some(regex) = matches["safe_regex"]["regex"].as_str() {
        return glob(&regex.split(".*").collect::<Vec<_>>(), path);
    }
    let fold = |text: String| match matches["case_sensitive"].as_bool() {
        Some(false) => text.to_ascii_uppercase(),
        _ => text,
    };
    let path = fold(path.to_owned());
    if let Some(exact) = text("path").map(fold) {
        return path == exact;
    }
    if let Some(prefix) = text("path_separated_prefix").map(fold) {
        return path == prefix || path.starts_with(&format!("{prefix}/"));
    }
    text("prefix")
        .map(fold)
        .is_some_and(|prefix| path.starts_with(&prefix))
}

/// Whether these pieces stand in a text, in order and with anything between
/// them, the first at its start and the last at its end.
fn glob(pieces: &[&str], text: &str) -> bool {
    match pieces {
        [] => text.is_empty(),
        [last] => text == *last,
        [first, rest @ ..] => text.strip_prefix(first).is_some_and(|text| {
            let starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            starts.into_iter().any(|at| glob(rest, &text[at..]))
        }),
    }
}

fn is_grpc(head: &RequestHead) -> bool {
    let kind = head
        .headers
        .get_bytes(&names::CONTENT_TYPE)
        .unwrap_or_default();
    kind == b"application/grpc" || kind.starts_with(b"application/grpc+")
}

fn header(matcher: &Value, head: &RequestHead) -> bool {
    let name = matcher["name"].as_str().unwrap_or("");
    let bytes = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut values: Vec<String> = match name {
        ":method" => vec![head.method.to_string()],
        ":path" => vec![bytes(&head.path)],
        ":authority" => vec![bytes(head.authority.as_deref().unwrap_or_default())],
        name => {
            let fields = head.headers.iter().filter(|(n, _)| *n == name);
            fields.map(|(_, value)| bytes(value.as_bytes())).collect()
        }
    };
    if values.is_empty() && is(matcher, "treat_missing_header_as_empty") {
        values.push(String::new());
    }
    let invert = is(matcher, "invert_match");
    if let Some(present) = matcher["present_match"].as_bool() {
        return (values.is_empty() != present) != invert;
    }
    if values.is_empty() {
        return false;
    }
    let matches = |value: &String| match matcher.get("range_match") {
        Some(range) => number(value).is_some_and(|number| {
            let (start, end) = (range["start"].as_i64(), range["end"].as_i64());
            start.unwrap_or(0) <= number && number < end.unwrap_or(0)
        }),
        None => string(&matcher["string_match"], value),
    };
    values.iter().any(matches) != invert
}

fn number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

/// The first parameter of the name.
fn parameter(matcher: &Value, query: &str) -> bool {
    let name = matcher["name"].as_str().unwrap_or("");
    let mut pairs = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let value = pairs.find(|(key, _)| *key == name).map(|(_, value)| value);
    match matcher["present_match"].as_bool() {
        Some(present) => value.is_some() == present,
        None => value.is_some_and(|value| string(&matcher["string_match"], value)),
    }
}

fn string(matcher: &Value, value: &str) -> bool {
    let fold = |text: &str| match is(matcher, "ignore_case") {
        true => text.to_ascii_uppercase(),
        false => text.to_owned(),
    };
    let value = fold(value);
    let text = |kind: &str| matcher[kind].as_str().map(fold);
    if let Some(exact) = text("exact") {
        value == exact
    } else if let Some(prefix) = text("prefix") {
        value.starts_with(&prefix)
    } else if let Some(suffix) = text("suffix") {
        value.ends_with(&suffix)
    } else {
        text("contains").is_some_and(|part| value.contains(&part))
    }
}
