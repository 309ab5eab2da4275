//! Streams from their heads to their ends.

use super::*;

#[tokio::test]
async fn carries_heads_bodies_trailers_and_interim_heads() {
    let (connection, mut handle) = defaults().await;
    let mut up = handle.send_request(request(Method::POST), false).unwrap();
    let (accepted, _task) = accept(connection).await;
    let (head, mut down) = (accepted.head, accepted.stream);
    assert_eq!(
        (&head.path[..], head.authority_bytes()),
        (&b"/p?q"[..], &b"h:1"[..])
    );
    assert_eq!((head.method, head.scheme), (Method::POST, Scheme::Http));
    assert_eq!(head.headers.len(), 4);
    assert!(!accepted.end_stream);
    let mut data = Buffer::from(Bytes::from_static(b"abc"));
    poll_fn(|cx| up.poll_send_data(cx, &mut data, false))
        .await
        .unwrap();
    up.send_trailers(headers(&[("t", "1")])).unwrap();
    let body = poll_fn(|cx| down.poll_recv(cx)).await.unwrap();
    assert_eq!(
        body,
        BodyEvent::Data {
            bytes: Bytes::from_static(b"abc"),
            end_stream: false
        }
    );
    down.release(3);
    let trailers = poll_fn(|cx| down.poll_recv(cx)).await.unwrap();
    assert_eq!(trailers, BodyEvent::Trailers(headers(&[("t", "1")])));
    let early = ResponseHead::new(StatusCode::from_u16(103).unwrap());
    down.send_informational(early.clone()).unwrap();
    assert_eq!(
        head_of(&mut up).await.unwrap(),
        HeadEvent::Informational(early)
    );
    let mut final_head = ok();
    final_head.headers = headers(&[("connection", "close"), ("a", "b")]);
    down.send_head(final_head, false).unwrap();
    send(&mut down, b"hello", true).await;
    let HeadEvent::Final { head, end_stream } = head_of(&mut up).await.unwrap() else {
        panic!("the final head");
    };
    assert_eq!((head.headers, end_stream), (headers(&[("a", "b")]), false));
    let body = poll_fn(|cx| up.poll_recv(cx)).await.unwrap();
    assert_eq!(
        body,
        BodyEvent::Data {
            bytes: Bytes::from_static(b"hello"),
            end_stream: true
        }
    );
    assert_eq!(handle.active_streams(), 1);
    drop(up);
    assert_eq!(handle.active_streams(), 0);
}

#[tokio::test]
async fn sending_stops_at_the_window_until_it_is_released() {
    let small = Options {
        initial_stream_window_size: 10,
        ..Options::default()
    };
    let (connection, mut handle) = pair(small, Options::default()).await;
    poll_fn(|cx| handle.poll_ready(cx)).await.unwrap();
    tokio::task::yield_now().await;
    let mut up = handle.send_request(request(Method::POST), false).unwrap();
    let (mut accepted, _task) = accept(connection).await;
    let mut data = Buffer::from(Bytes::from_static(b"0123456789abcdef"));
    let sent = poll_fn(|cx| up.poll_send_data(cx, &mut data, true))
        .await
        .unwrap();
    assert_eq!((sent, data.len()), (10, 6));
    let mut read = 0;
    while read < 10 {
        let event = poll_fn(|cx| accepted.stream.poll_recv(cx)).await.unwrap();
        let BodyEvent::Data {
            bytes,
            end_stream: false,
        } = event
        else {
            panic!("more is to come")
        };
        read += bytes.len();
    }
    poll_fn(|cx| {
        assert!(up.poll_send_data(cx, &mut data, true).is_pending());
        Poll::Ready(())
    })
    .await;
    accepted.stream.release(10);
    let sent = poll_fn(|cx| up.poll_send_data(cx, &mut data, true))
        .await
        .unwrap();
    assert_eq!((sent, data.len()), (6, 0));
}

#[tokio::test]
async fn resets_reach_the_other_end_with_envoys_codes() {
    for (reason, code, seen) in [
        (ResetReason::LocalReset, 2, ResetReason::RemoteReset),
        (
            ResetReason::LocalRefusedStreamReset,
            7,
            ResetReason::RemoteRefusedStreamReset,
        ),
        (ResetReason::ConnectError, 10, ResetReason::ConnectError),
        (ResetReason::ProtocolError, 1, ResetReason::ProtocolError),
    ] {
        let (connection, mut handle) = defaults().await;
        let mut up = handle.send_request(request(Method::POST), false).unwrap();
        let (mut accepted, _task) = accept(connection).await;
        accepted.stream.reset(reason);
        let error = head_of(&mut up).await.unwrap_err();
        assert_eq!(
            (error.reason, error.code, error.remote),
            (seen, Some(code), true)
        );
        assert_eq!(poll_fn(|cx| up.poll_reset(cx)).await.reason, seen);
    }
    let (connection, mut handle) = defaults().await;
    let mut up = handle.send_request(request(Method::POST), false).unwrap();
    let (mut accepted, _task) = accept(connection).await;
    up.reset(ResetReason::LocalReset);
    let error = poll_fn(|cx| accepted.stream.poll_reset(cx)).await;
    assert_eq!(
        (error.reason, error.code),
        (ResetReason::RemoteReset, Some(2))
    );
}

#[tokio::test]
async fn an_early_answer_is_whole_though_a_reset_follows() {
    let (connection, mut handle) = defaults().await;
    let mut up = handle.send_request(request(Method::POST), false).unwrap();
    let (mut accepted, _task) = accept(connection).await;
    accepted.stream.send_head(ok(), false).unwrap();
    send(&mut accepted.stream, b"done", true).await;
    drop(accepted);
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(
        head_of(&mut up).await,
        Ok(HeadEvent::Final { .. })
    ));
    let data = poll_fn(|cx| up.poll_recv(cx)).await.unwrap();
    let BodyEvent::Data { bytes, end_stream } = data else {
        panic!("data")
    };
    assert_eq!(&bytes[..], b"done");
    if !end_stream {
        assert_eq!(poll_fn(|cx| up.poll_recv(cx)).await, Ok(BodyEvent::End));
    }
}

#[tokio::test]
async fn a_lost_connection_terminates_its_streams() {
    let (connection, mut handle) = defaults().await;
    let mut up = handle.send_request(request(Method::GET), true).unwrap();
    let (accepted, task) = accept(connection).await;
    task.abort();
    let _ = task.await;
    drop(accepted);
    let error = head_of(&mut up).await.unwrap_err();
    assert_eq!(error.reason, ResetReason::ConnectionTermination);
}

#[tokio::test]
async fn a_drain_finishes_open_streams_and_takes_no_new_ones() {
    let (mut connection, mut handle) = defaults().await;
    let mut up = handle.send_request(request(Method::GET), true).unwrap();
    let accepted = poll_fn(|cx| connection.poll_accept(cx)).await;
    let mut accepted = request_of(accepted);
    connection.graceful_shutdown();
    let task = tokio::spawn(async move {
        let rest = poll_fn(|cx| connection.poll_accept(cx)).await;
        rest.is_none()
    });
    while !handle.is_draining() {
        tokio::task::yield_now().await;
    }
    let refused = handle.send_request(request(Method::GET), true).unwrap_err();
    assert_eq!(refused.reason, ResetReason::RemoteRefusedStreamReset);
    accepted.stream.send_head(ok(), true).unwrap();
    assert!(matches!(
        head_of(&mut up).await,
        Ok(HeadEvent::Final {
            end_stream: true,
            ..
        })
    ));
    drop((up, accepted));
    assert!(task.await.unwrap());
}

#[tokio::test]
async fn streams_above_a_goaways_last_id_were_refused() {
    let (near, mut far) = Io::pair(1 << 16);
    let shake = ClientConnection::handshake(near, Arc::new(Options::default()), cells().1).await;
    let (driver, mut handle) = shake.unwrap();
    tokio::spawn(driver);
    let mut up = handle.send_request(request(Method::GET), true).unwrap();
    far.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    far.write_all(&frame(7, 0, 0, &[0; 8])).await.unwrap();
    let error = head_of(&mut up).await.unwrap_err();
    assert_eq!(error.reason, ResetReason::RemoteRefusedStreamReset);
}

#[tokio::test]
async fn cookies_in_crumbs_are_joined_and_host_stands_in() {
    let crumbs = [
        &b"\x82\x86\x84"[..],
        b"\x00\x06cookie\x03a=1",
        b"\x00\x06cookie\x03b=2",
        b"\x00\x04host\x01z",
    ]
    .concat();
    let (near, mut far) = Io::pair(1 << 16);
    let connection = server(near, Options::default());
    let script = [PREFACE, &frame(4, 0, 0, &[]), &frame(1, 5, 1, &crumbs)].concat();
    far.write_all(&script).await.unwrap();
    let (accepted, _task) = accept(connection).await;
    assert_eq!(accepted.head.authority_bytes(), b"z");
    assert_eq!(accepted.head.headers, headers(&[("cookie", "a=1; b=2")]));
    assert!(accepted.end_stream);
}

#[tokio::test]
async fn advertises_envoys_settings_and_windows() {
    let (said, end) = play(Options::default(), &[]).await;
    assert_eq!(end, None);
    let settings = &said[0].3;
    let value = |id: u8| {
        let found = settings.chunks(6).find(|s| s[1] == id)?;
        Some(u32::from_be_bytes([found[2], found[3], found[4], found[5]]))
    };
    assert_eq!(
        (said[0].0, value(1), value(3), value(4)),
        (4, Some(4096), Some(1024), Some(16 << 20))
    );
    let window = said.iter().find(|f| f.0 == 8).expect("a WINDOW_UPDATE");
    assert_eq!(window.3, (24u32 * 1024 * 1024 - 65_535).to_be_bytes());
}

#[tokio::test]
async fn extended_connect_needs_to_be_allowed() {
    let allowed = Options {
        allow_connect: true,
        ..Options::default()
    };
    let (mut connection, mut handle) = pair(allowed, Options::default()).await;
    while !handle.takes_extended_connect() {
        poll_fn(|cx| Poll::Ready(connection.poll_accept(cx).is_ready())).await;
        tokio::task::yield_now().await;
    }
    let mut head = request(Method::CONNECT);
    head.protocol = Some(Bytes::from_static(b"websocket"));
    let _up = handle.send_request(head, false).unwrap();
    let (accepted, _task) = accept(connection).await;
    assert_eq!(accepted.head.protocol.as_deref(), Some(&b"websocket"[..]));
    assert_eq!(
        (&accepted.head.path[..], accepted.end_stream),
        (&b"/p?q"[..], false)
    );
}
