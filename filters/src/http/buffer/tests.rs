//! The buffer filter, callback by callback.

use filter_api::{FilterStatus, HttpFilter, HttpFilterConfig, RouteFilterConfig};
use outrigger_stats::Store;
use outrigger_types::{Headers, names};
use prost::Message;
use xds_api::pb::envoy::extensions::filters::http::buffer::v3 as pb;

use crate::testing::{TestStream, data, factory_context};

fn message(max: u32) -> pb::Buffer {
    pb::Buffer {
        max_request_bytes: Some(xds_api::pb::google::protobuf::UInt32Value { value: max }),
    }
}

fn stream() -> (TestStream, Box<dyn HttpFilter>) {
    let stream = TestStream::new(&Store::default(), "/");
    let config = super::filter(&message(10).encode_to_vec(), &factory_context()).unwrap();
    let filter = stream.filter(&*config, None).unwrap();
    (stream, filter)
}

#[test]
fn a_whole_request_goes_on_with_its_length() {
    let (mut stream, mut filter) = stream();
    let mut cx = stream.context();
    assert!(matches!(
        filter.decode_headers(&mut cx, false),
        FilterStatus::PauseAndBuffer
    ));
    assert!(matches!(
        filter.decode_data(&mut cx, &mut data(b"12345"), false),
        FilterStatus::PauseAndBuffer
    ));
    assert!(matches!(
        filter.decode_data(&mut cx, &mut data(b"67890"), true),
        FilterStatus::Continue
    ));
    assert_eq!(
        stream.request.headers.get_bytes(&names::CONTENT_LENGTH),
        Some(&b"10"[..])
    );
}

#[test]
fn trailers_end_a_request_too_and_a_length_is_kept() {
    let (stream, mut filter) = stream();
    let mut stream = stream.header("content-length", "3");
    let mut cx = stream.context();
    assert!(matches!(
        filter.decode_data(&mut cx, &mut data(b"123"), false),
        FilterStatus::PauseAndBuffer
    ));
    assert!(matches!(
        filter.decode_trailers(&mut cx, &mut Headers::new()),
        FilterStatus::Continue
    ));
    assert_eq!(stream.request.headers.len(), 1);
}

#[test]
fn the_limit_of_the_chain_is_the_filters_own() {
    let (mut stream, mut filter) = stream();
    let mut cx = stream.context();
    cx.buffer_limit = 4;
    filter.decode_headers(&mut cx, false);
    assert_eq!(cx.buffer_limit, 10);
}

#[test]
fn a_request_without_body_passes() {
    let (mut stream, mut filter) = stream();
    assert!(matches!(
        filter.decode_headers(&mut stream.context(), true),
        FilterStatus::Continue
    ));
    assert!(stream.request.headers.is_empty());
}

#[test]
fn a_route_overrides_the_limit_or_turns_the_filter_off() {
    use pb::buffer_per_route::Override;
    let route = |r#override| -> RouteFilterConfig {
        let message = pb::BufferPerRoute {
            r#override: Some(r#override),
        };
        super::route(&message.encode_to_vec()).unwrap()
    };
    let mut stream = TestStream::new(&Store::default(), "/");
    let config = super::filter(&message(10).encode_to_vec(), &factory_context()).unwrap();
    let config: &dyn HttpFilterConfig = &*config;
    assert!(
        stream
            .filter(config, Some(&route(Override::Disabled(true))))
            .is_none()
    );
    let mut filter = stream
        .filter(config, Some(&route(Override::Buffer(message(2)))))
        .unwrap();
    let mut cx = stream.context();
    filter.decode_headers(&mut cx, false);
    assert_eq!(cx.buffer_limit, 2);
}
