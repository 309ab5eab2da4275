//! The demo: a control plane, gRPC backends, a client and the proxy, shown as a live table.
