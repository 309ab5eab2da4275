//! The upstream side: clusters, hosts, load balancing, pools and breakers.

pub mod circuit_breaker;
pub mod cluster;
pub mod code_stats;
pub mod facts;
pub mod host;
pub mod lb;
pub mod original_dst;
pub mod pool;
pub mod priority_set;
pub mod stats;
