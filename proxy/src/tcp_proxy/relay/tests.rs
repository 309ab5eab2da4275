use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Two ends in the hands of a test, and a relay between their other ends.
struct Lab {
    relay: Relay,
    downstream: Io,
    upstream: Io,
    events: Vec<Event>,
}

fn lab(room: usize, limit: usize) -> (Io, Io, Lab) {
    let (client, downstream) = Io::pair(room);
    let (server, upstream) = Io::pair(room);
    let lab = Lab {
        relay: Relay::new(limit, limit),
        downstream,
        upstream,
        events: Vec::new(),
    };
    (client, server, lab)
}

impl Lab {
    fn poll(&mut self) -> Poll<End> {
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let Self {
            relay,
            downstream,
            upstream,
            events,
        } = self;
        relay.poll(cx, downstream, upstream, &mut |event| events.push(event))
    }
}

#[tokio::test]
async fn each_direction_ends_by_itself_and_the_last_one_is_told() {
    let (mut client, mut server, mut lab) = lab(64, 1024);
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    assert!(lab.poll().is_pending());
    let mut seen = Vec::new();
    server.read_to_end(&mut seen).await.unwrap();
    assert_eq!(seen, b"hello");
    server.write_all(b"answer").await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(lab.poll(), Poll::Ready(End::Both(Side::Upstream)));
    let mut seen = Vec::new();
    client.read_to_end(&mut seen).await.unwrap();
    assert_eq!(seen, b"answer");
}

#[tokio::test]
async fn what_is_not_taken_waits_up_to_the_limit_and_is_read_again_below_half_of_it() {
    let (mut client, mut server, mut lab) = lab(100, 150);
    let mut sent = 0;
    for _ in 0..10 {
        let mut write = std::pin::pin!(client.write(&[7; 100]));
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        if let Poll::Ready(n) = Future::poll(write.as_mut(), cx) {
            sent += n.unwrap();
        }
        assert!(lab.poll().is_pending());
    }
    assert_eq!(sent, 400, "100 there, 200 that wait, 100 not read");
    assert!(lab.events.contains(&Event::Paused(Side::Downstream)));
    assert!(!lab.events.contains(&Event::Resumed(Side::Downstream)));
    drop(client);
    let mut taken = 0;
    let mut room = [0; 50];
    while taken < sent {
        taken += server.read(&mut room).await.unwrap();
        let _ = lab.poll();
    }
    assert!(lab.events.contains(&Event::Resumed(Side::Downstream)));
    assert_eq!(
        server.read(&mut room).await.unwrap(),
        0,
        "the end is passed on"
    );
}

#[tokio::test]
async fn an_upstream_that_reads_no_more_may_still_have_sent_something() {
    let (mut client, mut server, mut lab) = lab(64, 1024);
    server.write_all(b"last words").await.unwrap();
    drop(server);
    client.write_all(b"hello").await.unwrap();
    let end = lab.poll();
    let mut seen = [0; 10];
    client.read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, b"last words");
    assert_eq!(end, Poll::Ready(End::Broken(Side::Upstream)));
}
