//! Draws of questions that a seed alone decides.

use std::collections::BTreeMap;

use msao_core::sampling::philox4x32_10;
use thiserror::Error;

use crate::item::{Item, Mix, Reference};

/// Why a draw is not possible.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum SampleError {
    /// The workload's description does not hold together.
    #[error("workload.{field}: {problem}")]
    Workload {
        /// Which field.
        field: &'static str,
        /// What is wrong and what is allowed.
        problem: String,
    },
    /// There are too few questions of a sort.
    #[error(
        "{need} {length} questions of the mix {mix} are needed and there are {have}: make a larger set (models/recipe/data.py \
         --scale), ask for fewer, or allow repeats"
    )]
    Few {
        /// The mix.
        mix: Mix,
        /// `short` or `long`.
        length: &'static str,
        /// As many as the draw needs.
        need: usize,
        /// As many as there are.
        have: usize,
    },
}

/// What was drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Places in the list that was drawn from, in the order to ask in.
    pub places: Vec<usize>,
    /// How many of them had come before. Their prompts may be in caches.
    pub repeats: usize,
}

/// How many questions of which sort a workload has.
///
/// Classes have equal parts. The long answers come in equal parts from the classes that have any (text alone has none in the
/// demo world), so with the defaults: text 25% short; image, video and audio each 11.7% short and 13.3% long.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// The mixes of media, in equal parts.
    pub mixes: Vec<Mix>,
    /// The share of long answers, in `[0, 1]`.
    pub long_share: f64,
    /// Whether a question may come again once all of its sort have been.
    pub repeats: bool,
}

impl Default for Workload {
    /// The mixed workload: 60% short answers and 40% long ones; image, video, audio and text alone in equal parts.
    fn default() -> Workload {
        Workload {
            mixes: vec![Mix::IMAGE, Mix::VIDEO, Mix::AUDIO, Mix::TEXT],
            long_share: 0.4,
            repeats: true,
        }
    }
}

impl Workload {
    /// Draws `count` items of this workload, in a random order. Only mixes seen in training are drawn from.
    ///
    /// # Errors
    /// The shares cannot be had together, or there are too few items of a sort.
    pub fn draw(&self, items: &[Item], count: usize, seed: u64) -> Result<Sample, SampleError> {
        let wrong = |field, problem: String| SampleError::Workload { field, problem };
        let mut unique = self.mixes.clone();
        unique.sort_unstable();
        unique.dedup();
        if unique.is_empty() || unique.len() != self.mixes.len() {
            return Err(wrong("mixes", "name one or more, each once".into()));
        }
        if !(0.0..=1.0).contains(&self.long_share) {
            let problem = format!("{} is not in 0 to 1", self.long_share);
            return Err(wrong("long_share", problem));
        }
        let mut cells: BTreeMap<(Mix, bool), Vec<usize>> = BTreeMap::new();
        for (place, item) in items.iter().enumerate().filter(|(_, item)| item.seen_mix) {
            cells.entry((item.mix, item.long)).or_default().push(place);
        }
        let part = 1.0 / self.mixes.len() as f64;
        let describing = unique
            .iter()
            .filter(|mix| cells.contains_key(&(**mix, true)))
            .count();
        let long_part = match describing {
            0 => 0.0,
            some => self.long_share / some as f64,
        };
        if self.long_share > 0.0 && (describing == 0 || long_part > part + 1e-9) {
            let problem = format!(
                "{} cannot be had: of {} mixes in equal parts {describing} have long answers",
                self.long_share,
                self.mixes.len()
            );
            return Err(wrong("long_share", problem));
        }
        let mut wanted: Vec<((Mix, bool), f64)> = Vec::new();
        for mix in unique {
            let long = if cells.contains_key(&(mix, true)) {
                long_part
            } else {
                0.0
            };
            wanted.push(((mix, false), (part - long).max(0.0)));
            wanted.push(((mix, true), long));
        }
        let shares: Vec<f64> = wanted.iter().map(|(_, share)| *share).collect();
        let counts = apportion(&shares, count);
        let mut random = Random::new(seed);
        let mut sample = Sample {
            places: Vec::with_capacity(count),
            repeats: 0,
        };
        for (((mix, long), _), need) in wanted.into_iter().zip(counts) {
            let mut deck = cells.remove(&(mix, long)).unwrap_or_default();
            let have = deck.len();
            if need > have && (!self.repeats || have == 0) {
                let length = if long { "long" } else { "short" };
                return Err(SampleError::Few {
                    mix,
                    length,
                    need,
                    have,
                });
            }
            let mut left = need;
            while left > 0 {
                random.shuffle(&mut deck);
                sample.places.extend(deck.iter().take(left));
                left = left.saturating_sub(have);
            }
            sample.repeats += need.saturating_sub(have);
        }
        random.shuffle(&mut sample.places);
        Ok(sample)
    }
}

/// Draws about `count` items, none twice, with the shares of mixes, lengths and kinds that the whole list has, in a random order.
/// Rotations of a multiple-choice question come together or not at all, so there can be a few more than `count`; of fewer items,
/// all.
pub fn proportional(items: &[Item], count: usize, seed: u64) -> Sample {
    let mut random = Random::new(seed);
    // A unit is what must stay together.
    let mut units: BTreeMap<(&str, bool, u64), Vec<usize>> = BTreeMap::new();
    for (place, item) in items.iter().enumerate() {
        let (choice, id) = match &item.reference {
            Reference::Choice(choice) => (true, choice.group),
            _ => (false, item.id),
        };
        units
            .entry((&item.set, choice, id))
            .or_default()
            .push(place);
    }
    let mut strata: BTreeMap<_, Vec<Vec<usize>>> = BTreeMap::new();
    for unit in units.into_values() {
        let first = unit.first().and_then(|&place| items.get(place));
        if let Some(it) = first {
            let stratum = (&it.set, it.seen_mix, it.mix, it.long, &it.kind);
            strata.entry(stratum).or_default().push(unit);
        }
    }
    let sizes = strata
        .values()
        .map(|units| units.iter().map(Vec::len).sum::<usize>() as f64);
    let counts = apportion(&sizes.collect::<Vec<f64>>(), count.min(items.len()));
    let mut places = Vec::with_capacity(count.min(items.len()));
    for (mut units, need) in strata.into_values().zip(counts) {
        random.shuffle(&mut units);
        let mut taken = 0;
        for unit in units {
            if taken >= need {
                break;
            }
            taken += unit.len();
            places.extend(unit);
        }
    }
    random.shuffle(&mut places);
    Sample { places, repeats: 0 }
}

/// Whole numbers of the sum `count` in the ratio of `shares`, by largest remainders; the earlier first where they are equal.
fn apportion(shares: &[f64], count: usize) -> Vec<usize> {
    let sum: f64 = shares.iter().sum();
    let exact = |share: &f64| {
        // So that a third of 300 is 100, whichever way its sum was rounded.
        let exact = share / sum.max(f64::MIN_POSITIVE) * count as f64;
        (exact * 1e6).round() / 1e6
    };
    let mut counts: Vec<usize> = shares.iter().map(|share| exact(share) as usize).collect();
    let mut order: Vec<(usize, f64)> = shares
        .iter()
        .map(|share| exact(share).fract())
        .enumerate()
        .collect();
    order.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let mut left = count.saturating_sub(counts.iter().sum());
    order.retain(|(place, _)| shares.get(*place) > Some(&0.0));
    for (place, _) in order {
        if left == 0 {
            break;
        }
        if let Some(it) = counts.get_mut(place) {
            *it += 1;
            left -= 1;
        }
    }
    counts
}

/// Numbers that are the same on every machine.
struct Random {
    seed: u64,
    place: u64,
}

impl Random {
    fn new(seed: u64) -> Random {
        Random { seed, place: 0 }
    }

    /// Of the whole numbers below `count`, which is at least 1: the high half of a product (D. Lemire, 2019), whose bias is
    /// below `count / 2^64`.
    fn below(&mut self, count: usize) -> usize {
        let counter = [self.place as u32, (self.place >> 32) as u32, 0, 0];
        self.place += 1;
        let [low, high, ..] = philox4x32_10(counter, [self.seed as u32, (self.seed >> 32) as u32]);
        let word = u64::from(low) | u64::from(high) << 32;
        ((u128::from(word) * count as u128) >> 64) as usize
    }

    /// Fisher and Yates.
    fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            let other = self.below(last + 1);
            all.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests;
