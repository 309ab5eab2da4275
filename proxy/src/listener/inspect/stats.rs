//! Stats of listener filters, under Envoy's names.

outrigger_stats::stat_set! {
    /// What TLS inspectors count (`tls_inspector.`).
    pub struct TlsInspectorStats {
        counters {
            alpn_found,
            alpn_not_found,
            client_hello_too_large,
            sni_found,
            sni_not_found,
            tls_found,
            tls_not_found,
        }
        histograms {
            bytes_processed: bytes,
        }
    }
}

outrigger_stats::stat_set! {
    /// What HTTP inspectors count (`http_inspector.`).
    pub struct HttpInspectorStats {
        counters {
            http10_found,
            http11_found,
            http2_found,
            http_not_found,
            read_error,
        }
    }
}
