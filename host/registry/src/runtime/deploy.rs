//! The operator's verbs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use msao_core::offload::manifest::Value;

use super::generation::Generation;
use super::load::{From, Half, Halves};
use super::table::{Canary, Table};
use super::{Choice, Inner, Pick, Plugins, Receipt, Refused, Verbs, since_1970_ms};
use crate::canary::Trial;
use crate::deployment::{Claim, Deployment, Event, NotNow, Spec};
use crate::parameters::{Values, in_force};
use crate::shadow::Shadow;

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

    /// The halves of the active generation.
    pub(crate) fn kept(&self, verbs: &Verbs) -> Halves {
        let bring = Bring {
            policy: Brought::Keep,
            postprocessor: Brought::Keep,
        };
        self.halves(verbs, bring)
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

    /// Does what an event says. `forward`: written down first, else afterwards.
    pub(crate) fn commit(
        &self,
        verbs: &mut Verbs,
        event: Event,
        forward: bool,
    ) -> Result<(Instant, u64), Refused> {
        let next = verbs.deployment.advance(&event)?;
        let mut sequence = 0;
        if forward {
            sequence = (verbs.journal)
                .write(since_1970_ms(), &event, &next)
                .map_err(Refused::Journal)?;
            verbs.unwritten = None;
        }
        let before = std::mem::replace(&mut verbs.deployment, next);
        let gone = self.publish(verbs);
        let effective = Instant::now();
        self.cells_follow(verbs, &event, &before, &gone);
        if !forward {
            sequence = self.write_down(verbs, event)?;
        }
        Ok((effective, sequence))
    }

    /// Writes down the state as it is, after `event`.
    pub(crate) fn write_down(&self, verbs: &mut Verbs, event: Event) -> Result<u64, Refused> {
        let written = (verbs.journal).write(since_1970_ms(), &event, &verbs.deployment);
        match written {
            Ok(sequence) => {
                verbs.unwritten = None;
                Ok(sequence)
            }
            Err(error) => {
                verbs.unwritten = Some((event, error.to_string()));
                Err(Refused::NotDurable(error))
            }
        }
    }

    /// Makes the table what the deployment says. Returns the generations that are not held any more.
    pub(crate) fn publish(&self, verbs: &mut Verbs) -> Vec<Arc<Generation>> {
        let known: Vec<Spec> = verbs.deployment.known().cloned().collect();
        for spec in &known {
            if !verbs.held.contains_key(&spec.number) && spec.policy.is_none() {
                // The fallback needs nothing that could fail.
                if let Ok(generation) = self.assemble(spec.clone(), &Halves::default(), From::Live)
                {
                    verbs.held.insert(spec.number, generation);
                }
            }
        }
        let deployment = &verbs.deployment;
        let held = |spec: &Spec| verbs.held.get(&spec.number).cloned();
        let rollout = deployment.rollout.as_ref();
        let canary = rollout.and_then(|rollout| {
            let number = rollout.candidate.number;
            let trial = match &verbs.trial {
                Some((of, trial)) if *of == number => Arc::clone(trial),
                _ => Arc::new(Mutex::new(Trial::new(rollout.step))),
            };
            Some(Canary {
                generation: held(&rollout.candidate)?,
                share: self.config.canary.steps.get(rollout.step).copied()?,
                trial,
            })
        });
        let trial = (canary.as_ref()).map(|it| (it.generation.spec.number, Arc::clone(&it.trial)));
        let shadow = deployment.shadow.as_ref().and_then(|spec| {
            match &verbs.shadow {
                Some((of, shadow)) if *of == spec.number => return Some(Arc::clone(shadow)),
                _ => {}
            }
            let queue = self
                .shadow_queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let queue = queue.clone()?;
            let busy = Arc::clone(&self.busy);
            Some(Arc::new(Shadow::new(held(spec)?, queue, busy)))
        });
        let (stable, previous) = (
            held(&deployment.active),
            deployment.previous.as_ref().and_then(held),
        );
        verbs.trial = trial;
        verbs.shadow = (shadow.as_ref()).map(|it| (it.generation.spec.number, Arc::clone(it)));
        self.table.rcu(|table| {
            let next = Table {
                stable: stable.clone().unwrap_or_else(|| Arc::clone(&table.builtin)),
                previous: previous.clone(),
                canary: canary.clone(),
                shadow: shadow.clone(),
                builtin: Arc::clone(&table.builtin),
            };
            // Who was rolled back on a request's path meanwhile does not come back.
            next.without_condemned()
        });
        let numbers: Vec<u64> = known.iter().map(|spec| spec.number).collect();
        let gone = verbs
            .held
            .keys()
            .copied()
            .filter(|it| !numbers.contains(it));
        let gone: Vec<u64> = gone.collect();
        gone.into_iter()
            .filter_map(|number| verbs.held.remove(&number))
            .collect()
    }

    /// Has calibration follow what happened. `gone`: generations that nothing goes back to any more.
    fn cells_follow(
        &self,
        verbs: &Verbs,
        event: &Event,
        before: &Deployment,
        gone: &[Arc<Generation>],
    ) {
        let calibration = &self.calibration;
        match event {
            Event::Activated {
                spec: Spec { number, .. },
                ..
            }
            | Event::Promoted { number } => {
                for key in verbs.held.get(number).iter().flat_map(|it| it.keys()) {
                    calibration.promote(*number, key);
                }
            }
            Event::Left { number, .. } if before.active.number == *number => {
                let left = gone.iter().find(|it| it.spec.number == *number);
                for key in left.iter().flat_map(|it| it.keys()) {
                    calibration.demote(*number, key);
                }
            }
            _ => {}
        }
        for generation in gone {
            for key in generation.keys() {
                calibration.forget(generation.spec.number, key);
            }
        }
    }

    /// Leaves a generation, in writing.
    pub(crate) fn leave(&self, number: u64, why: &str) -> Result<(Instant, u64), Refused> {
        let event = Event::Left {
            number,
            why: why.to_owned(),
        };
        self.commit(&mut self.verbs(), event, false)
    }
}

/// How a new generation comes in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Activate,
    Canary,
    Shadow,
}

impl Plugins {
    fn bring_in(
        &self,
        choice: Choice,
        way: Way,
        older: bool,
        tune: Option<&Tune>,
    ) -> Result<Receipt, Refused> {
        let inner = &self.inner;
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
        let halves = inner.halves(&verbs, bring);
        halves.check()?;
        let (spec, notes) = inner.draft(&verbs, &halves, tune);
        let claims: Vec<Claim> = if older { Vec::new() } else { halves.claims() };
        let (event, from) = match way {
            Way::Activate => {
                let spec = spec.clone();
                (Event::Activated { spec, claims }, From::Fork)
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

    /// Has a generation take over at once. The one before stays warm.
    ///
    /// # Errors
    /// [`Refused`]; nothing has changed then. Slow: compiles.
    pub fn activate(&self, choice: Choice) -> Result<Receipt, Refused> {
        self.bring_in(choice, Way::Activate, false, None)
    }

    /// Has a generation take over step by step, as long as it is no worse.
    ///
    /// # Errors
    /// [`Refused`]; nothing has changed then. Slow: compiles.
    pub fn canary(&self, choice: Choice) -> Result<Receipt, Refused> {
        self.bring_in(choice, Way::Canary, false, None)
    }

    /// Has a generation run beside, without effect; it takes the place of an earlier shadow.
    ///
    /// # Errors
    /// [`Refused`]; nothing has changed then. Slow: compiles.
    pub fn shadow(&self, choice: Choice) -> Result<Receipt, Refused> {
        self.bring_in(choice, Way::Shadow, false, None)
    }

    /// Goes back to releases that the operator names, whatever their serial.
    ///
    /// # Errors
    /// [`Refused`]; nothing has changed then. Slow: compiles, where [`Self::rollback`] does not.
    pub fn rollback_to(&self, choice: Choice) -> Result<Receipt, Refused> {
        self.bring_in(choice, Way::Activate, true, None)
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
        let way = if gradually {
            Way::Canary
        } else {
            Way::Activate
        };
        let tune = (plugin.to_owned(), changes);
        self.bring_in(Choice::default(), way, false, Some(&tune))
    }

    /// Has the candidate take over now.
    ///
    /// # Errors
    /// [`Refused`]: there is no canary, or the journal cannot be written.
    pub fn promote(&self) -> Result<Receipt, Refused> {
        let mut verbs = self.inner.verbs();
        let rollout = verbs.deployment.rollout.as_ref();
        let number = rollout.map(|it| it.candidate.number);
        let number = number.ok_or(NotNow::NoCanary)?;
        let done = (self.inner).commit(&mut verbs, Event::Promoted { number }, true)?;
        Ok(receipt(&verbs, done))
    }

    /// Goes back at once: a canary is dropped; without one, the generation before the active one takes over, or the
    /// built-in fallback. Takes effect within microseconds, and returns when it is on the disk.
    ///
    /// # Errors
    /// [`Refused::NotDurable`] where it has taken effect but is not on the disk; [`NotNow::NothingBefore`].
    pub fn rollback(&self, why: &str) -> Result<Receipt, Refused> {
        let inner = &self.inner;
        let table = inner.table.load_full();
        let left = match &table.canary {
            Some(canary) => &canary.generation,
            None => &table.stable,
        };
        if left.policy.is_none() && left.postprocessor.is_none() && table.previous.is_none() {
            return Err(NotNow::NothingBefore.into());
        }
        inner.retreat(left, why.to_owned());
        let effective = Instant::now();
        let mut verbs = inner.verbs();
        let event = Event::Left {
            number: left.spec.number,
            why: why.to_owned(),
        };
        let sequence = match inner.commit(&mut verbs, event, false) {
            Ok((_, sequence)) => sequence,
            // The keeper was faster, and has written it down.
            Err(Refused::NotNow(NotNow::Gone(_))) if verbs.unwritten.is_none() => 0,
            Err(error) => return Err(error),
        };
        Ok(receipt(&verbs, (effective, sequence)))
    }

    /// Has the built-in fallback plan everything. [`Self::rollback`] undoes it.
    ///
    /// # Errors
    /// [`Refused`]: it does so already, or the journal cannot be written.
    pub fn off(&self) -> Result<Receipt, Refused> {
        let mut verbs = self.inner.verbs();
        let done = self.inner.commit(&mut verbs, Event::Off, true)?;
        Ok(receipt(&verbs, done))
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
