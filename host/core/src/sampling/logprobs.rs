//! The model's own distribution: what a client's `logprobs` report and what speculation takes for confidence.
//!
//! Both are log-softmax of the raw logits over the tokenizer's ids, at temperature 1 and before bias, penalties,
//! masks, top-k and top-p: OpenAI documents `logprobs` as the model's, and a number that changes with the sampling
//! parameters would say nothing about the model.

use super::sampler::{SampleError, Sampler};
use super::select::top_k;
use super::transform::{known, largest, second_largest};

/// A token and the natural logarithm of its probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub id: u32,
    /// Natural logarithm; minus infinity where the logit is.
    pub logprob: f64,
}

/// What a client's `logprobs` and `top_logprobs` ask for at one place.
#[derive(Clone, Debug, PartialEq)]
pub struct TopLogprobs {
    /// The token that was chosen.
    pub chosen: TokenLogprob,
    /// The most probable tokens, best first, the lower id first among equals.
    pub top: Vec<TokenLogprob>,
}

/// How sure the model is of its next token, whatever the sampling parameters: the scalars that a policy's `step`
/// sees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Confidence {
    /// The largest probability.
    pub top1: f64,
    /// Entropy in nats.
    pub entropy: f64,
    /// Natural logarithm of the largest probability over the second largest; infinite where there is one id.
    pub margin: f64,
}

impl Sampler {
    /// The model's log-probabilities of a chosen token and of the `n` best.
    ///
    /// # Errors
    /// No id is left, a logit is not a number, or the chosen id has none.
    pub fn top_logprobs(
        &self,
        logits: &[f32],
        chosen: u32,
        n: u32,
    ) -> Result<TopLogprobs, SampleError> {
        let logits = known(logits, self.vocabulary())?;
        let (_, best) = largest(logits).ok_or(SampleError::NothingLeft)?;
        let ln_total = logits
            .iter()
            .map(|logit| (f64::from(*logit) - f64::from(best)).exp())
            .sum::<f64>()
            .ln();
        let logprob = |logit: f32| f64::from(logit) - f64::from(best) - ln_total;

        let &logit = logits
            .get(chosen as usize)
            .ok_or(SampleError::UnknownToken { id: chosen })?;
        let chosen = TokenLogprob {
            id: chosen,
            logprob: logprob(logit),
        };
        let mut top = Vec::new();
        if n > 0 {
            let mut kept = Vec::new();
            top_k(logits, n, &mut kept, &mut Vec::new());
            // A stable sort of what is in order of ids.
            kept.sort_by(|a, b| {
                b.logit
                    .partial_cmp(&a.logit)
                    .unwrap_or(std::cmp::Ordering::Equal)
            });
            kept.truncate(n as usize);
            top.extend(kept.iter().map(|c| TokenLogprob {
                id: c.id,
                logprob: logprob(c.logit),
            }));
        }
        Ok(TopLogprobs { chosen, top })
    }

    /// How sure the model is of its next token.
    ///
    /// # Errors
    /// No id is left, or a logit is not a number.
    pub fn confidence(&self, logits: &[f32]) -> Result<Confidence, SampleError> {
        let logits = known(logits, self.vocabulary())?;
        let (id, best) = largest(logits).ok_or(SampleError::NothingLeft)?;
        let (mut total, mut below) = (0.0, 0.0);
        for &logit in logits.iter().filter(|logit| **logit > f32::NEG_INFINITY) {
            let distance = f64::from(best) - f64::from(logit);
            let weight = (-distance).exp();
            total += weight;
            below += weight * distance;
        }
        Ok(Confidence {
            top1: 1.0 / total,
            entropy: total.ln() + below / total,
            margin: f64::from(best) - f64::from(second_largest(logits, id)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::SamplingParams;

    fn sampler(vocabulary: u32) -> Sampler {
        // Parameters that must not matter.
        let params = SamplingParams {
            temperature: 0.1,
            top_k: Some(1),
            ..SamplingParams::default()
        };
        Sampler::new(params, vocabulary, &[]).unwrap()
    }

    #[test]
    fn logprobs_are_of_the_raw_logits() {
        let logits = [0.0, 4.0_f32.ln(), 0.0, f32::NEG_INFINITY, 99.0];
        let got = sampler(4).top_logprobs(&logits, 2, 3).unwrap();
        let sixth = (1.0_f64 / 6.0).ln();
        assert!((got.chosen.logprob - sixth).abs() < 1e-7);
        assert_eq!(got.top.iter().map(|t| t.id).collect::<Vec<_>>(), [1, 0, 2]);
        assert!((got.top[0].logprob - (4.0_f64 / 6.0).ln()).abs() < 1e-7);
        assert_eq!(sampler(4).top_logprobs(&logits, 1, 2).unwrap().top.len(), 2);
        assert_eq!(
            sampler(4)
                .top_logprobs(&logits, 3, 0)
                .unwrap()
                .chosen
                .logprob,
            f64::NEG_INFINITY
        );
        assert_eq!(
            sampler(4).top_logprobs(&logits, 4, 0),
            Err(SampleError::UnknownToken { id: 4 })
        );
    }

    #[test]
    fn confidence_of_known_distributions() {
        let even = sampler(8).confidence(&[1.0; 8]).unwrap();
        assert!((even.top1 - 0.125).abs() < 1e-12 && (even.entropy - 8.0_f64.ln()).abs() < 1e-12);
        assert_eq!(even.margin, 0.0);
        let sure = sampler(2).confidence(&[0.0, f32::NEG_INFINITY]).unwrap();
        assert_eq!(
            (sure.top1, sure.entropy, sure.margin),
            (1.0, 0.0, f64::INFINITY)
        );
        assert_eq!(
            sampler(1).confidence(&[f32::NEG_INFINITY]),
            Err(SampleError::NothingLeft)
        );
    }
}
