//! Service and method of a gRPC path.

/// `/service/method`, and nothing else: none for any other number of parts.
pub(super) fn service_and_method(path: &[u8]) -> Option<(&str, &str)> {
    let path = std::str::from_utf8(path).ok()?;
    let path = path.split('?').next().unwrap_or(path);
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let found = (parts.next()?, parts.next()?);
    parts.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_two_parts() {
        for (path, expected) in [
            ("/pkg.S/M", Some(("pkg.S", "M"))),
            ("/pkg.S/M?q=/1", Some(("pkg.S", "M"))),
            ("//pkg.S//M/", Some(("pkg.S", "M"))),
            ("/pkg.S/M/extra", None),
            ("/nope", None),
            ("//M", None),
            ("/S/", None),
            ("", None),
        ] {
            assert_eq!(service_and_method(path.as_bytes()), expected, "{path}");
        }
    }
}
