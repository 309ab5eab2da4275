//! The targets under libFuzzer: `FUZZ_TARGET` names the one to run, the
//! arguments are libFuzzer's own. `tests/fuzz/run` builds and starts it.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use outrigger_fuzz::{Target, target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| panic!("FUZZ_TARGET={name:?} is no target"))
});

fuzz_target!(|data: &[u8]| TARGET(data));
