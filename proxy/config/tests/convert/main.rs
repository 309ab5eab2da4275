//! The conversions as their users see them: bytes in, configuration or error out.

mod defaults;
mod exchange;
mod hostile;
mod istio;
mod refusals;
mod support;
