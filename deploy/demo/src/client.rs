//! The client: calls at a steady rate over a few connections, and one burst.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::backend::STREAM_LENGTH;
use crate::greeter::{GreeterClient, HelloRequest, Method};
use crate::resources::VERSION_HEADER;
use crate::tally::{Durations, Outcome, Tally};

/// Connections to the proxy.
const CONNECTIONS: usize = 4;
/// The deadline of a call, sent as `grpc-timeout`.
const DEADLINE: Duration = Duration::from_secs(5);
/// Calls in flight above which the steady client waits.
const IN_FLIGHT_LIMIT: usize = 1_000;
/// Which method is called how often: of ten calls, six, three and one.
const MIX: [Method; 10] = {
    use Method::{SayGoodbye as G, SayHello as H, StreamHellos as S};
    [H, G, H, H, G, H, S, H, G, H]
};

/// The steady client. It stops when this is dropped.
#[derive(Debug)]
pub struct SteadyClient {
    /// What it has seen.
    pub tally: Arc<Tally>,
    task: JoinHandle<()>,
}

impl SteadyClient {
    /// Begins to call, so many times a second.
    pub fn start(target: SocketAddr, rate: u32) -> Result<Self, String> {
        let channels = (0..CONNECTIONS)
            .map(|_| channel(target))
            .collect::<Result<Vec<_>, _>>()?;
        let tally = Arc::new(Tally::default());
        let task = tokio::spawn(call_steadily(channels, rate, Arc::clone(&tally)));
        Ok(Self { tally, task })
    }
}

impl Drop for SteadyClient {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn channel(target: SocketAddr) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{target}")).map_err(|e| e.to_string())?;
    Ok(endpoint.connect_lazy())
}

async fn call_steadily(channels: Vec<Channel>, rate: u32, tally: Arc<Tally>) {
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT_LIMIT));
    let mut ticks = interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut calls = JoinSet::new();
    for (channel, method) in channels.iter().cycle().zip(MIX.into_iter().cycle()) {
        ticks.tick().await;
        let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else {
            return;
        };
        let (client, tally) = (GreeterClient::new(channel.clone()), Arc::clone(&tally));
        calls.spawn(async move {
            let begin = Instant::now();
            let (outcome, retries) = call(client, method).await;
            tally.record(method, outcome, retries, begin.elapsed());
            drop(permit);
        });
        while calls.try_join_next().is_some() {}
    }
}

/// Makes one call and says how it ended, and how many attempts there were beyond the first.
async fn call(mut client: GreeterClient, method: Method) -> (Outcome, u64) {
    let request = request(0);
    if method == Method::StreamHellos {
        return stream(client, request).await;
    }
    match client.greet(method, request).await {
        Ok(response) => (Outcome::Answered, retries(response.metadata())),
        Err(status) => failure(&status),
    }
}

async fn stream(mut client: GreeterClient, request: Request<HelloRequest>) -> (Outcome, u64) {
    let response = match client.stream(request).await {
        Ok(response) => response,
        Err(status) => return failure(&status),
    };
    let retries = retries(response.metadata());
    let mut replies = response.into_inner();
    let mut received = 0;
    loop {
        match replies.message().await {
            Ok(Some(_)) => received += 1,
            Ok(None) if received == STREAM_LENGTH => return (Outcome::Answered, retries),
            Ok(None) | Err(_) => return (Outcome::Cut, retries),
        }
    }
}

fn request(linger_ms: u32) -> Request<HelloRequest> {
    let mut request = Request::new(HelloRequest {
        name: "mesh".to_owned(),
        linger_ms,
    });
    request.set_timeout(DEADLINE);
    request
}

fn failure(status: &Status) -> (Outcome, u64) {
    let outcome = if is_refused(status) {
        Outcome::Refused
    } else {
        Outcome::Lost(status.code(), status.message().to_owned())
    };
    (outcome, retries(status.metadata()))
}

/// A breaker refused the call.
fn is_refused(status: &Status) -> bool {
    status.metadata().contains_key("x-envoy-overloaded")
}

fn retries(metadata: &MetadataMap) -> u64 {
    let count = metadata
        .get("x-envoy-attempt-count")
        .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    count.map_or(0, |c| c.saturating_sub(1))
}

/// What came of a burst.
#[derive(Debug, Clone, Default)]
pub struct Burst {
    /// Calls made.
    pub calls: usize,
    /// Answered.
    pub answered: usize,
    /// Refused by the breaker.
    pub refused: usize,
    /// Ended in any other way.
    pub other: usize,
    /// How long the refusals took.
    pub refusals: Durations,
}

/// Makes so many calls to version 2, each of which keeps the backend busy for a time. They come within a
/// quarter of that time, so that they also take the places that steady calls leave.
pub async fn burst(target: SocketAddr, calls: usize, linger: Duration) -> Result<Burst, String> {
    let channel = channel(target)?;
    let mut running = JoinSet::new();
    let mut ticks = interval(linger / (4 * calls.max(1) as u32));
    for _ in 0..calls {
        ticks.tick().await;
        let client = GreeterClient::new(channel.clone());
        running.spawn(burst_call(client, linger.as_millis() as u32));
    }
    let mut burst = Burst {
        calls,
        ..Burst::default()
    };
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok((Outcome::Answered, _)) => burst.answered += 1,
            Ok((Outcome::Refused, took)) => {
                burst.refused += 1;
                burst.refusals.add(took);
            }
            Ok(_) | Err(_) => burst.other += 1,
        }
    }
    Ok(burst)
}

async fn burst_call(mut client: GreeterClient, linger_ms: u32) -> (Outcome, Duration) {
    let mut request = request(linger_ms);
    request
        .metadata_mut()
        .insert(VERSION_HEADER, MetadataValue::from_static("v2"));
    let begin = Instant::now();
    let outcome = match client.greet(Method::SayHello, request).await {
        Ok(_) => Outcome::Answered,
        Err(status) => failure(&status).0,
    };
    (outcome, begin.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_not_a_loss() {
        let mut metadata = MetadataMap::new();
        metadata.insert("x-envoy-overloaded", MetadataValue::from_static("true"));
        let refused = Status::with_metadata(tonic::Code::Unavailable, "overflow", metadata);
        assert_eq!(failure(&refused), (Outcome::Refused, 0));
        assert!(matches!(
            failure(&Status::unavailable("x")).0,
            Outcome::Lost(..)
        ));
    }

    #[test]
    fn the_attempt_count_gives_the_retries() {
        let mut metadata = MetadataMap::new();
        assert_eq!(retries(&metadata), 0);
        metadata.insert("x-envoy-attempt-count", MetadataValue::from_static("3"));
        assert_eq!(retries(&metadata), 2);
    }
}
