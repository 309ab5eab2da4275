//! What listener filters read of a client's first bytes.

use outrigger::http::codec::h1::{Sniffed, sniff};
use outrigger::listener::inspect::{Found, read_client_hello};

/// What is known of a part holds for the whole: more bytes never change it, and what it took to
/// know is there.
pub(crate) fn first_bytes(data: &[u8]) {
    let whole = read_client_hello(data);
    if let Found::NotTls { read } = &whole {
        assert!(*read <= data.len());
    }
    if let Found::Hello { hello, read } = &whole {
        assert!(*read <= data.len() && hello.server_name.len() <= 3 * 255);
        assert!(!hello.server_name.contains(|c: char| c.is_ascii_uppercase()));
    }
    let line = sniff(data);
    // Every step would take the square of the length.
    for end in (0..data.len()).step_by(data.len() / 64 + 1) {
        let part = read_client_hello(&data[..end]);
        assert!(
            part == Found::More || part == whole,
            "{end} bytes: {part:?}, {whole:?}"
        );
        let part = sniff(&data[..end]);
        assert!(
            part == Sniffed::More || part == line,
            "{end} bytes: {part:?}, {line:?}"
        );
    }
}
