//! `saliency-only`: a baseline that looks at the picture and not at the question. The keep order is by saliency alone,
//! equals in their own order; every item is needed; the share that can go is the reference formulas' ([`Sparsity`]), so
//! that what the question adds can be told from what the formulas do.
//!
//! A saliency that is not finite cannot be told from noise: its token goes last.

#![cfg_attr(target_arch = "wasm32", no_std)]

use msao_plugin::prelude::*;
use msao_plugin::sparsity::Sparsity;

parameters! {
    struct Settings {
        tau_t: f64,
    }
}

/// The post-processor.
#[derive(Debug)]
pub struct SaliencyOnly;

fn order(view: &ItemView) -> Vec<u32> {
    let mut keyed: Vec<(f32, u32)> = view
        .saliency
        .iter()
        .map(|&saliency| match saliency.is_finite() {
            // A zero has one sign: -0 and 0 are equally salient.
            true => saliency + 0.0,
            false => f32::NEG_INFINITY,
        })
        .zip(0..)
        .collect();
    keyed.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    keyed.into_iter().map(|(_, token)| token).collect()
}

impl PostProcessor for SaliencyOnly {
    fn score(input: &ScoreInput) -> Scores {
        let settings = Settings::read(input.params);
        Scores {
            items: input
                .report
                .views()
                .map(|view| {
                    let sparsity = Sparsity::of(&view, settings.tau_t);
                    Score {
                        necessity: 1.0,
                        mas: sparsity.mas(),
                        spatial: sparsity.spatial,
                        temporal: sparsity.temporal,
                        unusual: 0.0,
                        keep_order: order(&view),
                    }
                })
                .collect(),
            updates: Vec::new(),
        }
    }
}

export_postprocessor!(SaliencyOnly);

#[cfg(test)]
mod tests;
