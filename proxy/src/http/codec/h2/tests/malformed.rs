//! What breaks a rule, and how the connection ends for it.

use super::*;

/// What the server says at the end, what comes of its connection, and what it counted,
/// when a client sends these one after the other.
async fn judged(
    script: &[Vec<u8>],
) -> (
    Vec<(u8, u8, u32, Vec<u8>)>,
    Vec<String>,
    (Store, CodecStats),
) {
    let (near, mut far) = Io::pair(1 << 22);
    let (store, cells) = cells();
    let mut connection = ServerConnection::new(near, Arc::new(Options::default()), cells.clone());
    far.write_all(PREFACE).await.unwrap();
    far.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    let mut events = Vec::new();
    let mut held = Vec::new();
    for part in script {
        far.write_all(part).await.unwrap();
        for _ in 0..20 {
            match poll_fn(|cx| Poll::Ready(connection.poll_accept(cx))).await {
                Poll::Ready(Some(Ok(Next::Request(accepted)))) => {
                    events.push("request".to_owned());
                    held.push(accepted);
                }
                Poll::Ready(Some(Ok(Next::Refused(refusal)))) => {
                    events.push(refusal.details.to_owned());
                }
                Poll::Ready(Some(Err(error))) => events.push(format!("{error:?}")),
                Poll::Ready(None) => break,
                Poll::Pending => tokio::task::yield_now().await,
            }
        }
    }
    if let Some(mut parting) = connection.take_parting() {
        parting.io.write_all(&parting.last_words).await.unwrap();
    }
    for accepted in &mut held {
        let end = poll_fn(|cx| accepted.stream.poll_reset(cx));
        let end = tokio::time::timeout(Duration::from_millis(1), end).await;
        events.extend(end.map(|error| error.details.into_owned()));
    }
    drop(held);
    drop(connection);
    let mut said = Vec::new();
    far.read_to_end(&mut said).await.unwrap();
    let ends = |f: &(u8, u8, u32, Vec<u8>)| f.0 == 3 || f.0 == 7;
    let said = frames(&said).into_iter().filter(ends).collect();
    (said, events, (store, cells))
}

const CALLBACK: &str = "codec_error:The_user_callback_function_failed";

#[tokio::test]
async fn malformed_heads_end_the_connection_in_silence() {
    let upper = [GET, b"\x00\x01X\x011"].concat();
    let connection = [GET, b"\x00\x0aconnection\x05close"].concat();
    let heads: [(&[u8], &str); 4] = [
        (&upper, "http2.invalid.header.field"),
        (&connection, "http2.invalid.header.field"),
        (b"\x86\x84\x41\x01a", "http2.violation.of.messaging.rule"),
        (b"\x82\x86\x84", "http2.violation.of.messaging.rule"),
    ];
    for (head, details) in heads {
        let script = [frame(1, 4, 1, GET), frame(1, 5, 3, head)];
        let (said, events, (store, _cells)) = judged(&script).await;
        assert!(said.is_empty(), "{said:?}");
        assert_eq!(events.len(), 4, "{events:?}");
        assert_eq!((&*events[0], &*events[1]), ("request", details));
        assert!(events[2].contains("Malformed"), "{events:?}");
        assert_eq!(events[3], CALLBACK);
        assert_eq!(counted(&store, "rx_messaging_error"), 1);
        assert_eq!(store.gauge_value("http2.streams_active"), Some(0));
    }
}

#[tokio::test]
async fn broken_framing_is_answered_in_the_words_of_envoys_library() {
    let open = frame(1, 4, 1, GET);
    let cases: [(Vec<u8>, u8, &[u8]); 5] = [
        (frame(0, 0, 0, b"x"), 1, b"DATA: stream_id == 0"),
        (frame(0, 0, 9, b"x"), 1, b"DATA: stream in idle"),
        (frame(9, 4, 1, GET), 1, b"CONTINUATION: unexpected"),
        (frame(6, 0, 0, &[0; 7]), 6, b""),
        (frame(99, 0, 0, &[0; 16_385]), 6, b"too large frame size"),
    ];
    for (broken, code, text) in cases {
        let (said, events, _) = judged(&[open.clone(), broken]).await;
        let words = [&[0, 0, 0, 1, 0, 0, 0, code][..], text].concat();
        assert_eq!(said, vec![(7, 0, 0, words)]);
        assert_eq!((&*events[0], &*events[2]), ("request", CALLBACK));
    }
}

#[tokio::test]
async fn a_body_that_does_not_fit_resets_its_stream_alone() {
    let post = [
        &b"\x83\x86\x84\x41\x01a"[..],
        b"\x00\x0econtent-length\x013",
    ]
    .concat();
    let script = [
        frame(1, 4, 1, &post),
        frame(0, 1, 1, b"ab"),
        frame(1, 4, 3, GET),
    ];
    let (said, events, (store, _cells)) = judged(&[script.concat()]).await;
    assert_eq!(said[0], (3, 0, 1, vec![0, 0, 0, 1]));
    assert_eq!(events[..2], ["request", "request"]);
    assert!(
        events.contains(&"http2.remote_reset".to_owned()),
        "{events:?}"
    );
    assert_eq!(counted(&store, "tx_reset"), 1);
}
