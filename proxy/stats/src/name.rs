//! Names of stats.

/// A name as it may stand in the output: without a dot at either end, `://` and `:/` as `_`,
/// and no control characters, which would break a line.
pub fn sanitize(name: &str) -> String {
    let name = name.strip_suffix('.').unwrap_or(name);
    let name = name.strip_prefix('.').unwrap_or(name);
    let name = name.replace("://", "_").replace(":/", "_");
    name.chars()
        .map(|c| if c.is_control() { '_' } else { c })
        .collect()
}

/// The prefix of a scope: sanitised, and ending with a dot unless it is empty.
pub(crate) fn sanitize_prefix(prefix: &str) -> String {
    let mut prefix = sanitize(prefix);
    if !prefix.is_empty() {
        prefix.push('.');
    }
    prefix
}
