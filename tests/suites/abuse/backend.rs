//! A server whose behaviour a request chooses by its path, on either version of HTTP. It
//! keeps nothing of what it reads, and makes up what it writes.

use std::io;
use std::time::Duration;

use integration_tests::exchange::Exchange;
use integration_tests::h1::{self, Framing, Reader};
use integration_tests::h2::conn::{Conn, Options};
use integration_tests::ports;
use integration_tests::upstream::Protocol;
use integration_tests::values::Fields;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::JoinSet;

/// Bytes of a big answer.
pub const BIG: usize = 100_000_000;
const PIECE: usize = 50_000;
/// How long a server that stalls does so.
const STALL: Duration = Duration::from_secs(8);

/// What a server does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Reads it and answers.
    Answer,
    /// Answers at the head.
    Early,
    /// Answers after a moment.
    Late,
    /// Answers with [`BIG`] bytes.
    Big,
    /// Answers with 300 kB, a piece at a time.
    Slow,
    /// Answers 503.
    Fail,
    /// Never answers.
    Silent,
    /// Answers a head and a piece, and no more.
    Stall,
    /// Reads nothing after the head, and never answers.
    Deaf,
    /// Ends the connection in place of an answer.
    Close,
    /// Resets the connection, or the stream, in the middle of the answer.
    Reset,
    /// Answers with what is not HTTP.
    Nonsense,
}

impl Behaviour {
    /// Those that a random test chooses from; the last ones are over soon.
    pub const RANDOM: [Self; 11] = [
        Self::Answer,
        Self::Answer,
        Self::Early,
        Self::Late,
        Self::Slow,
        Self::Fail,
        Self::Silent,
        Self::Stall,
        Self::Close,
        Self::Reset,
        Self::Nonsense,
    ];

    /// The word of a path that asks for it.
    #[must_use]
    pub fn word(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// What the first segment of a path asks for.
    fn of(path: &str) -> Self {
        let word = path.split('/').nth(1).unwrap_or("");
        let all = Self::RANDOM.into_iter().chain([Self::Big, Self::Deaf]);
        let mut all = all.filter(|b| b.word() == word);
        all.next().unwrap_or(Self::Answer)
    }
}

/// Listens on a port of its own, for as long as the runtime lives. With `deaf` it grants no
/// window for what it receives over HTTP/2.
///
/// # Errors
/// When there is no port.
pub async fn start(protocol: Protocol, deaf: bool) -> io::Result<u16> {
    let port = ports::free();
    let listener = ports::reuse(port).await?;
    tokio::spawn(async move {
        let mut served = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            served.spawn(async move {
                // A proxy that goes away is what these tests are about.
                let _ = match protocol {
                    Protocol::H2 => serve_h2(socket, deaf).await,
                    _ => serve_h1(socket).await,
                };
            });
            while served.try_join_next().is_some() {}
        }
    });
    Ok(port)
}

async fn serve_h1(socket: TcpStream) -> io::Result<()> {
    let (read, mut writer) = socket.into_split();
    let mut reader = Reader::new(read);
    while let Some(head) = reader.head().await? {
        let behaviour = Behaviour::of(head.path());
        let framing = h1::request_framing(&head);
        if !answer_h1(behaviour, &mut writer, &mut reader, framing).await? {
            break;
        }
    }
    Ok(())
}

/// Answers; false when the connection is to end.
async fn answer_h1(
    behaviour: Behaviour,
    writer: &mut OwnedWriteHalf,
    reader: &mut Reader,
    framing: Framing,
) -> io::Result<bool> {
    let plain = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    match behaviour {
        Behaviour::Early => {
            writer.write_all(plain).await?;
            return drained(reader, framing).await;
        }
        Behaviour::Deaf => {
            tokio::time::sleep(STALL).await;
            return Ok(false);
        }
        _ if !drained(reader, framing).await? => return Ok(false),
        _ => {}
    }
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n";
    match behaviour {
        Behaviour::Answer | Behaviour::Early | Behaviour::Deaf => writer.write_all(plain).await?,
        Behaviour::Late => {
            tokio::time::sleep(Duration::from_millis(30)).await;
            writer.write_all(plain).await?;
        }
        Behaviour::Big => pieces_h1(writer, BIG, Duration::ZERO).await?,
        Behaviour::Slow => pieces_h1(writer, 6 * PIECE, Duration::from_millis(5)).await?,
        Behaviour::Fail => {
            let head = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
            writer.write_all(head).await?;
        }
        Behaviour::Silent => until_gone(reader).await,
        Behaviour::Stall => {
            writer.write_all(chunked).await?;
            until_gone(reader).await;
        }
        Behaviour::Close => return Ok(false),
        Behaviour::Reset => {
            writer.write_all(chunked).await?;
            let socket: &TcpStream = (*writer).as_ref();
            SockRef::from(socket).set_linger(Some(Duration::ZERO))?;
            return Ok(false);
        }
        Behaviour::Nonsense => {
            writer.write_all(b"\0\0nonsense\r\n\r\n").await?;
            return Ok(false);
        }
    }
    Ok(true)
}

async fn pieces_h1(
    writer: &mut OwnedWriteHalf,
    mut left: usize,
    pause: Duration,
) -> io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {left}\r\n\r\n");
    writer.write_all(head.as_bytes()).await?;
    let piece = vec![b'x'; PIECE];
    while left > 0 {
        let now = left.min(PIECE);
        writer.write_all(&piece[..now]).await?;
        left -= now;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    Ok(())
}

/// Reads a body and forgets it.
async fn drained(reader: &mut Reader, framing: Framing) -> io::Result<bool> {
    let Framing::Length(mut left) = framing else {
        return reader.body(framing, &Exchange::default()).await;
    };
    while left > 0 {
        let taken = reader.take().len();
        left = left.saturating_sub(taken);
        if left > 0 && taken == 0 && !reader.fill().await? {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn until_gone(reader: &mut Reader) {
    let gone = async { while let Ok(true) = reader.fill().await {} };
    tokio::time::timeout(STALL, gone).await.ok();
}

async fn serve_h2(socket: TcpStream, deaf: bool) -> io::Result<()> {
    let options = Options {
        server: true,
        hold_windows: deaf,
        ..Options::default()
    };
    let conn = Conn::start(socket, options).await?;
    let mut streams = JoinSet::new();
    while let Some((stream, exchange)) = conn.accept().await {
        let conn = conn.clone();
        streams.spawn(async move {
            // A stream that is reset is over.
            let _ = answer_h2(&conn, stream, &exchange).await;
        });
        while streams.try_join_next().is_some() {}
    }
    Ok(())
}

async fn answer_h2(conn: &Conn, stream: u32, exchange: &Exchange) -> io::Result<()> {
    let path = exchange.seen().head.map(|h| h.path().to_owned());
    let behaviour = Behaviour::of(&path.unwrap_or_default());
    let over = |seen: &integration_tests::exchange::Seen| seen.broken.is_some();
    if !matches!(behaviour, Behaviour::Early | Behaviour::Deaf) {
        exchange.until(STALL, |seen| seen.ended || over(seen)).await;
    }
    let mut head = Fields::default();
    head.push(
        ":status",
        if behaviour == Behaviour::Fail {
            "503"
        } else {
            "200"
        },
    );
    match behaviour {
        Behaviour::Silent | Behaviour::Deaf => {
            exchange.until(STALL, over).await;
            return Ok(());
        }
        Behaviour::Close => return conn.close().await,
        Behaviour::Nonsense => return conn.raw(&[0xff; 32]).await,
        Behaviour::Fail => return conn.headers(stream, &head, true).await,
        Behaviour::Late => tokio::time::sleep(Duration::from_millis(30)).await,
        _ => {}
    }
    conn.headers(stream, &head, false).await?;
    match behaviour {
        Behaviour::Stall => {
            conn.data(stream, b"part", false).await?;
            exchange.until(STALL, over).await;
        }
        Behaviour::Reset => {
            conn.data(stream, b"part", false).await?;
            conn.reset(stream, 2).await?;
        }
        Behaviour::Big => pieces_h2(conn, stream, BIG, Duration::ZERO).await?,
        Behaviour::Slow => pieces_h2(conn, stream, 6 * PIECE, Duration::from_millis(5)).await?,
        _ => conn.data(stream, b"ok", true).await?,
    }
    Ok(())
}

async fn pieces_h2(conn: &Conn, stream: u32, mut left: usize, pause: Duration) -> io::Result<()> {
    let piece = vec![b'x'; PIECE];
    while left > 0 && conn.closed().is_none() {
        let now = left.min(PIECE);
        left -= now;
        conn.data(stream, &piece[..now], left == 0).await?;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    Ok(())
}
