//! What is active, as a state machine.
//!
//! Pure: [`Deployment::advance`] takes an [`Event`] and gives the state after it, or says why that may not be. The runtime
//! writes each state into the journal, and acts on it.
//!
//! ```text
//!            activate                       promote
//!  active ───────────────> active'  <────────────────┐
//!    │  ▲                  previous = active         │
//!    │  └── roll back ─────────┘                     │
//!    └── canary ──> rollout { candidate, step } ── step ──┘
//!                            └── worse, budget spent, roll back: dropped
//! ```

use std::collections::BTreeMap;

use msao_core::digest::Digest;
use msao_core::offload::record::GenerationId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::parameters::Values;
use crate::signing::{PublicKey, Serial, SignatureError};
use crate::store::Release;

/// The version of [`Deployment`] that this program writes and reads.
const VERSION: u32 = 2;

/// A generation, by what it is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Spec {
    /// Counted up; never used again. Its calibration is kept under it.
    pub number: u64,
    /// The policy. None: the built-in fallback.
    pub policy: Option<Release>,
    /// The post-processor.
    pub postprocessor: Option<Release>,
    /// The revision of parameters, from 1 on.
    pub revision: u64,
    /// The operator's pins at that revision.
    pub pins: Values,
    /// The tuned values at that revision.
    pub tuned: Values,
}

impl Spec {
    /// Its public name.
    pub fn id(&self) -> GenerationId {
        GenerationId {
            policy: self.policy.map(|release| release.artifact),
            postprocessor: self.postprocessor.map(|release| release.artifact),
            revision: self.revision,
        }
    }

    /// What it is made of.
    pub fn releases(&self) -> impl Iterator<Item = Release> + use<> {
        self.policy.into_iter().chain(self.postprocessor)
    }

    /// Whether both run the same components with the same parameters.
    pub fn same_as(&self, other: &Spec) -> bool {
        self.policy == other.policy
            && self.postprocessor == other.postprocessor
            && self.pins == other.pins
            && self.tuned == other.tuned
    }
}

/// A candidate on its way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Rollout {
    /// It.
    pub candidate: Spec,
    /// Which of the configured steps, from 0 on.
    pub step: usize,
    /// Signed releases in it, which become known as active when it is promoted.
    pub claims: Vec<Claim>,
}

/// The newest release of a plug-in that was active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Newest {
    /// Its serial.
    pub serial: Serial,
    /// Which it is.
    pub release: Release,
}

/// What is active, what was before, and what may come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Deployment {
    version: u32,
    /// The next generation's number.
    next: u64,
    /// The highest revision of parameters so far.
    revision: u64,
    /// What sessions are hashed with; random, and kept.
    pub salt: Digest,
    /// What plans requests.
    pub active: Spec,
    /// What a rollback goes back to; None: the built-in fallback.
    pub previous: Option<Spec>,
    /// The canary.
    pub rollout: Option<Rollout>,
    /// What runs beside, without effect.
    pub shadow: Option<Spec>,
    /// By the plug-in's name and the key that signed it: no key has a say in the serials of another.
    pub newest: BTreeMap<String, BTreeMap<PublicKey, Newest>>,
}

/// A serial that becomes known as active.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Claim {
    /// The plug-in's name.
    pub plugin: String,
    /// Its release.
    pub release: Release,
    /// Its serial.
    pub serial: Serial,
    /// By which key.
    pub key: PublicKey,
}

/// Something that changes what is active.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A node found no state and began.
    Began,
    /// A node started, and what was active could not be run any more.
    #[serde(rename_all = "kebab-case")]
    Restarted {
        /// What runs instead.
        spec: Spec,
        /// Why.
        why: String,
    },
    /// A generation takes over at once.
    #[serde(rename_all = "kebab-case")]
    Activated {
        /// It.
        spec: Spec,
        /// Signed releases in it.
        claims: Vec<Claim>,
        /// Why, where somebody said so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// A candidate gets its first share.
    #[serde(rename_all = "kebab-case")]
    CanaryStarted {
        /// It.
        spec: Spec,
        /// Signed releases in it.
        claims: Vec<Claim>,
    },
    /// The candidate gets the next share, or goes back to the one before.
    #[serde(rename_all = "kebab-case")]
    CanaryStepped {
        /// Its number.
        number: u64,
        /// The step that begins.
        step: usize,
    },
    /// The candidate takes over.
    #[serde(rename_all = "kebab-case")]
    Promoted {
        /// Its number.
        number: u64,
    },
    /// A generation is left: a candidate is dropped, the active one gives way to the one before, a shadow ends.
    #[serde(rename_all = "kebab-case")]
    Left {
        /// Its number.
        number: u64,
        /// Why.
        why: String,
    },
    /// A node started with other pins: a generation goes on under them, as a new revision.
    #[serde(rename_all = "kebab-case")]
    Repinned {
        /// It, as it is now.
        spec: Spec,
    },
    /// A generation begins to run beside.
    #[serde(rename_all = "kebab-case")]
    ShadowStarted {
        /// It.
        spec: Spec,
    },
    /// The built-in fallback plans everything; a canary and a shadow end.
    Off,
}

/// Why an event may not be.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum NotNow {
    /// One canary at a time.
    #[error("a canary is under way (generation {0}): promote it or roll it back first")]
    CanaryUnderWay(u64),
    /// No canary.
    #[error("no canary is under way")]
    NoCanary,
    /// It is not that far, or further.
    #[error("the canary is at step {at}, step {asked} cannot follow")]
    WrongStep {
        /// Where it is.
        at: usize,
        /// What was asked.
        asked: usize,
    },
    /// Neither active, candidate nor shadow.
    #[error("generation {0} is not running any more")]
    Gone(u64),
    /// The number is not the next.
    #[error("generation {0} is not the next")]
    WrongNumber(u64),
    /// It runs already.
    #[error("that is what is active already")]
    SameAsActive,
    /// Nothing to go back to.
    #[error("the built-in fallback is active: there is nothing to go back to")]
    NothingBefore,
    /// An older serial.
    #[error(transparent)]
    Serial(#[from] SignatureError),
}

impl Deployment {
    /// A node that knows nothing: the built-in fallback is active.
    pub fn new(salt: Digest) -> Deployment {
        Deployment {
            version: VERSION,
            next: 2,
            revision: 1,
            salt,
            active: Spec {
                number: 1,
                policy: None,
                postprocessor: None,
                revision: 1,
                pins: Values::new(),
                tuned: Values::new(),
            },
            previous: None,
            rollout: None,
            shadow: None,
            newest: BTreeMap::new(),
        }
    }

    /// Whether this program reads it.
    pub fn is_readable(&self) -> bool {
        self.version == VERSION
    }

    /// The next generation, made of these parts. Its revision is that of the generation with the same parameters, or a
    /// new one.
    pub fn draft(
        &self,
        policy: Option<Release>,
        postprocessor: Option<Release>,
        pins: Values,
        tuned: Values,
    ) -> Spec {
        let known = self
            .known()
            .find(|spec| spec.pins == pins && spec.tuned == tuned);
        Spec {
            number: self.next,
            policy,
            postprocessor,
            revision: known.map_or(self.revision + 1, |spec| spec.revision),
            pins,
            tuned,
        }
    }

    /// The generation of that number under other pins; None: there is no such generation, or it has them.
    pub fn repinned(&self, number: u64, pins: &Values) -> Option<Spec> {
        let spec = self.known().find(|spec| spec.number == number)?;
        if spec.pins == *pins {
            return None;
        }
        let like = self.draft(None, None, pins.clone(), spec.tuned.clone());
        Some(Spec {
            pins: like.pins,
            revision: like.revision,
            ..spec.clone()
        })
    }

    fn known_mut(&mut self) -> impl Iterator<Item = &mut Spec> {
        std::iter::once(&mut self.active)
            .chain(&mut self.previous)
            .chain(self.rollout.as_mut().map(|rollout| &mut rollout.candidate))
            .chain(&mut self.shadow)
    }

    /// Every generation that is held.
    pub fn known(&self) -> impl Iterator<Item = &Spec> {
        std::iter::once(&self.active)
            .chain(&self.previous)
            .chain(self.rollout.as_ref().map(|rollout| &rollout.candidate))
            .chain(&self.shadow)
    }

    /// Checks a release's serial against the newest of the same name and key that was active.
    ///
    /// # Errors
    /// [`SignatureError::Older`] or [`SignatureError::SerialUsed`].
    pub fn admits(&self, claim: &Claim) -> Result<(), SignatureError> {
        let of_the_name = self.newest.get(&claim.plugin);
        let Some(newest) = of_the_name.and_then(|keys| keys.get(&claim.key)) else {
            return Ok(());
        };
        if claim.serial < newest.serial {
            return Err(SignatureError::Older {
                plugin: claim.plugin.clone(),
                serial: claim.serial,
                highest: newest.serial,
            });
        }
        if claim.serial == newest.serial && claim.release != newest.release {
            return Err(SignatureError::SerialUsed {
                plugin: claim.plugin.clone(),
                serial: claim.serial,
            });
        }
        Ok(())
    }

    fn take(&mut self, spec: &Spec, claims: &[Claim]) -> Result<(), NotNow> {
        if spec.number != self.next {
            return Err(NotNow::WrongNumber(spec.number));
        }
        for claim in claims {
            self.admits(claim)?;
        }
        self.next += 1;
        self.revision = self.revision.max(spec.revision);
        Ok(())
    }

    /// Notes serials that are active from now on.
    fn activate(&mut self, claims: &[Claim]) -> Result<(), NotNow> {
        for claim in claims {
            self.admits(claim)?;
            let newest = Newest {
                serial: claim.serial,
                release: claim.release,
            };
            let keys = self.newest.entry(claim.plugin.clone()).or_default();
            keys.insert(claim.key, newest);
        }
        Ok(())
    }

    fn fallback(&mut self) -> Spec {
        let spec = Spec {
            number: self.next,
            policy: None,
            postprocessor: None,
            revision: self.active.revision,
            pins: self.active.pins.clone(),
            tuned: self.active.tuned.clone(),
        };
        self.next += 1;
        spec
    }

    fn replace(&mut self, spec: Spec) {
        let old = std::mem::replace(&mut self.active, spec);
        self.previous = Some(old);
    }

    fn no_canary(&self) -> Result<(), NotNow> {
        match &self.rollout {
            Some(rollout) => Err(NotNow::CanaryUnderWay(rollout.candidate.number)),
            None => Ok(()),
        }
    }

    /// The state after `event`.
    ///
    /// # Errors
    /// [`NotNow`]; then nothing has changed.
    pub fn advance(&self, event: &Event) -> Result<Deployment, NotNow> {
        let mut next = self.clone();
        match event {
            Event::Began => {}
            Event::Restarted { spec, .. } => {
                next.take(spec, &[])?;
                next.rollout = None;
                next.active = spec.clone();
            }
            Event::Activated { spec, claims, .. } => {
                next.no_canary()?;
                next.take(spec, claims)?;
                if spec.same_as(&self.active) {
                    return Err(NotNow::SameAsActive);
                }
                next.activate(claims)?;
                next.replace(spec.clone());
            }
            Event::CanaryStarted { spec, claims } => {
                next.no_canary()?;
                next.take(spec, claims)?;
                if spec.same_as(&self.active) {
                    return Err(NotNow::SameAsActive);
                }
                next.rollout = Some(Rollout {
                    candidate: spec.clone(),
                    step: 0,
                    claims: claims.clone(),
                });
            }
            Event::CanaryStepped { number, step } => {
                let rollout = next.rollout.as_mut().ok_or(NotNow::NoCanary)?;
                if rollout.candidate.number != *number {
                    return Err(NotNow::Gone(*number));
                }
                if step.abs_diff(rollout.step) != 1 {
                    return Err(NotNow::WrongStep {
                        at: rollout.step,
                        asked: *step,
                    });
                }
                rollout.step = *step;
            }
            Event::Promoted { number } => {
                let rollout = next.rollout.take().ok_or(NotNow::NoCanary)?;
                if rollout.candidate.number != *number {
                    return Err(NotNow::Gone(*number));
                }
                next.activate(&rollout.claims)?;
                next.replace(rollout.candidate);
            }
            Event::Left { number, .. } => next.leave(*number)?,
            Event::Repinned { spec } => {
                let old = next.known_mut().find(|old| old.number == spec.number);
                *old.ok_or(NotNow::Gone(spec.number))? = spec.clone();
                next.revision = next.revision.max(spec.revision);
            }
            Event::ShadowStarted { spec } => {
                next.take(spec, &[])?;
                next.shadow = Some(spec.clone());
            }
            Event::Off => {
                let runs_beside = next.rollout.take().is_some() | next.shadow.take().is_some();
                if self.active.releases().next().is_some() {
                    let fallback = next.fallback();
                    next.replace(fallback);
                } else if !runs_beside {
                    return Err(NotNow::SameAsActive);
                }
            }
        }
        Ok(next)
    }

    fn leave(&mut self, number: u64) -> Result<(), NotNow> {
        let is = |spec: &Spec| spec.number == number;
        if self.rollout.as_ref().is_some_and(|it| is(&it.candidate)) {
            self.rollout = None;
        } else if self.shadow.as_ref().is_some_and(is) {
            self.shadow = None;
        } else if self.previous.as_ref().is_some_and(is) {
            self.previous = None;
        } else if is(&self.active) {
            // A canary was compared with what now goes: it goes as well.
            self.rollout = None;
            self.active = match self.previous.take() {
                Some(previous) => previous,
                None if self.active.releases().next().is_none() => {
                    return Err(NotNow::NothingBefore);
                }
                None => self.fallback(),
            };
        } else {
            return Err(NotNow::Gone(number));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
