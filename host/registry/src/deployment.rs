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
use crate::signing::{Serial, SignatureError};
use crate::store::Release;

/// The version of [`Deployment`] that this program writes and reads.
const VERSION: u32 = 1;

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
    /// By the plug-in's name.
    pub newest: BTreeMap<String, Newest>,
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
}

/// Something that changes what is active.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A node found no state and began.
    Began,
    /// A node started, and what was active could not be run any more, or its pins changed.
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
    },
    /// A candidate gets its first share.
    #[serde(rename_all = "kebab-case")]
    CanaryStarted {
        /// It.
        spec: Spec,
        /// Signed releases in it.
        claims: Vec<Claim>,
    },
    /// The candidate gets the next share.
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
    /// A generation begins to run beside.
    #[serde(rename_all = "kebab-case")]
    ShadowStarted {
        /// It.
        spec: Spec,
    },
    /// The built-in fallback takes over.
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

    /// Every generation that is held.
    pub fn known(&self) -> impl Iterator<Item = &Spec> {
        std::iter::once(&self.active)
            .chain(&self.previous)
            .chain(self.rollout.as_ref().map(|rollout| &rollout.candidate))
            .chain(&self.shadow)
    }

    /// Checks a release's serial against the newest that was active.
    ///
    /// # Errors
    /// [`SignatureError::Older`] or [`SignatureError::SerialUsed`].
    pub fn admits(&self, claim: &Claim) -> Result<(), SignatureError> {
        let Some(newest) = self.newest.get(&claim.plugin) else {
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
            let newest = Newest {
                serial: claim.serial,
                release: claim.release,
            };
            self.newest.insert(claim.plugin.clone(), newest);
        }
        self.next += 1;
        self.revision = self.revision.max(spec.revision);
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
            Event::Activated { spec, claims } => {
                next.no_canary()?;
                next.take(spec, claims)?;
                if spec.same_as(&self.active) {
                    return Err(NotNow::SameAsActive);
                }
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
                });
            }
            Event::CanaryStepped { number, step } => {
                let rollout = next.rollout.as_mut().ok_or(NotNow::NoCanary)?;
                if rollout.candidate.number != *number {
                    return Err(NotNow::Gone(*number));
                }
                if *step != rollout.step + 1 {
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
                next.replace(rollout.candidate);
            }
            Event::Left { number, .. } => next.leave(*number)?,
            Event::ShadowStarted { spec } => {
                next.take(spec, &[])?;
                next.shadow = Some(spec.clone());
            }
            Event::Off => {
                if self.active.policy.is_none() && self.active.postprocessor.is_none() {
                    return Err(NotNow::SameAsActive);
                }
                next.rollout = None;
                let fallback = next.fallback();
                next.replace(fallback);
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
                None if self.active.policy.is_none() => return Err(NotNow::NothingBefore),
                None => self.fallback(),
            };
        } else {
            return Err(NotNow::Gone(number));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn release(number: u8) -> Release {
        Release {
            artifact: Digest::of(&[number]),
            manifest: Digest::of(&[number, 1]),
        }
    }

    fn start() -> Deployment {
        Deployment::new(Digest::of(b"salt"))
    }

    fn spec(state: &Deployment, policy: u8) -> Spec {
        state.draft(Some(release(policy)), None, Values::new(), Values::new())
    }

    fn activate(state: &Deployment, policy: u8) -> Deployment {
        let event = Event::Activated {
            spec: spec(state, policy),
            claims: Vec::new(),
        };
        state.advance(&event).unwrap()
    }

    fn canary(state: &Deployment, policy: u8) -> Deployment {
        let event = Event::CanaryStarted {
            spec: spec(state, policy),
            claims: Vec::new(),
        };
        state.advance(&event).unwrap()
    }

    fn left(number: u64) -> Event {
        Event::Left {
            number,
            why: "test".into(),
        }
    }

    #[test]
    fn a_rollback_goes_to_the_one_before_and_then_to_the_fallback() {
        let state = activate(&activate(&start(), 1), 2);
        let back = state.advance(&left(state.active.number)).unwrap();
        assert_eq!(back.active.policy, Some(release(1)));
        assert_eq!(back.previous, None);
        let further = back.advance(&left(back.active.number)).unwrap();
        assert_eq!(further.active.policy, None);
        let end = further.advance(&left(further.active.number));
        assert_eq!(end, Err(NotNow::NothingBefore));
    }

    #[test]
    fn a_canary_steps_and_is_promoted_or_dropped() {
        let state = canary(&activate(&start(), 1), 2);
        let number = state.rollout.as_ref().unwrap().candidate.number;
        let step = |step| Event::CanaryStepped { number, step };
        assert_eq!(
            state.advance(&step(2)),
            Err(NotNow::WrongStep { at: 0, asked: 2 })
        );
        let stepped = state.advance(&step(1)).unwrap();
        let other = Event::CanaryStarted {
            spec: spec(&stepped, 3),
            claims: Vec::new(),
        };
        assert_eq!(stepped.advance(&other), Err(NotNow::CanaryUnderWay(number)));
        let promoted = stepped.advance(&Event::Promoted { number }).unwrap();
        assert_eq!(promoted.active.policy, Some(release(2)));
        assert_eq!(promoted.previous.as_ref().unwrap().policy, Some(release(1)));
        let dropped = stepped.advance(&left(number)).unwrap();
        assert_eq!((&dropped.active, &dropped.rollout), (&state.active, &None));
        // What was compared with the active one goes with it.
        let both = stepped.advance(&left(stepped.active.number)).unwrap();
        assert_eq!(both.rollout, None);
    }

    #[test]
    fn older_serials_are_refused() {
        let claim = |serial, number| Claim {
            plugin: "p".into(),
            release: release(number),
            serial,
        };
        let activated = |state: &Deployment, number, serial| {
            state.advance(&Event::Activated {
                spec: spec(state, number),
                claims: vec![claim(serial, number)],
            })
        };
        let state = activated(&start(), 1, 7).unwrap();
        assert!(matches!(
            activated(&state, 2, 6),
            Err(NotNow::Serial(SignatureError::Older { highest: 7, .. }))
        ));
        assert!(matches!(
            activated(&state, 2, 7),
            Err(NotNow::Serial(SignatureError::SerialUsed { .. }))
        ));
        let newer = activated(&state, 2, 8).unwrap();
        assert!(activated(&newer, 1, 7).is_err());
        // Going back needs no claim: the operator names it.
        let back = newer.advance(&left(newer.active.number)).unwrap();
        assert_eq!(back.active.policy, Some(release(1)));
        assert_eq!(back.newest["p"].serial, 8);
    }

    #[test]
    fn a_change_of_parameters_is_a_new_revision() {
        let state = activate(&start(), 1);
        let tuned = Values::from([("p".into(), BTreeMap::new())]);
        let draft = state.draft(state.active.policy, None, Values::new(), tuned.clone());
        assert_eq!(draft.revision, state.active.revision + 1);
        let event = Event::Activated {
            spec: draft,
            claims: Vec::new(),
        };
        let changed = state.advance(&event).unwrap();
        assert_ne!(changed.active.id(), state.active.id());
        // The same parameters again have the revision that they had.
        let again = changed.draft(state.active.policy, None, Values::new(), Values::new());
        assert_eq!(again.revision, state.active.revision);
    }

    fn event(state: &Deployment, kind: u8, policy: u8, pick: u8) -> Event {
        let numbers: Vec<u64> = state.known().map(|spec| spec.number).collect();
        let number = numbers[usize::from(pick) % numbers.len()];
        let spec = spec(state, policy);
        let claims = vec![Claim {
            plugin: "p".into(),
            release: release(policy),
            serial: u64::from(pick),
        }];
        match kind {
            0 => Event::Activated { spec, claims },
            1 => Event::CanaryStarted { spec, claims },
            2 => Event::CanaryStepped {
                number,
                step: usize::from(pick % 4),
            },
            3 => Event::Promoted { number },
            4 => left(number),
            5 => Event::ShadowStarted { spec },
            6 => Event::Off,
            _ => Event::Restarted {
                spec,
                why: "test".into(),
            },
        }
    }

    proptest! {
        #[test]
        fn whatever_happens_one_generation_is_active_and_numbers_are_never_used_twice(
            events in prop::collection::vec((0_u8..8, 0_u8..5, 0_u8..10), 0..80),
        ) {
            let mut state = start();
            let mut newest = 0;
            for (kind, policy, pick) in events {
                let event = event(&state, kind, policy, pick);
                let Ok(next) = state.advance(&event) else { continue };
                let mut numbers: Vec<u64> = next.known().map(|spec| spec.number).collect();
                numbers.sort_unstable();
                prop_assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]), "{numbers:?}");
                prop_assert!(numbers.iter().all(|&number| number < next.next));
                prop_assert!(next.next >= state.next);
                let serial = next.newest.get("p").map_or(0, |newest| newest.serial);
                prop_assert!(serial >= newest);
                newest = serial;
                let text = serde_json::to_string(&next).unwrap();
                prop_assert_eq!(&serde_json::from_str::<Deployment>(&text).unwrap(), &next);
                state = next;
            }
        }
    }
}
