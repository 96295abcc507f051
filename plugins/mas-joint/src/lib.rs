//! `mas-joint`: necessity and Modality Activation Sparsity by the reference formulas, and a keep order that weighs
//! relevance and diversity together.
//!
//! - [`Sparsity`]: how much of an item can go. `MAS = 1 - (1 - S_sp) * (1 - S_tmp)`.
//! - [`necessity`]: how much an item is needed, and how unusual it is; both calibrated by what was seen.
//! - [`order`]: which tokens go last, by greedy determinantal selection.

#![cfg_attr(target_arch = "wasm32", no_std)]

extern crate alloc;

mod necessity;
mod order;

use msao_plugin::prelude::*;
use msao_plugin::sparsity::Sparsity;

parameters! {
    /// In the manifest's order.
    pub(crate) struct Settings {
        tau_t: f64,
        sharpness: f64,
        greedy: u32,
        ridge: f64,
        prior: f64,
        weight: f64,
    }
}

/// Items of a request that are learned from. Each takes four updates, and a call may return 256.
const LEARNED_ITEMS: usize = 64;

/// The post-processor.
#[derive(Debug)]
pub struct MasJoint;

impl PostProcessor for MasJoint {
    fn score(input: &ScoreInput) -> Scores {
        let settings = Settings::read(input.params);
        let mut items = Vec::with_capacity(input.report.items.len());
        let mut updates = Vec::new();
        for (number, view) in input.report.views().enumerate() {
            let sparsity = Sparsity::of(&view, settings.tau_t);
            let Sparsity { spatial, temporal } = sparsity;
            let traits = necessity::Traits::of(view.item, spatial, temporal);
            items.push(Score {
                necessity: traits.necessity(input.calibration, &settings),
                mas: sparsity.mas(),
                spatial,
                temporal,
                unusual: traits.unusual(input.calibration, &settings),
                keep_order: order::keep_order(&view, settings.greedy as usize, settings.ridge),
            });
            if number < LEARNED_ITEMS {
                updates.extend(traits.updates(settings.weight));
            }
        }
        Scores { items, updates }
    }
}

export_postprocessor!(MasJoint);

#[cfg(test)]
mod tests;
