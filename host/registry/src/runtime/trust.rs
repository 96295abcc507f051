//! Which signing keys count, while a node runs. What a change of them does is what a restart with them would do: a start that
//! would fail is a change that is refused, and what a start would leave is left.
//!
//! What a revoked key has signed is left like a generation that is gone back from: at once, and written down then. It goes
//! further than a rollback, which lets requests under way finish on what they began with: whoever revokes a key may think that
//! somebody else has it, so no call of that code is made any more, and the fallback answers in its place.

use std::sync::{Arc, PoisonError, Weak};

use thiserror::Error;

use super::generation::Generation;
use super::open::how_to_mend;
use super::{Inner, Plugins, Refused};
use crate::config::PolicyConfig;
use crate::deployment::{Event, NotNow, Spec};
use crate::signing::{SignatureError, Trust};
use crate::store::{Release, StoreError};

/// Why signing keys stay as they were: a node could not be started with the new ones.
#[derive(Debug, Error)]
#[error(
    "policy.keys: with these keys generation {number}, which is active, could not be run: {problem}. {mend}"
)]
pub struct KeysRefused {
    /// The active generation.
    pub number: u64,
    /// Why it could not be run.
    pub problem: Box<Refused>,
    /// What to do.
    pub mend: String,
}

fn is_revoked(error: &Refused) -> bool {
    matches!(error, Refused::Signature(SignatureError::Revoked(..)))
}

/// Of two reasons, the one with more weight is what counts: what is lost comes before what somebody can mend.
fn weight(error: &Refused) -> u8 {
    match how_to_mend(error) {
        _ if is_revoked(error) => 2,
        None => 1,
        Some(_) => 0,
    }
}

impl Inner {
    /// Checks, under the lock of the verbs, that a release that was loaded a moment ago may come in now: it may have been
    /// removed meanwhile, or its key revoked.
    pub(super) fn may_come_in(&self, release: &Release) -> Result<(), Refused> {
        if !self.store.has(release) {
            let gone = StoreError::Missing {
                what: "the release of the component",
                digest: release.artifact,
            };
            return Err(gone.into());
        }
        self.is_let_in(&self.trust.load(), release)
    }

    /// Checks that `trust` lets a release run, by the signature that lies with it now: who signs a release anew and pushes it
    /// again takes it from one key to another.
    fn is_let_in(&self, trust: &Trust, release: &Release) -> Result<(), Refused> {
        let signature = self.store.signature(release)?;
        trust.check(release, signature.as_ref())?;
        Ok(())
    }

    /// Why `trust` does not let a generation run; None: it does.
    fn unfit(&self, trust: &Trust, spec: &Spec) -> Option<Refused> {
        let errors = spec
            .releases()
            .filter_map(|release| self.is_let_in(trust, &release).err());
        errors.max_by_key(weight)
    }

    /// Every generation that somebody holds.
    pub(super) fn alive(&self) -> Vec<Arc<Generation>> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Plugins {
    /// Has the signing keys of `config` count from now on: `keys`, `revoked` and `allow-unsigned`. What they no longer let run
    /// is left, and the journal says why. Returns what an operator should know, a line each; nothing where no key has changed.
    ///
    /// # Errors
    /// [`KeysRefused`]: what is active could not be run with these keys, for a reason that can be mended. Nothing has changed
    /// then.
    pub fn trust(&self, config: &PolicyConfig) -> Result<Vec<String>, KeysRefused> {
        let inner = &self.inner;
        let trust = config.trust();
        // A change that is being made comes first, and is looked at as well.
        let mut verbs = inner.verbs();
        if **inner.trust.load() == trust {
            return Ok(Vec::new());
        }
        let active = verbs.deployment.active.number;
        let mut unfit = Vec::new();
        for spec in verbs.deployment.known() {
            let Some(problem) = inner.unfit(&trust, spec) else {
                continue;
            };
            match how_to_mend(&problem) {
                Some(mend) if spec.number == active => {
                    return Err(KeysRefused {
                        number: active,
                        problem: Box::new(problem),
                        mend,
                    });
                }
                _ => unfit.push((spec.number, problem.to_string())),
            }
        }
        for generation in inner.alive() {
            let problem = inner.unfit(&trust, &generation.spec);
            if problem.as_ref().is_some_and(is_revoked) {
                generation.withdraw();
            }
        }
        inner.trust.store(Arc::new(trust));
        // The active one last: what it gives way to has been looked at by then.
        unfit.sort_by_key(|(number, _)| *number == active);
        for (number, why) in &unfit {
            if let Some(generation) = verbs.held.get(number) {
                inner.retreat(generation, why.clone());
            }
        }
        let mut told = Vec::new();
        for (number, why) in unfit {
            told.push(format!("generation {number} was left: {why}"));
            let left = inner.commit(&mut verbs, Event::Left { number, why }, false);
            match left {
                // It had just been left for another reason.
                Ok(_) | Err(Refused::NotNow(NotNow::Gone(_))) => {}
                Err(error) => told.push(error.to_string()),
            }
        }
        Ok(told)
    }
}
