//! Earliest deadline first: a weighted schedule in O(log n) a pick.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// One entry: a deadline, an order that breaks ties, and whose it is.
#[derive(Debug)]
struct Entry {
    deadline: f64,
    order: u64,
    index: usize,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    // Turned around: the heap's greatest is the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .deadline
            .total_cmp(&self.deadline)
            .then(other.order.cmp(&self.order))
    }
}

/// A schedule over indices with weights; a weight is asked for at every pick,
/// so that it may follow the host's load.
#[derive(Debug, Default)]
pub(super) struct Edf {
    heap: BinaryHeap<Entry>,
    now: f64,
    order: u64,
}

impl Edf {
    /// Adds an index.
    pub(super) fn add(&mut self, index: usize, weight: f64) {
        self.order += 1;
        self.heap.push(Entry {
            deadline: self.now + 1.0 / weight,
            order: self.order,
            index,
        });
    }

    /// Takes the next index and schedules it anew by the weight it has now.
    pub(super) fn pick(&mut self, weight: impl FnOnce(usize) -> f64) -> Option<usize> {
        let entry = self.heap.pop()?;
        self.now = entry.deadline;
        self.add(entry.index, weight(entry.index));
        Some(entry.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_in_proportion_to_weight() {
        let weights = [1.0, 2.0, 5.0];
        let mut edf = Edf::default();
        for (i, w) in weights.iter().enumerate() {
            edf.add(i, *w);
        }
        let mut counts = [0; 3];
        for _ in 0..800 {
            counts[edf.pick(|i| weights[i]).unwrap()] += 1;
        }
        assert_eq!(counts, [100, 200, 500]);
    }
}
