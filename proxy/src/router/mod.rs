//! The router: the terminal filter, which chooses a host and carries the
//! request to it, as often as policy allows.

pub mod matcher;
pub mod redirect;
pub mod request_stats;
pub mod retry;
pub mod retry_priority;
pub mod rewrite;
pub mod strict;
pub mod timeouts;

#[cfg(test)]
mod tests;
