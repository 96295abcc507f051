//! Models that are functions of the prefix.

use msao_core::sampling::{Sampler, SamplingParams, Scratch};

use super::rng::{mix, unit};

/// Ids of a toy tokenizer; the last one ends the sequence.
pub const VOCABULARY: u32 = 12;
pub const END: u32 = VOCABULARY - 1;

/// A target and what drafts for it.
#[derive(Clone, Debug)]
pub struct Toy {
    pub key: u64,
    pub target: Target,
    pub drafter: Drafter,
}

#[derive(Clone, Debug)]
pub enum Target {
    /// Logits from the prefix, chosen by the coupled sampler.
    Sampled(SamplingParams),
    /// A hash of the prefix' end that never ends the sequence: for long answers.
    Hashed,
}

#[derive(Clone, Copy, Debug)]
pub enum Drafter {
    /// Says what the target says.
    Perfect,
    /// The target's logits and so much noise on them, by the same sampler.
    Noisy(f64),
    /// Says what the target says with this probability, else never.
    Coin(f64),
    /// Knows nothing of the target.
    Unrelated,
}

fn hash(key: u64, prefix: &[u32]) -> u64 {
    let tail = prefix.iter().rev().take(3);
    let seed = mix(key ^ prefix.len() as u64);
    tail.fold(seed, |hash, &id| mix(hash ^ u64::from(id) ^ 0x51ed))
}

fn logits(key: u64, prefix: &[u32]) -> Vec<f32> {
    let seed = hash(key, prefix);
    let logit = |id: u32| {
        let even = 5.0 * unit(mix(seed ^ (u64::from(id) << 32))) as f32;
        // Answers of some thirty tokens.
        if id == END { even - 1.5 } else { even }
    };
    (0..VOCABULARY).map(logit).collect()
}

fn sample(params: &SamplingParams, logits: &[f32], prefix: &[u32]) -> u32 {
    let mut sampler = Sampler::new(params.clone(), VOCABULARY, &[]).unwrap();
    prefix.iter().for_each(|&id| sampler.commit(id));
    let index = prefix.len() as u32;
    let pick = sampler.pick(logits, index, None, &mut Scratch::default());
    pick.unwrap().id
}

impl Toy {
    /// The target's choice behind a prefix.
    pub fn target(&self, prefix: &[u32]) -> u32 {
        match &self.target {
            Target::Sampled(params) => sample(params, &logits(self.key, prefix), prefix),
            Target::Hashed => (hash(self.key, prefix) % u64::from(END)) as u32,
        }
    }

    /// The drafter's choice behind a prefix.
    pub fn draft(&self, prefix: &[u32]) -> u32 {
        match (self.drafter, &self.target) {
            (Drafter::Perfect, _) => self.target(prefix),
            (Drafter::Noisy(sd), Target::Sampled(params)) => {
                let mut own = logits(self.key, prefix);
                let noise = logits(self.key ^ 77, prefix);
                for (own, noise) in own.iter_mut().zip(noise) {
                    *own += sd as f32 * (noise - 2.5);
                }
                sample(params, &own, prefix)
            }
            (Drafter::Coin(p), _) => {
                let right = self.target(prefix);
                if unit(hash(self.key ^ 99, prefix)) < p {
                    right
                } else {
                    (right + 1) % END
                }
            }
            _ => (hash(self.key ^ 55, prefix) % u64::from(VOCABULARY)) as u32,
        }
    }

    /// The target's own answer behind a prefix, and whether it ends by itself.
    pub fn answer(&self, prefix: &[u32], max_tokens: usize) -> (Vec<u32>, bool) {
        let mut ids = prefix.to_vec();
        while ids.len() < max_tokens {
            match self.target(&ids) {
                END => return (ids, true),
                id => ids.push(id),
            }
        }
        (ids, false)
    }
}
