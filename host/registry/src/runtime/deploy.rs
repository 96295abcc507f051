//! The operator's verbs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use msao_core::offload::manifest::Value;

use super::condition::Conditional;
use super::load::{From, Half, Halves};
use super::table::Table;
use super::{Choice, Inner, Pick, Plugins, Receipt, Refused, Verbs};
use crate::deployment::{Claim, Event, NotNow, Spec};
use crate::parameters::{Values, in_force};

/// What a verb brings: the half it names, loaded, or what to do about it.
enum Brought<T> {
    Keep,
    Take(T),
    Nothing,
}

struct Bring {
    policy: Brought<Half<dyn crate::plugin::PolicyPlugin>>,
    postprocessor: Brought<Half<dyn crate::plugin::PostProcessorPlugin>>,
}

/// How parameters change with a verb.
type Tune = (String, BTreeMap<String, Option<Value>>);

impl Inner {
    fn bring(&self, choice: Choice) -> Result<Bring, Refused> {
        Ok(Bring {
            policy: match choice.policy {
                Pick::Keep => Brought::Keep,
                Pick::Take(release) => Brought::Take(self.policy(release)?),
                Pick::Nothing => Brought::Nothing,
            },
            postprocessor: match choice.postprocessor {
                Pick::Keep => Brought::Keep,
                Pick::Take(release) => Brought::Take(self.postprocessor(release)?),
                Pick::Nothing => Brought::Nothing,
            },
        })
    }

    /// The halves of the active generation, with what is brought in their place.
    fn halves(&self, verbs: &Verbs, bring: Bring) -> Halves {
        let active = verbs.held.get(&verbs.deployment.active.number);
        let spec = &verbs.deployment.active;
        Halves {
            policy: match bring.policy {
                Brought::Take(half) => Some(half),
                Brought::Nothing => None,
                Brought::Keep => (active.and_then(|it| it.policy.as_ref()))
                    .zip(spec.policy)
                    .map(|(part, release)| Half {
                        release,
                        plugin: Arc::clone(&part.plugin),
                        claim: None,
                    }),
            },
            postprocessor: match bring.postprocessor {
                Brought::Take(half) => Some(half),
                Brought::Nothing => None,
                Brought::Keep => (active.and_then(|it| it.postprocessor.as_ref()))
                    .zip(spec.postprocessor)
                    .map(|(part, release)| Half {
                        release,
                        plugin: Arc::clone(&part.plugin),
                        claim: None,
                    }),
            },
        }
    }

    /// The next generation out of `halves`; tuned values that no longer fit are left out and told.
    pub(crate) fn draft(
        &self,
        verbs: &Verbs,
        halves: &Halves,
        tune: Option<&Tune>,
    ) -> (Spec, Vec<String>) {
        let mut tuned = verbs.deployment.active.tuned.clone();
        if let Some((plugin, changes)) = tune {
            let own = tuned.entry(plugin.clone()).or_default();
            for (name, value) in changes {
                match value {
                    Some(value) => own.insert(name.clone(), value.clone()),
                    None => own.remove(name),
                };
            }
        }
        tuned.retain(|_, own| !own.is_empty());
        let mut notes = Vec::new();
        // What was asked for just now is not left out silently: it is refused later, by name.
        if tune.is_none() {
            for manifest in halves.manifests() {
                let Some(own) = tuned.get_mut(&manifest.name) else {
                    continue;
                };
                own.retain(|name, value| {
                    let alone = BTreeMap::from([(name.clone(), value.clone())]);
                    let alone = Values::from([(manifest.name.clone(), alone)]);
                    let fits = in_force(manifest, &Values::new(), &alone);
                    if let Err(error) = &fits {
                        notes.push(format!("left out: {error}"));
                    }
                    fits.is_ok()
                });
            }
            tuned.retain(|_, own| !own.is_empty());
        }
        let spec = verbs.deployment.draft(
            halves.policy.as_ref().map(|half| half.release),
            halves.postprocessor.as_ref().map(|half| half.release),
            halves.pins(&self.config.pins),
            tuned,
        );
        (spec, notes)
    }
}

/// How a new generation comes in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Activate,
    Canary,
    Shadow,
}

/// What comes with a generation that is brought in, beside what it is made of.
struct Bringing<'a> {
    way: Way,
    /// Whatever the serials.
    older: bool,
    tune: Option<&'a Tune>,
    why: Option<String>,
}

impl Bringing<'_> {
    fn by(way: Way) -> Bringing<'static> {
        Bringing {
            way,
            older: false,
            tune: None,
            why: None,
        }
    }
}

impl Conditional<'_> {
    fn bring_in(&self, choice: Choice, bringing: Bringing) -> Result<Receipt, Refused> {
        let inner = &self.plugins.inner;
        // What cannot be any more is not compiled first.
        self.still_active()?;
        inner.leftovers.take_apart(Duration::ZERO);
        // Compiling and making instances come before the lock.
        let bring = inner.bring(choice)?;
        inner.warm(&Halves {
            policy: match &bring.policy {
                Brought::Take(half) => Some(half.clone()),
                _ => None,
            },
            postprocessor: match &bring.postprocessor {
                Brought::Take(half) => Some(half.clone()),
                _ => None,
            },
        })?;
        let mut verbs = inner.verbs();
        self.still_active()?;
        for pick in [choice.policy, choice.postprocessor] {
            if let Pick::Take(release) = pick {
                inner.may_come_in(&release)?;
            }
        }
        let halves = inner.halves(&verbs, bring);
        halves.check()?;
        let (spec, notes) = inner.draft(&verbs, &halves, bringing.tune);
        let claims: Vec<Claim> = if bringing.older {
            Vec::new()
        } else {
            halves.claims()
        };
        let (event, from) = match bringing.way {
            Way::Activate => {
                let (spec, why) = (spec.clone(), bringing.why);
                (Event::Activated { spec, claims, why }, From::Fork)
            }
            Way::Canary => {
                let spec = spec.clone();
                (Event::CanaryStarted { spec, claims }, From::Fork)
            }
            Way::Shadow => {
                for claim in &claims {
                    verbs.deployment.admits(claim)?;
                }
                (Event::ShadowStarted { spec: spec.clone() }, From::Scratch)
            }
        };
        // Refused before anything is forked or written.
        verbs.deployment.advance(&event)?;
        let generation = inner.assemble(spec.clone(), &halves, from)?;
        verbs.held.insert(spec.number, Arc::clone(&generation));
        let committed = inner.commit(&mut verbs, event, true);
        let (effective, sequence) = committed.inspect_err(|_| {
            verbs.held.remove(&spec.number);
            for key in generation.keys() {
                inner.calibration.forget(spec.number, key);
            }
        })?;
        Ok(Receipt {
            generation: spec.id(),
            number: spec.number,
            effective,
            sequence,
            notes,
        })
    }

    /// [`Plugins::activate`], if the active generation is still the one that was named.
    ///
    /// # Errors
    /// [`Refused::Changed`], and those of [`Plugins::activate`].
    pub fn activate(&self, choice: Choice) -> Result<Receipt, Refused> {
        self.bring_in(choice, Bringing::by(Way::Activate))
    }

    /// [`Plugins::canary`], if the active generation is still the one that was named.
    ///
    /// # Errors
    /// [`Refused::Changed`], and those of [`Plugins::canary`].
    pub fn canary(&self, choice: Choice) -> Result<Receipt, Refused> {
        self.bring_in(choice, Bringing::by(Way::Canary))
    }

    /// [`Plugins::shadow`], if the active generation is still the one that was named.
    ///
    /// # Errors
    /// [`Refused::Changed`], and those of [`Plugins::shadow`].
    pub fn shadow(&self, choice: Choice) -> Result<Receipt, Refused> {
        self.bring_in(choice, Bringing::by(Way::Shadow))
    }

    /// [`Plugins::rollback_to`], if the active generation is still the one that was named. `why` goes into the journal.
    ///
    /// # Errors
    /// [`Refused::Changed`], and those of [`Plugins::rollback_to`].
    pub fn rollback_to(&self, choice: Choice, why: Option<String>) -> Result<Receipt, Refused> {
        let bringing = Bringing {
            older: true,
            why,
            ..Bringing::by(Way::Activate)
        };
        self.bring_in(choice, bringing)
    }

    /// [`Plugins::tune`], if the active generation is still the one that was named.
    ///
    /// # Errors
    /// [`Refused::Changed`], and those of [`Plugins::tune`].
    pub fn tune(
        &self,
        plugin: &str,
        changes: BTreeMap<String, Option<Value>>,
        gradually: bool,
    ) -> Result<Receipt, Refused> {
        let way = if gradually {
            Way::Canary
        } else {
            Way::Activate
        };
        let tune = (plugin.to_owned(), changes);
        let bringing = Bringing {
            tune: Some(&tune),
            ..Bringing::by(way)
        };
        self.bring_in(Choice::default(), bringing)
    }

    /// [`Plugins::promote`], if the canary is still the one that was named.
    ///
    /// # Errors
    /// [`Refused::Changed`], and those of [`Plugins::promote`].
    pub fn promote(&self) -> Result<Receipt, Refused> {
        let inner = &self.plugins.inner;
        let mut verbs = inner.verbs();
        let rollout = verbs.deployment.rollout.as_ref();
        let number = rollout.map(|it| it.candidate.number);
        let number = number.ok_or(NotNow::NoCanary)?;
        self.is("the canary", number)?;
        let done = inner.commit(&mut verbs, Event::Promoted { number }, true)?;
        Ok(receipt(&verbs, done))
    }

    /// [`Plugins::rollback`], if what it would leave, the canary or else the active generation, is still the one that was
    /// named. No slower for that: the very generation that is compared is the one that is left.
    ///
    /// # Errors
    /// [`Refused::Changed`], and those of [`Plugins::rollback`].
    pub fn rollback(&self, why: &str) -> Result<Receipt, Refused> {
        let inner = &self.plugins.inner;
        let table = inner.table.load_full();
        let (what, left) = match &table.canary {
            Some(canary) => ("the canary, which would be left,", &canary.generation),
            None => ("the active one", &table.stable),
        };
        let number = left.spec.number;
        self.is(what, number)?;
        if left.policy.is_none() && left.postprocessor.is_none() && table.previous.is_none() {
            return Err(NotNow::NothingBefore.into());
        }
        inner.retreat(left, why.to_owned());
        let effective = Instant::now();
        let mut verbs = inner.verbs();
        let event = Event::Left {
            number,
            why: why.to_owned(),
        };
        let sequence = match inner.commit(&mut verbs, event, false) {
            Ok((_, sequence)) => sequence,
            // The keeper was faster, and has written it down.
            Err(Refused::NotNow(NotNow::Gone(_))) if verbs.unwritten.is_none() => 0,
            Err(error) => return Err(error),
        };
        // An activation that held the lock has come first. What is gone back to is older, or the fallback.
        let active = &verbs.deployment.active;
        if active.number > number && active.policy.is_some() {
            return Err(Refused::Overtaken {
                left: number,
                active: active.number,
            });
        }
        Ok(receipt(&verbs, (effective, sequence)))
    }

    /// [`Plugins::off`], if the active generation is still the one that was named; where one was, it waits for an activation
    /// that is under way, to see what that makes active.
    ///
    /// # Errors
    /// [`Refused::Changed`], and those of [`Plugins::off`].
    pub fn off(&self) -> Result<Receipt, Refused> {
        let inner = &self.plugins.inner;
        if self.is_named() {
            let mut verbs = inner.verbs();
            self.still_active()?;
            let done = inner.commit(&mut verbs, Event::Off, false)?;
            return Ok(receipt(&verbs, done));
        }
        inner.off.store(true, Ordering::SeqCst);
        inner.table.rcu(|table| inner.allowed(Table::clone(table)));
        let effective = Instant::now();
        let mut verbs = inner.verbs();
        let next = verbs.deployment.advance(&Event::Off);
        inner.off.store(false, Ordering::SeqCst);
        if let Err(error) = next {
            inner.publish(&mut verbs);
            return Err(error.into());
        }
        let (_, sequence) = inner.commit(&mut verbs, Event::Off, false)?;
        Ok(receipt(&verbs, (effective, sequence)))
    }
}

impl Plugins {
    /// Has a generation take over at once. The one before stays warm.
    ///
    /// # Errors
    /// [`Refused`]; nothing has changed then. Slow: compiles.
    pub fn activate(&self, choice: Choice) -> Result<Receipt, Refused> {
        self.only_if(None).activate(choice)
    }

    /// Has a generation take over step by step, as long as it is no worse.
    ///
    /// # Errors
    /// [`Refused`]; nothing has changed then. Slow: compiles.
    pub fn canary(&self, choice: Choice) -> Result<Receipt, Refused> {
        self.only_if(None).canary(choice)
    }

    /// Has a generation run beside, without effect; it takes the place of an earlier shadow.
    ///
    /// # Errors
    /// [`Refused`]; nothing has changed then. Slow: compiles.
    pub fn shadow(&self, choice: Choice) -> Result<Receipt, Refused> {
        self.only_if(None).shadow(choice)
    }

    /// Goes back to releases that the operator names, whatever their serial.
    ///
    /// # Errors
    /// [`Refused`]; nothing has changed then. Slow: compiles, where [`Self::rollback`] does not.
    pub fn rollback_to(&self, choice: Choice) -> Result<Receipt, Refused> {
        self.only_if(None).rollback_to(choice, None)
    }

    /// Changes tuned values of a plug-in's parameters (None: back to the default), as a new revision: at once, or step by
    /// step.
    ///
    /// # Errors
    /// [`Refused::Parameter`] names what the manifest does not allow; a pinned parameter keeps its pin.
    pub fn tune(
        &self,
        plugin: &str,
        changes: BTreeMap<String, Option<Value>>,
        gradually: bool,
    ) -> Result<Receipt, Refused> {
        self.only_if(None).tune(plugin, changes, gradually)
    }

    /// Has the candidate take over now.
    ///
    /// # Errors
    /// [`Refused`]: there is no canary, or the journal cannot be written.
    pub fn promote(&self) -> Result<Receipt, Refused> {
        self.only_if(None).promote()
    }

    /// Goes back at once: a canary is dropped; without one, the generation before the active one takes over, or the
    /// built-in fallback. Takes effect within microseconds, and returns when it is on the disk.
    ///
    /// # Errors
    /// [`Refused::NotDurable`] where it has taken effect but is not on the disk; [`Refused::Overtaken`] where an activation
    /// that was under way has put another generation in its place; [`NotNow::NothingBefore`].
    pub fn rollback(&self, why: &str) -> Result<Receipt, Refused> {
        self.only_if(None).rollback(why)
    }

    /// Has the built-in fallback plan everything, and ends canary and shadow. Takes effect within microseconds, whatever
    /// is under way, and returns when it is on the disk. [`Self::rollback`] brings back what was active, neither canary
    /// nor shadow.
    ///
    /// # Errors
    /// [`Refused::NotDurable`] where it has taken effect but is not on the disk; [`NotNow::SameAsActive`] where nothing but
    /// the fallback runs.
    pub fn off(&self) -> Result<Receipt, Refused> {
        self.only_if(None).off()
    }

    /// Ends the shadow.
    ///
    /// # Errors
    /// [`Refused`]: there is none, or the journal cannot be written.
    pub fn shadow_off(&self) -> Result<Receipt, Refused> {
        let mut verbs = self.inner.verbs();
        let number = (verbs.deployment.shadow.as_ref()).map_or(0, |spec| spec.number);
        let event = Event::Left {
            number,
            why: "ended by the operator".into(),
        };
        let done = self.inner.commit(&mut verbs, event, true)?;
        Ok(receipt(&verbs, done))
    }
}

fn receipt(verbs: &Verbs, (effective, sequence): (Instant, u64)) -> Receipt {
    let active = &verbs.deployment.active;
    Receipt {
        generation: active.id(),
        number: active.number,
        effective,
        sequence,
        notes: Vec::new(),
    }
}
