//! Peers that are known, by their node's id.

use std::collections::HashMap;

use outrigger_config::workload::PeerObjects;
use parking_lot::Mutex;

/// So many peers are kept.
const MAX: usize = 500;
/// Peers that say more than so many bytes of themselves are understood anew each time.
const MAX_SIZE: usize = 4096;

/// What was last said by each of the peers of one side.
#[derive(Default)]
pub(super) struct Cache(Mutex<HashMap<Box<[u8]>, PeerObjects, ahash::RandomState>>);

impl Cache {
    /// The peer of this id, as `value` says it; as in Envoy a known id is believed without
    /// reading it. None if it says nothing that can be understood.
    pub(super) fn find(
        &self,
        id: &[u8],
        value: &[u8],
        read: impl FnOnce(&[u8]) -> Option<PeerObjects>,
    ) -> Option<PeerObjects> {
        if id.is_empty() || id.len() + value.len() > MAX_SIZE {
            return read(value);
        }
        if let Some(known) = self.0.lock().get(id) {
            return Some(known.clone());
        }
        let peer = read(value)?;
        let mut known = self.0.lock();
        if known.len() >= MAX {
            let mut n = 0;
            known.retain(|_, _| {
                n += 1;
                n > MAX / 4
            });
        }
        known.insert(id.into(), peer.clone());
        Some(peer)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }
}
