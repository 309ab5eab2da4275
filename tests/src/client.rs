//! Scripted clients: one request at a time over HTTP/1, HTTP/2 or raw bytes,
//! with everything that came back kept as it came.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Mutex;

use crate::exchange::{Exchange, Seen};
use crate::h1::{self, Reader};
use crate::h2::conn::{Conn, Options};
use crate::steps::{self, After, Out, Step};
use crate::values::{Fields, Payload, Span};

/// A request as a script gives it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Request {
    /// Listener to connect to, `a` when unset.
    pub to: Option<String>,
    /// Connects to it at `::1`, not at 127.0.0.1.
    pub ipv6: bool,
    /// Name of a connection to share; a connection of its own when unset.
    pub conn: Option<String>,
    /// Method: `GET`, or `POST` when there is a body.
    pub method: Option<String>,
    /// Path, `/` when unset.
    pub path: Option<String>,
    /// `host` or `:authority`, `parity.test` when unset.
    pub host: Option<String>,
    /// `:scheme`, `http` when unset (HTTP/2).
    pub scheme: Option<String>,
    /// Version in the request line, `HTTP/1.1` when unset.
    pub version: Option<String>,
    /// Fields after those above.
    pub headers: Fields,
    /// The whole field list instead, pseudo headers included.
    pub exact: Option<Fields>,
    /// Body.
    pub body: Option<Payload>,
    /// gRPC messages as body: sets content type, `te` and framing.
    pub messages: Option<Vec<Payload>>,
    /// Trailers.
    pub trailers: Option<Fields>,
    /// What follows the head, instead of body, trailers and end.
    pub steps: Option<Vec<Step>>,
    /// HTTP/2 SETTINGS of a new connection.
    pub settings: Vec<(u16, u32)>,
    /// HTTP/2: grant no window on a new connection.
    pub hold_windows: bool,
    /// HTTP/1 and bytes: how long nothing is read of the answer. Of bytes only the first line
    /// is kept then.
    pub unread: Option<Span>,
    /// How long to wait for the end of the answer, ten seconds when unset.
    pub give_up: Option<Span>,
    /// How long to watch the connection afterwards, 40 ms when unset.
    pub linger: Option<Span>,
    /// HTTP/1: the request as text, line ends made CRLF unless it has some.
    pub text: Option<String>,
}

/// A request, or its text alone.
pub fn request_or_text<'de, D: Deserializer<'de>>(d: D) -> Result<Box<Request>, D::Error> {
    match Value::deserialize(d)? {
        Value::String(text) => Ok(Box::new(Request {
            text: Some(text),
            ..Request::default()
        })),
        other => serde_json::from_value(other)
            .map(Box::new)
            .map_err(de::Error::custom),
    }
}

/// Which protocol a request is sent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// HTTP/1.
    H1,
    /// HTTP/2.
    H2,
    /// Bytes, answered by bytes.
    Raw,
}

/// What came back.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The response.
    pub seen: Seen,
    /// How stream and connection ended, in words.
    pub fate: String,
}

/// The connections that a script names.
#[derive(Default)]
pub struct Connections {
    named: Mutex<BTreeMap<String, Named>>,
}

#[derive(Clone)]
enum Named {
    H1(Arc<Mutex<Option<H1>>>),
    H2(Conn),
}

/// An HTTP/1 connection between requests.
struct H1 {
    reader: Reader,
    writer: OwnedWriteHalf,
}

const GIVE_UP: Duration = Duration::from_secs(10);
const LINGER: Duration = Duration::from_millis(40);

async fn connect(at: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(at).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

impl H1 {
    async fn open(at: SocketAddr) -> io::Result<Self> {
        let (read, writer) = connect(at).await?.into_split();
        Ok(Self {
            reader: Reader::new(read),
            writer,
        })
    }
}

impl Connections {
    /// Sends a request to `port` and waits for its answer and its aftermath.
    pub async fn send(&self, kind: Kind, request: &Request, port: u16) -> Answer {
        let at = match request.ipv6 {
            true => SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
            false => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        };
        let sent = match kind {
            Kind::H1 => self.send_h1(request, at).await,
            Kind::H2 => self.send_h2(request, at).await,
            Kind::Raw => send_raw(request, at).await,
        };
        sent.unwrap_or_else(|e| Answer {
            fate: format!("failed: {}", h1::describe(&e)),
            ..Answer::default()
        })
    }

    /// Drops every named connection.
    pub async fn close(&self) {
        let mut named = self.named.lock().await;
        for conn in named.values() {
            if let Named::H2(conn) = conn {
                conn.shut().await;
            }
        }
        named.clear();
    }

    async fn send_h1(&self, request: &Request, at: SocketAddr) -> io::Result<Answer> {
        let Some(name) = &request.conn else {
            return Ok(exchange_h1(H1::open(at).await?, request).await.0);
        };
        let slot = {
            let mut named = self.named.lock().await;
            let fresh = || Named::H1(Arc::default());
            match named.entry(name.clone()).or_insert_with(fresh) {
                Named::H1(slot) => Arc::clone(slot),
                Named::H2(_) => return Err(io::Error::other("an HTTP/2 connection has this name")),
            }
        };
        let mut slot = slot.lock().await;
        let conn = match slot.take() {
            Some(conn) => conn,
            None => H1::open(at).await?,
        };
        let (answer, conn) = exchange_h1(conn, request).await;
        *slot = conn;
        Ok(answer)
    }

    async fn send_h2(&self, request: &Request, at: SocketAddr) -> io::Result<Answer> {
        let options = Options {
            server: false,
            settings: request.settings.clone(),
            hold_windows: request.hold_windows,
        };
        let Some(name) = &request.conn else {
            let conn = Conn::start(connect(at).await?, options).await?;
            let answer = exchange_h2(&conn, request).await;
            conn.shut().await;
            return answer;
        };
        let mut named = self.named.lock().await;
        let conn = match named.get(name) {
            Some(Named::H2(conn)) => conn.clone(),
            Some(Named::H1(_)) => {
                return Err(io::Error::other("an HTTP/1 connection has this name"));
            }
            None => {
                let conn = Conn::start(connect(at).await?, options).await?;
                named.insert(name.clone(), Named::H2(conn.clone()));
                conn
            }
        };
        drop(named);
        exchange_h2(&conn, request).await
    }
}

/// One HTTP/1 exchange; the connection comes back when it can carry another.
async fn exchange_h1(mut conn: H1, request: &Request) -> (Answer, Option<H1>) {
    let exchange = Exchange::new();
    let give_up = request.give_up.map_or(GIVE_UP, |s| s.0);
    let both = async {
        let receiving = async {
            request.leave_unread().await;
            receive_h1(&mut conn.reader, &exchange, request.method()).await;
        };
        let sending = write_h1(&mut conn.writer, &exchange, request);
        tokio::pin!(receiving, sending);
        let sent = tokio::select! {
            sent = &mut sending => Some(sent),
            () = &mut receiving => None,
        };
        match sent {
            Some(Ok(After::Aborted)) => "aborted".to_owned(),
            Some(_) => {
                receiving.await;
                String::new()
            }
            None => {
                // The answer is whole; an upload that the proxy no longer reads may never end.
                tokio::time::timeout(LINGER, sending).await.ok();
                String::new()
            }
        }
    };
    let note = tokio::time::timeout(give_up, both).await;
    let note = note.unwrap_or_else(|_| "no end in time".to_owned());
    let seen = exchange.seen();
    if note == "aborted" {
        return (Answer { seen, fate: note }, None);
    }
    let linger = request.linger.map_or(LINGER, |s| s.0);
    let open = seen.broken.is_none() && !closes_within(&mut conn.reader, linger).await;
    let message = match (&seen.broken, seen.ended) {
        (Some(how), _) => how.clone(),
        (None, true) => "complete".to_owned(),
        (None, false) => note,
    };
    let fate = format!(
        "{message}, connection {}",
        if open { "kept" } else { "closed" }
    );
    let reusable = open && seen.ended;
    (Answer { seen, fate }, reusable.then_some(conn))
}

async fn closes_within(reader: &mut Reader, time: Duration) -> bool {
    let read = tokio::time::timeout(time, async { while let Ok(true) = reader.fill().await {} });
    read.await.is_ok()
}

async fn write_h1(
    writer: &mut OwnedWriteHalf,
    exchange: &Arc<Exchange>,
    request: &Request,
) -> io::Result<After> {
    let (mut head, chunked, mut steps) = request.h1();
    if let Some(Step::Data(Payload(body))) = steps.first()
        && request.is_brief()
        && !chunked
    {
        head.extend(body);
        steps.remove(0);
    }
    writer.write_all(&head).await?;
    steps::run(&steps, &mut Out::H1 { writer, chunked }, exchange).await
}

async fn receive_h1(reader: &mut Reader, exchange: &Arc<Exchange>, method: &str) {
    let read = async {
        loop {
            let Some(head) = reader.head().await? else {
                return Ok(false);
            };
            if (100..200).contains(&head.status()) && head.status() != 101 {
                exchange.update(|seen| seen.interim.push(head));
                continue;
            }
            let framing = h1::response_framing(&head, method);
            exchange.update(|seen| seen.head = Some(head));
            return reader.body(framing, exchange).await;
        }
    };
    let result: io::Result<bool> = read.await;
    match result {
        Ok(true) => exchange.update(|seen| seen.ended = true),
        Ok(false) => exchange.broke("cut short"),
        Err(e) if h1::describe(&e) == "closed" => exchange.broke("cut short"),
        Err(e) => exchange.broke(&h1::describe(&e)),
    }
}

async fn exchange_h2(conn: &Conn, request: &Request) -> io::Result<Answer> {
    let (stream, exchange) = conn.open();
    let give_up = request.give_up.map_or(GIVE_UP, |s| s.0);
    let linger = request.linger.map_or(LINGER, |s| s.0);
    let steps = request.h2_steps();
    let both = async {
        let sending = async {
            let whole = request.is_brief();
            if whole {
                conn.cork();
            }
            conn.headers(stream, &request.h2_head(), steps.is_empty())
                .await?;
            let mut out = Out::H2 {
                conn: conn.clone(),
                stream,
            };
            let sent = steps::run(&steps, &mut out, &exchange).await;
            if whole {
                conn.uncork().await?;
            }
            sent
        };
        tokio::pin!(sending);
        let done = exchange.until(give_up, |seen| seen.ended || seen.broken.is_some());
        tokio::pin!(done);
        tokio::select! {
            sent = &mut sending => match sent {
                Ok(After::Aborted) => false,
                _ => done.await,
            },
            done = &mut done => {
                tokio::time::timeout(linger, sending).await.ok();
                done
            }
        }
    };
    let whole = both.await;
    exchange.until(linger, |seen| seen.broken.is_some()).await;
    if exchange.seen().broken.is_some() {
        conn.until_closed(Duration::from_millis(20)).await;
    }
    let seen = exchange.seen();
    let mut fate = match (seen.ended, whole) {
        (true, _) => "complete".to_owned(),
        (false, true) => "broken off".to_owned(),
        (false, false) => "no end in time".to_owned(),
    };
    if let Some(how) = &seen.broken {
        fate = format!("{fate}, {how}");
    }
    for (_, code, text) in conn.goaways() {
        fate = format!("{fate}, GOAWAY {code} {text}");
    }
    Ok(Answer {
        seen,
        fate: fate.trim_end().to_owned(),
    })
}

/// Sends bytes and collects what comes until the connection ends or `give_up` (300 ms) passes.
async fn send_raw(request: &Request, at: SocketAddr) -> io::Result<Answer> {
    let mut conn = H1::open(at).await?;
    let exchange = Exchange::new();
    if let Some(body) = &request.body {
        conn.writer.write_all(&body.0).await?;
    }
    let give_up = request.give_up.map_or(Duration::from_millis(300), |s| s.0);
    let steps = request.steps.clone().unwrap_or_default();
    let receiving = async {
        request.leave_unread().await;
        loop {
            match conn.reader.fill().await {
                Ok(true) => {}
                Ok(false) => return "closed".to_owned(),
                Err(e) => return h1::describe(&e),
            }
            let bytes = conn.reader.take();
            exchange.update(|seen| request.keep(&mut seen.body, bytes));
        }
    };
    let mut out = Out::H1 {
        writer: &mut conn.writer,
        chunked: false,
    };
    let sending = async {
        drop(steps::run(&steps, &mut out, &exchange).await);
        std::future::pending::<()>().await;
    };
    let both = async {
        tokio::select! {
            end = receiving => end,
            () = sending => String::new(),
        }
    };
    let fate = tokio::time::timeout(give_up, both).await;
    let fate = fate.unwrap_or_else(|_| "kept".to_owned());
    Ok(Answer {
        seen: exchange.seen(),
        fate,
    })
}

impl Request {
    /// The method that goes out.
    #[must_use]
    pub fn method(&self) -> &str {
        if let Some(text) = &self.text {
            return text.split(' ').next().unwrap_or("");
        }
        let sends = self.body.is_some() || self.messages.is_some();
        self.method
            .as_deref()
            .unwrap_or(if sends { "POST" } else { "GET" })
    }

    /// Keeps what was read, of an answer that was left unread only the first line: how much
    /// of it is on the way is a matter of socket buffers.
    fn keep(&self, body: &mut Vec<u8>, bytes: Vec<u8>) {
        if self.unread.is_some() && !body.is_empty() {
            return;
        }
        body.extend(bytes);
        if self.unread.is_some() {
            let line = body.iter().position(|b| *b == b'\r');
            body.truncate(line.unwrap_or(body.len()));
        }
    }

    async fn leave_unread(&self) {
        if let Some(unread) = self.unread {
            tokio::time::sleep(unread.0).await;
        }
    }

    /// Whether the request is sent in one piece: no steps, a small body.
    fn is_brief(&self) -> bool {
        self.steps.is_none() && self.content().is_none_or(|c| c.len() < 16_384)
    }

    fn content(&self) -> Option<Vec<u8>> {
        let framed = |m: &Vec<Payload>| {
            m.iter()
                .flat_map(|m| crate::values::grpc_frame(&m.0))
                .collect()
        };
        self.messages
            .as_ref()
            .map(framed)
            .or_else(|| self.body.as_ref().map(|b| b.0.clone()))
    }

    /// Head bytes, whether data is chunked, and the steps after the head.
    fn h1(&self) -> (Vec<u8>, bool, Vec<Step>) {
        if let Some(text) = &self.text {
            return (
                wire_text(text),
                false,
                self.steps.clone().unwrap_or_default(),
            );
        }
        let mut fields = Fields::default();
        fields.push("host", self.host.as_deref().unwrap_or("parity.test"));
        fields.0.extend(self.headers.0.iter().cloned());
        if self.messages.is_some() {
            fields.push_default("content-type", "application/grpc");
            fields.push_default("te", "trailers");
        }
        let content = self.content();
        if self.trailers.is_some() {
            fields.push_default("transfer-encoding", "chunked");
        } else if let Some(content) = &content
            && fields.get("transfer-encoding").is_none()
        {
            fields.push_default("content-length", &content.len().to_string());
        }
        let fields = self.exact.clone().unwrap_or(fields);
        let chunked = fields.get("transfer-encoding").is_some();
        let path = self.path.as_deref().unwrap_or("/");
        let version = self.version.as_deref().unwrap_or("HTTP/1.1");
        let line = format!("{} {path} {version}", self.method());
        let steps = self.steps.clone().unwrap_or_else(|| {
            let mut steps = Vec::new();
            steps.extend(content.map(|c| Step::Data(Payload(c))));
            steps.push(self.trailers.clone().map_or(Step::End, Step::Trailers));
            steps
        });
        (h1::write_head(&line, &fields), chunked, steps)
    }

    fn h2_head(&self) -> Fields {
        if let Some(exact) = &self.exact {
            return exact.clone();
        }
        let mut fields = Fields::default();
        fields.push(":method", self.method());
        fields.push(":scheme", self.scheme.as_deref().unwrap_or("http"));
        fields.push(":authority", self.host.as_deref().unwrap_or("parity.test"));
        fields.push(":path", self.path.as_deref().unwrap_or("/"));
        fields.0.extend(self.headers.0.iter().cloned());
        if self.messages.is_some() {
            fields.push_default("content-type", "application/grpc");
            fields.push_default("te", "trailers");
        }
        fields
    }

    /// What follows the head; empty when the head ends the stream.
    fn h2_steps(&self) -> Vec<Step> {
        if let Some(steps) = &self.steps {
            return steps.clone();
        }
        let mut steps = Vec::new();
        steps.extend(self.content().map(|c| Step::Data(Payload(c))));
        match (&self.trailers, steps.is_empty()) {
            (Some(trailers), _) => steps.push(Step::Trailers(trailers.clone())),
            (None, false) => steps.push(Step::End),
            (None, true) => {}
        }
        steps
    }
}

/// A request written as a block of text: line ends become CRLF and the blank line
/// is added when it is missing, unless the text has CRLFs of its own.
fn wire_text(text: &str) -> Vec<u8> {
    if text.contains('\r') {
        return text.as_bytes().to_vec();
    }
    let (head, body) = match text.split_once("\n\n") {
        Some((head, body)) => (head, body.strip_suffix('\n').unwrap_or(body)),
        None => (text.trim_end_matches('\n'), ""),
    };
    format!("{}\r\n\r\n{body}", head.replace('\n', "\r\n")).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_text_becomes_a_request() {
        assert_eq!(
            wire_text("GET / HTTP/1.1\nhost: a\n"),
            b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
        );
        assert_eq!(
            wire_text("POST / X\nh: a\n\nabc\n"),
            b"POST / X\r\nh: a\r\n\r\nabc"
        );
        assert_eq!(wire_text("GET /\r\n"), b"GET /\r\n");
    }

    #[test]
    fn a_body_makes_a_post_with_its_length() {
        let request = Request {
            body: Some(Payload(b"hi".to_vec())),
            ..Request::default()
        };
        let (head, chunked, _) = request.h1();
        let text = String::from_utf8(head).expect("text");
        assert_eq!(
            text,
            "POST / HTTP/1.1\r\nhost: parity.test\r\ncontent-length: 2\r\n\r\n"
        );
        assert!(!chunked);
    }
}
