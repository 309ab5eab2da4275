//! Loggers against real files in a directory of their own.

use std::path::Path;
use std::time::Instant;

use outrigger_config::format::{Format, FormatOptions};
use outrigger_types::{Address, ConnectionInfo, StreamInfo};

use super::*;

pub(super) fn info() -> StreamInfo {
    let address = Address::Pipe("@test".into());
    let connection = ConnectionInfo {
        id: 1,
        local: address.clone(),
        direct_local: address.clone(),
        local_restored: false,
        remote: address.clone(),
        direct_remote: address,
        requested_server_name: "".into(),
        tls: Default::default(),
        transport_failure: Default::default(),
        start: Instant::now(),
        listener_name: "".into(),
        filter_chain_name: "".into(),
        listener_metadata: None,
        filter_chain_metadata: None,
        filter_state: Default::default(),
    };
    StreamInfo::new(Arc::new(connection), "".into())
}

fn config(path: &Path, text: &str) -> AccessLogConfig {
    AccessLogConfig {
        filter: None,
        sink: AccessLogSink::File(path.to_str().unwrap().into()),
        format: AccessLogFormat::Text(Format::parse(text, &FormatOptions::default()).unwrap()),
    }
}

/// Never flushes but for the first line and for full buffers.
fn manager(store: &Store) -> AccessLogManager {
    let options = AccessLogOptions {
        flush_interval: Duration::from_secs(3600),
        flush_min_size: 64,
    };
    AccessLogManager::new(options, store).unwrap()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the thread that writes is waited for; no worker runs here"
)]
fn wait_for(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "it never happened"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn content(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn counter(store: &Store, name: &str) -> u64 {
    store
        .counter_value(&format!("filesystem.{name}"))
        .unwrap_or(0)
}

#[test]
fn the_first_line_is_written_at_once_and_others_wait() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let store = Store::default();
    let manager = manager(&store);
    let logger = manager.logger(&config(&path, "%RESPONSE_CODE%\n"));
    let info = info();
    logger.log(&FormatContext::new(&info));
    wait_for(|| content(&path) == "0\n");
    wait_for(|| counter(&store, "write_completed") == 1);
    logger.log(&FormatContext::new(&info));
    assert_eq!(counter(&store, "write_buffered"), 2);
    assert_eq!(
        store.gauge_value("filesystem.write_total_buffered"),
        Some(2)
    );
    assert_eq!(content(&path), "0\n");
    manager.flush();
    assert_eq!(content(&path), "0\n0\n");
    assert_eq!(
        store.gauge_value("filesystem.write_total_buffered"),
        Some(0)
    );
}

#[test]
fn a_full_buffer_does_not_wait() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let manager = manager(&Store::default());
    let logger = manager.logger(&config(&path, "a line of more than ten bytes\n"));
    let info = info();
    for _ in 0..10 {
        logger.log(&FormatContext::new(&info));
    }
    wait_for(|| content(&path).lines().count() >= 4);
}

#[test]
fn loggers_of_one_path_share_a_file_and_drop_writes_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let manager = manager(&Store::default());
    let loggers = [
        manager.logger(&config(&path, "1\n")),
        manager.logger(&config(&path, "2\n")),
    ];
    assert!(Arc::ptr_eq(&loggers[0].file, &loggers[1].file));
    let info = info();
    for logger in loggers.iter().chain(&loggers) {
        logger.log(&FormatContext::new(&info));
    }
    drop(manager);
    assert_eq!(content(&path), "1\n2\n1\n2\n");
}

#[test]
fn a_rotated_file_is_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (path, old) = (dir.path().join("log"), dir.path().join("log.1"));
    let manager = manager(&Store::default());
    let logger = manager.logger(&config(&path, "x\n"));
    let info = info();
    logger.log(&FormatContext::new(&info));
    wait_for(|| content(&path) == "x\n");
    std::fs::rename(&path, &old).unwrap();
    manager.reopen_all();
    wait_for(|| path.exists());
    logger.log(&FormatContext::new(&info));
    manager.flush();
    assert_eq!(
        (content(&path).as_str(), content(&old).as_str()),
        ("x\n", "x\n")
    );
}

#[test]
fn the_interval_flushes_every_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let store = Store::default();
    let options = AccessLogOptions {
        flush_interval: Duration::from_millis(5),
        ..AccessLogOptions::default()
    };
    let manager = AccessLogManager::new(options, &store).unwrap();
    let logger = manager.logger(&config(&path, "x\n"));
    let info = info();
    logger.log(&FormatContext::new(&info));
    logger.log(&FormatContext::new(&info));
    wait_for(|| content(&path) == "x\nx\n");
    wait_for(|| counter(&store, "flushed_by_timer") > 2);
}

#[test]
fn a_file_that_cannot_be_opened_any_more_is_counted() {
    let store = Store::default();
    let manager = manager(&store);
    let config = config(Path::new("/nonexistent/x.log"), "x\n");
    let info = info();
    manager.logger(&config).log(&FormatContext::new(&info));
    manager.flush();
    wait_for(|| counter(&store, "write_failed") == 1);
    assert_eq!(counter(&store, "write_completed"), 0);
}

#[test]
fn a_filter_keeps_streams_out_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let manager = manager(&Store::default());
    let mut config = config(&path, "%RESPONSE_FLAGS%\n");
    config.filter = Some(AccessLogFilter::ResponseFlag(Default::default()));
    let logger = manager.logger(&config);
    let mut info = info();
    logger.log(&FormatContext::new(&info));
    info.flags.set(outrigger_types::ResponseFlag::NoRouteFound);
    logger.log(&FormatContext::new(&info));
    manager.flush();
    wait_for(|| content(&path) == "NR\n");
}
