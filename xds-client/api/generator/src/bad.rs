//! Bad bootstraps.
/// Bad bootstraps.
pub fn bad_bootstraps() {}
