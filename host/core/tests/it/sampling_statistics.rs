//! Draws follow their probabilities, do not know of each other, and agree between draft and target as often as the
//! theorem says.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

use msao_core::sampling::check::chi_square_rows;
use msao_core::sampling::reference::{Context, distribution};
use msao_core::sampling::{Noise, Sampler, SamplingParams, Scratch};

#[test]
fn draws_follow_their_probabilities() {
    // A million in a release build; fewer where the sampler itself is not optimised.
    let rows = chi_square_rows(if cfg!(debug_assertions) {
        250_000
    } else {
        1_000_000
    });
    println!(
        "{:<45} {:>8} {:>4} {:>9} {:>8}",
        "", "draws", "df", "statistic", "p"
    );
    for row in &rows {
        println!(
            "{:<45} {:>8} {:>4} {:>9.2} {:>8.4}",
            row.name, row.draws, row.degrees_of_freedom, row.statistic, row.p_value
        );
    }
    for row in &rows {
        assert!(row.degrees_of_freedom >= 3, "{row:?}");
        // Also not too good to be true.
        assert!(row.p_value > 1e-4 && row.p_value < 1.0 - 1e-4, "{row:?}");
    }
}

/// The correlation of neighbours is within five standard errors of 0, and mean and variance are Gumbel's.
#[test]
fn neighbours_are_not_correlated() {
    const DRAWS: u32 = 300_000;
    type Line = fn(u32) -> f64;
    let along: [(&str, Line); 4] = [
        ("id", |i| Noise::at(11, 0, 0).gumbel(i)),
        ("output index", |i| Noise::at(11, 0, i).gumbel(5)),
        ("choice", |i| Noise::at(11, i, 0).gumbel(5)),
        ("seed", |i| Noise::at(u64::from(i), 0, 0).gumbel(5)),
    ];
    let n = f64::from(DRAWS);
    for (name, noise) in along {
        let drawn: Vec<f64> = (0..DRAWS).map(noise).collect();
        let mean = drawn.iter().sum::<f64>() / n;
        let variance = drawn.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / n;
        // Euler's constant; pi^2 / 6.
        assert!(
            (mean - 0.577_215_664_9).abs() < 5.0 * (variance / n).sqrt(),
            "{name}: mean {mean}"
        );
        assert!(
            (variance - 1.644_934_066_8).abs() < 0.05,
            "{name}: variance {variance}"
        );
        for lag in [1, 2, 3, 7] {
            let covariance = drawn
                .iter()
                .zip(&drawn[lag..])
                .map(|(a, b)| (a - mean) * (b - mean))
                .sum::<f64>()
                / n;
            let correlation = covariance / variance;
            assert!(
                correlation.abs() < 5.0 / n.sqrt(),
                "{name}, lag {lag}: {correlation}"
            );
        }
    }
}

/// Between draft and target: agreement is at least (1 - TV) / (1 + TV), and what Gumbel coupling gives exactly:
/// the sum over i of 1 / sum over j of max(p_j / p_i, q_j / q_i).
#[test]
fn draft_and_target_agree_as_the_theorem_says() {
    const DRAWS: u32 = 60_000;
    let ids = 30;
    let draft_logits = |closeness: f32| -> Vec<f32> {
        (0..ids)
            .map(|id| {
                -0.3 * (id * 11 % ids) as f32 + closeness * ((id * 7 % 13) as f32 / 6.0 - 1.0)
            })
            .collect()
    };
    let cases = [
        (0.0, SamplingParams::default()),
        (0.3, SamplingParams::default()),
        (
            1.0,
            SamplingParams {
                temperature: 0.7,
                ..SamplingParams::default()
            },
        ),
        (
            2.0,
            SamplingParams {
                top_k: Some(8),
                ..SamplingParams::default()
            },
        ),
        (
            1.0,
            SamplingParams {
                top_p: 0.9,
                temperature: 1.3,
                ..SamplingParams::default()
            },
        ),
    ];
    for (closeness, params) in cases {
        let (target, draft) = (draft_logits(0.0), draft_logits(closeness));
        let context = Context {
            params: &params,
            vocabulary: ids,
            prompt: &[],
            output: &[],
            allowed: None,
        };
        let probabilities = |logits: &[f32]| -> Vec<f64> {
            distribution(&context, logits)
                .unwrap()
                .log_p
                .iter()
                .map(|log_p| log_p.exp())
                .collect()
        };
        let (p, q) = (probabilities(&target), probabilities(&draft));
        let tv = p.iter().zip(&q).map(|(p, q)| (p - q).abs()).sum::<f64>() / 2.0;
        let bound = (1.0 - tv) / (1.0 + tv);
        let exact: f64 = p
            .iter()
            .zip(&q)
            .filter(|(p, q)| **p > 0.0 && **q > 0.0)
            .map(|(pi, qi)| {
                1.0 / p
                    .iter()
                    .zip(&q)
                    .map(|(pj, qj)| (pj / pi).max(qj / qi))
                    .sum::<f64>()
            })
            .sum();
        assert!(exact >= bound - 1e-12);

        // Each side has its own sampler and memory: they share nothing but the seed.
        let edge = Sampler::new(
            SamplingParams {
                seed: 99,
                ..params.clone()
            },
            ids,
            &[],
        )
        .unwrap();
        let cloud = edge.clone();
        let (mut here, mut there) = (Scratch::default(), Scratch::default());
        let agreed = (0..DRAWS)
            .filter(|&index| {
                edge.pick(&draft, index, None, &mut here).unwrap().id
                    == cloud.pick(&target, index, None, &mut there).unwrap().id
            })
            .count();
        let rate = agreed as f64 / f64::from(DRAWS);
        let error = (exact * (1.0 - exact) / f64::from(DRAWS)).sqrt();
        println!("TV {tv:.3}: agreed {rate:.4}, exactly {exact:.4}, at least {bound:.4}");
        assert!(
            (rate - exact).abs() <= 4.0 * error,
            "{rate} {exact} {error}"
        );
        assert!(rate >= bound - 4.0 * error);
    }
}
