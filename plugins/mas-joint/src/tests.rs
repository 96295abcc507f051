use proptest::prelude::*;

use super::*;

mod bad_input;
mod unusual;

const PARAMS: [f64; 18] = [
    0.9, 2.0, 128.0, 0.1, 0.5, 0.05, 20.0, 0.02, 0.5, -8.0, -6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0,
    8.0,
];

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
fn mas_is_what_the_strongest_fiftieth_draws_beyond_its_part() {
    let mut probe = Probe::new(2).video(2, 5, 5).image(3, 17);
    let attention = &mut probe.report.relevance;
    attention.fill(0.0);
    attention[7] = 0.25;
    attention[20] = 0.125;
    // Of the picture's 51 tokens two are strong.
    attention[60] = 0.25;
    attention[70] = 0.125;
    attention[75] = 0.125;
    attention[80] = f32::NAN;
    let scores = probe.score::<MasJoint>(&PARAMS);
    close(scores.items[0].mas, 0.25 - 0.375 / 50.0);
    close(scores.items[1].mas, 0.375 - 0.5 * 2.0 / 51.0);
}

#[test]
fn what_is_looked_at_evenly_or_not_at_all_says_nothing_of_what_can_go() {
    let mut probe = Probe::new(2).image(4, 4);
    for even in [0.0, 0.0625, -0.5, f32::NAN, f32::INFINITY] {
        probe.report.relevance.fill(even);
        assert_eq!(one(&probe).mas, 0.0);
    }
    // No shares at all: at most all can go.
    probe.report.relevance.fill(0.0);
    probe.report.relevance[3] = 3.0;
    assert_eq!(one(&probe).mas, 1.0);
    // Fewer tokens are looked at than count as strong.
    let mut probe = Probe::new(2).image(10, 10);
    probe.report.relevance.fill(0.0);
    probe.report.relevance[3] = 0.5;
    close(one(&probe).mas, 0.5 - 0.01);
}

#[test]
fn sparsity_by_the_reference_formulas_is_told_beside_it() {
    let mut probe = Probe::new(2).video(2, 2, 2);
    probe.report.saliency = vec![1.0, 1.0, 1.0, 5.0, 1.0, 1.0, 1.0, 5.0];
    probe.report.similarity[4..].copy_from_slice(&[0.99, 0.99, 0.0, 0.0]);
    let score = one(&probe);
    close(score.spatial, 48.0 / 112.0);
    close(score.temporal, 0.5);
}

#[test]
fn a_still_has_no_temporal_sparsity() {
    let mut probe = Probe::new(2).image(2, 2);
    probe.report.similarity = vec![1.0; 4];
    assert_eq!(one(&probe).temporal, 0.0);
}

/// Of a picture of a hundred tokens that are all the same, half of which can go.
fn traits(relevance: f64) -> Traits {
    let mut probe = Probe::new(2).image(10, 10);
    probe.report.items[0].relevance = relevance;
    // One half in all: what it would draw anyway, however far a content-free text is believed.
    probe.report.baseline.fill(0.0);
    probe.report.baseline[0] = 0.5;
    let view = probe.report.views().next().unwrap();
    let sparsity = Sparsity {
        spatial: 0.5,
        temporal: 0.0,
    };
    Traits::of(&view, &sparsity, &order::unit_columns(&view), 0.5)
}

fn necessity(relevance: f64, calibration: &Calibration) -> f64 {
    necessity::of(&traits(relevance), calibration, &settings())
}

/// What `count` images with this `ln` of relevance leave behind, all else as in [`traits`].
fn seen(mean: f64, variance: f64, count: f64) -> Calibration {
    let cell = |mean, variance| Cell {
        mean,
        variance,
        count,
    };
    Calibration::from_cells(&[
        (8, cell(mean, variance)),
        (9, cell(0.5, 0.01)),
        (10, cell(0.0, 0.0)),
        (11, cell(msao_plugin::math::ln(100.0), 0.1)),
        (12, cell(1.0, 0.01)),
        (13, cell(0.0, 0.1)),
    ])
}

#[test]
fn by_default_necessity_is_a_logistic_of_relevance() {
    let nothing = Calibration::default();
    for (relevance, expected) in [(1.0, 0.5), (2.0, 0.8), (3.0, 0.9), (0.5, 0.2)] {
        close(necessity(relevance, &nothing), expected);
    }
    assert!(necessity(0.0, &nothing) < 1e-6);
    assert_eq!(necessity(f64::NAN, &nothing), 1.0);
}

#[test]
fn a_content_free_text_is_believed_as_far_as_told() {
    let mut probe = Probe::new(2).image(2, 2);
    // Half of all attention, where a content-free text pays an eighth: four times as much.
    probe.report.items[0].relevance = 4.0;
    probe.report.baseline = vec![1.0 / 32.0; 4];
    let necessity = |believed| {
        let mut params = PARAMS;
        params[8] = believed;
        probe.score::<MasJoint>(&params).items[0].necessity
    };
    // Twice ln(4), ln(2) and 0.
    for (believed, expected) in [(1.0, 16.0 / 17.0), (0.5, 0.8), (0.0, 0.5)] {
        assert!((necessity(believed) - expected).abs() < 1e-6, "{believed}");
    }
    // Without one, relevance is all there is.
    probe.report.baseline = vec![0.0; 4];
    let necessity = probe.score::<MasJoint>(&PARAMS).items[0].necessity;
    close(necessity, 16.0 / 17.0);
}

#[test]
fn knots_shape_necessity_and_by_default_leave_it() {
    let default: Vec<f64> = PARAMS[9..].to_vec();
    let mapped = |logit: f64, knots: &[f64]| necessity::mapped(logit, knots.try_into().unwrap());
    for logit in [-90.0, -8.0, -7.3, -0.1, 0.0, 1.0, 5.9, 8.0, 40.0] {
        close(mapped(logit, &default), logit);
    }
    // Harm begins late, and then is sure: what stands between two knots lies between their values.
    let late = [-6.0, -6.0, -5.0, -4.0, -3.0, 0.0, 6.0, 7.0, 7.0];
    for (logit, expected) in [
        (-10.0, -8.0),
        (-8.0, -6.0),
        (-7.0, -6.0),
        (1.0, -1.5),
        (2.0, 0.0),
        (3.5, 4.5),
        (9.0, 8.0),
    ] {
        close(mapped(logit, &late), expected);
    }
    // A knot below an earlier one counts as that one.
    let falling = [0.0, -3.0, 1.0, -3.0, -3.0, 2.0, 2.0, 0.0, 0.0];
    let risen = [0.0, 0.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0];
    for logit in [-7.0, -5.0, -3.0, 0.5, 1.5, 7.0, 9.0] {
        close(mapped(logit, &falling), mapped(logit, &risen));
    }
}

#[test]
fn the_manifest_has_the_parameters_that_are_read() {
    let manifest = include_str!("../policy.toml");
    let names: Vec<String> = manifest
        .split("[[parameter]]")
        .skip(1)
        .filter_map(|text| text.split('"').nth(1))
        .map(|name| name.replace('-', "_"))
        .collect();
    assert_eq!(names, Settings::NAMES);
    let defaults: Vec<f64> = manifest
        .lines()
        .filter_map(|line| line.strip_prefix("default = "))
        .map(|value| value.parse().unwrap())
        .collect();
    assert_eq!(defaults, PARAMS);
}

#[test]
fn a_model_whose_attention_differs_little_is_read_more_finely() {
    // 20 items, as many as the prior, with mean square 0.25: the spread is sqrt((1 + 0.25) / 2).
    let little = seen(0.3, 0.16, 20.0);
    let exponent = 2.0 / 0.625_f64.sqrt();
    let expected = 1.5_f64.powf(exponent) / (1.0 + 1.5_f64.powf(exponent));
    close(necessity(1.5, &little), expected);
    // Where no more attention is paid than to any text, nothing that was learned changes the answer.
    close(necessity(1.0, &little), 0.5);
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
    // Four standard deviations in one of six traits: d = 16 / 6.
    let far = traits(4.0_f64.exp()).unusual(&much, &settings());
    assert!((far - (1.0 - (-1.0_f64 / 3.0).exp())).abs() < 1e-6, "{far}");
}

#[test]
fn each_item_teaches_its_traits() {
    let mut probe = Probe::new(2).image(2, 2).video(2, 1, 1);
    // Then the first trait is 0: relevance as it stands.
    probe.report.baseline.fill(0.0);
    let scores = probe.score::<MasJoint>(&PARAMS);
    let keys: Vec<u32> = scores.updates.iter().map(|update| update.key).collect();
    let items = (8..14).chain(16..22);
    // One image and one clip, then what a set of both is about: its size, and the need of either.
    let mix = [64 + 1 + 4, 128 + 8 * 3, 128 + 8 * 3 + 1, 128 + 8 * 3 + 2];
    assert_eq!(keys, items.chain(mix).collect::<Vec<u32>>());
    assert_eq!(scores.updates[0], Update::sample(8, 0.0, 0.02));
    assert_eq!(scores.updates[12], Update::add(69, 1.0));
    let size = msao_plugin::math::ln(1.0 + 6.0);
    assert_eq!(scores.updates[13], Update::sample(152, size, 0.02));

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
    (by_relevance[2], by_relevance[5]) = (0.0, 1.0);
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
fn worth_is_saliency_of_which_the_question_decides_a_part() {
    let mut probe = Probe::new(2).image(1, 4);
    probe.report.relevance = vec![0.5, 0.25, 0.75, 0.75];
    probe.report.baseline = vec![0.25; 4];
    probe.report.saliency = vec![4.0, 8.0, 2.0, f32::NAN];
    let worth = |probe: &Probe, salience| {
        let view = probe.report.views().next().unwrap();
        order::worth(&view, salience)
    };
    // Relevance is 0.5, 0, 1 and 1.
    assert_eq!(worth(&probe, 0.5), [0.375, 0.5, 0.25, 0.0]);
    assert_eq!(worth(&probe, 1.0), [0.5, 1.0, 0.25, 0.0]);
    assert_eq!(worth(&probe, 0.0), [0.25, 0.0, 0.25, 0.0]);
    // Where nothing stands out the question alone decides.
    probe.report.saliency = vec![0.0, 0.0, -1.0, f32::INFINITY];
    assert_eq!(worth(&probe, 0.5), [0.5, 0.0, 1.0, 1.0]);
}

/// A token that stands out goes before one that the question looks at a little more: a first layer's attention is a rough guide.
#[test]
fn what_stands_out_is_kept_before_what_is_looked_at_a_little_more() {
    let mut probe = Probe::new(2).image(1, 4);
    probe.report.relevance = vec![0.6, 0.5, 0.7, 0.4];
    probe.report.baseline = vec![0.0; 4];
    probe.report.saliency = vec![1.0, 9.0, 1.0, 9.0];
    probe.report.features = vec![1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0];
    let mut by_worth = PARAMS;
    by_worth[5] = 0.5;
    let mut order = probe
        .score::<MasJoint>(&by_worth)
        .items
        .remove(0)
        .keep_order;
    order.truncate(2);
    order.sort_unstable();
    assert_eq!(order, [1, 3]);
}

/// What is counted needs its surroundings.
#[test]
fn behind_what_stands_out_comes_an_even_sample_of_the_rest() {
    let mut probe = Probe::new(2).image(8, 8);
    probe.report.saliency.fill(1.0);
    for (token, stands_out) in probe.report.saliency.iter_mut().enumerate() {
        // The lower right corner: four tokens of odd coordinates, so that none is of the sample.
        *stands_out = f32::from(u8::from(
            token / 8 > 4 && token % 8 > 4 && token % 2 == 1 && token / 8 % 2 == 1,
        ));
    }
    let mut params = PARAMS;
    params[5] = 0.0625;
    let order = probe.score::<MasJoint>(&params).items.remove(0).keep_order;
    let sorted = |part: &[u32]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part
    };
    assert_eq!(sorted(&order[..4]), [45, 47, 61, 63]);
    let even = (0..64).filter(|token| token % 2 == 0 && token / 8 % 2 == 0);
    assert_eq!(sorted(&order[4..20]), even.collect::<Vec<u32>>());
    assert_eq!(sorted(&order), (0..64).collect::<Vec<u32>>());
}

#[test]
fn what_is_worth_nothing_is_left_to_the_grid() {
    let mut probe = Probe::new(2).image(4, 4);
    let grid = probe.report.views().next().unwrap().coarse_to_fine();
    let order = |probe: &Probe, pointed: f64| {
        let mut params = PARAMS;
        params[5] = pointed;
        probe.score::<MasJoint>(&params).items.remove(0).keep_order
    };
    assert_eq!(order(&probe, 0.0), grid);
    probe.report.saliency.fill(0.0);
    probe.report.saliency[13] = 5.0;
    let order = order(&probe, 0.5);
    let behind = grid.iter().copied().filter(|token| *token != 13);
    assert_eq!(order, [13].into_iter().chain(behind).collect::<Vec<u32>>());
}

#[test]
fn behind_what_is_unlike_comes_what_is_worth_more_and_then_the_grid() {
    let mut probe = Probe::new(2).image(4, 4);
    for (token, stands_out) in probe.report.saliency.iter_mut().enumerate() {
        *stands_out = 1.0 + token as f32;
    }
    probe.report.relevance.fill(0.5);
    probe.report.baseline.fill(0.5);
    let mut params = PARAMS;
    // One of four greedily.
    (params[2], params[5]) = (1.0, 0.25);
    let order = probe.score::<MasJoint>(&params).items.remove(0).keep_order;
    assert_eq!(order[..4], [15, 14, 13, 12]);
    assert_eq!(order[4..8], [0, 2, 8, 10]);
}

/// Of however few tokens the first is what is worth most.
#[test]
fn the_most_worth_goes_last_of_any_item() {
    let mut probe = Probe::new(2).image(1, 3);
    probe.report.saliency = vec![1.0, 1.0, 9.0];
    assert_eq!(one(&probe).keep_order[0], 2);
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
        pointed in 0.0f64..=1.0,
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
        (params[2], params[5]) = (f64::from(greedy), pointed);
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
        prop_assert!(necessity(a.min(b), &calibration) <= necessity(a.max(b), &calibration));
    }

    #[test]
    fn no_knots_make_the_map_fall(
        knots in prop::array::uniform9(-16.0f64..16.0), a in -20.0f64..20.0, b in -20.0f64..20.0,
    ) {
        let (low, high) = (necessity::mapped(a.min(b), knots), necessity::mapped(a.max(b), knots));
        prop_assert!(low <= high, "{low} {high}");
    }
}
