//! Built-in filters and the registry that maps type URLs to them.

pub mod http;
mod registry;
#[cfg(test)]
mod testing;

pub use registry::Registry;
