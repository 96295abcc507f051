//! What is known of an item, and how unusual it is.
//!
//! An item has six traits: the logarithm of its relevance beside what it would draw anyway, its spatial and temporal
//! sparsity, the logarithm of its number of tokens, how much its features point the same way, and the logarithm of its mean
//! saliency. For each modality and trait there is a calibration cell, number `8 * modality + trait`, whose mean and variance follow the traffic.
//!
//! **Unusual** is `1 - n / (n + prior) * exp(-d / 8)`, with `n` items seen and `d` the mean over the traits of the squared
//! distance from their mean, in variances: near 0 for what is seen all the time, 0.4 at two standard deviations, 1 far
//! away or where nothing was seen.

use alloc::vec::Vec;

use msao_plugin::sparsity::Sparsity;
use msao_plugin::{Calibration, Cell, ItemView, Update, math};

use crate::Settings;

const TRAITS: usize = 6;
/// Keys of a modality's cells.
const PER_MODALITY: u32 = 8;
/// The trait that necessity goes by.
pub(crate) const RELEVANCE: usize = 0;

/// Logarithms of relevance and saliency are held within this; the probe cannot tell more.
const MAX_LOG: f64 = 10.0;
/// Share of attention towards which that of a content-free text is drawn.
const ANYWAY: f64 = 0.5;
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
    /// `columns`: its features of length 1, a column a dimension; `content_free`: how far a content-free text is believed.
    pub(crate) fn of(
        view: &ItemView,
        sparsity: &Sparsity,
        columns: &[Vec<f32>],
        content_free: f64,
    ) -> Traits {
        let item = view.item;
        let modality = match item.modality {
            modality if modality < MODALITIES => modality,
            _ => msao_plugin::modality::IMAGE,
        };
        // What is no number stays none.
        let log = |value: f64| math::ln(value).clamp(-MAX_LOG, MAX_LOG);
        let tokens = f64::from(item.tokens.max(1));
        let saliency = sum(view.saliency);
        let of_nothing = sum(view.baseline);
        // 0 where no content-free text was looked at: then relevance is what there is.
        let drawn = if of_nothing > 0.0 {
            (1.0 - content_free) * math::ln(of_nothing / ANYWAY)
        } else {
            0.0
        };
        Traits {
            modality,
            values: [
                (math::ln(item.relevance) + drawn).clamp(-MAX_LOG, MAX_LOG),
                sparsity.spatial,
                sparsity.temporal,
                math::ln(tokens),
                coherence(columns, tokens),
                log(saliency / tokens),
            ],
        }
    }

    pub(crate) fn modality(&self) -> u8 {
        self.modality
    }

    /// NaN where it could not be measured.
    pub(crate) fn log_relevance(&self) -> f64 {
        let [log_relevance, ..] = self.values;
        log_relevance
    }

    /// Whether every trait could be measured.
    pub(crate) fn is_measured(&self) -> bool {
        self.values.iter().all(|value| value.is_finite())
    }

    pub(crate) fn key(&self, number: usize) -> u32 {
        u32::from(self.modality) * PER_MODALITY + number as u32
    }

    pub(crate) fn unusual(&self, calibration: &Calibration, settings: &Settings) -> f64 {
        let (mut distance, mut count) = (0.0, f64::INFINITY);
        for (number, value) in self.values.into_iter().enumerate() {
            let Some(cell) = calibration.get(self.key(number)) else {
                return 1.0;
            };
            distance += apart(value, &cell, MIN_VARIANCE) / TRAITS as f64;
            count = cell.count.min(count);
        }
        unfamiliar(sure(count, settings.prior), distance)
    }

    /// What this item teaches; nothing where one of its traits could not be measured.
    pub(crate) fn updates(&self, weight: f64) -> impl Iterator<Item = Update> {
        let measured = self.is_measured();
        let keys = (0..TRAITS).map(|number| self.key(number));
        let samples = keys.zip(self.values).filter(move |_| measured);
        samples.map(move |(key, value)| Update::sample(key, value, weight))
    }
}

/// Squared distance of a value from a cell's mean, in its variances, which count as `least` or more.
pub(crate) fn apart(value: f64, cell: &Cell, least: f64) -> f64 {
    let apart = value - cell.mean;
    apart * apart / cell.variance.max(least)
}

/// How familiar something is that was seen so many times, in `[0, 1)`.
pub(crate) fn sure(count: f64, prior: f64) -> f64 {
    let count = count.max(0.0);
    count / (count + prior)
}

/// How unusual something is that lies so far from what is so familiar. 1 where that is no number.
pub(crate) fn unfamiliar(familiar: f64, distance: f64) -> f64 {
    let familiar = familiar * math::exp(-distance / 8.0);
    if familiar.is_nan() {
        1.0
    } else {
        (1.0 - familiar).clamp(0.0, 1.0)
    }
}

/// Four sums at once: one alone would wait for each addition.
fn sum(values: &[f32]) -> f64 {
    let mut sums = [0.0_f64; 4];
    for four in values.chunks(4) {
        for (sum, value) in sums.iter_mut().zip(four) {
            *sum += f64::from(*value);
        }
    }
    sums.into_iter().sum()
}

/// Length of the mean of features of length 1, in [0, 1]: 1 where all point the same way, near 0 for noise.
fn coherence(columns: &[Vec<f32>], tokens: f64) -> f64 {
    let squares = columns.iter().map(|column| {
        let mean = sum(column) / tokens;
        mean * mean
    });
    math::sqrt(squares.sum()).clamp(0.0, 1.0)
}
