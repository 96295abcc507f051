//! What a request is made of, and how unusual that is.
//!
//! **Which media, and how many.** Up to three images, clips and sounds are told apart, which makes 64 mixes; cell `64 + images +
//! 4 * clips + 16 * sounds` counts the requests of a mix. Between two mixes lies a distance of 1 for each item that one has more,
//! and 2 more for each modality that one alone has. A mix is as familiar as `max over mixes of n / (n + prior) * e^-distance`, `n` the
//! requests of each: two images are something like one, an image with a sound is hardly like either, however often
//! either was seen alone.
//!
//! **How large, and what is needed.** For each set of modalities (bits 1, 2, 4 for images, clips, sounds) there are cells, number
//! `128 + 8 * set + trait`, of the logarithm of all media tokens, and of the largest necessity among the items of each
//! modality of the set: the pattern of what requests of this kind are about.
//!
//! **Unusual** is `1 - familiar * exp(-d / 8)`, as for an item, `d` the mean squared distance of these traits from their
//! mean, in variances. For a set that was never seen `d` is 8, as far as everything lay 2.8 standard deviations away.

use msao_plugin::{Calibration, Update, math, modality};

use crate::Settings;
use crate::traits::{Traits, apart, sure, unfamiliar};

/// Images, clips, sounds.
const MODALITIES: usize = 3;
/// Items of a modality that are told apart: so many, and more.
const MOST: u32 = 3;
const MIXES: u32 = (MOST + 1).pow(MODALITIES as u32);
const FIRST_MIX: u32 = 64;
const FIRST_SET: u32 = 128;
const PER_SET: u32 = 8;
/// Distance of a set that was never seen.
const UNSEEN: f64 = 8.0;
/// Least variances, of the logarithm of tokens and of necessity: where all requests were the same, one of twice the size is
/// something else, and no more than that.
const TOKENS_VARIANCE: f64 = 0.1;
const NEED_VARIANCE: f64 = 0.01;

/// A request's media together.
#[derive(Debug, Default)]
pub(crate) struct Mix {
    items: [u32; MODALITIES],
    /// The largest necessity of each modality.
    needs: [f64; MODALITIES],
    tokens: u64,
    /// An item could not be measured.
    blind: bool,
}

impl Mix {
    pub(crate) fn add(&mut self, traits: &Traits, tokens: u32, necessity: f64) {
        let number = match traits.modality() {
            modality::VIDEO => 1,
            modality::AUDIO => 2,
            _ => 0,
        };
        if let (Some(items), Some(need)) = (self.items.get_mut(number), self.needs.get_mut(number))
        {
            *items = (*items + 1).min(MOST);
            *need = necessity.max(*need);
        }
        self.tokens = self.tokens.saturating_add(u64::from(tokens));
        self.blind |= !traits.is_measured();
    }

    pub(crate) fn unusual(&self, calibration: &Calibration, settings: &Settings) -> f64 {
        // Not a sum of requests: of these there would be enough in the end for anything to pass for familiar.
        let familiar = (0..MIXES)
            .filter_map(|mix| {
                let cell = calibration.get(FIRST_MIX + mix)?;
                let apart = distance(self.items, items_of(mix));
                Some(sure(cell.count, settings.prior) * math::exp(-apart))
            })
            .fold(0.0, f64::max);
        let (mut sum, mut traits) = (0.0, 0.0);
        for (key, value) in self.traits() {
            let least = match key % PER_SET {
                0 => TOKENS_VARIANCE,
                _ => NEED_VARIANCE,
            };
            let seen = calibration.get(key);
            sum += seen.map_or(UNSEEN, |cell| apart(value, &cell, least));
            traits += 1.0;
        }
        unfamiliar(familiar, sum / traits)
    }

    /// What this request teaches; nothing where an item of it could not be measured, or there is none.
    pub(crate) fn updates(&self, weight: f64) -> impl Iterator<Item = Update> {
        let [images, clips, sounds] = self.items;
        let mix = images + (MOST + 1) * (clips + (MOST + 1) * sounds);
        let teaches = mix > 0 && !self.blind;
        let samples = self
            .traits()
            .map(move |(key, value)| Update::sample(key, value, weight));
        core::iter::once(Update::add(FIRST_MIX + mix, 1.0))
            .chain(samples)
            .filter(move |_| teaches)
    }

    /// The cells of its set, with the request's own values.
    fn traits(&self) -> impl Iterator<Item = (u32, f64)> {
        let there = self.items.map(|items| items > 0);
        let set = (0_u32..)
            .zip(there)
            .fold(0, |set, (bit, there)| set | u32::from(there) << bit);
        let first = FIRST_SET + PER_SET * set;
        let tokens = math::ln(1.0 + self.tokens as f64);
        let needs = (first + 1..)
            .zip(self.needs)
            .zip(there)
            .filter(|(_, there)| *there);
        core::iter::once((first, tokens)).chain(needs.map(|(need, _)| need))
    }
}

/// Items of each modality in a mix, by its number.
fn items_of(mix: u32) -> [u32; MODALITIES] {
    let base = MOST + 1;
    [mix % base, mix / base % base, mix / base / base]
}

/// How far two mixes lie apart.
fn distance(one: [u32; MODALITIES], other: [u32; MODALITIES]) -> f64 {
    let of = |(one, other): (u32, u32)| {
        let alone = (one == 0) != (other == 0);
        one.abs_diff(other) + if alone { 2 } else { 0 }
    };
    f64::from(one.into_iter().zip(other).map(of).sum::<u32>())
}
