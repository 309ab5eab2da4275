//! Built-in filters and the registry that maps type URLs to them.
