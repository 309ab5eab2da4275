//! The process: the main thread, the workers and their life.

pub mod args;
pub mod logging;
pub mod main_thread;
pub mod options;
pub mod process;
pub mod signals;
pub mod stats;
mod stats_config;
pub mod watchdog;
pub mod worker;
