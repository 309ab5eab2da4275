//! Adds and removes fields of heads as the configuration says
//! (`request_headers_to_add` and its like).
//!
//! One set of mutations works on the head as it finds it: fields are removed,
//! then every value is worked out, then fields are replaced, then added. So no
//! value sees what the same set replaces or adds. Who has several sets (route,
//! virtual host, route configuration) applies one after the other.

use http::{HeaderName, HeaderValue};
use outrigger_config::format::{Format, FormatContext};
use outrigger_config::ir::{AppendAction, HeaderAdd, HeaderMutations};
use outrigger_types::{HeadKind, HeaderKey, Headers, RequestHead, ResponseHead, StreamInfo};
use smallvec::SmallVec;

/// Applies a set to the head of a request.
///
/// Pseudo-headers and `host` are never touched: a configuration that names one
/// is refused.
pub fn apply_to_request(mutations: &HeaderMutations, head: &mut RequestHead, info: &StreamInfo) {
    if mutations.is_empty() {
        return;
    }
    remove(mutations, &mut head.headers);
    let changes = {
        let context = FormatContext {
            request: Some(head),
            ..FormatContext::new(info)
        };
        Changes::work_out(mutations, &head.headers, &context)
    };
    changes.make(&mut head.headers, HeadKind::Request);
}

/// Applies a set to the head of a response; values may read the request too.
///
/// Pseudo-headers are never touched: a configuration that names one is refused.
pub fn apply_to_response(
    mutations: &HeaderMutations,
    head: &mut ResponseHead,
    request: &RequestHead,
    info: &StreamInfo,
) {
    if mutations.is_empty() {
        return;
    }
    remove(mutations, &mut head.headers);
    let changes = {
        let context = FormatContext {
            request: Some(request),
            response: Some(head),
            ..FormatContext::new(info)
        };
        Changes::work_out(mutations, &head.headers, &context)
    };
    changes.make(&mut head.headers, HeadKind::Response);
}

fn remove(mutations: &HeaderMutations, headers: &mut Headers) {
    for key in &mutations.remove {
        if let HeaderKey::Field(name) = key {
            headers.remove(name);
        }
    }
}

type Fields = SmallVec<[(HeaderName, HeaderValue); 4]>;

/// What a set does to a head.
#[derive(Default)]
struct Changes {
    replace: Fields,
    append: Fields,
}

impl Changes {
    fn work_out(
        mutations: &HeaderMutations,
        headers: &Headers,
        context: &FormatContext<'_>,
    ) -> Self {
        let mut changes = Self::default();
        let mut text = Vec::new();
        for add in &mutations.add {
            let HeaderKey::Field(name) = &add.key else {
                continue;
            };
            let to = match add.action {
                AppendAction::AppendIfExistsOrAdd => &mut changes.append,
                AppendAction::AddIfAbsent if !headers.contains(name) => &mut changes.append,
                AppendAction::OverwriteIfExistsOrAdd => &mut changes.replace,
                AppendAction::OverwriteIfExists if headers.contains(name) => &mut changes.replace,
                AppendAction::AddIfAbsent | AppendAction::OverwriteIfExists => continue,
            };
            if let Some(value) = value(add, &mut text, context) {
                to.push((name.clone(), value));
            }
        }
        changes
    }

    /// A field that is replaced goes to the end, as in Envoy.
    fn make(self, headers: &mut Headers, kind: HeadKind) {
        for (name, value) in self.replace {
            headers.remove(&name);
            headers.append(name, value);
        }
        if self.append.is_empty() {
            return;
        }
        for (name, value) in self.append {
            headers.append(name, value);
        }
        headers.join_singles(kind);
    }
}

/// The value to write; none if it is empty and is not to be kept, or holds bytes
/// that no field may hold.
fn value(add: &HeaderAdd, text: &mut Vec<u8>, context: &FormatContext<'_>) -> Option<HeaderValue> {
    let bytes = evaluate(&add.value, text, context);
    if bytes.is_empty() && !add.keep_empty_value {
        return None;
    }
    HeaderValue::from_bytes(bytes).ok()
}

fn evaluate<'a>(
    format: &'a Format,
    text: &'a mut Vec<u8>,
    context: &FormatContext<'_>,
) -> &'a [u8] {
    match format.as_literal() {
        Some(literal) => literal.as_bytes(),
        None => {
            text.clear();
            format.append_to(text, context);
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use http::{Method, StatusCode};
    use outrigger_config::format::FormatOptions;
    use outrigger_types::{Address, ConnectionInfo};

    use super::*;

    fn info() -> StreamInfo {
        let address = Address::Pipe("@test".into());
        let connection = ConnectionInfo {
            id: 1,
            local: address.clone(),
            direct_local: address.clone(),
            local_restored: false,
            remote: address.clone(),
            direct_remote: address,
            requested_server_name: "".into(),
            tls: Default::default(),
            transport_failure: Default::default(),
            start: Instant::now(),
            listener_name: "".into(),
            filter_chain_name: "".into(),
            listener_metadata: None,
            filter_chain_metadata: None,
            filter_state: Default::default(),
        };
        StreamInfo::new(Arc::new(connection), "".into())
    }

    fn add(name: &'static str, value: &str, action: AppendAction) -> HeaderAdd {
        let options = FormatOptions {
            omit_empty_values: true,
            ..FormatOptions::default()
        };
        HeaderAdd {
            key: HeaderKey::Field(HeaderName::from_static(name)),
            value: Format::parse(value, &options).unwrap(),
            action,
            keep_empty_value: false,
        }
    }

    fn headers(fields: &[(&'static str, &'static str)]) -> Headers {
        fields
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect()
    }

    fn applied(
        before: &[(&'static str, &'static str)],
        remove: &[&'static str],
        add: Vec<HeaderAdd>,
    ) -> Headers {
        let mut head = RequestHead::new(Method::GET, "/");
        head.headers = headers(before);
        let fields = remove.iter().map(|name| HeaderName::from_static(name));
        let mutations = HeaderMutations {
            remove: fields.map(HeaderKey::Field).collect(),
            add,
        };
        apply_to_request(&mutations, &mut head, &info());
        head.headers
    }

    use AppendAction::{
        AddIfAbsent as Absent, AppendIfExistsOrAdd as Append, OverwriteIfExists as Existing,
        OverwriteIfExistsOrAdd as Overwrite,
    };

    #[test]
    fn every_action_sees_the_head_as_it_was() {
        let after = applied(
            &[("x-0", "o"), ("x-0", "p"), ("x-a", "o")],
            &[],
            vec![
                add("x-1", "a", Absent),
                add("x-1", "b", Absent),
                add("x-a", "b", Absent),
                add("x-2", "a", Overwrite),
                add("x-2", "b", Absent),
                add("x-4", "a", Overwrite),
                add("x-4", "b", Overwrite),
                add("x-6", "a", Append),
                add("x-6", "b", Overwrite),
                add("x-7", "a", Append),
                add("x-7", "b", Existing),
                add("x-0", "z%REQ(x-0)%", Existing),
                add("x-8", "%REQ(x-2)%|%REQ(x-0)%", Append),
            ],
        );
        let expected = [
            ("x-a", "o"),
            ("x-2", "a"),
            ("x-4", "b"),
            ("x-6", "b"),
            ("x-0", "zo"),
            ("x-1", "a"),
            ("x-1", "b"),
            ("x-2", "b"),
            ("x-6", "a"),
            ("x-7", "a"),
            ("x-8", "|o"),
        ];
        assert_eq!(after, headers(&expected));
    }

    #[test]
    fn removal_comes_first() {
        let after = applied(
            &[("x-rm", "r"), ("x-rm", "s")],
            &["x-rm"],
            vec![
                add("x-rm", "again", Append),
                add("x-after", "a%REQ(x-rm)%", Append),
            ],
        );
        assert_eq!(after, headers(&[("x-rm", "again"), ("x-after", "a")]));
    }

    #[test]
    fn empty_values_are_left_out_unless_kept() {
        let mut kept = add("x-kept", "%REQ(nope)%", Overwrite);
        kept.keep_empty_value = true;
        let after = applied(
            &[("x-old", "o"), ("x-kept", "o")],
            &[],
            vec![
                add("x-new", "%REQ(nope)%", Append),
                add("x-old", "%REQ(nope)%", Overwrite),
                kept,
            ],
        );
        assert_eq!(after, headers(&[("x-old", "o"), ("x-kept", "")]));
    }

    #[test]
    fn responses_may_read_the_request() {
        let mut request = RequestHead::new(Method::GET, "/p");
        request.headers = headers(&[("x-q", "1")]);
        let mut response = ResponseHead::new(StatusCode::OK);
        response.headers = headers(&[("x-r", "2")]);
        let mutations = HeaderMutations {
            remove: Vec::new(),
            add: vec![add("x-s", "%REQ(x-q)%%RESP(x-r)%%REQ(:path)%", Append)],
        };
        apply_to_response(&mutations, &mut response, &request, &info());
        assert_eq!(response.headers, headers(&[("x-r", "2"), ("x-s", "12/p")]));
    }
}
