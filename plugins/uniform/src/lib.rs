//! `uniform`: a baseline that does not look. Every item is needed, the share that can go is a parameter, and the keep order
//! is a regular grid that grows finer: however many tokens are kept, they are spread evenly over frames, rows and
//! columns.

#![cfg_attr(target_arch = "wasm32", no_std)]

use msao_plugin::prelude::*;

parameters! {
    struct Settings {
        mas: f64,
    }
}

/// Bits of a coordinate that count: three of them fit a u64.
const BITS: u32 = 21;

/// The post-processor.
#[derive(Debug)]
pub struct Uniform;

/// Sorts coordinates coarse to fine: those that are multiples of a large power of two in every direction come first. It is
/// the Morton code with its bits reversed; along a line, van der Corput's sequence.
fn coarse_to_fine(frame: u32, y: u32, x: u32) -> u64 {
    (0..BITS).fold(0, |key, bit| {
        let bit_of = |value: u32| u64::from((value >> bit) & 1);
        key << 3 | bit_of(frame) << 2 | bit_of(y) << 1 | bit_of(x)
    })
}

fn order(view: &ItemView) -> Vec<u32> {
    let places = view.frame.iter().zip(view.y).zip(view.x);
    let mut keyed: Vec<(u64, u32)> = places
        .zip(0..)
        .map(|(((&frame, &y), &x), token)| (coarse_to_fine(frame, y, x), token))
        .collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, token)| token).collect()
}

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
                    keep_order: order(&view),
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
