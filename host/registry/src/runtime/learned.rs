//! Taking what plug-ins have learned from one node to another.

use std::sync::Arc;

use msao_core::offload::Calibration;
use msao_state::{Cells, CellsError, CellsKey, Snapshot};
use thiserror::Error;

use super::Plugins;

/// Why cells that were learned elsewhere are not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotTaken {
    /// The plug-in does not plan here.
    #[error("{0} is not active here; activate it first")]
    NotActive(String),
    /// They mean something else to the version that is active here.
    #[error(
        "the cells of {plugin} are of schema {found}, and the version that is active here has schema {here}; activate the \
         version that they were learned by, or have this one learn by itself"
    )]
    Schema {
        /// The plug-in.
        plugin: String,
        /// Theirs.
        found: u32,
        /// Of the one that is active.
        here: u32,
    },
    /// They were learned of other models.
    #[error(
        "the cells of {plugin} were learned of the models {found}, and this node serves {here}; take them to a node that \
         serves those, or have this one learn by itself"
    )]
    Models {
        /// The plug-in.
        plugin: String,
        /// Theirs.
        found: String,
        /// Of this node.
        here: String,
    },
    /// Nobody can have learned them.
    #[error("the cells of {plugin}: {error}")]
    Cells {
        /// The plug-in.
        plugin: String,
        /// Why.
        error: CellsError,
    },
    /// The node stops.
    #[error("nothing is learned any more: the node stops")]
    Closed,
}

impl Plugins {
    /// What the active generation has learned, and what it belongs to.
    pub fn learned_by_key(&self) -> Vec<(CellsKey, Arc<Snapshot>)> {
        let own = self.own_cells().into_iter();
        own.map(|(key, cells)| (key, cells.snapshot())).collect()
    }

    /// All that is kept of what plug-ins have learned, be they active or not, under whatever schema and models; and whether it
    /// is what the active generation goes by. What candidates have learned is not in force, and not among it.
    pub fn kept_learned(&self) -> Vec<(CellsKey, Arc<Snapshot>, bool)> {
        let own = self.own_cells();
        let kept = self.inner.calibration.kept().into_iter();
        kept.map(|(key, snapshot)| {
            let active = own.iter().any(|(own, _)| *own == key);
            (key, snapshot, active)
        })
        .collect()
    }

    /// Has what is kept under `key` forgotten, whether anything goes by it or not. Returns how many cells that were.
    pub fn forget_kept(&self, key: &CellsKey) -> usize {
        self.inner.calibration.erase(key)
    }

    /// Has a plug-in of the active generation go on from cells that were learned under `key`, be it on another node, in place
    /// of its own. Returns how many they are.
    ///
    /// # Errors
    /// [`NotTaken`]: nothing has changed.
    pub fn take_learned(&self, key: &CellsKey, cells: &Calibration) -> Result<usize, NotTaken> {
        let plugin = || key.plugin.clone();
        let own = self.own_cells();
        let own = own.into_iter().find(|(own, _)| own.plugin == key.plugin);
        let (own, taking) = own.ok_or_else(|| NotTaken::NotActive(plugin()))?;
        if own.state_schema != key.state_schema {
            return Err(NotTaken::Schema {
                plugin: plugin(),
                found: key.state_schema,
                here: own.state_schema,
            });
        }
        if own.models != key.models {
            return Err(NotTaken::Models {
                plugin: plugin(),
                found: key.models.clone(),
                here: own.models,
            });
        }
        let taken = taking.replace(cells).map_err(|error| NotTaken::Cells {
            plugin: plugin(),
            error,
        })?;
        taken.then_some(cells.len()).ok_or(NotTaken::Closed)
    }

    fn own_cells(&self) -> Vec<(CellsKey, Cells)> {
        let table = self.inner.table.load_full();
        let policy = table.stable.policy.as_ref();
        let policy = policy.map(|part| (part.key.clone(), part.cells.clone()));
        let other = table.stable.postprocessor.as_ref();
        let other = other.map(|part| (part.key.clone(), part.cells.clone()));
        policy.into_iter().chain(other).collect()
    }
}
