use proptest::prelude::*;

use super::*;
use crate::necessity::Traits;

const PARAMS: [f64; 6] = [0.9, 2.0, 128.0, 0.1, 20.0, 0.02];

fn settings() -> Settings {
    Settings::read(&PARAMS)
}

fn one(probe: &Probe) -> Score {
    probe.score::<MasJoint>(&PARAMS).items.remove(0)
}

fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-9, "{a} and {b}");
}

#[test]
fn mas_joins_both() {
    let mut probe = Probe::new(2).video(2, 2, 2);
    probe.report.saliency = vec![1.0, 1.0, 1.0, 5.0, 1.0, 1.0, 1.0, 5.0];
    probe.report.similarity[4..].copy_from_slice(&[0.99, 0.99, 0.0, 0.0]);
    let score = one(&probe);
    close(score.spatial, 48.0 / 112.0);
    close(score.temporal, 0.5);
    close(score.mas, 1.0 - (64.0 / 112.0) * 0.5);
}

#[test]
fn a_still_has_no_temporal_sparsity() {
    let mut probe = Probe::new(2).image(2, 2);
    probe.report.similarity = vec![1.0; 4];
    assert_eq!(one(&probe).temporal, 0.0);
}

fn traits(relevance: f64) -> Traits {
    let item = Item {
        modality: modality::IMAGE,
        tokens: 100,
        frames: 1,
        relevance,
    };
    Traits::of(&item, 0.5, 0.0)
}

/// What `count` images with this `ln` of relevance leave behind, all else as in [`traits`].
fn seen(mean: f64, variance: f64, count: f64) -> Calibration {
    let cell = |mean, variance| Cell {
        mean,
        variance,
        count,
    };
    Calibration::from_cells(&[
        (4, cell(mean, variance)),
        (5, cell(0.5, 0.01)),
        (6, cell(0.0, 0.0)),
        (7, cell(msao_plugin::math::ln(100.0), 0.1)),
    ])
}

#[test]
fn by_default_necessity_is_a_logistic_of_relevance() {
    let nothing = Calibration::default();
    for (relevance, expected) in [(1.0, 0.5), (2.0, 0.8), (3.0, 0.9), (0.5, 0.2)] {
        close(traits(relevance).necessity(&nothing, &settings()), expected);
    }
    assert!(traits(0.0).necessity(&nothing, &settings()) < 1e-6);
    assert_eq!(traits(f64::NAN).necessity(&nothing, &settings()), 1.0);
}

#[test]
fn a_model_whose_attention_differs_little_is_read_more_finely() {
    // 20 items, as many as the prior, with mean square 0.25: the spread is sqrt((1 + 0.25) / 2).
    let little = seen(0.3, 0.16, 20.0);
    let exponent = 2.0 / 0.625_f64.sqrt();
    let expected = 1.5_f64.powf(exponent) / (1.0 + 1.5_f64.powf(exponent));
    close(traits(1.5).necessity(&little, &settings()), expected);
    // Where no more attention is paid than to any text, nothing that was learned changes the answer.
    close(traits(1.0).necessity(&little, &settings()), 0.5);
}

#[test]
fn unusual_is_the_distance_from_what_was_seen() {
    assert_eq!(
        traits(1.0).unusual(&Calibration::default(), &settings()),
        1.0
    );
    // At the mean in every trait only the number of items counts.
    close(traits(1.0).unusual(&seen(0.0, 1.0, 20.0), &settings()), 0.5);
    let much = seen(0.0, 1.0, 1e9);
    assert!(traits(1.0).unusual(&much, &settings()) < 1e-6);
    // Four standard deviations in one of four traits: d = 4.
    let far = traits(4.0_f64.exp()).unusual(&much, &settings());
    assert!((far - (1.0 - (-0.5_f64).exp())).abs() < 1e-6, "{far}");
}

#[test]
fn each_item_teaches_its_traits() {
    let scores = Probe::new(2)
        .image(2, 2)
        .video(2, 1, 1)
        .score::<MasJoint>(&PARAMS);
    let keys: Vec<u32> = scores.updates.iter().map(|update| update.key).collect();
    assert_eq!(keys, [4, 5, 6, 7, 8, 9, 10, 11]);
    assert_eq!(scores.updates[0], Update::sample(4, 0.0, 0.02));

    let mut unmeasured = Probe::new(2).image(2, 2);
    unmeasured.report.items[0].relevance = f64::NAN;
    assert!(unmeasured.score::<MasJoint>(&PARAMS).updates.is_empty());
}

#[test]
fn of_two_alike_one_is_kept_first_and_the_other_late() {
    let mut probe = Probe::new(2).image(1, 3);
    // Tokens 0 and 1 are the same; 2 is less relevant, and different.
    probe.report.relevance = vec![1.0, 0.95, 0.7];
    probe.report.baseline = vec![0.0; 3];
    // Without a token of no relevance the scaling would make 2 worth nothing.
    probe = probe.image(1, 1);
    probe.report.features = vec![1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0];
    let view = probe.report.views().next().unwrap();
    let columns = [vec![1.0, 1.0, 0.0], vec![0.0, 0.0, 1.0]];
    assert_eq!(order::select(&columns, view.relevance, 3, 0.1), [0, 2, 1]);
    // Without a greedy part relevance alone decides.
    let mut by_relevance = PARAMS;
    by_relevance[2] = 0.0;
    let scores = probe.score::<MasJoint>(&by_relevance);
    assert_eq!(scores.items[0].keep_order, [0, 1, 2]);
}

#[test]
fn relevance_is_what_the_question_adds_scaled() {
    let mut probe = Probe::new(2).image(1, 4);
    probe.report.relevance = vec![0.5, 0.25, f32::NAN, 0.75];
    probe.report.baseline = vec![0.25, 0.25, 0.0, 0.25];
    let view = probe.report.views().next().unwrap();
    assert_eq!(order::relevance(&view), [0.5, 0.0, 0.0, 1.0]);
}

#[test]
fn one_token_and_none_have_an_order() {
    let probe = Probe::new(2).image(1, 1).image(0, 0);
    let scores = probe.score::<MasJoint>(&PARAMS);
    assert_eq!(scores.items[0].keep_order, [0]);
    assert!(scores.items[1].keep_order.is_empty());
    assert_eq!(scores.items[0].mas, 0.0);
}

/// The recursion as the paper has it, over the kernel itself: `j = argmax d2`, `e = (L_j - sum_k c_k[j] c_k) / sqrt(d2_j)`,
/// `d2 -= e^2`. In f64, as what the shorter way is held against. Returns each pick and by how much it won.
fn by_kernel(columns: &[Vec<f32>], relevance: &[f32], count: usize, ridge: f64) -> Vec<(u32, f64)> {
    let tokens = relevance.len();
    let kernel = |i: usize, j: usize| {
        let gram: f64 = columns
            .iter()
            .map(|column| f64::from(column[i]) * f64::from(column[j]))
            .sum();
        let ridge = if i == j { ridge } else { 0.0 };
        f64::from(relevance[i]) * (gram + ridge) * f64::from(relevance[j])
    };
    let mut d2: Vec<f64> = (0..tokens).map(|i| kernel(i, i)).collect();
    let mut rows: Vec<Vec<f64>> = Vec::new();
    let mut picks = Vec::new();
    for _ in 0..count.min(tokens) {
        let j = (0..tokens)
            .max_by(|&a, &b| d2[a].total_cmp(&d2[b]).then(b.cmp(&a)))
            .unwrap();
        let second = (0..tokens)
            .filter(|&i| i != j)
            .map(|i| d2[i])
            .fold(0.0, f64::max);
        picks.push((j as u32, d2[j] - second));
        let e: Vec<f64> = (0..tokens)
            .map(|i| (kernel(j, i) - rows.iter().map(|c| c[j] * c[i]).sum::<f64>()) / d2[j].sqrt())
            .collect();
        for i in 0..tokens {
            d2[i] -= e[i] * e[i];
        }
        d2[j] = f64::NEG_INFINITY;
        rows.push(e);
    }
    picks
}

proptest! {
    #[test]
    fn the_short_way_takes_what_the_kernel_takes(
        features in prop::collection::vec(prop::array::uniform4(-1.0f32..1.0), 2..24),
        relevance in prop::collection::vec(0.1f32..1.0, 24),
    ) {
        let tokens = features.len();
        let mut columns = vec![vec![0.0f32; tokens]; 4];
        for (i, feature) in features.iter().enumerate() {
            let norm = feature.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-3);
            for (column, value) in columns.iter_mut().zip(feature) {
                column[i] = value / norm;
            }
        }
        let relevance = &relevance[..tokens];
        let fast = order::select(&columns, relevance, 8, 0.1);
        for (fast, (kernel, margin)) in fast.iter().zip(by_kernel(&columns, relevance, 8, f64::from(0.1f32))) {
            // From a tie on, within the rounding of f32, both ways are right and may part.
            if margin < 1e-4 {
                break;
            }
            prop_assert_eq!(*fast, kernel);
        }
    }

    #[test]
    fn every_answer_is_in_range_whatever_the_probe_says(
        frames in 1u32..4,
        height in 1u32..5,
        width in 1u32..5,
        relevance in prop_oneof![Just(f64::NAN), Just(0.0), Just(f64::INFINITY), 0.0f64..100.0],
        noise in prop::collection::vec(
            prop_oneof![8 => -2.0f32..3.0, 1 => Just(0.0f32), 1 => Just(f32::NAN), 1 => Just(f32::INFINITY)],
            1..40,
        ),
        greedy in 0u32..100,
    ) {
        let mut probe = Probe::new(3).video(frames, height, width);
        let report = &mut probe.report;
        report.items[0].relevance = relevance;
        let lists = [
            &mut report.saliency, &mut report.relevance, &mut report.baseline, &mut report.similarity, &mut report.features,
        ];
        for (shift, list) in lists.into_iter().enumerate() {
            for (i, value) in list.iter_mut().enumerate() {
                *value = noise[(i * 7 + shift) % noise.len()];
            }
        }
        probe.calibration = seen(0.2, 0.5, 30.0);
        let mut params = PARAMS;
        params[2] = f64::from(greedy);
        let scores = probe.score::<MasJoint>(&params);
        let score = &scores.items[0];
        for share in [score.necessity, score.mas, score.spatial, score.temporal, score.unusual] {
            prop_assert!((0.0..=1.0).contains(&share), "{score:?}");
        }
        let mut order = score.keep_order.clone();
        order.sort_unstable();
        prop_assert_eq!(order, (0..frames * height * width).collect::<Vec<_>>());
        prop_assert!(scores.updates.iter().all(|update| update.value.is_finite()));
    }

    #[test]
    fn necessity_never_falls_as_relevance_rises(
        a in 0.0f64..50.0, b in 0.0f64..50.0, mean in -2.0f64..2.0, variance in 0.0f64..4.0, count in 0.0f64..1e6,
    ) {
        let calibration = seen(mean, variance, count);
        let necessity = |relevance| traits(relevance).necessity(&calibration, &settings());
        prop_assert!(necessity(a.min(b)) <= necessity(a.max(b)));
    }
}
