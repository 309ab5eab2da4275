//! `/memory`, and the memory of the process as stats show it.

use serde_json::{Value, json};
use tikv_jemalloc_ctl::{epoch, stats};

/// What the allocator and the system say, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Held by the program.
    pub allocated: u64,
    /// Mapped by the allocator, whether it is in use or kept.
    pub heap: u64,
    /// Mapped but given back to the system.
    pub unmapped: u64,
    /// In pages that nothing uses, kept for later.
    pub free: u64,
    /// Resident, of the whole process.
    pub physical: u64,
}

impl MemoryUse {
    /// The figures of this moment. What cannot be told is 0.
    pub fn now() -> Self {
        // The allocator's figures are those of the last epoch.
        let _ = epoch::advance();
        let read = |figure: tikv_jemalloc_ctl::Result<usize>| figure.unwrap_or(0) as u64;
        let (mapped, resident) = (read(stats::mapped::read()), read(stats::resident::read()));
        let active = read(stats::active::read());
        Self {
            allocated: read(stats::allocated::read()),
            heap: mapped,
            unmapped: read(stats::retained::read()),
            free: resident.saturating_sub(active),
            physical: resident_bytes(),
        }
    }

    /// The page.
    pub fn page(self) -> Value {
        json!({
            "allocated": self.allocated.to_string(),
            "heap_size": self.heap.to_string(),
            "pageheap_unmapped": self.unmapped.to_string(),
            "pageheap_free": self.free.to_string(),
            "total_thread_cache": "0",
            "total_physical_bytes": self.physical.to_string(),
        })
    }
}

/// Resident set size, bytes; 0 where it cannot be told.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|n| n.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory() {
        let used = MemoryUse::now();
        assert!(used.physical > 0 && used.heap >= used.allocated);
        assert_eq!(
            used.page()["total_physical_bytes"],
            used.physical.to_string()
        );
    }
}
