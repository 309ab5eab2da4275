//! HTTP filters end to end: a worker with a chain of test filters, scripted
//! upstreams and real clients, over both versions, in one process.

mod allocator;
mod body;
mod callout;
mod cost;
mod lab;
mod panic;
mod pause;
mod peers;
mod routes;
