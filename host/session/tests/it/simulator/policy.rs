//! Policies, sensible and otherwise.

use msao_core::offload::{Action, StepInput, kind};

use super::rng::Rng;

#[derive(Clone, Debug)]
pub enum Policy {
    /// Every draft goes at once.
    Stream,
    /// So many drafts, then their verdict.
    Rounds(u32),
    /// Whatever, out of these.
    Any(Rng, Vec<Action>),
}

impl Policy {
    pub fn step(&mut self, input: &StepInput) -> Action {
        match self {
            Policy::Stream if input.kind == kind::DRAFTED => Action::Send,
            Policy::Stream => Action::Draft,
            Policy::Rounds(_) if input.in_flight > 0 => Action::Wait,
            Policy::Rounds(drafts) if input.unsent >= *drafts => Action::Send,
            Policy::Rounds(_) => Action::Draft,
            Policy::Any(rng, actions) => actions[rng.below(actions.len() as u64) as usize],
        }
    }
}
