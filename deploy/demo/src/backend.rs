//! The backends: three greeters, each on a runtime of its own, so that one can be killed as a process
//! would be, with its sockets.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tonic::Status;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::greeter::{Greeter, GreeterServer, HelloReply, HelloRequest, Method};

/// Messages of one `StreamHellos`.
pub const STREAM_LENGTH: usize = 5;
/// Between two of them.
const STREAM_PAUSE: Duration = Duration::from_millis(5);
/// The longest a request may ask a backend to wait.
const LINGER_LIMIT: u32 = 5_000;

/// How a backend behaves.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// Its name, such as `v1-a`.
    pub name: &'static str,
    /// The share of calls it answers with `unavailable`, 0 to 1.
    pub failing: f64,
    /// How long it works on each call.
    pub delay: Duration,
}

impl Behaviour {
    /// Version 1, the one that fails a fifth of its calls.
    pub fn faulty() -> Self {
        Self {
            name: "v1-a",
            failing: 0.2,
            delay: Duration::from_millis(2),
        }
    }

    /// Version 1, sound.
    pub fn sound() -> Self {
        Self {
            name: "v1-b",
            failing: 0.0,
            delay: Duration::from_millis(2),
        }
    }

    /// Version 2, slow.
    pub fn slow() -> Self {
        Self {
            name: "v2",
            failing: 0.0,
            delay: Duration::from_millis(40),
        }
    }
}

/// What a backend has counted.
#[derive(Debug, Default)]
pub struct Counters {
    /// Calls that reached it.
    pub calls: AtomicU64,
    /// Of those, the ones it answered with `unavailable`.
    pub failed: AtomicU64,
}

struct Service {
    behaviour: Behaviour,
    counters: Arc<Counters>,
}

impl Service {
    /// Counts, waits, and perhaps fails.
    async fn work(&self, request: &HelloRequest) -> Result<(), Status> {
        self.counters.calls.fetch_add(1, Ordering::Relaxed);
        let linger = Duration::from_millis(u64::from(request.linger_ms.min(LINGER_LIMIT)));
        sleep(self.behaviour.delay + linger).await;
        if rand::random::<f64>() < self.behaviour.failing {
            self.counters.failed.fetch_add(1, Ordering::Relaxed);
            return Err(Status::unavailable(format!(
                "{} is not well",
                self.behaviour.name
            )));
        }
        Ok(())
    }

    fn reply(&self, words: &str, name: &str) -> HelloReply {
        HelloReply {
            message: format!("{words}, {name}"),
            backend: self.behaviour.name.to_owned(),
        }
    }
}

impl Greeter for Service {
    async fn greet(
        self: Arc<Self>,
        method: Method,
        request: HelloRequest,
    ) -> Result<HelloReply, Status> {
        self.work(&request).await?;
        let words = if method == Method::SayGoodbye {
            "Goodbye"
        } else {
            "Hello"
        };
        Ok(self.reply(words, &request.name))
    }

    async fn stream(
        self: Arc<Self>,
        request: HelloRequest,
    ) -> Result<ReceiverStream<Result<HelloReply, Status>>, Status> {
        self.work(&request).await?;
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            for _ in 0..STREAM_LENGTH {
                if sender
                    .send(Ok(self.reply("Hello again", &request.name)))
                    .await
                    .is_err()
                {
                    return;
                }
                sleep(STREAM_PAUSE).await;
            }
        });
        Ok(ReceiverStream::new(receiver))
    }
}

/// A backend at work. It is killed when this is dropped.
#[derive(Debug)]
pub struct Backend {
    /// How it behaves.
    pub behaviour: Behaviour,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it has counted.
    pub counters: Arc<Counters>,
    runtime: Option<Runtime>,
}

impl Backend {
    /// Starts a backend on a free port of the loopback.
    pub fn start(behaviour: Behaviour) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let counters = Arc::new(Counters::default());
        let service = Service {
            behaviour: behaviour.clone(),
            counters: Arc::clone(&counters),
        };
        runtime.spawn(async move {
            if let Ok(listener) = TcpListener::from_std(listener) {
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                let server = Server::builder().add_service(GreeterServer::new(Arc::new(service)));
                // It serves until its runtime ends: there is nobody left to tell of an error.
                let _ended = server.serve_with_incoming(incoming).await;
            }
        });
        Ok(Self {
            behaviour,
            address,
            counters,
            runtime: Some(runtime),
        })
    }

    /// Ends it at once: calls in flight are cut and the port is closed.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.kill();
    }
}
