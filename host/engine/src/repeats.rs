//! Which temporal patches of a clip and which chunks of a sound are encoded, and whose features the others take.
//!
//! The encoders attend within such a segment alone: a vision block within a temporal patch or a window of it, an audio
//! layer within a chunk. Rows and columns begin anew in each, and so do the audio's positions. What comes out for a segment
//! is a function of its own values, so that segments with the same values to the bit are encoded once and the others take
//! copies. That holds for every model and changes no result but by what the number of rows changes in libtorch's own
//! products.
//!
//! Where an operator allows it, near duplicates among temporal patches take their predecessor's features too
//! ([`crate::NearDuplicates`]). Each is held against the temporal patch that was really encoded, never against one that was
//! itself passed over: a slow drift ends in a patch of its own. Tokens, and where they stand, are the same whatever is
//! passed over.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use msao_core::chat::Modality;
use msao_core::inputs::{Grid, ModelInputs};

use crate::config::{ModelConfig, VisionConfig};
use crate::error::Result;
use crate::near::{Judge, NearDuplicates};
use crate::prompt::{Item, patch_values};

/// Values of a run of a segment that are looked at first: segments that differ nearly always differ in these.
const SAMPLED: usize = 64;

/// What is encoded of a medium in segments of equal size, of which some repeat others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repeats {
    /// Segments that are encoded, by number, rising.
    encoded: Vec<usize>,
    /// For each segment the place in `encoded` of the one whose features it takes.
    source: Vec<usize>,
    /// Whether one of them is not equal to that one to the bit.
    near: bool,
}

impl Repeats {
    /// Of one medium of a prompt; `None` where each segment is encoded by itself. A sound's are found by its encoder.
    pub fn of(
        config: &ModelConfig,
        inputs: &ModelInputs,
        item: &Item,
        near: Option<&NearDuplicates>,
    ) -> Result<Option<Repeats>> {
        if item.modality != Modality::Video {
            return Ok(None);
        }
        let (values, grid) = patch_values(inputs, item)?;
        Ok(Repeats::of_clip(values, grid, &config.vision, near))
    }

    /// Of a clip: `values` of its patches, one temporal patch after the other.
    pub fn of_clip(
        values: &[f32],
        grid: Grid,
        config: &VisionConfig,
        near: Option<&NearDuplicates>,
    ) -> Option<Repeats> {
        let size = values.len().checked_div(grid.t)?;
        if grid.t < 2 || size == 0 || size * grid.t != values.len() {
            return None;
        }
        let patch = move |number: usize| {
            let range = number * size..(number + 1) * size;
            values.get(range).unwrap_or_default()
        };
        let mut judge = near.map(|near| Judge::new(near, grid, config));
        // Of the segments with the same values the one that was encoded, by the first of them.
        let mut holders: Vec<Option<usize>> = vec![None; grid.t];
        let mut owners: Vec<usize> = Vec::with_capacity(grid.t);
        let mut merged = false;
        let firsts = firsts(grid.t, move |number| std::iter::once(patch(number)));
        for (number, first) in firsts.into_iter().enumerate() {
            let Some(holder) = holders.get_mut(first) else {
                continue;
            };
            let owner = match *holder {
                Some(same) => same,
                None => {
                    let last = owners.last().copied().filter(|&last| {
                        let pair = ((last, patch(last)), (number, patch(number)));
                        (judge.as_mut()).is_some_and(|judge| judge.alike(pair.0, pair.1))
                    });
                    merged |= last.is_some();
                    if last.is_none() {
                        *holder = Some(number);
                    }
                    last.unwrap_or(number)
                }
            };
            owners.push(owner);
        }
        Repeats::new(&owners, merged)
    }

    /// Of the first `count` chunks of a sound, `length` frames each; `sound`: `[bins, frames]`. Exact ones alone.
    pub fn of_sound(sound: &[f32], frames: usize, length: usize, count: usize) -> Option<Repeats> {
        if count < 2 || length == 0 {
            return None;
        }
        let chunk = move |number: usize| {
            let range = number * length..(number + 1) * length;
            let rows = sound.chunks(frames.max(1));
            rows.map(move |row| row.get(range.clone()).unwrap_or_default())
        };
        Repeats::new(&firsts(count, chunk), false)
    }

    /// `owners`: for each segment the one whose features it takes, itself or an earlier one that takes its own.
    fn new(owners: &[usize], near: bool) -> Option<Repeats> {
        let mut encoded = Vec::new();
        let mut places = vec![0; owners.len()];
        let mut source = Vec::with_capacity(owners.len());
        for (segment, &owner) in owners.iter().enumerate() {
            if owner == segment
                && let Some(place) = places.get_mut(segment)
            {
                *place = encoded.len();
                encoded.push(segment);
            }
            source.push(places.get(owner).copied().unwrap_or(0));
        }
        (encoded.len() < owners.len()).then_some(Repeats {
            encoded,
            source,
            near,
        })
    }

    /// Segments that are encoded.
    pub fn encoded(&self) -> &[usize] {
        &self.encoded
    }

    /// For each segment the place among those encoded of the one whose features it takes.
    pub fn source(&self) -> &[usize] {
        &self.source
    }

    /// Whether near duplicates were passed over, so that features are not those of the values alone.
    pub fn merges_near(&self) -> bool {
        self.near
    }

    /// What is encoded of a clip, and its extent.
    pub fn gather(&self, values: &[f32], grid: Grid) -> (Vec<f32>, Grid) {
        let size = values.len() / grid.t.max(1);
        let parts = self.encoded.iter().map(|number| {
            let range = number * size..(number + 1) * size;
            values.get(range).unwrap_or_default()
        });
        let gathered = parts.collect::<Vec<_>>().concat();
        let t = self.encoded.len();
        (gathered, Grid { t, ..grid })
    }

    /// For each row of all segments, `rows` a segment, the row of the encoded ones that it takes.
    pub fn rows(&self, rows: usize) -> Vec<i64> {
        let each = |&place: &usize| (place * rows) as i64..((place + 1) * rows) as i64;
        self.source.iter().flat_map(each).collect()
    }

    /// Gives the entries of segments that repeat another those of that one, in a list with the same number of entries a
    /// segment: products of equal rows may differ in their last bit.
    pub fn level(&self, values: &mut [f32]) {
        let each = values.len() / self.source.len().max(1);
        for (segment, &place) in self.source.iter().enumerate() {
            if let Some(&from) = self.encoded.get(place)
                && from != segment
            {
                values.copy_within(from * each..(from + 1) * each, segment * each);
            }
        }
    }
}

/// For each segment the first with the same values to the bit: itself, where no earlier one has them. `values`: of a
/// segment by number, in runs.
fn firsts<'a, I>(count: usize, values: impl Fn(usize) -> I) -> Vec<usize>
where
    I: Iterator<Item = &'a [f32]>,
{
    // Keyed anew each time: nobody can prepare segments that collide.
    let keys = RandomState::new();
    let sampled: Vec<u64> = (0..count)
        .map(|number| {
            let mut hasher = keys.build_hasher();
            for run in values(number) {
                let step = run.len().div_ceil(SAMPLED).max(1);
                let few = run.iter().step_by(step);
                few.for_each(|value| hasher.write_u32(value.to_bits()));
            }
            hasher.finish()
        })
        .collect();
    let mut alike: HashMap<u64, usize> = HashMap::new();
    for sample in &sampled {
        *alike.entry(*sample).or_default() += 1;
    }
    let mut seen: HashMap<u64, usize> = HashMap::new();
    let first = |(number, sample): (usize, &u64)| {
        if alike.get(sample) == Some(&1) {
            return number;
        }
        let mut hasher = keys.build_hasher();
        values(number).for_each(|run| feed(&mut hasher, run));
        let first = *seen.entry(hasher.finish()).or_insert(number);
        let mut runs = values(first).zip(values(number));
        if runs.all(|(a, b)| same(a, b)) {
            first
        } else {
            number
        }
    };
    sampled.iter().enumerate().map(first).collect()
}

/// Through a small buffer: hashing value by value would spend its time on calls.
fn feed(hasher: &mut impl Hasher, values: &[f32]) {
    let mut buffer = [0u8; 4096];
    for chunk in values.chunks(buffer.len() / 4) {
        for (slot, value) in buffer.chunks_exact_mut(4).zip(chunk) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        hasher.write(buffer.get(..4 * chunk.len()).unwrap_or_default());
    }
}

fn same(a: &[f32], b: &[f32]) -> bool {
    let pairs = || a.iter().zip(b);
    a.len() == b.len() && pairs().all(|(a, b)| a.to_bits() == b.to_bits())
}

#[cfg(test)]
mod tests;
