//! A task that runs a machine over a transport.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::message::{Request, Response};
use crate::protocol::{Action, Event, Machine, Push, Rejection, Settings, Timer};
use crate::transport::{Opening, Responses, Transport};

/// Requests that may wait for the transport.
const REQUESTS: usize = 16;

/// What a client tells its owner.
#[derive(Debug)]
pub enum Notice {
    /// The stream is open.
    Connected,
    /// The stream ended, or could not be opened. It will be opened again.
    Disconnected {
        /// Why, for the log.
        reason: String,
        /// The types that are subscribed to.
        types: Vec<Arc<str>>,
    },
    /// The server says who it is.
    Identified(String),
    /// Resources, to be answered by [`Client::validated`].
    Push(Push),
    /// The first answer on a name is late.
    FetchTimedOut {
        /// The type.
        type_url: Arc<str>,
        /// The name.
        name: Arc<str>,
    },
    /// The time to live of a resource has passed.
    Expired {
        /// The type.
        type_url: Arc<str>,
        /// The name.
        name: Arc<str>,
    },
}

/// The owner's end of a client. Dropping it ends the client.
///
/// Its queue has no bound of its own: what goes in are answers to notices, whose queue is bounded, and
/// changes of subscriptions, which follow from them.
#[derive(Debug)]
pub struct Client {
    events: mpsc::UnboundedSender<Event>,
}

impl Client {
    /// Starts a client on the current runtime. Its notices go to `notices`, marked with `id`.
    pub fn start<T: Transport, I: Clone + Send + 'static>(
        settings: Settings,
        transport: T,
        id: I,
        notices: mpsc::Sender<(I, Notice)>,
    ) -> Self {
        let (events, receiver) = mpsc::unbounded_channel();
        let driver = Driver {
            machine: Machine::new(settings),
            transport,
            events: receiver,
            notices,
            id,
            stream: None,
            outbox: VecDeque::new(),
            timers: Timers::default(),
        };
        tokio::spawn(driver.run());
        Self { events }
    }

    /// Asks for resources.
    pub fn subscribe(
        &self,
        type_url: &Arc<str>,
        names: Vec<Arc<str>>,
        fetch_timeout: Option<Duration>,
    ) {
        self.tell(Event::Subscribe {
            type_url: type_url.clone(),
            names,
            fetch_timeout,
        });
    }

    /// Asks for resources no more.
    pub fn unsubscribe(&self, type_url: &Arc<str>, names: Vec<Arc<str>>) {
        self.tell(Event::Unsubscribe {
            type_url: type_url.clone(),
            names,
        });
    }

    /// Holds requests of a type back.
    pub fn pause(&self, type_url: &Arc<str>) {
        self.tell(Event::Pause(type_url.clone()));
    }

    /// Lets requests of a type out again.
    pub fn resume(&self, type_url: &Arc<str>) {
        self.tell(Event::Resume(type_url.clone()));
    }

    /// Says which resources of the last push were refused.
    pub fn validated(&self, rejected: Vec<Rejection>) {
        self.tell(Event::Validated { rejected });
    }

    fn tell(&self, event: Event) {
        // The task ends only when this is dropped, or nobody hears its notices.
        let _ = self.events.send(event);
    }
}

struct Driver<T, I> {
    machine: Machine,
    transport: T,
    events: mpsc::UnboundedReceiver<Event>,
    notices: mpsc::Sender<(I, Notice)>,
    id: I,
    stream: Option<Live>,
    outbox: VecDeque<Request>,
    timers: Timers,
}

/// A stream that was begun.
struct Live {
    requests: mpsc::Sender<Request>,
    phase: Phase,
    /// What was read while a push was out.
    ahead: Option<Result<Response, String>>,
}

enum Phase {
    Opening(Opening),
    Open(Responses),
}

impl Live {
    /// The next response. A stream that is not opened yet is polled on.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response, String>> {
        if let Phase::Opening(opening) = &mut self.phase {
            match std::task::ready!(opening.as_mut().poll(cx)) {
                Ok(responses) => self.phase = Phase::Open(responses),
                Err(reason) => return Poll::Ready(Err(reason)),
            }
        }
        let Phase::Open(responses) = &mut self.phase else {
            return Poll::Pending;
        };
        let next = std::task::ready!(responses.as_mut().poll_next(cx));
        Poll::Ready(next.unwrap_or_else(|| Err("closed by the server".to_owned())))
    }
}

/// What the task woke up for.
enum Wake {
    Event(Option<Event>),
    Timer(Timer),
    Read(Result<Response, String>),
    Sent,
}

impl<T: Transport, I: Clone + Send + 'static> Driver<T, I> {
    async fn run(mut self) {
        loop {
            let event = match self.next().await {
                Wake::Event(None) => return,
                Wake::Event(Some(event)) => event,
                Wake::Timer(timer) => Event::TimerFired(timer),
                Wake::Sent => continue,
                Wake::Read(result) => match self.take(result) {
                    Some(event) => event,
                    None => continue,
                },
            };
            let actions = self.machine.handle(event);
            if self.perform(actions).await.is_err() {
                return;
            }
        }
    }

    /// A response for the machine, unless it must wait for the push before.
    fn take(&mut self, result: Result<Response, String>) -> Option<Event> {
        let live = self.stream.as_mut()?;
        if self.machine.is_busy() {
            live.ahead = Some(result);
            return None;
        }
        Some(match result {
            Ok(response) => Event::Response(response),
            Err(reason) => {
                self.stream = None;
                self.outbox.clear();
                Event::StreamClosed { reason }
            }
        })
    }

    async fn next(&mut self) -> Wake {
        let busy = self.machine.is_busy();
        if let Some(live) = &mut self.stream
            && !busy
            && let Some(ahead) = live.ahead.take()
        {
            return Wake::Read(ahead);
        }
        let has_output = !self.outbox.is_empty();
        let requests = self.stream.as_ref().map(|live| live.requests.clone());
        let stream = &mut self.stream;
        let read = poll_fn(|cx| match stream {
            Some(live) if live.ahead.is_none() => live.poll(cx),
            _ => Poll::Pending,
        });
        let permit = async {
            match requests {
                Some(requests) if has_output => requests.reserve_owned().await.ok(),
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            event = self.events.recv() => Wake::Event(event),
            timer = self.timers.next() => Wake::Timer(timer),
            Some(permit) = permit => {
                if let Some(request) = self.outbox.pop_front() {
                    permit.send(request);
                }
                Wake::Sent
            }
            result = read => Wake::Read(result),
        }
    }

    async fn perform(&mut self, actions: Vec<Action>) -> Result<(), mpsc::error::SendError<()>> {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Open => {
                    self.open();
                    actions.extend(self.machine.handle(Event::StreamOpened));
                }
                Action::OpenWithin(ceiling) => {
                    let wait = ceiling.mul_f64(rand::random());
                    self.timers.arm(Timer::Reconnect, wait);
                }
                Action::Send(request) => self.outbox.push_back(request),
                Action::Arm(timer, after) => self.timers.arm(timer, after),
                Action::Disarm(timer) => self.timers.disarm(&timer),
                Action::Deliver(push) => self.tell(Notice::Push(push)).await?,
                Action::FetchTimedOut { type_url, name } => {
                    self.tell(Notice::FetchTimedOut { type_url, name }).await?;
                }
                Action::Expired { type_url, name } => {
                    self.tell(Notice::Expired { type_url, name }).await?;
                }
                Action::Identified(identifier) => {
                    self.tell(Notice::Identified(identifier)).await?;
                }
                Action::Connected => self.tell(Notice::Connected).await?,
                Action::Disconnected { reason, types } => {
                    self.tell(Notice::Disconnected { reason, types }).await?;
                }
            }
        }
        Ok(())
    }

    fn open(&mut self) {
        let (requests, receiver) = mpsc::channel(REQUESTS);
        self.outbox.clear();
        self.stream = Some(Live {
            requests,
            phase: Phase::Opening(self.transport.open(receiver)),
            ahead: None,
        });
    }

    async fn tell(&mut self, notice: Notice) -> Result<(), mpsc::error::SendError<()>> {
        let sent = self.notices.send((self.id.clone(), notice)).await;
        sent.map_err(|_| mpsc::error::SendError(()))
    }
}

/// Timers by name, and by time.
#[derive(Default)]
struct Timers {
    by_name: BTreeMap<Timer, Instant>,
    by_time: std::collections::BTreeSet<(Instant, Timer)>,
}

impl Timers {
    fn arm(&mut self, timer: Timer, after: Duration) {
        self.disarm(&timer);
        // A time past the clock's range is never.
        if let Some(at) = Instant::now().checked_add(after) {
            self.by_name.insert(timer.clone(), at);
            self.by_time.insert((at, timer));
        }
    }

    fn disarm(&mut self, timer: &Timer) {
        if let Some((timer, at)) = self.by_name.remove_entry(timer) {
            self.by_time.remove(&(at, timer));
        }
    }

    /// The next timer that passes. Nothing is lost when this is dropped.
    async fn next(&mut self) -> Timer {
        let Some((at, _)) = self.by_time.first() else {
            return std::future::pending().await;
        };
        tokio::time::sleep_until(*at).await;
        match self.by_time.pop_first() {
            Some((_, timer)) => {
                self.by_name.remove(&timer);
                timer
            }
            None => std::future::pending().await,
        }
    }
}
