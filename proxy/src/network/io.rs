//! [`Io`]: the one kind of connection that the data path reads and writes.
//!
//! An enum rather than a trait object or a type parameter: the codecs and the
//! proxies above stay free of generics, and a read costs one branch. What was
//! peeked to tell protocols apart is put back with [`Io::rewind`].

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use outrigger_types::Address;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, Interest, ReadBuf, Ready};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

use super::exchange::Exchanging;

/// Who counts what the sockets of its connections carry.
pub trait ByteSink: Send + Sync {
    /// A socket has given or taken so many bytes.
    fn count_bytes(&self, read: u64, written: u64);

    /// The last read of a connection brought so much more than the one before, bytes.
    fn count_unread(&self, change: i64);

    /// The last write to a connection left so much more than the one before, bytes.
    fn count_unwritten(&self, change: i64);
}

/// A connected byte stream, downstream or upstream.
pub struct Io {
    socket: Socket,
    rewound: Bytes,
    /// What was put back was read before anybody counted.
    unreported: bool,
    read: u64,
    written: u64,
    report: Option<Report>,
}

/// Reports what a socket carries, and takes back at the end what was buffered.
struct Report {
    sink: Arc<dyn ByteSink>,
    /// Bytes of the last read: as in Envoy they count as buffered until the next one.
    last_read: i64,
    /// Bytes that the last write was to take, and did not.
    unwritten: i64,
}

impl Report {
    fn read(&mut self, bytes: u64) {
        self.sink.count_bytes(bytes, 0);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let change = bytes - std::mem::replace(&mut self.last_read, bytes);
        if change != 0 {
            self.sink.count_unread(change);
        }
    }

    fn write(&mut self, offered: usize, result: &Poll<io::Result<usize>>) {
        let taken = match result {
            Poll::Ready(Ok(taken)) => *taken,
            Poll::Ready(Err(_)) => return,
            Poll::Pending => 0,
        };
        if taken > 0 {
            self.sink.count_bytes(0, taken as u64);
        }
        let left = i64::try_from(offered.saturating_sub(taken)).unwrap_or(i64::MAX);
        let change = left - std::mem::replace(&mut self.unwritten, left);
        if change != 0 {
            self.sink.count_unwritten(change);
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if self.last_read != 0 {
            self.sink.count_unread(-self.last_read);
        }
        if self.unwritten != 0 {
            self.sink.count_unwritten(-self.unwritten);
        }
    }
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Io")
            .field("socket", &self.socket)
            .field("rewound", &self.rewound.len())
            .field("read", &self.read)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

/// What is beneath an [`Io`].
#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Duplex(DuplexStream),
    /// TLS over another connection.
    Tls(Box<TlsStream<Io>>),
    /// Over another connection, whose ends tell first who they are.
    Exchanging(Box<Exchanging>),
}

impl From<TcpStream> for Io {
    fn from(stream: TcpStream) -> Self {
        Self::over(Socket::Tcp(stream))
    }
}

impl From<UnixStream> for Io {
    fn from(stream: UnixStream) -> Self {
        Self::over(Socket::Unix(stream))
    }
}

impl From<DuplexStream> for Io {
    fn from(stream: DuplexStream) -> Self {
        Self::over(Socket::Duplex(stream))
    }
}

impl Io {
    fn over(socket: Socket) -> Self {
        Self {
            socket,
            rewound: Bytes::new(),
            unreported: false,
            read: 0,
            written: 0,
            report: None,
        }
    }

    /// Counts with `sink` what the socket carries from now on, at each read and write; what
    /// was put back before, too.
    pub fn report_to(&mut self, sink: Arc<dyn ByteSink>) {
        if let Socket::Exchanging(stream) = &mut self.socket {
            // What the exchange takes is of the socket too.
            return stream.io_mut().report_to(sink);
        }
        self.unreported = self.report.is_none() && !self.rewound.is_empty();
        self.report = Some(Report {
            sink,
            last_read: 0,
            unwritten: 0,
        });
    }

    /// Two ends of a connection in memory, `capacity` bytes each way.
    pub fn pair(capacity: usize) -> (Self, Self) {
        let (a, b) = tokio::io::duplex(capacity);
        (a.into(), b.into())
    }

    /// A connection within a TLS session, after the handshake.
    pub fn over_tls(stream: TlsStream<Self>) -> Self {
        Self::over(Socket::Tls(Box::new(stream)))
    }

    /// A connection on which both ends tell first who they are.
    pub(super) fn exchanging(stream: Exchanging) -> Self {
        Self::over(Socket::Exchanging(Box::new(stream)))
    }

    /// Puts `bytes` back: they are read again before anything of the socket.
    pub fn rewind(&mut self, bytes: Bytes) {
        self.read = self.read.saturating_sub(bytes.len() as u64);
        if self.rewound.is_empty() {
            self.rewound = bytes;
        } else {
            let all = [&bytes[..], &self.rewound[..]].concat();
            self.rewound = all.into();
        }
    }

    /// Bytes handed to the reader so far; what was put back is not counted.
    pub fn bytes_read(&self) -> u64 {
        self.read
    }

    /// Bytes that the socket took so far.
    pub fn bytes_written(&self) -> u64 {
        self.written
    }

    /// Sets TCP_NODELAY; nothing on other sockets.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        match &self.socket {
            Socket::Tcp(stream) => stream.set_nodelay(on),
            Socket::Tls(stream) => stream.get_ref().0.set_nodelay(on),
            Socket::Exchanging(stream) => stream.io().set_nodelay(on),
            Socket::Unix(_) | Socket::Duplex(_) => Ok(()),
        }
    }

    /// Our own end. A socket in memory is an internal address.
    ///
    /// # Errors
    /// What the kernel says, for one when the peer is gone already.
    pub fn local_address(&self) -> io::Result<Address> {
        Ok(match &self.socket {
            Socket::Tcp(stream) => stream.local_addr()?.into(),
            Socket::Unix(stream) => pipe(&stream.local_addr()?),
            Socket::Tls(stream) => return stream.get_ref().0.local_address(),
            Socket::Exchanging(stream) => return stream.io().local_address(),
            Socket::Duplex(_) => in_memory(),
        })
    }

    /// The peer's end; of an unnamed Unix socket the empty pipe.
    ///
    /// # Errors
    /// What the kernel says, for one when the peer is gone already.
    pub fn peer_address(&self) -> io::Result<Address> {
        Ok(match &self.socket {
            Socket::Tcp(stream) => stream.peer_addr()?.into(),
            Socket::Unix(stream) => pipe(&stream.peer_addr()?),
            Socket::Tls(stream) => return stream.get_ref().0.peer_address(),
            Socket::Exchanging(stream) => return stream.io().peer_address(),
            Socket::Duplex(_) => in_memory(),
        })
    }

    /// Whether the peer has ended its side, or the connection, behind what is to be read.
    /// False where that cannot be known before.
    pub fn has_hung_up(&self) -> bool {
        let ready = match &self.socket {
            Socket::Tcp(stream) => now(stream.ready(Interest::READABLE)),
            Socket::Unix(stream) => now(stream.ready(Interest::READABLE)),
            Socket::Tls(stream) => return stream.get_ref().0.has_hung_up(),
            Socket::Exchanging(stream) => return stream.io().has_hung_up(),
            Socket::Duplex(_) => None,
        };
        ready.is_some_and(|ready| ready.is_ok_and(Ready::is_read_closed))
    }

    /// The TCP socket, for options that only it has.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match &self.socket {
            Socket::Tcp(stream) => Some(stream),
            Socket::Tls(stream) => stream.get_ref().0.tcp(),
            Socket::Exchanging(stream) => stream.io().tcp(),
            Socket::Unix(_) | Socket::Duplex(_) => None,
        }
    }
}

/// An abstract name is written with `@` in front, as in Envoy.
fn pipe(addr: &tokio::net::unix::SocketAddr) -> Address {
    let name = match (addr.as_pathname(), addr.as_abstract_name()) {
        (Some(path), _) => path.to_string_lossy().into_owned(),
        (None, Some(name)) => format!("@{}", String::from_utf8_lossy(name)),
        (None, None) => String::new(),
    };
    Address::Pipe(name.into())
}

/// What a future has at once.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn in_memory() -> Address {
    Address::Internal(Arc::from("memory"), Arc::from(""))
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if !this.rewound.is_empty() {
            let n = this.rewound.len().min(buf.remaining());
            buf.put_slice(&this.rewound[..n]);
            this.rewound.advance(n);
            if this.rewound.is_empty() {
                // A connection may be idle for long: it keeps no buffer for what was read.
                this.rewound = Bytes::new();
            }
            this.read += n as u64;
            if let (Some(report), true) = (&mut this.report, this.unreported) {
                report.read(n as u64);
                this.unreported = !this.rewound.is_empty();
            }
            return Poll::Ready(Ok(()));
        }
        let result = match &mut this.socket {
            Socket::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Socket::Unix(s) => Pin::new(s).poll_read(cx, buf),
            Socket::Duplex(s) => Pin::new(s).poll_read(cx, buf),
            Socket::Tls(s) => Pin::new(&mut **s).poll_read(cx, buf),
            Socket::Exchanging(s) => Pin::new(&mut **s).poll_read(cx, buf),
        };
        let read = (buf.filled().len() - before) as u64;
        this.read += read;
        if let (Some(report), true) = (&mut this.report, read > 0) {
            report.read(read);
        }
        result
    }
}

impl Io {
    fn count(
        &mut self,
        offered: usize,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(n)) = &result {
            self.written += *n as u64;
        }
        if let Some(report) = &mut self.report {
            report.write(offered, &result);
        }
        result
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = match &mut self.socket {
            Socket::Tcp(s) => Pin::new(s).poll_write(cx, buf),
            Socket::Unix(s) => Pin::new(s).poll_write(cx, buf),
            Socket::Duplex(s) => Pin::new(s).poll_write(cx, buf),
            Socket::Tls(s) => Pin::new(&mut **s).poll_write(cx, buf),
            Socket::Exchanging(s) => Pin::new(&mut **s).poll_write(cx, buf),
        };
        self.count(buf.len(), result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = match &mut self.socket {
            Socket::Tcp(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Socket::Unix(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Socket::Duplex(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Socket::Tls(s) => Pin::new(&mut **s).poll_write_vectored(cx, bufs),
            Socket::Exchanging(s) => Pin::new(&mut **s).poll_write_vectored(cx, bufs),
        };
        self.count(bufs.iter().map(|buf| buf.len()).sum(), result)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.socket {
            Socket::Tcp(s) => s.is_write_vectored(),
            Socket::Unix(s) => s.is_write_vectored(),
            Socket::Duplex(s) => s.is_write_vectored(),
            Socket::Tls(s) => s.is_write_vectored(),
            Socket::Exchanging(s) => s.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(s) => Pin::new(s).poll_flush(cx),
            Socket::Unix(s) => Pin::new(s).poll_flush(cx),
            Socket::Duplex(s) => Pin::new(s).poll_flush(cx),
            Socket::Tls(s) => Pin::new(&mut **s).poll_flush(cx),
            Socket::Exchanging(s) => Pin::new(&mut **s).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Socket::Unix(s) => Pin::new(s).poll_shutdown(cx),
            Socket::Duplex(s) => Pin::new(s).poll_shutdown(cx),
            Socket::Tls(s) => Pin::new(&mut **s).poll_shutdown(cx),
            Socket::Exchanging(s) => Pin::new(&mut **s).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn reads_what_was_put_back_first() {
        let (mut a, mut b) = Io::pair(64);
        b.write_all(b"hello world").await.unwrap();
        let mut peeked = [0; 5];
        a.read_exact(&mut peeked).await.unwrap();
        a.rewind(Bytes::copy_from_slice(&peeked[2..]));
        a.rewind(Bytes::copy_from_slice(&peeked[..2]));
        assert_eq!(a.bytes_read(), 0);
        let mut all = [0; 11];
        a.read_exact(&mut all).await.unwrap();
        assert_eq!(&all, b"hello world");
        assert_eq!((a.bytes_read(), b.bytes_written()), (11, 11));
    }

    /// Bytes read and written, and what is buffered of both.
    #[derive(Default)]
    struct Sum(parking_lot::Mutex<(u64, u64, i64, i64)>);

    impl ByteSink for Sum {
        fn count_bytes(&self, read: u64, written: u64) {
            let mut sum = self.0.lock();
            (sum.0, sum.1) = (sum.0 + read, sum.1 + written);
        }

        fn count_unread(&self, change: i64) {
            self.0.lock().2 += change;
        }

        fn count_unwritten(&self, change: i64) {
            self.0.lock().3 += change;
        }
    }

    #[tokio::test]
    async fn reports_each_byte_of_the_socket_once() {
        let (mut a, mut b) = Io::pair(64);
        let sum = Arc::new(Sum::default());
        a.report_to(sum.clone());
        b.write_all(b"hello").await.unwrap();
        let mut peeked = [0; 5];
        a.read_exact(&mut peeked).await.unwrap();
        a.rewind(Bytes::copy_from_slice(&peeked));
        a.read_exact(&mut peeked).await.unwrap();
        a.write_all(b"hi").await.unwrap();
        assert_eq!(*sum.0.lock(), (5, 2, 5, 0));
    }

    #[tokio::test]
    async fn reports_what_is_buffered_until_the_connection_goes() {
        let (mut a, mut b) = Io::pair(4);
        let sum = Arc::new(Sum::default());
        a.report_to(sum.clone());
        assert_eq!(a.write(b"sixsix").await.unwrap(), 4);
        assert_eq!(*sum.0.lock(), (0, 4, 0, 2));
        b.write_all(b"hey").await.unwrap();
        a.read_exact(&mut [0; 3]).await.unwrap();
        assert_eq!(*sum.0.lock(), (3, 4, 3, 2));
        b.read_exact(&mut [0; 4]).await.unwrap();
        a.write_all(b"ix").await.unwrap();
        assert_eq!(*sum.0.lock(), (3, 6, 3, 0));
        drop(a);
        assert_eq!(*sum.0.lock(), (3, 6, 0, 0));
    }

    #[tokio::test]
    async fn names_both_ends_of_a_tcp_socket() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(addr), listener.accept());
        let (client, server) = (Io::from(client.unwrap()), Io::from(accepted.unwrap().0));
        client.set_nodelay(true).unwrap();
        assert!(client.tcp().unwrap().nodelay().unwrap());
        assert_eq!(client.peer_address().unwrap(), Address::Ip(addr));
        assert_eq!(
            client.local_address().unwrap(),
            server.peer_address().unwrap()
        );
    }

    #[tokio::test]
    async fn an_unnamed_unix_peer_is_the_empty_pipe() {
        let (a, _b) = UnixStream::pair().unwrap();
        assert_eq!(
            Io::from(a).peer_address().unwrap(),
            Address::Pipe(Arc::from(""))
        );
    }
}
