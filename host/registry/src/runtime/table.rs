//! Who gets the next request: one pointer, read once a request, so that no request sees parts of two generations.

use std::sync::{Arc, Mutex};

use msao_core::digest::Digest;

use super::generation::Generation;
use crate::canary::{Side, Trial};
use crate::shadow::Shadow;
use crate::sticky::SessionKey;

/// A candidate that gets a share.
#[derive(Clone)]
pub(crate) struct Canary {
    pub(crate) generation: Arc<Generation>,
    pub(crate) share: f64,
    pub(crate) trial: Arc<Mutex<Trial>>,
}

#[derive(Clone)]
pub(crate) struct Table {
    pub(crate) stable: Arc<Generation>,
    /// Compiled and warm: a rollback needs no more than to take it.
    pub(crate) previous: Option<Arc<Generation>>,
    pub(crate) canary: Option<Canary>,
    pub(crate) shadow: Option<Arc<Shadow>>,
    pub(crate) builtin: Arc<Generation>,
}

/// Which side of a rollout a request counts for.
#[derive(Clone)]
pub(crate) struct Arm {
    pub(crate) side: Side,
    pub(crate) trial: Arc<Mutex<Trial>>,
}

impl Table {
    /// The generation for a session.
    pub(crate) fn pick(&self, key: SessionKey, salt: &Digest) -> (&Arc<Generation>, Option<Arm>) {
        let Some(canary) = &self.canary else {
            return (&self.stable, None);
        };
        let number = canary.generation.spec.number;
        let (generation, side) = if key.place(salt, number) < canary.share {
            (&canary.generation, Side::Candidate)
        } else {
            (&self.stable, Side::Stable)
        };
        let trial = Arc::clone(&canary.trial);
        (generation, Some(Arm { side, trial }))
    }

    /// The table with the built-in fallback for everybody, and no plug-in beside it.
    pub(crate) fn off(self) -> Table {
        Table {
            stable: Arc::clone(&self.builtin),
            previous: None,
            canary: None,
            shadow: None,
            builtin: self.builtin,
        }
    }

    /// The table with nobody in it who was rolled back. The same rule as `Deployment::advance` with `Left`, without a
    /// lock or a disk.
    pub(crate) fn without_condemned(mut self) -> Table {
        let condemned = |generation: &Arc<Generation>| generation.is_condemned();
        if self
            .shadow
            .as_ref()
            .is_some_and(|it| condemned(&it.generation))
        {
            self.shadow = None;
        }
        if self
            .canary
            .as_ref()
            .is_some_and(|it| condemned(&it.generation))
        {
            self.canary = None;
        }
        if self.previous.as_ref().is_some_and(condemned) {
            self.previous = None;
        }
        if condemned(&self.stable) {
            self.canary = None;
            self.stable = (self.previous.take()).unwrap_or_else(|| Arc::clone(&self.builtin));
        }
        self
    }
}
