//! A client connection of HTTP/1.1: one request in flight.

use std::io;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Clock, Counts, Request};

/// Runs the connection until it is lost, or has done its one request and another is to follow. Of the pace, only how many requests are sent matters.
pub(super) async fn run(
    mut socket: TcpStream,
    request: &Request,
    mut clock: Clock,
    counts: &Counts,
) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let bytes = format!(
        "GET {} HTTP/1.1\r\nhost: bench\r\nuser-agent: outrigger-bench\r\naccept: */*\r\n\r\n",
        request.path
    )
    .into_bytes();
    let mut input = Vec::with_capacity(16 * 1024);
    loop {
        let Some(intended) = clock.due(0) else {
            return if clock.reconnects() {
                Ok(())
            } else {
                idle(socket).await
            };
        };
        exchange(
            &mut socket,
            &bytes,
            &mut input,
            request.expected,
            counts,
            intended,
        )
        .await?;
    }
}

async fn exchange(
    socket: &mut TcpStream,
    request: &[u8],
    input: &mut Vec<u8>,
    expected: usize,
    counts: &Counts,
    intended: Instant,
) -> io::Result<()> {
    socket.write_all(request).await?;
    input.clear();
    let end = loop {
        if socket.read_buf(input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = response_end(input)? {
            break end;
        }
    };
    while input.len() < end.total {
        if socket.read_buf(input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    counts.finish(
        end.ok && end.body == expected && input.len() == end.total,
        intended,
    );
    Ok(())
}

/// Holds the connection open.
async fn idle(mut socket: TcpStream) -> io::Result<()> {
    let mut byte = [0];
    socket.read_exact(&mut byte).await.map(|_| ())
}

struct ResponseEnd {
    ok: bool,
    body: usize,
    total: usize,
}

/// Where the response ends, once its headers are there. Every answer of the bench has a length.
fn response_end(input: &[u8]) -> io::Result<Option<ResponseEnd>> {
    let Some(head) = input.windows(4).position(|w| w == b"\r\n\r\n") else {
        return Ok(None);
    };
    let ok = input.starts_with(b"HTTP/1.1 200 ");
    let body =
        content_length(&input[..head]).ok_or_else(|| io::Error::other("no content-length"))?;
    Ok(Some(ResponseEnd {
        ok,
        body,
        total: head + 4 + body,
    }))
}

fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    head.split(|b| *b == b'\n')
        .find(|line| line.len() >= NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME))
        .and_then(|line| {
            std::str::from_utf8(&line[NAME.len()..])
                .ok()?
                .trim()
                .parse()
                .ok()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_end_of_a_response() {
        let end = response_end(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
            .unwrap()
            .unwrap();
        assert!(end.ok);
        assert_eq!((end.body, end.total), (3, 41));
        assert!(
            response_end(b"HTTP/1.1 200 OK\r\nContent-Le")
                .unwrap()
                .is_none()
        );
        assert!(response_end(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
