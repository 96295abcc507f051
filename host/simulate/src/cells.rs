//! What plug-ins have learned, node by node or all together. Updates are folded as the nodes' own store does it.

use std::sync::Arc;

use msao_core::offload::{Calibration, Update};
use msao_registry::state::Folding;

struct Set {
    folding: Folding,
    /// What requests are given that begin now.
    now: Arc<Calibration>,
}

/// The cells of one plug-in.
pub(crate) struct Cells {
    sets: Vec<Set>,
}

impl Cells {
    /// So many sets, each beginning with what is known already. More nodes than sets share the last.
    pub fn new(count: usize, begin: &Calibration) -> Cells {
        let set = || Set {
            folding: Folding::new(begin.clone()),
            now: Arc::new(begin.clone()),
        };
        Cells {
            sets: (0..count.max(1)).map(|_| set()).collect(),
        }
    }

    fn place(&self, edge: usize) -> usize {
        edge.min(self.sets.len().saturating_sub(1))
    }

    /// The cells as they are now.
    pub fn of(&self, edge: usize) -> Arc<Calibration> {
        let set = self.sets.get(self.place(edge));
        set.map_or_else(Arc::default, |set| Arc::clone(&set.now))
    }

    /// Applies updates; whoever has begun keeps what it was given.
    pub fn learn(&mut self, edge: usize, updates: &[Update]) {
        if updates.is_empty() {
            return;
        }
        let place = self.place(edge);
        if let Some(set) = self.sets.get_mut(place) {
            set.folding.fold(updates);
            set.now = Arc::new(set.folding.calibration().clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use msao_core::offload::Operation;

    use super::*;

    #[test]
    fn each_node_learns_for_itself_or_all_together() {
        let update = Update {
            operation: Operation::Add,
            key: 7,
            value: 2.0,
            weight: 1.0,
        };
        for (sets, other) in [(2, 0), (1, 1)] {
            let mut cells = Cells::new(sets, &Calibration::default());
            let before = cells.of(0);
            cells.learn(0, &[update]);
            assert_eq!((before.len(), cells.of(0).count[0]), (0, 2.0));
            assert_eq!(cells.of(1).len(), other);
        }
    }
}
