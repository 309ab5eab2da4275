//! The bad bootstraps are bad in the way that they say.

use xds_api::{bootstrap, validate};
use xds_api_generator::{bad, bad_bootstraps};

#[test]
fn the_good_bootstrap_is_good() {
    let text = bad::good_bootstrap().to_string();
    let file = bootstrap::File::named("good.json", text.as_bytes());
    let loaded =
        bootstrap::load(Some(file), None, bootstrap::Options::default()).expect("it loads");
    assert_eq!(
        validate::validate(bootstrap::BOOTSTRAP, &loaded.bytes),
        Ok(())
    );
}

#[test]
fn there_is_a_bad_bootstrap_for_every_kind_of_rule() {
    let all = bad_bootstraps();
    for what in [
        "left out",
        "is empty",
        "is unknown",
        "has an unknown name",
        "has an undefined number",
        "is zero",
        "is no regular expression",
    ] {
        assert!(
            all.iter().any(|bad| bad.name.ends_with(what)),
            "none that {what}"
        );
    }
    assert!(all.len() > 80, "only {}", all.len());
}

#[test]
fn the_error_names_the_field_that_was_broken() {
    for bad in bad_bootstraps().into_iter().filter(|bad| bad.by_rule) {
        let file = bootstrap::File::named("bad.json", bad.text.as_bytes());
        let error = match bootstrap::load(Some(file), None, bootstrap::Options::default()) {
            Ok(loaded) => validate::validate(bootstrap::BOOTSTRAP, &loaded.bytes)
                .expect_err(&bad.name)
                .to_string(),
            Err(error) => error.to_string(),
        };
        let parent = bad.path.to_string();
        let parent = parent.rsplit_once(" / ").map_or("", |(parent, _)| parent);
        // Of a required oneof the error names the oneof, of a list an item; both stand below the same parent.
        assert!(
            error.contains(&bad.field) || error.starts_with(parent),
            "{}: {error}",
            bad.name
        );
    }
}
