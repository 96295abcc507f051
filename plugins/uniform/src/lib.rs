//! `uniform`: a baseline that does not look. Every item is needed, the share that can go is a parameter, and the keep order
//! is a regular grid that grows finer, over frames, rows and columns.

#![cfg_attr(target_arch = "wasm32", no_std)]

use msao_plugin::prelude::*;

parameters! {
    struct Settings {
        mas: f64,
    }
}

/// The post-processor.
#[derive(Debug)]
pub struct Uniform;

impl PostProcessor for Uniform {
    fn score(input: &ScoreInput) -> Scores {
        let settings = Settings::read(input.params);
        Scores {
            items: input
                .report
                .views()
                .map(|view| Score {
                    necessity: 1.0,
                    mas: settings.mas,
                    spatial: settings.mas,
                    temporal: 0.0,
                    unusual: 0.0,
                    keep_order: view.coarse_to_fine(),
                })
                .collect(),
            updates: Vec::new(),
        }
    }
}

export_postprocessor!(Uniform);

#[cfg(test)]
mod tests {
    use msao_plugin::{rules, testing};

    use super::*;

    fn scored(probe: &Probe) -> Scores {
        probe.score::<Uniform>(&[0.5])
    }

    #[test]
    fn a_quarter_of_the_tokens_is_a_grid_of_half_the_width_and_height() {
        let probe = Probe::new(2).image(8, 8);
        let order = scored(&probe).items.remove(0).keep_order;
        let kept = &order[..16];
        assert!(
            kept.iter()
                .all(|token| token % 8 % 2 == 0 && token / 8 % 2 == 0)
        );
    }

    #[test]
    fn half_of_a_clip_is_every_other_frame() {
        let probe = Probe::new(2).video(4, 2, 4);
        let order = scored(&probe).items.remove(0).keep_order;
        assert!(order[..16].iter().all(|token| token / 8 % 2 == 0));
    }

    #[test]
    fn every_token_is_named_once_in_every_item() {
        let probe = Probe::new(2).image(7, 5).image(1, 1).video(3, 4, 3);
        for (score, tokens) in scored(&probe).items.iter().zip([35, 1, 36]) {
            let mut order = score.keep_order.clone();
            order.sort_unstable();
            assert_eq!(order, (0..tokens).collect::<Vec<_>>());
            assert_eq!((score.necessity, score.mas, score.spatial), (1.0, 0.5, 0.5));
        }
    }

    #[test]
    fn hard_reports_and_vast_ones_have_answers_that_keep_the_rules() {
        let vast = ("a million tokens", testing::vast());
        for (name, probe) in testing::hard_probes().into_iter().chain([vast]) {
            let scores = probe.score::<Uniform>(&[0.5]);
            assert_eq!(rules::scores(&scores, &probe.report), Ok(()), "{name}");
            for (score, item) in scores.items.iter().zip(&probe.report.items) {
                assert_eq!(score.keep_order.len(), item.tokens as usize, "{name}");
            }
        }
    }
}
