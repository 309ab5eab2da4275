//! Limits, floods, and answers that wait.

use super::*;

#[tokio::test]
async fn heads_over_the_limits_are_reset() {
    let get = frame(1, 5, 1, &[GET, b"\x00\x03a_b\x01c"].concat());
    for (options, reset, dropped) in [
        (
            Options {
                max_headers_bytes: 20,
                ..Options::default()
            },
            true,
            0,
        ),
        (
            Options {
                max_headers_count: 0,
                ..Options::default()
            },
            true,
            0,
        ),
        (
            Options {
                underscores: UnderscoresAction::RejectRequest,
                ..Options::default()
            },
            true,
            0,
        ),
        (
            Options {
                underscores: UnderscoresAction::DropHeader,
                ..Options::default()
            },
            false,
            1,
        ),
        (Options::default(), false, 0),
    ] {
        let (near, mut far) = Io::pair(1 << 16);
        let (store, cells) = cells();
        let mut connection = ServerConnection::new(near, Arc::new(options), cells);
        far.write_all(&[PREFACE, &frame(4, 0, 0, &[]), &get].concat())
            .await
            .unwrap();
        let (mut accepted, mut refused) = (false, false);
        for _ in 0..20 {
            match poll_fn(|cx| Poll::Ready(connection.poll_accept(cx))).await {
                Poll::Ready(Some(Ok(Next::Request(_)))) => accepted = true,
                Poll::Ready(Some(Ok(Next::Refused(refusal)))) => refused = !refusal.malformed,
                _ => {}
            }
        }
        assert_eq!((accepted, refused), (!reset, reset));
        assert_eq!(counted(&store, "dropped_headers_with_underscores"), dropped);
        drop(connection);
        let mut said = Vec::new();
        far.read_to_end(&mut said).await.unwrap();
        let internal_error = frames(&said).contains(&(3, 0, 1, vec![0, 0, 0, 2]));
        assert_eq!(internal_error, reset);
    }
}

#[tokio::test]
async fn floods_end_the_connection_without_goaway() {
    let open = frame(1, 4, 1, GET);
    let empty = [open.clone(), frame(0, 0, 1, &[]).repeat(2)].concat();
    let small = [open.clone(), frame(0, 0, 1, b"x").repeat(9)].concat();
    let padded = [open.clone(), frame(0, 8, 1, b"\x02x\0\0").repeat(9)].concat();
    let floods = [
        (empty, Flood::EmptyFrames { stream: 1 }),
        (
            frame(2, 0, 1, &[0, 0, 0, 0, 1]).repeat(101),
            Flood::Priority,
        ),
        (frame(8, 0, 0, &[0, 0, 0, 1]).repeat(6), Flood::WindowUpdate),
        (frame(6, 0, 0, &[0; 8]).repeat(1001), Flood::Control),
        (small, Flood::UnreadFrames),
        (padded, Flood::UnreadFrames),
    ];
    for (script, flood) in floods {
        let options = Options {
            max_unread_small_frames: 8,
            max_outbound_control_frames: 100,
            ..Options::default()
        };
        let (said, end) = play(options, &script).await;
        assert_eq!(end, Some(ConnError::Fault(Fault::Flood(flood))));
        assert!(said.iter().all(|f| f.0 != 7), "no GOAWAY");
    }
}

#[tokio::test]
async fn many_small_frames_do_no_harm_while_they_are_read() {
    let bounded = Options {
        max_unread_small_frames: 8,
        ..Options::default()
    };
    let (connection, mut handle) = pair(bounded, Options::default()).await;
    let mut up = handle.send_request(request(Method::POST), false).unwrap();
    let (mut accepted, task) = accept(connection).await;
    for _ in 0..500 {
        let mut data = Buffer::from(Bytes::from_static(b"tiny"));
        poll_fn(|cx| up.poll_send_data(cx, &mut data, false))
            .await
            .unwrap();
        let event = poll_fn(|cx| accepted.stream.poll_recv(cx)).await.unwrap();
        assert!(matches!(event, BodyEvent::Data { .. }));
        accepted.stream.release(4);
    }
    assert!(!task.is_finished());
}

#[tokio::test]
async fn questions_of_a_peer_that_does_not_read_are_counted_on() {
    let (near, mut far) = Io::pair(512);
    let (store, cells) = cells();
    let options = Arc::new(Options::default());
    let mut connection = ServerConnection::new(near, options, cells.clone());
    let questions = frame(6, 0, 0, &[0; 8]).repeat(3000);
    let script = [PREFACE, &frame(4, 0, 0, &[]), &questions].concat();
    let writer = tokio::spawn(async move {
        // The other end is closed before everything is taken.
        let _ = far.write_all(&script).await;
        far
    });
    let end = poll_fn(|cx| connection.poll_accept(cx)).await;
    let flood = ConnError::Fault(Fault::Flood(Flood::Control));
    assert_eq!(end.unwrap().unwrap_err(), flood);
    assert_eq!(counted(&store, "outbound_control_flood"), 1);
    drop(connection);
    drop(writer.await.unwrap());
    let gauge = store.gauge_value("http2.outbound_control_frames_active");
    assert_eq!(gauge, Some(0));
}

#[tokio::test]
async fn answers_that_wait_end_the_connection_when_there_are_too_many() {
    let (near, mut far) = Io::pair(128);
    let (store, cells) = cells();
    let few = Options {
        max_outbound_frames: 5,
        ..Options::default()
    };
    let mut connection = ServerConnection::new(near, Arc::new(few), cells.clone());
    let heads: Vec<u8> = (0..20).flat_map(|n| frame(1, 5, 2 * n + 1, GET)).collect();
    let script = [PREFACE, &frame(4, 0, 0, &[]), &heads].concat();
    let writer = tokio::spawn(async move {
        // The other end is closed before everything is taken.
        let _ = far.write_all(&script).await;
        far
    });
    let mut held = Vec::new();
    let end = loop {
        match poll_fn(|cx| connection.poll_accept(cx)).await.unwrap() {
            Ok(next) => {
                let mut accepted = request_of(Some(Ok(next)));
                // Above the limit the stream is cut already.
                let _ = accepted.stream.send_head(ok(), false);
                held.push(accepted);
            }
            Err(error) => break error,
        }
    };
    assert_eq!(end, ConnError::Fault(Fault::Flood(Flood::Outbound)));
    assert_eq!(counted(&store, "outbound_flood"), 1);
    drop((held, connection));
    drop(writer.await.unwrap());
    assert_eq!(store.gauge_value("http2.streams_active"), Some(0));
}
