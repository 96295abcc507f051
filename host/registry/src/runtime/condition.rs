//! Changes that are meant for one generation: whoever has looked and then changes something names what was seen, and a change
//! that another operator made between the two is not undone by mistake.

use super::{Plugins, Refused};

/// The operator's verbs, under a condition. Made by [`Plugins::only_if`].
///
/// ```no_run
/// # fn example(plugins: &msao_registry::Plugins) -> Result<(), msao_registry::Refused> {
/// let seen = plugins.status().active.number;
/// // Leaves what was seen, or nothing.
/// plugins.only_if(Some(seen)).rollback("answers got slower")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct Conditional<'a> {
    pub(super) plugins: &'a Plugins,
    wanted: Option<u64>,
}

impl Plugins {
    /// The verbs, each only if the generation that it is about still has this number: the canary for a promotion, what would
    /// be left for a rollback, the active one for all others. None: whatever is there.
    pub fn only_if(&self, generation: Option<u64>) -> Conditional<'_> {
        Conditional {
            plugins: self,
            wanted: generation,
        }
    }
}

impl Conditional<'_> {
    /// Whether a generation was named.
    pub(super) fn is_named(&self) -> bool {
        self.wanted.is_some()
    }

    /// Whether `what` is the generation that was named.
    pub(super) fn is(&self, what: &'static str, is: u64) -> Result<(), Refused> {
        match self.wanted {
            Some(wanted) if wanted != is => Err(Refused::Changed { wanted, what, is }),
            _ => Ok(()),
        }
    }

    /// Whether the active generation is the one that was named. What requests get counts, as a status tells it: a generation
    /// that was left on a request's path may not be written down as left yet.
    pub(super) fn still_active(&self) -> Result<(), Refused> {
        let active = self.plugins.inner.table.load().stable.spec.number;
        self.is("the active one", active)
    }
}
