//! Built-in filters and the registry that maps type URLs to them.

mod registry;

pub use registry::Registry;
