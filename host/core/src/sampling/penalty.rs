//! What the penalties remember of the prompt and the output, and how they change a logit.
//!
//! - Repetition: Hugging Face's `RepetitionPenaltyLogitsProcessor`. A logit below 0 is multiplied by the penalty,
//!   another is divided by it; once an id, over prompt and output.
//! - Presence and frequency: OpenAI's. `presence + frequency * count` is subtracted, over the output alone.
//!
//! Repetition comes first, as in vLLM. The state follows a draft token by token and rolls back with it.

use std::collections::HashMap;

use super::params::SamplingParams;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    in_prompt: bool,
    in_output: u32,
}

/// The ids seen so far. Two states are equal when no later token can tell them apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Penalties {
    seen: HashMap<u32, Seen>,
    output: Vec<u32>,
}

impl Penalties {
    pub(super) fn new(prompt: &[u32]) -> Self {
        let seen = prompt
            .iter()
            .map(|&id| {
                (
                    id,
                    Seen {
                        in_prompt: true,
                        in_output: 0,
                    },
                )
            })
            .collect();
        Self {
            seen,
            output: Vec::new(),
        }
    }

    pub(super) fn output(&self) -> &[u32] {
        &self.output
    }

    pub(super) fn commit(&mut self, id: u32) {
        self.seen.entry(id).or_default().in_output += 1;
        self.output.push(id);
    }

    /// Forgets output tokens from the end until `output_len` are left.
    pub(super) fn rollback_to(&mut self, output_len: usize) {
        while self.output.len() > output_len {
            let Some(id) = self.output.pop() else { return };
            if let Some(seen) = self.seen.get_mut(&id) {
                seen.in_output = seen.in_output.saturating_sub(1);
                if *seen == Seen::default() {
                    self.seen.remove(&id);
                }
            }
        }
    }

    /// Changes `logits[id]` for every id seen; ids past the end are left out.
    pub(super) fn apply(&self, params: &SamplingParams, logits: &mut [f32]) {
        let (repetition, presence, frequency) = (
            params.repetition_penalty,
            params.presence_penalty,
            params.frequency_penalty,
        );
        if repetition == 1.0 && presence == 0.0 && frequency == 0.0 {
            return;
        }
        for (&id, seen) in &self.seen {
            let Some(logit) = logits.get_mut(id as usize) else {
                continue;
            };
            let before = f64::from(*logit);
            let mut after = if before < 0.0 {
                before * repetition
            } else {
                before / repetition
            };
            if seen.in_output > 0 {
                after -= presence + frequency * f64::from(seen.in_output);
            }
            *logit = to_logit(after);
        }
    }
}

/// Rounds to `f32`; what would overflow upwards stays the largest number, so that it can still win.
pub(super) fn to_logit(value: f64) -> f32 {
    value.min(f64::from(f32::MAX)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetition_counts_once_over_prompt_and_output() {
        let params = SamplingParams {
            repetition_penalty: 2.0,
            ..SamplingParams::default()
        };
        let mut state = Penalties::new(&[0, 0, 1]);
        state.commit(1);
        state.commit(2);
        state.commit(9);
        let mut logits = [3.0, -3.0, 4.0, 5.0];
        state.apply(&params, &mut logits);
        assert_eq!(logits, [1.5, -6.0, 2.0, 5.0]);
    }

    #[test]
    fn presence_and_frequency_look_at_the_output_alone() {
        let params = SamplingParams {
            presence_penalty: 0.5,
            frequency_penalty: 0.25,
            ..SamplingParams::default()
        };
        let mut state = Penalties::new(&[0]);
        state.commit(1);
        state.commit(1);
        let mut logits = [1.0, 1.0, 1.0];
        state.apply(&params, &mut logits);
        assert_eq!(logits, [1.0, 0.0, 1.0]);
    }

    #[test]
    fn rolling_back_forgets_the_draft() {
        let mut state = Penalties::new(&[5]);
        state.commit(5);
        let before = state.clone();
        state.commit(7);
        state.commit(5);
        assert_ne!(state, before);
        state.rollback_to(1);
        assert_eq!(state, before);
    }
}
