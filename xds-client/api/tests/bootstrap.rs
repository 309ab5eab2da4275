//! Bootstrap files and their overlay.

use serde_json::json;
use xds_api::bootstrap::{BOOTSTRAP, File, LoadError, Options, load};
use xds_api::{json, validate, verdict};

fn read(file: &str, overlay: Option<&str>) -> Result<serde_json::Value, LoadError> {
    let loaded = load(
        Some(File::named("b.yaml", file.as_bytes())),
        overlay,
        Options::default(),
    )?;
    Ok(json::to_json(BOOTSTRAP, &loaded.bytes)?)
}

#[test]
fn an_overlay_replaces_single_values_and_appends_to_lists() {
    let file = "node: {id: a, cluster: c}\nstatic_resources: {clusters: [{name: a}]}\n";
    let overlay = "{node: {id: b}, static_resources: {clusters: [{name: a}]}}";
    assert_eq!(
        read(file, Some(overlay)).expect("it loads"),
        json!({
            "node": {"id": "b", "cluster": "c"},
            "static_resources": {"clusters": [{"name": "a"}, {"name": "a"}]},
        })
    );
}

#[test]
fn an_overlay_takes_a_oneof_over() {
    let file = "admin: {address: {pipe: {path: ''}}}";
    let overlay = "admin: {address: {socket_address: {address: 1.1.1.1, port_value: 5}}}";
    let loaded = load(
        Some(File::named("b.yaml", file.as_bytes())),
        Some(overlay),
        Options::default(),
    );
    assert_eq!(
        validate::validate(BOOTSTRAP, &loaded.expect("it loads").bytes),
        Ok(())
    );
}

#[test]
fn an_unknown_name_is_an_error_unless_allowed() {
    let file = "static_resources: {clusters: [{name: a, no_such: 1, lb_policy: NO_SUCH}]}";
    let error = read(file, None).expect_err("unknown").to_string();
    assert_eq!(
        error,
        "static_resources / clusters[0] / no_such: no such field in envoy.config.cluster.v3.Cluster"
    );
    let options = Options {
        allow_unknown: true,
    };
    let loaded = load(Some(File::named("b.yml", file.as_bytes())), None, options).expect("allowed");
    let unknown: Vec<String> = loaded.unknown.iter().map(ToString::to_string).collect();
    assert_eq!(unknown.len(), 2, "{unknown:?}");
    assert!(unknown[1].contains("lb_policy"), "{unknown:?}");
}

#[test]
fn takes_the_spellings_that_envoy_takes() {
    for file in [
        "staticResources: {clusters: [{name: a, type: static, max_requests_per_connection: \"7\"}]}",
        "static_resources: {clusters: {name: a, type: \"0\", max_requests_per_connection: 7.0}}",
        "static_resources: {clusters: [{name: a, type: STATIC, max_requests_per_connection: {value: 0x7}}]}",
    ] {
        let value = read(file, None).expect(file);
        let cluster = &value["static_resources"]["clusters"][0];
        assert_eq!(cluster["max_requests_per_connection"], 7, "{file}");
        assert_eq!(cluster["type"], "STATIC", "{file}");
    }
    for (file, path) in [
        ("node: {id: yes}", "node / id"),
        (
            "static_resources: {clusters: [{name: a, max_requests_per_connection: 1.5}]}",
            "max_requests_per_connection",
        ),
        (
            "static_resources: {clusters: [{name: a, connect_timeout: 5}]}",
            "static_resources / clusters[0] / connect_timeout",
        ),
        (
            "admin: {address: {pipe: {}, socket_address: {}}}",
            "exclude each other",
        ),
        ("- a", "expected an object"),
    ] {
        let error = read(file, None).expect_err(file).to_string();
        assert!(error.contains(path), "{file}: {error}");
    }
}

#[test]
fn a_typed_struct_is_checked_as_the_message_that_it_stands_for() {
    let listener = |value: &str| {
        format!(
            "static_resources: {{listeners: [{{filter_chains: [{{filters: [{{name: h, typed_config: \
             {{'@type': type.googleapis.com/udpa.type.v1.TypedStruct, type_url: \
             type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, \
             value: {value}}}}}]}}]}}]}}"
        )
    };
    let load_it = |value: &str| {
        let text = listener(value);
        load(
            Some(File::named("b.yaml", text.as_bytes())),
            None,
            Options::default(),
        )
        .expect("it loads")
        .bytes
    };
    let report = verdict::check(
        BOOTSTRAP,
        &load_it("{stat_prefix: a, no_such: 1, codec_type: HTTP3}"),
        "",
    )
    .expect("scans");
    let place = "static_resources / listeners[0] / filter_chains[0] / filters[0] / typed_config";
    assert_eq!(
        report.unknown[0].path.to_string(),
        format!("{place} / no_such")
    );
    assert_eq!(
        report.rejected[0].0.to_string(),
        format!("{place} / codec_type")
    );
    let violation =
        validate::validate(BOOTSTRAP, &load_it("{stat_prefix: ''}")).expect_err("too short");
    assert!(
        violation
            .to_string()
            .contains(&format!("{place} / stat_prefix")),
        "{violation}"
    );
}
