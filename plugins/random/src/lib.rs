//! `random`: a baseline that is hard to beat. Every item is needed, the share that can go is a parameter, and the keep
//! order is a shuffle by the request's seed: equal seeds give equal orders.

#![cfg_attr(target_arch = "wasm32", no_std)]

use msao_plugin::prelude::*;

parameters! {
    struct Settings {
        mas: f64,
    }
}

/// The post-processor.
#[derive(Debug)]
pub struct Random;

/// SplitMix64 (Steele, Lea, Flood 2014): every seed is a good one.
struct Stream(u64);

impl Stream {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `bound`. The bias of taking the high half of a product is below 2^-32 for any number of tokens.
    fn below(&mut self, bound: u32) -> u32 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u32
    }
}

/// Fisher and Yates.
fn shuffled(tokens: u32, stream: &mut Stream) -> Vec<u32> {
    let mut order: Vec<u32> = (0..tokens).collect();
    for end in (1..tokens).rev() {
        order.swap(end as usize, stream.below(end + 1) as usize);
    }
    order
}

impl PostProcessor for Random {
    fn score(input: &ScoreInput) -> Scores {
        let settings = Settings::read(input.params);
        let mut stream = Stream(input.seed);
        Scores {
            items: input
                .report
                .items
                .iter()
                .map(|item| Score {
                    necessity: 1.0,
                    mas: settings.mas,
                    spatial: settings.mas,
                    temporal: 0.0,
                    unusual: 0.0,
                    keep_order: shuffled(item.tokens, &mut stream),
                })
                .collect(),
            updates: Vec::new(),
        }
    }
}

export_postprocessor!(Random);

#[cfg(test)]
mod tests {
    use msao_plugin::{rules, testing};

    use super::*;

    fn orders(seed: u64) -> Vec<Vec<u32>> {
        let probe = Probe::new(2).image(6, 4).image(6, 4).image(1, 1);
        let scores = probe.seed(seed).score::<Random>(&[0.5]);
        scores
            .items
            .into_iter()
            .map(|score| score.keep_order)
            .collect()
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(orders(1), orders(1));
        assert_ne!(orders(1), orders(2));
        assert_ne!(orders(1)[0], orders(1)[1], "items differ under one seed");
    }

    #[test]
    fn every_token_is_named_once() {
        for (mut order, tokens) in orders(7).into_iter().zip([24, 24, 1]) {
            order.sort_unstable();
            assert_eq!(order, (0..tokens).collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_token_is_as_likely_to_come_first() {
        let firsts = (0..6000).map(|seed| shuffled(6, &mut Stream(seed))[0]);
        let mut counts = [0u32; 6];
        firsts.for_each(|first| counts[first as usize] += 1);
        // Six standard deviations of a binomial of 6,000 draws at 1/6 are 173.
        assert!(
            counts.iter().all(|count| count.abs_diff(1000) < 173),
            "{counts:?}"
        );
    }

    #[test]
    fn hard_reports_and_vast_ones_have_answers_that_keep_the_rules() {
        let vast = ("a million tokens", testing::vast());
        for (name, probe) in testing::hard_probes().into_iter().chain([vast]) {
            let scores = probe.score::<Random>(&[0.5]);
            assert_eq!(rules::scores(&scores, &probe.report), Ok(()), "{name}");
            for (score, item) in scores.items.iter().zip(&probe.report.items) {
                assert_eq!(score.keep_order.len(), item.tokens as usize, "{name}");
            }
        }
    }
}
