//! Support library, parity cases and suites.
