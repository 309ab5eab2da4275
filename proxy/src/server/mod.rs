//! The process: the main thread, the workers and their life.

pub mod main_thread;
pub mod worker;
