//! A policy's own words about its decision, while a request is under way and long after it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};

use msao_core::digest::Digest;
use msao_core::offload::record::{Called, DecisionRecord, GenerationId};
use msao_core::offload::{Decision, Plan, PlanInput};
use msao_sandbox::Export;
use thiserror::Error;

use super::generation::{Generation, REVOKED};
use super::{Inner, Plugins};
use crate::cases::CaseInput;

/// Why there are no words of the policy's own.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoWords {
    /// No plug-in decided.
    #[error("the built-in fallback decided, which says nothing of itself")]
    Fallback,
    /// What decided is gone.
    #[error(
        "the generation that decided is not in memory any more; `msao policy explain` asks it with the exported decision"
    )]
    Gone,
    /// There is no plan of the policy's.
    #[error("its call of plan failed: there is no plan of its own that it could explain")]
    NoPlan,
    /// What it had learned then is not there.
    #[error("the calibration that it was given is not kept")]
    NoCalibration,
    /// It has no words.
    #[error("the policy does not explain its plans")]
    Silent,
    /// The call failed.
    #[error("its call of explain failed ({0})")]
    Failed(String),
}

impl Inner {
    /// Asks a generation's policy why `plan` is as it is. Words are no part of an answer: a failure is counted and kept, and
    /// charged to nothing.
    pub(super) fn words(
        &self,
        generation: &Generation,
        content: Digest,
        input: PlanInput,
        plan: &Plan,
    ) -> Result<String, NoWords> {
        let part = generation.policy.as_ref().ok_or(NoWords::Fallback)?;
        if generation.is_withdrawn() {
            return Err(NoWords::Failed(REVOKED.to_owned()));
        }
        let guard = generation.guard(Export::Explain);
        guard.calls.fetch_add(1, Ordering::Relaxed);
        match part.plugin.explain(input, plan) {
            Ok(words) => words.ok_or(NoWords::Silent),
            Err(failure) => {
                guard.failures.fetch_add(1, Ordering::Relaxed);
                let kind = failure.kind.name().to_owned();
                let case = || CaseInput::plan(input, Some(plan));
                self.keep_case(generation, content, failure, case);
                Err(NoWords::Failed(kind))
            }
        }
    }

    /// The generation of that name, if anybody holds it.
    fn generation(&self, id: &GenerationId) -> Option<Arc<Generation>> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let mut held = all.iter().filter_map(Weak::upgrade);
        held.find(|generation| generation.id == *id)
    }
}

impl Plugins {
    /// Has the policy that decided say in words why it planned so: given what was recorded, about the plan that it answered
    /// with. Slow, as `explain` may be: never on a thread that serves requests.
    ///
    /// # Errors
    /// [`NoWords`], which says why there are none.
    pub fn explain(&self, record: &DecisionRecord) -> Result<String, NoWords> {
        if record.generation.policy.is_none() {
            return Err(NoWords::Fallback);
        }
        let inner = &self.inner;
        let generation = inner.generation(&record.generation).ok_or(NoWords::Gone)?;
        let last = record.planned.as_ref().or(record.asked.as_ref());
        let Some(Called::Answered(Decision::Run(plan))) = last else {
            return Err(NoWords::NoPlan);
        };
        let records = inner.records.as_ref().ok_or(NoWords::NoCalibration)?;
        let found = records.snapshot(record.given.calibration);
        let snapshot = found.ok().flatten().ok_or(NoWords::NoCalibration)?;
        let input = PlanInput {
            request: &record.request,
            parts: &record.parts,
            nodes: &record.nodes,
            params: &record.given.params,
            calibration: snapshot.calibration(),
        };
        // The request's content is not recorded: the same decision asked about again is no news.
        let content = Digest::of(record.id.as_bytes());
        inner.words(&generation, content, input, plan)
    }
}
