//! The machine, event by event.

mod delta;
mod flow;
mod refusals;
#[path = "../support/mod.rs"]
mod support;
mod whole;

use support::*;
use xds_client::message::{Response, Variant};
use xds_client::protocol::{Action, Event, Machine};
use xds_client::types::CLUSTER;

const DELTA: Variant = Variant::Delta;
const WHOLE: Variant = Variant::StateOfTheWorld;

/// A machine with an open stream that has asked for all clusters.
fn with_clusters(variant: Variant) -> Machine {
    let mut machine = machine(variant);
    assert_eq!(machine.handle(subscribe(CLUSTER, &["*"])), [Action::Open]);
    let first = machine.handle(Event::StreamOpened);
    assert_eq!(first[0], Action::Connected);
    assert_eq!(sent(&first).len(), 1);
    machine
}

fn respond(machine: &mut Machine, response: Response) -> Vec<Action> {
    machine.handle(Event::Response(response))
}

fn drop_stream(machine: &mut Machine) -> Vec<Action> {
    machine.handle(Event::StreamClosed {
        reason: "gone".into(),
    })
}
