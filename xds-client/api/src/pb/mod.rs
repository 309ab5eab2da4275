//! The messages as Rust structs: those of `envoy-types`, and beside them the ones that it lacks.
//!
//! A struct here may lack a field that the schema table knows (see `proto/additions.txt`); the raw scan sees that
//! field all the same, so nothing is dropped unseen.

pub use envoy_types::pb::*;

/// Istio's packages below `io`, beside Prometheus' own.
pub mod io {
    pub use envoy_types::pb::io::*;

    /// Istio.
    pub mod istio {
        /// HTTP filters.
        pub mod http {
            /// Peer metadata over HTTP headers and workload discovery.
            #[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]
            pub mod peer_metadata {
                include!("generated/io.istio.http.peer_metadata.rs");
            }
        }
    }
}

/// Istio's packages below `istio`.
pub mod istio {
    /// Envoy extensions.
    pub mod envoy {
        /// Configuration.
        pub mod config {
            /// Filters.
            pub mod filter {
                /// HTTP filters.
                pub mod http {
                    /// The ALPN override of Istio's sidecars.
                    pub mod alpn {
                        /// Its only version.
                        #[allow(
                            missing_docs,
                            unreachable_pub,
                            clippy::all,
                            reason = "generated code"
                        )]
                        pub mod v2alpha1 {
                            include!("generated/istio.envoy.config.filter.http.alpn.v2alpha1.rs");
                        }
                    }
                }
            }
        }
    }
}

/// Configuration of Istio's standard metrics.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]
pub mod stats {
    include!("generated/stats.rs");
}

/// Envoy's packages, and Istio's extension of them.
pub mod envoy {
    pub use envoy_types::pb::envoy::*;

    /// Istio's TCP extensions.
    pub mod tcp {
        /// Peer metadata over TCP.
        pub mod metadataexchange {
            /// Its configuration.
            #[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]
            pub mod config {
                include!("generated/envoy.tcp.metadataexchange.config.rs");
            }
        }
    }
}

/// The packages below `udpa`.
pub mod udpa {
    pub use envoy_types::pb::udpa::*;

    /// Types.
    pub mod r#type {
        /// The only version.
        #[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]
        pub mod v1 {
            include!("generated/udpa.r#type.v1.rs");
        }
    }
}

/// The packages below `xds`.
pub mod xds {
    pub use envoy_types::pb::xds::*;

    /// Load reports.
    pub mod data {
        /// Open request cost aggregation.
        pub mod orca {
            /// The only version.
            #[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]
            pub mod v3 {
                include!("generated/xds.data.orca.v3.rs");
            }
        }
    }

    /// Types.
    pub mod r#type {
        /// Matchers.
        pub mod matcher {
            /// The only version.
            #[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]
            pub mod v3 {
                pub use envoy_types::pb::xds::r#type::matcher::v3::*;
                include!("generated/xds.r#type.matcher.v3.rs");
            }
        }

        /// The only version.
        #[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]
        pub mod v3 {
            pub use envoy_types::pb::xds::r#type::v3::*;
            include!("generated/xds.r#type.v3.rs");
        }
    }
}
