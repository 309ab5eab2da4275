//! What the peer sends, without a socket.

use bytes::{Buf, BytesMut};
use outrigger_config::workload::{Labels, MAGIC, Workload};
use tokio::io::ReadBuf;

/// The magic number and the length of the message.
const HEADER: usize = 8;
/// Longest message that is taken. The peer knows how to be short: what it says of itself
/// goes into a header of HTTP as well.
pub(super) const MAX_MESSAGE: usize = 64 << 10;

/// What was received, as far as it is the exchange's.
#[derive(Debug)]
pub(super) enum Theirs {
    /// The header is not there yet.
    Header(BytesMut),
    /// The message, of this length, is not there yet.
    Message(BytesMut, usize),
    /// Over: these are the first bytes of the application.
    Over(BytesMut),
}

impl Default for Theirs {
    fn default() -> Self {
        Self::Header(BytesMut::new())
    }
}

/// What bytes brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Less than a header.
    TooLittle,
    /// The header, and less than the message.
    Part,
    /// The peer ended before it said anything of itself.
    Nothing,
    /// The peer takes no part in the exchange; what it sent is the application's.
    NoMagic,
    /// The message is too long to be taken.
    TooMuch,
    /// The message is none; it is the application's, as in Envoy.
    NoMessage,
    /// The peer, if the message speaks of it.
    Peer(Option<Box<Workload>>),
}

impl Theirs {
    /// Whether what is received from now on is the application's.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Over(_))
    }

    /// Takes in what was received; nothing for the end.
    pub(super) fn push(&mut self, bytes: &[u8], labels: &Labels) -> Found {
        if let Self::Header(held) = self {
            held.extend_from_slice(bytes);
            if held.len() < HEADER {
                return self.end_early(bytes.is_empty(), Found::TooLittle);
            }
            let mut header = &held[..HEADER];
            if header.get_u32() != MAGIC {
                return self.over(Found::NoMagic);
            }
            let length = header.get_u32() as usize;
            held.advance(HEADER);
            if length > MAX_MESSAGE {
                return Found::TooMuch;
            }
            *self = Self::Message(std::mem::take(held), length);
            return self.read_message(false, labels);
        }
        if let Self::Message(held, _) = self {
            held.extend_from_slice(bytes);
        }
        self.read_message(bytes.is_empty(), labels)
    }

    fn read_message(&mut self, ended: bool, labels: &Labels) -> Found {
        let Self::Message(held, length) = self else {
            return Found::Part;
        };
        if held.len() < *length {
            if ended {
                // A part of a message is nobody's.
                held.clear();
            }
            return self.end_early(ended, Found::Part);
        }
        match Workload::from_preamble(&held[..*length], labels) {
            Ok(peer) => {
                held.advance(*length);
                self.over(Found::Peer(peer.map(Box::new)))
            }
            Err(_) => self.over(Found::NoMessage),
        }
    }

    fn end_early(&mut self, ended: bool, otherwise: Found) -> Found {
        match ended {
            true => self.over(Found::Nothing),
            false => otherwise,
        }
    }

    fn over(&mut self, found: Found) -> Found {
        if let Self::Header(held) | Self::Message(held, _) = self {
            *self = Self::Over(std::mem::take(held));
        }
        found
    }

    /// Gives the application what was received with the message; false if nothing is left.
    pub(super) fn take_rest(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let Self::Over(rest) = self else { return false };
        if rest.is_empty() {
            return false;
        }
        let n = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..n]);
        rest.advance(n);
        if rest.is_empty() {
            // A connection may live long: it keeps no buffer for what was read.
            *rest = BytesMut::new();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use filter_api::LocalNode;
    use outrigger_types::MetadataValue;

    use super::*;

    fn preamble(name: &str) -> Vec<u8> {
        let fields = [("NAME".into(), MetadataValue::String(name.into()))].into();
        let node = LocalNode {
            id: "id".into(),
            metadata: MetadataValue::Struct(fields),
            ..LocalNode::default()
        };
        let workload = Workload::of_node(&node, &Labels::new());
        workload.to_preamble(&node.id).to_vec()
    }

    fn rest(theirs: &mut Theirs) -> Vec<u8> {
        let mut room = [0; 64];
        let mut buf = ReadBuf::new(&mut room);
        theirs.take_rest(&mut buf);
        buf.filled().to_vec()
    }

    #[test]
    fn a_message_is_found_however_it_is_split() {
        let all = [&preamble("pod")[..], b"hello"].concat();
        for size in 1..=all.len() {
            let mut theirs = Theirs::default();
            let mut found = Vec::new();
            let mut application = Vec::new();
            for piece in all.chunks(size) {
                match theirs.is_over() {
                    true => application.extend_from_slice(piece),
                    false => found.push(theirs.push(piece, &Labels::new())),
                }
            }
            let last = found.pop();
            assert!(
                matches!(last, Some(Found::Peer(Some(_)))),
                "{size}: {last:?}"
            );
            let before = |f: &Found| matches!(f, Found::TooLittle | Found::Part);
            assert!(found.iter().all(before), "{size}: {found:?}");
            assert_eq!(
                [rest(&mut theirs), application].concat(),
                b"hello",
                "{size}"
            );
        }
    }

    #[test]
    fn another_beginning_is_the_applications() {
        let mut theirs = Theirs::default();
        assert_eq!(theirs.push(b"GET ", &Labels::new()), Found::TooLittle);
        assert_eq!(theirs.push(b"/ HTTP/1.1", &Labels::new()), Found::NoMagic);
        assert!(theirs.is_over());
        assert_eq!(rest(&mut theirs), b"GET / HTTP/1.1");
    }

    #[test]
    fn an_early_end_gives_what_is_no_message() {
        let mut theirs = Theirs::default();
        assert_eq!(theirs.push(b"hi", &Labels::new()), Found::TooLittle);
        assert_eq!(theirs.push(b"", &Labels::new()), Found::Nothing);
        assert_eq!(rest(&mut theirs), b"hi");

        let all = preamble("pod");
        let mut theirs = Theirs::default();
        assert_eq!(theirs.push(&all[..20], &Labels::new()), Found::Part);
        assert_eq!(theirs.push(b"", &Labels::new()), Found::Nothing);
        assert!(theirs.is_over() && rest(&mut theirs).is_empty());
    }

    #[test]
    fn a_length_beyond_the_bound_is_not_waited_for() {
        let mut bytes = MAGIC.to_be_bytes().to_vec();
        bytes.extend_from_slice(&(MAX_MESSAGE as u32 + 1).to_be_bytes());
        let mut theirs = Theirs::default();
        assert_eq!(theirs.push(&bytes, &Labels::new()), Found::TooMuch);
        bytes[4..].copy_from_slice(&(MAX_MESSAGE as u32).to_be_bytes());
        let mut theirs = Theirs::default();
        assert_eq!(theirs.push(&bytes, &Labels::new()), Found::Part);
    }

    #[test]
    fn a_message_of_another_kind_is_the_applications() {
        let mut bytes = MAGIC.to_be_bytes().to_vec();
        bytes.extend_from_slice(&3_u32.to_be_bytes());
        bytes.extend_from_slice(b"\xff\xff\xffmore");
        let mut theirs = Theirs::default();
        assert_eq!(theirs.push(&bytes, &Labels::new()), Found::NoMessage);
        assert_eq!(rest(&mut theirs), b"\xff\xff\xffmore");
    }

    #[test]
    fn a_message_may_say_nothing() {
        let mut bytes = MAGIC.to_be_bytes().to_vec();
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(b"x");
        let mut theirs = Theirs::default();
        assert_eq!(theirs.push(&bytes, &Labels::new()), Found::Peer(None));
        assert_eq!(rest(&mut theirs), b"x");
    }
}
