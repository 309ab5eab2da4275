//! Istio's filters end to end: workers as the sidecars of workloads, with mutual TLS between
//! them, in one process.

mod alpn;
mod http;
mod mesh;
mod tcp;
