//! How a change takes effect: state, journal, table, calibration.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::generation::Generation;
use super::load::{From, Halves};
use super::table::{Canary, Table};
use super::{Inner, Refused, Verbs, since_1970_ms};
use crate::canary::Trial;
use crate::deployment::{Deployment, Event, Spec};
use crate::shadow::Shadow;

/// A table, but for what only the one before it knows.
struct Prepared {
    /// None: the built-in fallback.
    stable: Option<Arc<Generation>>,
    previous: Option<Arc<Generation>>,
    canary: Option<Canary>,
    shadow: Option<Arc<Shadow>>,
}

impl Inner {
    /// Does what an event says. `forward`: written down first, else afterwards. Returns when it took effect: for a forward
    /// change when it was on the disk, just before requests began to see it.
    pub(crate) fn commit(
        &self,
        verbs: &mut Verbs,
        event: Event,
        forward: bool,
    ) -> Result<(Instant, u64), Refused> {
        let next = verbs.deployment.advance(&event)?;
        // All but the exchange comes before the disk is asked: from then on who waits for the change waits for it alone.
        let prepared = self.prepare(verbs, &next);
        let mut sequence = 0;
        if forward {
            sequence = (verbs.journal)
                .write(since_1970_ms(), &event, &next)
                .map_err(Refused::Journal)?;
            verbs.unwritten = None;
        }
        let written = Instant::now();
        let before = std::mem::replace(&mut verbs.deployment, next);
        let gone = self.exchange(verbs, prepared);
        let effective = if forward { written } else { Instant::now() };
        self.cells_follow(verbs, &event, &before, &gone);
        for generation in gone {
            self.leftovers.leave(generation);
        }
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

    /// Makes the table what the deployment says.
    pub(crate) fn publish(&self, verbs: &mut Verbs) -> Vec<Arc<Generation>> {
        let prepared = self.prepare(verbs, &verbs.deployment.clone());
        self.exchange(verbs, prepared)
    }

    /// The table that a deployment asks for. Makes the fallback's generation where there is none yet.
    fn prepare(&self, verbs: &mut Verbs, deployment: &Deployment) -> Prepared {
        for spec in deployment.known() {
            if !verbs.held.contains_key(&spec.number) && spec.policy.is_none() {
                // The fallback needs nothing that could fail.
                if let Ok(generation) = self.assemble(spec.clone(), &Halves::default(), From::Live)
                {
                    verbs.held.insert(spec.number, generation);
                }
            }
        }
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
        Prepared {
            stable: held(&deployment.active),
            previous: deployment.previous.as_ref().and_then(held),
            canary,
            shadow,
        }
    }

    /// Has the table that was prepared for the deployment as it is now take the place of the one before. Returns the
    /// generations that are not held any more.
    fn exchange(&self, verbs: &mut Verbs, prepared: Prepared) -> Vec<Arc<Generation>> {
        self.table.rcu(|table| {
            let next = Table {
                stable: (prepared.stable.clone()).unwrap_or_else(|| Arc::clone(&table.builtin)),
                previous: prepared.previous.clone(),
                canary: prepared.canary.clone(),
                shadow: prepared.shadow.clone(),
                builtin: Arc::clone(&table.builtin),
            };
            // Who was rolled back on a request's path meanwhile does not come back.
            self.allowed(next)
        });
        let Prepared { canary, shadow, .. } = prepared;
        verbs.trial = canary.map(|it| (it.generation.spec.number, it.trial));
        verbs.shadow = shadow.map(|it| (it.generation.spec.number, it));
        let numbers: Vec<u64> = (verbs.deployment.known()).map(|spec| spec.number).collect();
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
