//! What is measured, a row each.

use crate::backend::{Answer, Protocol};
use crate::http2::grpc_message;
use crate::load::Request;
use crate::subject::Variant;

/// A measure: a configuration, traffic, and the figures taken from it.
#[derive(Debug, Clone)]
pub struct Row {
    /// What `--row` matches.
    pub name: &'static str,
    /// What the table says.
    pub title: &'static str,
    /// The figures taken, with their units. In each of them less is better.
    pub figures: &'static [&'static str],
    /// The configuration: the stem of a file in `config`.
    pub config: &'static str,
    /// What is changed in it.
    pub variant: Variant,
    /// How it is measured.
    pub kind: Kind,
    /// What the client sends.
    pub request: Request,
    /// Connections of the client.
    pub connections: usize,
    /// The upstream's protocol.
    pub upstream: Protocol,
    /// What the upstream answers.
    pub answer: Answer,
}

/// How a row is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// CPU per request with so many requests in flight on each connection.
    Cpu {
        /// Requests in flight on a connection.
        streams: usize,
    },
    /// CPU per request with a connection for each, over so many at a time as the row has connections.
    NewConnections,
    /// Latency added at a fixed rate.
    Latency {
        /// Requests a second, over all connections.
        rate: u32,
    },
    /// Memory before any traffic.
    IdleMemory,
    /// Memory that each idle connection adds, after it carried one request.
    ConnectionMemory,
    /// Memory and time that a large configuration takes; the row's variant says how large.
    Configuration,
}

const CPU: &[&str] = &["CPU µs per request"];
const PER_CONNECTION: &[&str] = &["KB per connection"];

/// All rows, in the order of the table.
pub fn all() -> Vec<Row> {
    let mut rows = of_grpc();
    rows.extend(of_http());
    rows.extend(of_time_and_memory());
    rows
}

fn grpc_unary() -> Row {
    Row {
        name: "grpc_unary",
        title: "gRPC unary, 10 connections x 10 streams",
        figures: CPU,
        config: "grpc",
        variant: Variant::AsWritten,
        kind: Kind::Cpu { streams: 10 },
        request: grpc("/bench.Bench/Unary", grpc_message(64).len()),
        connections: 10,
        upstream: Protocol::Http2,
        answer: grpc_answer(1),
    }
}

fn http1() -> Row {
    Row {
        name: "http1",
        title: "HTTP/1.1, 128 B, 50 connections",
        figures: CPU,
        config: "http1",
        variant: Variant::AsWritten,
        kind: Kind::Cpu { streams: 1 },
        request: get(Protocol::Http1, 128),
        connections: 50,
        upstream: Protocol::Http1,
        answer: Answer {
            content_type: "text/plain",
            frame: vec![b'x'; 128],
            frames: 1,
            grpc: false,
        },
    }
}

fn of_grpc() -> Vec<Row> {
    vec![
        grpc_unary(),
        Row {
            name: "grpc_many_connections",
            title: "gRPC unary, 100 connections x 1 stream",
            kind: Kind::Cpu { streams: 1 },
            connections: 100,
            ..grpc_unary()
        },
        Row {
            name: "grpc_one_at_a_time",
            title: "gRPC unary, one at a time",
            kind: Kind::Cpu { streams: 1 },
            connections: 1,
            ..grpc_unary()
        },
        Row {
            name: "grpc_access_log",
            title: "gRPC unary, 10 connections x 10 streams, with an access log",
            variant: Variant::AccessLog,
            ..grpc_unary()
        },
        Row {
            name: "grpc_stream",
            title: "gRPC stream of 1,000 x 64 B messages",
            figures: &["CPU µs per stream"],
            kind: Kind::Cpu { streams: 1 },
            request: grpc("/bench.Bench/Stream", 1_000 * grpc_message(64).len()),
            answer: grpc_answer(1_000),
            ..grpc_unary()
        },
    ]
}

fn of_http() -> Vec<Row> {
    vec![
        http1(),
        Row {
            name: "http1_new_connections",
            title: "New HTTP/1.1 connection and one request, 10 at a time",
            kind: Kind::NewConnections,
            connections: 10,
            ..http1()
        },
        Row {
            name: "mixed_http1_to_http2",
            title: "HTTP/1.1 to HTTP/2, 128 B, 50 connections",
            config: "http1_to_http2",
            upstream: Protocol::Http2,
            ..http1()
        },
        Row {
            name: "large_http2",
            title: "1 MB response over HTTP/2, 4 connections",
            config: "http2",
            kind: Kind::Cpu { streams: 1 },
            request: get(Protocol::Http2, 1 << 20),
            connections: 4,
            answer: Answer {
                content_type: "application/octet-stream",
                frame: vec![b'x'; 16_384],
                frames: 64,
                grpc: false,
            },
            ..grpc_unary()
        },
    ]
}

fn of_time_and_memory() -> Vec<Row> {
    vec![
        Row {
            name: "latency",
            title: "gRPC unary, open loop at 2,000 a second, 10 connections",
            figures: &["added p50 µs", "added p90 µs"],
            kind: Kind::Latency { rate: 2_000 },
            ..grpc_unary()
        },
        Row {
            name: "memory_idle",
            title: "Memory, idle, small configuration",
            figures: &["MB"],
            kind: Kind::IdleMemory,
            ..grpc_unary()
        },
        Row {
            name: "memory_http1_connection",
            title: "Memory of an idle HTTP/1.1 connection",
            figures: PER_CONNECTION,
            kind: Kind::ConnectionMemory,
            connections: 1_000,
            ..http1()
        },
        Row {
            name: "memory_http2_connection",
            title: "Memory of an idle HTTP/2 connection",
            figures: PER_CONNECTION,
            kind: Kind::ConnectionMemory,
            connections: 1_000,
            ..grpc_unary()
        },
        Row {
            name: "configuration",
            title: "5,000 clusters of 4 endpoints, 5,000 virtual hosts",
            figures: &["MB", "KB per cluster", "ms to listen"],
            config: "clusters",
            variant: Variant::Repeated(5_000),
            kind: Kind::Configuration,
            ..grpc_unary()
        },
    ]
}

/// The rows whose names begin with one of the prefixes; all without any.
pub fn chosen(prefixes: &[String]) -> Vec<Row> {
    let wanted = |row: &Row| {
        prefixes.is_empty() || prefixes.iter().any(|p| row.name.starts_with(p.as_str()))
    };
    all().into_iter().filter(wanted).collect()
}

fn grpc(path: &'static str, expected: usize) -> Request {
    Request {
        protocol: Protocol::Http2,
        path,
        grpc: true,
        body: grpc_message(64),
        expected,
    }
}

fn get(protocol: Protocol, expected: usize) -> Request {
    Request {
        protocol,
        path: "/bench",
        grpc: false,
        body: Vec::new(),
        expected,
    }
}

fn grpc_answer(frames: usize) -> Answer {
    Answer {
        content_type: "application/grpc",
        frame: grpc_message(64),
        frames,
        grpc: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_expects_what_its_upstream_sends() {
        for row in all() {
            assert_eq!(row.request.expected, row.answer.len(), "{}", row.name);
        }
    }

    #[test]
    fn every_row_has_its_configuration() {
        for row in all() {
            let path = format!("{}/config/{}.yaml", env!("CARGO_MANIFEST_DIR"), row.config);
            assert!(std::path::Path::new(&path).exists(), "{path}");
        }
    }

    #[test]
    fn a_prefix_chooses_rows() {
        let names: Vec<_> = chosen(&["memory".to_owned()])
            .iter()
            .map(|r| r.name)
            .collect();
        assert_eq!(
            names,
            [
                "memory_idle",
                "memory_http1_connection",
                "memory_http2_connection"
            ]
        );
    }
}
