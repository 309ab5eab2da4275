//! Reads a ClientHello (RFC 8446 section 4.1.2 in records of section 5.1), as far as it
//! takes to know the server's name and the application protocols.
//!
//! What BoringSSL would refuse before it looks at the name is no TLS here either.

/// Most bytes in one record.
const MAX_RECORD: usize = 16_704;

/// Most bytes of the message itself.
const MAX_MESSAGE: usize = 16_384;

/// Records without a byte that may come in a row.
const MAX_EMPTY: usize = 32;

/// What the bytes so far are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// More of them are needed to tell.
    More,
    /// No ClientHello.
    NotTls {
        /// Bytes that it took to know.
        read: usize,
    },
    /// A whole one.
    Hello {
        /// What it says.
        hello: ClientHello,
        /// Its bytes, with the headers of its records.
        read: usize,
    },
}

/// What a ClientHello asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// SNI in lower case; empty for none.
    pub server_name: Box<str>,
    /// The protocols that it offers by ALPN, in its order; none without the extension.
    pub application_protocols: Option<Vec<Box<str>>>,
}

/// Reads what a client has said so far, from its first byte on.
pub fn read(bytes: &[u8]) -> Found {
    let mut message = Vec::new();
    let mut rest = bytes;
    let (mut read, mut empty) = (0, 0);
    loop {
        match of_message(&message) {
            Message::Part => {}
            Message::Other => return Found::NotTls { read },
            Message::Hello(hello) => return Found::Hello { hello, read },
        }
        let [kind, major, _, high, low, after @ ..] = rest else {
            return Found::More;
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if *kind != 22 || *major != 3 || length > MAX_RECORD {
            return Found::NotTls { read: read + 5 };
        }
        let Some((record, after)) = after.split_at_checked(length) else {
            return Found::More;
        };
        read += 5 + length;
        empty = if length == 0 { empty + 1 } else { 0 };
        if empty > MAX_EMPTY {
            return Found::NotTls { read };
        }
        message.extend_from_slice(record);
        rest = after;
    }
}

/// What the handshake message is, as far as it is there.
enum Message {
    Part,
    Other,
    Hello(ClientHello),
}

fn of_message(message: &[u8]) -> Message {
    let [kind, high, middle, low, body @ ..] = message else {
        return Message::Part;
    };
    let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
    if *kind != 1 || length > MAX_MESSAGE {
        return Message::Other;
    }
    match body.get(..length) {
        None => Message::Part,
        Some(body) => of_body(body).map_or(Message::Other, Message::Hello),
    }
}

/// A place in bytes that are taken off from the front.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn number(&mut self) -> Option<u16> {
        self.take(2).map(|two| u16::from_be_bytes([two[0], two[1]]))
    }

    /// What a length of one byte stands before.
    fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.byte()?;
        self.take(length.into())
    }

    /// What a length of two bytes stands before.
    fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(length.into())
    }
}

fn of_body(body: &[u8]) -> Option<ClientHello> {
    let mut body = Cursor(body);
    let legacy_version = body.number()?;
    body.take(32)?;
    let session = body.short()?;
    let suites = body.long()?;
    let compressions = body.short()?;
    if session.len() > 32 || suites.is_empty() || suites.len() % 2 != 0 || compressions.is_empty() {
        return None;
    }
    let mut hello = ClientHello::default();
    let mut versions = None;
    if !body.0.is_empty() {
        let mut extensions = Cursor(body.long()?);
        while !extensions.0.is_empty() {
            let kind = extensions.number()?;
            let value = extensions.long()?;
            match kind {
                0 => hello.server_name = server_name(value)?,
                16 => hello.application_protocols = protocols(value),
                43 => versions = Some(value),
                _ => {}
            }
        }
    }
    let fits = body.0.is_empty() && speaks_tls(legacy_version, versions)?;
    fits.then_some(hello)
}

/// Whether it offers any version from 1.0 to 1.3.
fn speaks_tls(legacy: u16, offered: Option<&[u8]>) -> Option<bool> {
    let Some(offered) = offered else {
        return Some(legacy >= 0x0301);
    };
    let mut list = Cursor(Cursor(offered).short()?);
    let mut any = false;
    while !list.0.is_empty() {
        any |= (0x0301..=0x0304).contains(&list.number()?);
    }
    Some(any)
}

/// The one name, a host's, that the extension may have.
fn server_name(value: &[u8]) -> Option<Box<str>> {
    let mut value = Cursor(value);
    let mut list = Cursor(value.long()?);
    let kind = list.byte()?;
    let name = list.long()?;
    let whole = list.0.is_empty() && value.0.is_empty();
    if kind != 0 || !whole || name.is_empty() || name.len() > 255 || name.contains(&0) {
        return None;
    }
    Some(String::from_utf8_lossy(name).to_ascii_lowercase().into())
}

/// The protocols; none of a malformed list.
fn protocols(value: &[u8]) -> Option<Vec<Box<str>>> {
    let mut list = Cursor(Cursor(value).long()?);
    let mut all = Vec::new();
    while !list.0.is_empty() {
        let name = list.short().filter(|name| !name.is_empty())?;
        all.push(String::from_utf8_lossy(name).into());
    }
    Some(all)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn sized(width: usize, bytes: &[u8]) -> Vec<u8> {
        let length = (bytes.len() as u32).to_be_bytes();
        [&length[4 - width..], bytes].concat()
    }

    fn extension(kind: u16, value: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &sized(2, value)].concat()
    }

    /// A ClientHello with these extensions, in one record.
    pub fn hello(extensions: &[u8]) -> Vec<u8> {
        let fixed = [&[3, 3][..], &[7; 32], &[0], &sized(2, &[0x13, 1]), &[1, 0]].concat();
        let body = [fixed, sized(2, extensions)].concat();
        let message = [vec![1], sized(3, &body)].concat();
        [&[22, 3, 1][..], &sized(2, &message)].concat()
    }

    pub fn named(name: &str, protocols: &[&str]) -> Vec<u8> {
        let name = [vec![0], sized(2, name.as_bytes())].concat();
        let list: Vec<u8> = protocols
            .iter()
            .flat_map(|p| sized(1, p.as_bytes()))
            .collect();
        hello(
            &[
                extension(0, &sized(2, &name)),
                extension(16, &sized(2, &list)),
            ]
            .concat(),
        )
    }

    fn found(server_name: &str, protocols: &[&str]) -> Option<ClientHello> {
        Some(ClientHello {
            server_name: server_name.into(),
            application_protocols: Some(protocols.iter().map(|p| (*p).into()).collect()),
        })
    }

    /// What whole bytes say; none if they are no ClientHello.
    fn said(bytes: &[u8]) -> Option<ClientHello> {
        match read(bytes) {
            Found::Hello { hello, read } => {
                assert_eq!(read, bytes.len());
                Some(hello)
            }
            Found::NotTls { .. } => None,
            Found::More => panic!("{bytes:?} are not whole"),
        }
    }

    #[test]
    fn reads_name_and_protocols() {
        let bytes = named("A.Example", &["h2", "http/1.1"]);
        assert_eq!(said(&bytes), found("a.example", &["h2", "http/1.1"]));
        assert_eq!(said(&hello(&[])), Some(ClientHello::default()));
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), Found::More, "{end} bytes");
        }
    }

    #[test]
    fn reads_over_records() {
        let whole = named("a", &["x"]);
        for at in 5..whole.len() {
            let (first, second) = (sized(2, &whole[5..at]), sized(2, &whole[at..]));
            let split = [&[22, 3, 1][..], &first, &[22, 3, 3], &second].concat();
            assert_eq!(said(&split), found("a", &["x"]));
        }
        let empty = [22, 3, 1, 0, 0];
        assert_eq!(
            said(&[&empty.repeat(32)[..], &whole].concat()),
            found("a", &["x"])
        );
        assert_eq!(read(&empty.repeat(33)), Found::NotTls { read: 165 });
    }

    #[test]
    fn refuses_what_is_malformed() {
        let bad_name = extension(0, &sized(2, &[&[0][..], &sized(2, b"a\0b")].concat()));
        let old_only = extension(43, &sized(1, &[3, 0]));
        for bytes in [hello(&bad_name), hello(&old_only), hello(&[0, 0, 9])] {
            assert_eq!(said(&bytes), None);
        }
        let bad_protocols = extension(16, &sized(2, &[0]));
        assert_eq!(said(&hello(&bad_protocols)), Some(ClientHello::default()));
        assert_eq!(read(b"GET / HTTP/1.1\r\n"), Found::NotTls { read: 5 });
        assert_eq!(said(&[22, 3, 1, 0, 4, 2, 0, 0, 9]), None);
        assert_eq!(said(&[22, 3, 1, 0, 4, 1, 1, 0, 0]), None);
    }
}
