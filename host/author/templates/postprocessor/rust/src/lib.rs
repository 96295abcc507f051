//! Needs an item by the attention that the question pays to it, and keeps the tokens that it looks at.

#![cfg_attr(target_arch = "wasm32", no_std)]

use msao_plugin::prelude::*;

// In the order of policy.toml.
parameters! {
    struct Settings {
        half: f64,
    }
}

/// The post-processor.
pub struct Plugin;

fn score(view: &ItemView, half: f64) -> Score {
    let relevance = view.item.relevance.max(0.0);
    let mut keep_order: Vec<u32> = (0..view.item.tokens).collect();
    // A stable sort: equals stay in their own order.
    keep_order.sort_by(|a, b| {
        let of = |token: u32| view.relevance.get(token as usize).copied().unwrap_or(0.0);
        of(*b).total_cmp(&of(*a))
    });
    Score {
        necessity: relevance / (relevance + half),
        mas: 0.0,
        spatial: 0.0,
        temporal: 0.0,
        unusual: 0.0,
        keep_order,
    }
}

impl PostProcessor for Plugin {
    fn score(input: &ScoreInput) -> Scores {
        let settings = Settings::read(input.params);
        Scores {
            items: input.report.views().map(|view| score(&view, settings.half)).collect(),
            updates: Vec::new(),
        }
    }
}

export_postprocessor!(Plugin);
