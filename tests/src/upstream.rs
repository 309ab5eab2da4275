//! Scripted upstreams: servers that answer as told and record what they saw.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::exchange::{Exchange, Head, Seen};
use crate::h1::{self, Framing, Reader, Tap};
use crate::h2::conn::{Conn, Options};
use crate::ports;
use crate::steps::{self, After, Out, Respond, Step};
use crate::values::{Fields, Payload, Span};

/// What an upstream speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    H1,
    /// HTTP/2 with prior knowledge.
    H2,
    /// Plain TCP: `steps` of the first reply run on every connection.
    Tcp,
    /// Nothing listens: connections are refused.
    Refuse,
}

/// A scripted upstream.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// What it speaks.
    pub protocol: Protocol,
    /// Answers: those with `when` serve every request they match, the others are
    /// used up in order, the last one for good.
    pub replies: Vec<Reply>,
    /// HTTP/2 SETTINGS by number.
    pub settings: Vec<(u16, u32)>,
    /// Take no body: HTTP/2 grants no window, HTTP/1 reads nothing after the head.
    pub hold_windows: bool,
    /// HTTP/1: compare also the bytes that came over each connection, so that nothing in
    /// them is read in one way only.
    pub bytes: bool,
}

/// One answer, in brief fields or as `steps`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reply {
    /// Only for requests whose path starts so.
    pub when: Option<String>,
    /// Status, 200 when unset.
    pub status: Option<u16>,
    /// Fields.
    pub headers: Fields,
    /// Body; the upstream's name when unset.
    pub body: Option<Payload>,
    /// Messages of a gRPC answer: sets content type and framing.
    pub messages: Option<Vec<Payload>>,
    /// Trailers.
    pub trailers: Option<Fields>,
    /// Pause before the head.
    pub delay: Option<Span>,
    /// Answer at the request's head, not at its end.
    pub early: bool,
    /// Exactly these steps instead.
    pub steps: Option<Vec<Step>>,
}

/// A running upstream.
pub struct Upstream {
    name: String,
    task: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    script: Script,
    connections: AtomicUsize,
    requests: Mutex<Vec<(usize, Arc<Exchange>)>>,
    used: AtomicUsize,
    children: Mutex<Vec<JoinHandle<()>>>,
    taps: Mutex<Vec<Tap>>,
}

impl Upstream {
    /// Listens on `port` of the loopback address.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn start(name: &str, script: &Script, port: u16) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            script: script.clone(),
            connections: AtomicUsize::new(0),
            requests: Mutex::default(),
            used: AtomicUsize::new(0),
            children: Mutex::default(),
            taps: Mutex::default(),
        });
        let mut upstream = Self {
            name: name.to_owned(),
            task: None,
            shared,
        };
        if script.protocol != Protocol::Refuse {
            upstream.listen(port).await?;
        }
        Ok(upstream)
    }

    /// Listens (again).
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn listen(&mut self, port: u16) -> io::Result<()> {
        let listener = ports::reuse(port).await?;
        let shared = Arc::clone(&self.shared);
        self.task = Some(tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                socket.set_nodelay(true).ok();
                let index = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
                let child = tokio::spawn(Arc::clone(&shared).serve(socket, index));
                shared.children.lock().push(child);
            }
        }));
        Ok(())
    }

    /// Stops listening and drops every connection; all sockets are closed on return.
    pub async fn stop(&mut self) {
        let children: Vec<_> = self.shared.children.lock().drain(..).collect();
        for task in self.task.take().into_iter().chain(children) {
            task.abort();
            // Aborted on purpose: the only outcome is that it is over.
            task.await.ok();
        }
    }

    /// The name given in the script.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many connections came.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// The bytes that came over each connection, when the script asks for them.
    #[must_use]
    pub fn bytes(&self) -> Vec<Vec<u8>> {
        let taps = self.shared.taps.lock();
        taps.iter().map(|tap| tap.lock().clone()).collect()
    }

    /// Every request seen, with the number of its connection.
    #[must_use]
    pub fn requests(&self) -> Vec<(usize, Seen)> {
        self.shared
            .requests
            .lock()
            .iter()
            .map(|(c, e)| (*c, e.seen()))
            .collect()
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, socket: TcpStream, index: usize) {
        let served = match self.script.protocol {
            Protocol::H1 => self.serve_h1(socket, index).await,
            Protocol::H2 => self.serve_h2(socket, index).await,
            Protocol::Tcp => self.serve_tcp(socket, index).await,
            Protocol::Refuse => Ok(()),
        };
        // A proxy that breaks the connection off is seen in the exchange itself.
        drop(served);
    }

    fn record(&self, index: usize, exchange: &Arc<Exchange>) {
        self.requests.lock().push((index, Arc::clone(exchange)));
    }

    fn reply(&self, head: &Head) -> Reply {
        let replies = &self.script.replies;
        let matching = |r: &&Reply| {
            r.when
                .as_ref()
                .is_some_and(|w| head.path().starts_with(w.as_str()))
        };
        if let Some(reply) = replies.iter().find(matching) {
            return reply.clone();
        }
        let plain: Vec<&Reply> = replies.iter().filter(|r| r.when.is_none()).collect();
        let at = self.used.fetch_add(1, Ordering::Relaxed);
        let reply = plain.get(at).or(plain.last());
        reply.map(|r| (*r).clone()).unwrap_or_default()
    }

    fn steps(&self, head: &Head) -> Vec<Step> {
        self.reply(head)
            .into_steps(&self.name, self.script.protocol, head.method())
    }

    async fn serve_h1(&self, socket: TcpStream, index: usize) -> io::Result<()> {
        let (read, mut writer) = socket.into_split();
        let mut reader = Reader::new(read);
        if self.script.bytes {
            let tap = Tap::default();
            self.taps.lock().push(Arc::clone(&tap));
            reader = reader.tapped(tap);
        }
        while let Some(head) = reader.head().await? {
            let exchange = Exchange::new();
            self.record(index, &exchange);
            let steps = self.steps(&head);
            let framing = h1::request_framing(&head);
            let closes = closes(&steps);
            exchange.update(|seen| seen.head = Some(head));
            let mut out = Out::H1 {
                writer: &mut writer,
                chunked: false,
            };
            let script = steps::run(&steps, &mut out, &exchange);
            let after = match self.script.hold_windows {
                true => script.await?,
                false => tokio::select! {
                    after = script => after?,
                    never = receive(&mut reader, framing, &exchange) => match never {},
                },
            };
            if after != After::Keep || closes || !exchange.seen().ended {
                break;
            }
        }
        Ok(())
    }

    async fn serve_h2(self: &Arc<Self>, socket: TcpStream, index: usize) -> io::Result<()> {
        let options = Options {
            server: true,
            settings: self.script.settings.clone(),
            hold_windows: self.script.hold_windows,
        };
        let conn = Conn::start(socket, options).await?;
        while let Some((stream, exchange)) = conn.accept().await {
            self.record(index, &exchange);
            let head = exchange.seen().head.unwrap_or_default();
            let steps = self.steps(&head);
            let mut out = Out::H2 {
                conn: conn.clone(),
                stream,
            };
            let child = tokio::spawn(async move {
                // A stream that the proxy reset shows in its exchange.
                drop(steps::run(&steps, &mut out, &exchange).await);
            });
            self.children.lock().push(child);
        }
        Ok(())
    }

    async fn serve_tcp(&self, socket: TcpStream, index: usize) -> io::Result<()> {
        let (read, mut writer) = socket.into_split();
        let mut reader = Reader::new(read);
        let exchange = Exchange::new();
        self.record(index, &exchange);
        let steps = self
            .reply(&Head::default())
            .steps
            .unwrap_or_else(|| vec![Step::Echo]);
        let mut out = Out::H1 {
            writer: &mut writer,
            chunked: false,
        };
        tokio::select! {
            after = steps::run(&steps, &mut out, &exchange) => after.map(drop),
            never = receive(&mut reader, Framing::Close, &exchange) => match never {},
        }
    }
}

/// Whether a scripted answer announces the end of the connection.
fn closes(steps: &[Step]) -> bool {
    steps.iter().any(
        |step| matches!(step, Step::Respond(r) if r.headers.get("connection") == Some("close")),
    )
}

/// Reads the request, then goes on looking for the end of the connection; never returns,
/// as the script decides when the exchange is over.
async fn receive(reader: &mut Reader, framing: Framing, exchange: &Arc<Exchange>) -> Infallible {
    match reader.body(framing, exchange).await {
        Ok(true) => exchange.update(|seen| seen.ended = true),
        Ok(false) => exchange.broke("closed"),
        Err(e) => exchange.broke(&h1::describe(&e)),
    }
    if framing != Framing::Close {
        loop {
            match reader.fill().await {
                Ok(true) => {}
                Ok(false) => break exchange.broke("closed"),
                Err(e) => break exchange.broke(&h1::describe(&e)),
            }
        }
    }
    std::future::pending().await
}

impl Reply {
    /// The steps that the brief form stands for.
    fn into_steps(mut self, name: &str, protocol: Protocol, method: &str) -> Vec<Step> {
        if let Some(steps) = self.steps {
            return steps;
        }
        let mut steps = vec![Step::Await(if self.early {
            steps::Await::Head
        } else {
            steps::Await::End
        })];
        steps.extend(self.delay.map(Step::Wait));
        let mut trailers = self.trailers.take();
        let body = match self.messages.take() {
            Some(messages) => {
                self.headers
                    .push_default("content-type", "application/grpc");
                trailers.get_or_insert_with(ok_trailers);
                messages
                    .iter()
                    .flat_map(|m| crate::values::grpc_frame(&m.0))
                    .collect()
            }
            None => self
                .body
                .take()
                .map_or_else(|| name.as_bytes().to_vec(), |p| p.0),
        };
        let status = self.status.unwrap_or(200);
        let bodiless = method == "HEAD" || matches!(status, 204 | 304);
        if protocol == Protocol::H1
            && status != 204
            && self.headers.get("transfer-encoding").is_none()
        {
            match trailers {
                Some(_) => self.headers.push_default("transfer-encoding", "chunked"),
                None => self
                    .headers
                    .push_default("content-length", &body.len().to_string()),
            }
        }
        let end = bodiless || (body.is_empty() && trailers.is_none());
        steps.push(Step::Respond(Respond {
            status,
            headers: self.headers,
            end,
        }));
        if end {
            return steps;
        }
        if !body.is_empty() {
            steps.push(Step::Data(Payload(body)));
        }
        steps.push(trailers.map_or(Step::End, Step::Trailers));
        steps
    }
}

fn ok_trailers() -> Fields {
    let mut fields = Fields::default();
    fields.push("grpc-status", "0");
    fields
}

/// Reads a script from its YAML or JSON value.
///
/// # Errors
/// When a field is unknown or has the wrong shape.
pub fn parse(value: Value) -> Result<Script, String> {
    serde_json::from_value(value).map_err(|e| e.to_string())
}
