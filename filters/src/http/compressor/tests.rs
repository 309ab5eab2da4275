//! The compressor filter, callback by callback.

use filter_api::{FactoryContext, FilterStatus, HttpFilterConfig};
use outrigger_stats::Store;
use outrigger_types::HeaderName;
use prost::Message;
use xds_api::pb::envoy::config::core::v3::TypedExtensionConfig;
use xds_api::pb::envoy::extensions::compression::brotli::compressor::v3::Brotli;
use xds_api::pb::envoy::extensions::compression::gzip::compressor::v3::Gzip;
use xds_api::pb::envoy::extensions::filters::http::compressor::v3 as pb;
use xds_api::pb::google::protobuf::Any;

use super::*;
use crate::testing::{TestStream, data, factory_context};

fn message(type_name: &str, value: Vec<u8>) -> pb::Compressor {
    pb::Compressor {
        compressor_library: Some(TypedExtensionConfig {
            name: "l".to_owned(),
            typed_config: Some(Any {
                type_url: format!("type.googleapis.com/{type_name}"),
                value,
            }),
        }),
        response_direction_config: Some(pb::compressor::ResponseDirectionConfig::default()),
        ..pb::Compressor::default()
    }
}

fn made(library: &str, value: Vec<u8>, cx: &FactoryContext) -> Arc<dyn HttpFilterConfig> {
    let library = format!("envoy.extensions.compression.{library}");
    filter(&message(&library, value).encode_to_vec(), cx).expect("the filter is valid")
}

fn gzip(cx: &FactoryContext) -> Arc<dyn HttpFilterConfig> {
    made(
        "gzip.compressor.v3.Gzip",
        Gzip::default().encode_to_vec(),
        cx,
    )
}

fn head(fields: &[(&'static str, &'static str)]) -> ResponseHead {
    let mut head = ResponseHead::new(StatusCode::OK);
    for (name, value) in fields {
        let name = HeaderName::from_static(name);
        head.headers.append(name, HeaderValue::from_static(value));
    }
    head
}

fn stream(accepted: &str) -> TestStream {
    TestStream::new(&Store::default(), "/").header("accept-encoding", accepted)
}

fn encoding(head: &ResponseHead) -> Option<&[u8]> {
    head.headers.get_bytes(&names::CONTENT_ENCODING)
}

#[test]
fn what_trailers_end_is_finished_before_them() {
    let mut stream = stream("gzip");
    let config = gzip(&factory_context());
    let mut filter = stream.filter(&*config, None).unwrap();
    let mut cx = stream.context();
    filter.decode_headers(&mut cx, true);
    let mut head = head(&[("content-type", "text/plain")]);
    filter.encode_headers(&mut cx, &mut head, false);
    assert_eq!(encoding(&head), Some(&b"gzip"[..]));
    let mut body = data(b"hello");
    let status = filter.encode_data(&mut cx, &mut body, false);
    assert!(matches!(status, FilterStatus::Continue));
    filter.encode_trailers(&mut cx, &mut Headers::new());
    let rest = cx.add_data.take().expect("the end of the encoding");
    let all: Vec<u8> = body
        .chunks()
        .chain(rest.chunks())
        .flatten()
        .copied()
        .collect();
    let mut text = String::new();
    let mut decoder = flate2::read::GzDecoder::new(&*all);
    std::io::Read::read_to_string(&mut decoder, &mut text).unwrap();
    assert_eq!(text, "hello");
}

#[test]
fn one_filter_of_a_chain_compresses() {
    let cx = factory_context();
    let brotli = Brotli::default().encode_to_vec();
    let all = [gzip(&cx), made("brotli.compressor.v3.Brotli", brotli, &cx)];
    let mut stream = stream("gzip;q=0.5, br");
    let chosen = all.map(|config| {
        let mut filter = stream.filter(&*config, None).unwrap();
        let mut cx = stream.context();
        filter.decode_headers(&mut cx, true);
        let mut head = head(&[("content-type", "text/plain"), ("content-length", "100")]);
        filter.encode_headers(&mut cx, &mut head, false);
        assert_eq!(head.headers.get_bytes(&VARY), Some(&b"Accept-Encoding"[..]));
        encoding(&head).map(<[u8]>::to_vec)
    });
    assert_eq!(chosen, [None, Some(b"br".to_vec())]);
}

#[test]
fn a_library_that_there_is_not_is_named() {
    let message = message("google.protobuf.Empty", Vec::new());
    let error = filter(&message.encode_to_vec(), &factory_context()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("compressor_library / typed_config"), "{text}");
}
