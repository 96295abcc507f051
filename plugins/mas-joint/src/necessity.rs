//! How much an item is needed, and how unusual it is.
//!
//! An item has four traits: the logarithm of its relevance, its spatial and temporal sparsity, the logarithm of its
//! number of tokens. For each modality and trait there is a calibration cell, number `4 * modality + trait`, whose mean and
//! variance follow the traffic.
//!
//! **Necessity** is `r^k / (1 + r^k)` of the relevance `r`, which is 1 for an item that gets no more attention than any text
//! would: 1/2 there, and monotone in `r`. The exponent is `k = sharpness / spread`. Models differ in how far attention
//! departs from 1 at all; `spread` is the root mean square of `ln r` over the traffic, and 1 where nothing was learned.
//!
//! **Unusual** is `1 - n / (n + prior) * exp(-d / 8)`, with `n` items seen and `d` the mean over the traits of the squared
//! distance from their mean, in variances: near 0 for what is seen all the time, 0.4 at two standard deviations, 1 far
//! away or where nothing was seen.

use msao_plugin::{Calibration, Cell, Item, Update, math};

use crate::Settings;

const TRAITS: usize = 4;
/// The trait that necessity goes by.
const RELEVANCE: usize = 0;

/// Logarithms of relevance are held within this; attention cannot tell more.
const MAX_LOG: f64 = 10.0;
/// Least root mean square of `ln r`: below it differences are noise.
const MIN_SPREAD: f64 = 0.05;
/// Least variance of a trait: traffic that never changes would else make every change infinitely unusual.
const MIN_VARIANCE: f64 = 1e-3;
/// Modalities with cells of their own; later ones are taken for the contract's default, an image.
const MODALITIES: u8 = 4;

/// What is known of an item.
pub(crate) struct Traits {
    modality: u8,
    values: [f64; TRAITS],
}

impl Traits {
    pub(crate) fn of(item: &Item, spatial: f64, temporal: f64) -> Traits {
        let modality = match item.modality {
            modality if modality < MODALITIES => modality,
            _ => msao_plugin::modality::IMAGE,
        };
        let log_relevance = match math::ln(item.relevance) {
            log if log.is_nan() => f64::NAN,
            log => log.clamp(-MAX_LOG, MAX_LOG),
        };
        let log_tokens = math::ln(f64::from(item.tokens.max(1)));
        Traits {
            modality,
            values: [log_relevance, spatial, temporal, log_tokens],
        }
    }

    fn key(&self, number: usize) -> u32 {
        u32::from(self.modality) * TRAITS as u32 + number as u32
    }

    pub(crate) fn necessity(&self, calibration: &Calibration, settings: &Settings) -> f64 {
        let log_relevance = self.values[RELEVANCE];
        if log_relevance.is_nan() {
            // What cannot be measured is kept.
            return 1.0;
        }
        let seen = calibration.get(self.key(RELEVANCE)).unwrap_or(Cell {
            mean: 0.0,
            variance: 0.0,
            count: 0.0,
        });
        let mean_square = seen.mean * seen.mean + seen.variance;
        let blended = (settings.prior + seen.count * mean_square) / (settings.prior + seen.count);
        let spread = math::sqrt(blended).max(MIN_SPREAD);
        math::logistic(settings.sharpness / spread * log_relevance)
    }

    pub(crate) fn unusual(&self, calibration: &Calibration, settings: &Settings) -> f64 {
        let (mut distance, mut count) = (0.0, f64::INFINITY);
        for (number, value) in self.values.into_iter().enumerate() {
            let Some(cell) = calibration.get(self.key(number)) else {
                return 1.0;
            };
            let apart = value - cell.mean;
            distance += apart * apart / cell.variance.max(MIN_VARIANCE) / TRAITS as f64;
            count = cell.count.min(count);
        }
        let familiar = count / (count + settings.prior) * math::exp(-distance / 8.0);
        if familiar.is_nan() {
            1.0
        } else {
            (1.0 - familiar).clamp(0.0, 1.0)
        }
    }

    /// What this item teaches; nothing where its relevance could not be measured.
    pub(crate) fn updates(&self, weight: f64) -> impl Iterator<Item = Update> {
        let measured = self.values.iter().all(|value| value.is_finite());
        (0..)
            .zip(self.values)
            .filter(move |_| measured)
            .map(move |(number, value)| Update::sample(self.key(number), value, weight))
    }
}
