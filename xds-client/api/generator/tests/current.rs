//! What is checked in is what the generator would write.

use xds_api_generator::{captured, matrix, messages, sources, table};

#[test]
fn the_schema_table_and_the_messages_are_current() {
    let compiled = sources::compile().expect("the sources compile");
    let built = table::build(&compiled.pool).expect("the table is built");
    let checked_in = std::fs::read(table::path()).expect("the table is checked in");
    assert!(
        built == checked_in,
        "stale: run `cargo run -p xds-api-generator`"
    );
    for (name, text) in messages::build(&compiled).expect("the messages are written") {
        let checked_in = std::fs::read_to_string(messages::folder().join(&name)).expect(&name);
        assert!(
            text == checked_in,
            "{name} is stale: run `cargo run -p xds-api-generator`"
        );
    }
}

#[test]
fn the_summary_in_the_readme_is_current() {
    let checked_in = std::fs::read_to_string(matrix::readme_path()).expect("there is a README");
    assert!(
        matrix::readme().expect("it has its marks") == checked_in,
        "stale: run `cargo run -p xds-api-generator -- matrix`"
    );
}

#[test]
fn the_support_matrix_is_current() {
    let checked_in = std::fs::read_to_string(matrix::path()).expect("the matrix is checked in");
    assert!(
        matrix::render().expect("the fixtures are read") == checked_in,
        "stale: run `cargo run -p xds-api-generator -- matrix`"
    );
}

#[test]
fn the_verdict_tables_speak_of_what_the_schema_knows() {
    assert_eq!(matrix::unknown_keys(), Vec::<&str>::new());
}

#[test]
fn every_path_that_a_mesh_uses_has_a_verdict_of_its_own() {
    let kinds = captured::census().expect("the fixtures are read");
    let names: Vec<&str> = kinds.keys().copied().collect();
    assert_eq!(
        names,
        [
            "Bootstrap",
            "Cluster",
            "ClusterLoadAssignment",
            "Listener",
            "RouteConfiguration"
        ]
    );
    for (kind, paths) in kinds {
        assert!(paths.len() > 10, "{kind} has hardly any paths");
        let missing: Vec<&str> = paths
            .keys()
            .filter(|found| !found.listed)
            .map(|found| &*found.path)
            .collect();
        assert!(missing.is_empty(), "{kind}: no verdict on {missing:#?}");
    }
}
