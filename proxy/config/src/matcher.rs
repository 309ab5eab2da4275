//! String, header and query parameter matchers.
