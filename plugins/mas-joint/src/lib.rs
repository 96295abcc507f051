//! `mas-joint`: necessity, Modality Activation Sparsity, and a keep order that weighs saliency, relevance and diversity
//! together, and then sees to what is around.
//!
//! - [`focus`]: how much of an item can go: MAS, by how few tokens the question is about. [`Sparsity`] by the reference formulas,
//!   in space and in time, is told beside it.
//! - [`necessity`]: how much an item is needed: a monotone map of its relevance beside what it would draw anyway, whose scale is learned and whose shape is
//!   fitted to measured harm.
//! - [`traits`] and [`mix`]: how unusual an item is, and the request as a whole, beside what was seen. An item counts
//!   as unusual as the more unusual of the two.
//! - [`order`]: which tokens go last: a few by greedy determinantal selection, and an even sample of the others.

#![cfg_attr(target_arch = "wasm32", no_std)]

extern crate alloc;

mod focus;
mod mix;
mod necessity;
mod order;
mod traits;

use msao_plugin::prelude::*;
use msao_plugin::sparsity::Sparsity;

use crate::mix::Mix;
use crate::traits::Traits;

parameters! {
    /// In the manifest's order.
    pub(crate) struct Settings {
        tau_t: f64,
        sharpness: f64,
        greedy: u32,
        ridge: f64,
        salience: f64,
        pointed: f64,
        prior: f64,
        weight: f64,
        content_free: f64,
        knot_0: f64,
        knot_1: f64,
        knot_2: f64,
        knot_3: f64,
        knot_4: f64,
        knot_5: f64,
        knot_6: f64,
        knot_7: f64,
        knot_8: f64,
    }
}

/// Items of a request that are learned from. Each takes six updates, the mix five, and a call may return 256.
const LEARNED_ITEMS: usize = 40;
/// Values of features that the greedy selection goes through for a request, some ten milliseconds' worth. That is
/// 128 tokens of 8,192 with 16 features; of more, fewer are chosen greedily, and the others that are pointed at follow by worth.
const AFFORDABLE: usize = 1 << 24;

/// The post-processor.
#[derive(Debug)]
pub struct MasJoint;

impl PostProcessor for MasJoint {
    fn score(input: &ScoreInput) -> Scores {
        let settings = Settings::read(input.params);
        let (report, calibration) = (input.report, input.calibration);
        let values = report.features.len().max(1);
        let greedy = (settings.greedy as usize).min(AFFORDABLE / values);
        let mut mix = Mix::default();
        let mut found = Vec::with_capacity(report.items.len());
        for view in report.views() {
            let sparsity = Sparsity::of(&view, settings.tau_t);
            let columns = order::unit_columns(&view);
            let traits = Traits::of(&view, &sparsity, &columns, settings.content_free);
            let necessity = necessity::of(&traits, calibration, &settings);
            mix.add(&traits, view.item.tokens, necessity);
            let score = Score {
                necessity,
                mas: focus::mas(view.relevance),
                spatial: sparsity.spatial,
                temporal: sparsity.temporal,
                unusual: traits.unusual(calibration, &settings),
                keep_order: order::keep_order(
                    &view,
                    &columns,
                    greedy,
                    settings.ridge,
                    settings.salience,
                    settings.pointed,
                ),
            };
            found.push((traits, score));
        }
        let unusual = mix.unusual(calibration, &settings);
        let learned = found.iter().take(LEARNED_ITEMS);
        let mut updates: Vec<Update> = learned
            .flat_map(|(traits, _)| traits.updates(settings.weight))
            .collect();
        updates.extend(mix.updates(settings.weight));
        let items = found.into_iter().map(|(_, score)| Score {
            unusual: score.unusual.max(unusual),
            ..score
        });
        Scores {
            items: items.collect(),
            updates,
        }
    }
}

export_postprocessor!(MasJoint);

#[cfg(test)]
mod tests;
