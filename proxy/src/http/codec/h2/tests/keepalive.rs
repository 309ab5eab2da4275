//! Pings, and the announced end.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_unanswered_ping_ends_the_connection() {
    let keepalive = Keepalive {
        interval: Some(Duration::from_secs(5)),
        jitter: Duration::ZERO,
        timeout: Duration::from_secs(2),
        idle_interval: None,
    };
    let options = Options {
        keepalive: Some(keepalive),
        ..Options::default()
    };
    let (near, mut far) = Io::pair(1 << 16);
    let mut connection = server(near, options.clone());
    far.write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat())
        .await
        .unwrap();
    let begin = tokio::time::Instant::now();
    let end = poll_fn(|cx| connection.poll_accept(cx)).await;
    assert_eq!(end.unwrap().unwrap_err(), ConnError::KeepaliveTimeout);
    assert_eq!(begin.elapsed().as_secs(), 7);
    let (connection, mut handle) = pair(options, Options::default()).await;
    let _up = handle.send_request(request(Method::GET), true).unwrap();
    let (_accepted, task) = accept(connection).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!task.is_finished(), "answered PINGs keep it");
}

#[tokio::test]
async fn the_end_is_announced_once_and_the_connection_goes_on() {
    let (near, mut far) = Io::pair(1 << 16);
    let mut connection = server(near, Options::default());
    let hello = [PREFACE, &frame(4, 0, 0, &[])].concat();
    far.write_all(&hello).await.unwrap();
    let next = poll_fn(|cx| Poll::Ready(connection.poll_accept(cx))).await;
    assert!(next.is_pending());
    connection.announce_shutdown();
    far.write_all(&frame(1, 5, 1, GET)).await.unwrap();
    let mut accepted = request_of(poll_fn(|cx| connection.poll_accept(cx)).await);
    accepted.stream.send_head(ok(), true).unwrap();
    connection.graceful_shutdown();
    let next = poll_fn(|cx| Poll::Ready(connection.poll_accept(cx))).await;
    assert!(next.is_pending());
    drop((accepted, connection));
    let mut said = Vec::new();
    far.read_to_end(&mut said).await.unwrap();
    let goaways = frames(&said).into_iter().filter(|f| f.0 == 7);
    let announced = vec![0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    assert_eq!(goaways.collect::<Vec<_>>(), vec![(7, 0, 0, announced)]);
    assert!(
        frames(&said).iter().any(|f| f.0 == 1),
        "the request is answered"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_after_a_silence_is_preceded_by_a_ping() {
    let keepalive = Keepalive {
        interval: None,
        jitter: Duration::ZERO,
        timeout: Duration::from_secs(2),
        idle_interval: Some(Duration::from_secs(10)),
    };
    let options = Arc::new(Options {
        keepalive: Some(keepalive),
        ..Options::default()
    });
    let (near, mut far) = Io::pair(1 << 16);
    let (store, cells) = cells();
    let (driver, mut handle) = ClientConnection::handshake(near, options, cells.clone())
        .await
        .unwrap();
    let driver = tokio::spawn(driver);
    far.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let first = handle.send_request(request(Method::GET), true).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!driver.is_finished(), "not silent for long enough");
    tokio::time::sleep(Duration::from_secs(10)).await;
    let second = handle.send_request(request(Method::GET), true).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!driver.is_finished());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(driver.await.unwrap(), Err(ConnError::KeepaliveTimeout));
    drop((first, second, handle));
    assert_eq!(store.gauge_value("http2.streams_active"), Some(0));
}
