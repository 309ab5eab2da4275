//! Which priorities a retry leaves out
//! (`extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig`).

use crate::upstream::priority_set::PrioritySet;

/// The priorities that a request has tried.
#[derive(Debug, Default)]
pub struct TriedPriorities {
    /// One for each host that was tried.
    attempted: Vec<u32>,
    excluded: Vec<u32>,
}

impl TriedPriorities {
    /// A host of this priority is tried.
    pub fn note(&mut self, priority: u32) {
        self.attempted.push(priority);
    }

    /// The priorities that the next attempt leaves out, which are looked at anew after
    /// every so many attempts; none before the first time. Once all were tried, or
    /// cannot take anything, they begin anew.
    pub fn excluded(&mut self, every: u32, set: &PrioritySet) -> Option<&[u32]> {
        let every = every.max(1) as usize;
        if self.attempted.len() < every {
            return None;
        }
        if self.attempted.len().is_multiple_of(every) {
            for priority in &self.attempted {
                if !self.excluded.contains(priority) {
                    self.excluded.push(*priority);
                }
            }
            if set.loads_without(&self.excluded).is_none() {
                self.excluded.clear();
                self.attempted.clear();
            }
        }
        Some(&self.excluded)
    }
}
