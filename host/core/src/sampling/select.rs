//! Top-k and top-p without sorting the vocabulary.

use std::cmp::Ordering;

/// An id that is still in the running.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Candidate {
    pub id: u32,
    /// The logit after bias and penalties, before `/T`; finite.
    pub logit: f32,
    /// `exp((logit - largest logit) / T)`: the probability, not yet normalised.
    pub weight: f64,
}

/// Largest logit first, then lowest id. Logits are never NaN; -0 equals 0.
fn rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit
        .partial_cmp(&a.logit)
        .unwrap_or(Ordering::Equal)
        .then(a.id.cmp(&b.id))
}

/// The exponent from which on a weight is taken to be 0.
pub(super) const NO_WEIGHT: f64 = -100.0;

/// What turns logits into weights.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// The largest logit.
    pub largest: f32,
    /// Above 0.
    pub temperature: f64,
}

impl Scale {
    /// `(logit - largest) / T`, at most 0.
    pub(super) fn exponent(&self, logit: f32) -> f64 {
        (f64::from(logit) - f64::from(self.largest)) / self.temperature
    }

    /// The exponential of that. Below exp(-100) it is 0: all ids of any vocabulary together would not change the
    /// last digit of a sum that holds the largest weight, 1.
    pub(super) fn weight(&self, logit: f32) -> f64 {
        let exponent = self.exponent(logit);
        if exponent > NO_WEIGHT {
            exponent.exp()
        } else {
            0.0
        }
    }
}

/// Ids in rising order with their logits and weights, as three slices of one length; the logits of masked ids are
/// minus infinity. (Slices, because chains of iterator adapters over a vocabulary are not compiled into one loop.)
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    pub ids: &'a [u32],
    pub logits: &'a [f32],
    pub weights: &'a [f64],
}

impl Field<'_> {
    /// Cut into pieces of `length` ids; the last may be shorter.
    pub(super) fn blocks(&self, length: usize) -> impl Iterator<Item = Field<'_>> {
        let values = self.logits.chunks(length).zip(self.weights.chunks(length));
        self.ids
            .chunks(length)
            .zip(values)
            .map(|(ids, (logits, weights))| Field {
                ids,
                logits,
                weights,
            })
    }

    pub(super) fn each(&self) -> impl Iterator<Item = Candidate> {
        let values = self.logits.iter().zip(self.weights);
        self.ids
            .iter()
            .zip(values)
            .map(|(&id, (&logit, &weight))| Candidate { id, logit, weight })
    }
}

/// The last candidate that top-p keeps: what ranks behind it is out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Border {
    logit: f32,
    id: u32,
}

impl Border {
    /// Lets everything through that is not masked.
    pub(super) const OPEN: Self = Self {
        logit: f32::MIN,
        id: u32::MAX,
    };

    #[inline]
    pub(super) fn admits(&self, candidate: &Candidate) -> bool {
        candidate.logit > self.logit || (candidate.logit == self.logit && candidate.id <= self.id)
    }
}

/// The ids whose logit is not below the `k`-th largest, in order of ids: `k` of them, more where ids tie for the last
/// place, fewer where fewer are unmasked. (`TopKLogitsWarper` of Hugging Face.)
///
/// One pass keeps what is not below a rising bar. Each time twice as many have gathered as were left before, the
/// bar rises to their `k`-th largest, so the work is proportional to the vocabulary whatever the order.
pub(super) fn top_k(logits: &[f32], k: u32, kept: &mut Vec<Candidate>, values: &mut Vec<f32>) {
    let k = k as usize;
    let mut bar = f32::MIN;
    let mut limit = k.saturating_mul(2).max(256);
    kept.clear();
    for (id, &logit) in (0..).zip(logits) {
        if logit >= bar {
            kept.push(Candidate {
                id,
                logit,
                weight: 0.0,
            });
            if kept.len() >= limit {
                bar = raise(k, kept, values);
                limit = limit.max(kept.len().saturating_mul(2));
            }
        }
    }
    raise(k, kept, values);
}

/// Drops what is below the `k`-th largest and returns that.
fn raise(k: usize, kept: &mut Vec<Candidate>, values: &mut Vec<f32>) -> f32 {
    if kept.len() <= k || k == 0 {
        return f32::MIN;
    }
    values.clear();
    values.extend(kept.iter().map(|candidate| candidate.logit));
    let (_, &mut bar, _) =
        values.select_nth_unstable_by(k - 1, |a, b| b.partial_cmp(a).unwrap_or(Ordering::Equal));
    kept.retain(|candidate| candidate.logit >= bar);
    bar
}

/// Space for [`top_p`].
#[derive(Clone, Debug, Default)]
pub(super) struct Nucleus {
    mass: Vec<f64>,
    border: Vec<Candidate>,
}

/// 64 buckets a nat: fine enough that few ids share the one that is sorted.
const BUCKETS_PER_NAT: f64 = 64.0;
const BUCKETS: usize = 4096;

/// Finds the fewest candidates, best ranked first, whose weights sum to at least `p * total`, always one, and
/// returns the last of them. (`TopPLogitsWarper` of Hugging Face.)
///
/// Weights are first added up by bucket of logit; only the bucket in which the sum is reached is sorted.
pub(super) fn top_p(
    field: Field<'_>,
    scale: Scale,
    p: f64,
    total: f64,
    nucleus: &mut Nucleus,
) -> Border {
    let per_logit = BUCKETS_PER_NAT / scale.temperature;
    let bucket = |candidate: &Candidate| {
        let below = f64::from(scale.largest) - f64::from(candidate.logit);
        ((below * per_logit) as usize).min(BUCKETS - 1)
    };
    let Nucleus { mass, border } = nucleus;
    mass.clear();
    mass.resize(BUCKETS, 0.0);
    for candidate in field.each() {
        if let Some(mass) = mass.get_mut(bucket(&candidate)) {
            *mass += candidate.weight;
        }
    }

    let wanted = p * total;
    let mut sum = 0.0;
    let mut last_bucket = BUCKETS - 1;
    for (index, mass) in mass.iter().enumerate() {
        if sum + mass >= wanted {
            last_bucket = index;
            break;
        }
        sum += mass;
    }
    if last_bucket == BUCKETS - 1 {
        // The bucket of all that is far below; what was added of it above does not count yet.
        sum = mass.iter().take(last_bucket).sum();
    }

    border.clear();
    for candidate in field.each() {
        if bucket(&candidate) == last_bucket && Border::OPEN.admits(&candidate) {
            border.push(candidate);
        }
    }
    border.sort_unstable_by(rank);
    let reached = border.iter().find(|candidate| {
        sum += candidate.weight;
        sum >= wanted
    });
    // Rounding can leave the sum just below `wanted`: then the whole bucket stays.
    reached
        .or(border.last())
        .map_or(Border::OPEN, |last| Border {
            logit: last.logit,
            id: last.id,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(kept: &[Candidate]) -> Vec<u32> {
        kept.iter().map(|candidate| candidate.id).collect()
    }

    fn kept_by_top_k(logits: &[f32], k: u32) -> Vec<u32> {
        let mut kept = Vec::new();
        top_k(logits, k, &mut kept, &mut Vec::new());
        ids(&kept)
    }

    fn kept_by_top_p(logits: &[f32], temperature: f64, p: f64) -> Vec<u32> {
        let largest = logits.iter().copied().fold(f32::MIN, f32::max);
        let scale = Scale {
            largest,
            temperature,
        };
        let weights: Vec<f64> = logits.iter().map(|logit| scale.weight(*logit)).collect();
        let all: Vec<u32> = (0..logits.len() as u32).collect();
        let field = Field {
            ids: &all,
            logits,
            weights: &weights,
        };
        let border = top_p(
            field,
            scale,
            p,
            weights.iter().sum(),
            &mut Nucleus::default(),
        );
        ids(&field
            .each()
            .filter(|candidate| border.admits(candidate))
            .collect::<Vec<_>>())
    }

    #[test]
    fn top_k_keeps_ties_for_the_last_place() {
        assert_eq!(kept_by_top_k(&[1.0, 3.0, 2.0, 2.0, 0.0], 2), [1, 2, 3]);
        assert_eq!(kept_by_top_k(&[1.0, 3.0, 2.0, 2.0, 0.0], 3), [1, 2, 3]);
        assert_eq!(kept_by_top_k(&[1.0, f32::NEG_INFINITY], 9), [0]);
        assert_eq!(kept_by_top_k(&[0.0; 1000], 1).len(), 1000);
    }

    #[test]
    fn top_k_in_every_order() {
        let rising: Vec<f32> = (0..5000).map(|id| id as f32).collect();
        assert_eq!(kept_by_top_k(&rising, 3), [4997, 4998, 4999]);
        let falling: Vec<f32> = (0..5000).map(|id| -id as f32).collect();
        assert_eq!(kept_by_top_k(&falling, 3), [0, 1, 2]);
        let mixed: Vec<f32> = (0..5000_u32).map(|id| (id * 2017 % 5003) as f32).collect();
        let mut sorted = mixed.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let expected: Vec<u32> = (0..5000)
            .filter(|&id| mixed[id as usize] >= sorted[599])
            .collect();
        assert_eq!(kept_by_top_k(&mixed, 600), expected);
    }

    #[test]
    fn top_p_keeps_the_fewest_that_suffice() {
        // Probabilities 0.4, 0.4, 0.2.
        let logits = [0.0, 0.0, -std::f32::consts::LN_2];
        assert_eq!(kept_by_top_p(&logits, 1.0, 0.0), [0]);
        assert_eq!(kept_by_top_p(&logits, 1.0, 0.39), [0]);
        assert_eq!(kept_by_top_p(&logits, 1.0, 0.41), [0, 1]);
        assert_eq!(kept_by_top_p(&logits, 1.0, 0.81), [0, 1, 2]);
    }

    #[test]
    fn top_p_reaches_exactly() {
        assert_eq!(kept_by_top_p(&[0.0; 4], 1.0, 0.5), [0, 1]);
        assert_eq!(kept_by_top_p(&[0.0; 10], 1.0, 0.7), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn top_p_where_the_rest_is_far_below() {
        let mut logits = vec![-1000.0; 5000];
        logits[3] = 0.0;
        assert_eq!(kept_by_top_p(&logits, 1.0, 0.999), [3]);
        // A temperature so low that the others weigh nothing at all.
        assert_eq!(kept_by_top_p(&[0.0, 1.0, 0.9], 1e-300, 0.5), [1]);
    }
}
