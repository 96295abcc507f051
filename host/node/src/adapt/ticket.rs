//! A request's place among the audits.

use std::sync::Arc;

use msao_adapt::acceptance::Map;
use msao_adapt::audit::Audited;

use super::Shared;
use super::class::Class;
use super::judge::Sure;
use super::known::CLOSED;
use super::pair::Pair;

/// What of a request may be committed unverified.
pub struct Admitted {
    /// The lowest acceptance probability at which it may; above 1: nothing may.
    pub floor: f64,
    /// By what that is decided; None where nothing may.
    pub sure: Option<Sure>,
    /// The request is audited: nothing may be committed unverified, and how it ends is to be told.
    pub audit: Option<Auditing>,
}

impl Admitted {
    /// Nothing may, and nobody looks.
    pub fn closed() -> Admitted {
        Admitted {
            floor: CLOSED,
            sure: None,
            audit: None,
        }
    }
}

/// An audit under way. Dropped without [`Auditing::end`], it has not come to its end, and counts as disagreement.
pub struct Auditing {
    pub(super) shared: Arc<Shared>,
    pub(super) pair: Arc<Pair>,
    pub(super) class: Class,
    pub(super) map: Arc<Map>,
    pub(super) revision: u64,
    pub(super) number: u64,
    pub(super) ended: bool,
}

impl Auditing {
    /// The models that it is about.
    pub fn pair(&self) -> &Pair {
        &self.pair
    }

    /// The class.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The map that what the target rejected is held against.
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// The same, if it is still of this class; else it ends here, unfinished: what comes of a request that runs otherwise
    /// than it was admitted says nothing of those that do not.
    pub fn still(self, class: Class) -> Option<Auditing> {
        (self.class == class).then_some(self)
    }

    /// It has come to its end.
    pub fn end(mut self, audited: Audited) {
        self.ended = true;
        self.tell(audited);
    }

    fn tell(&self, audited: Audited) {
        let (class, revision, number) = (self.class, self.revision, self.number);
        (self.shared).audited(&self.pair, class, revision, number, audited);
    }
}

impl Drop for Auditing {
    fn drop(&mut self) {
        if !self.ended {
            self.tell(Audited::Unfinished);
        }
    }
}
