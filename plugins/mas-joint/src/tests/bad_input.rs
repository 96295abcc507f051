use msao_plugin::{rules, testing};

use super::super::*;
use super::{PARAMS, seen};

#[test]
fn hard_reports_have_answers_that_keep_the_rules() {
    for calibration in [Calibration::default(), seen(0.2, 0.5, 30.0)] {
        for (name, mut probe) in testing::hard_probes() {
            probe.calibration = calibration.clone();
            let scores = probe.score::<MasJoint>(&PARAMS);
            assert_eq!(rules::scores(&scores, &probe.report), Ok(()), "{name}");
            for (score, item) in scores.items.iter().zip(&probe.report.items) {
                assert_eq!(score.keep_order.len(), item.tokens as usize, "{name}");
            }
        }
    }
}

#[test]
fn what_is_no_number_is_kept() {
    let probes = testing::hard_probes();
    let of = |wanted: &str| {
        let (_, probe) = probes.iter().find(|(name, _)| *name == wanted).unwrap();
        probe.score::<MasJoint>(&PARAMS)
    };
    let scores = of("no numbers at all");
    for score in &scores.items {
        let Score {
            necessity,
            mas,
            unusual,
            ..
        } = score;
        assert_eq!((*necessity, *mas, *unusual), (1.0, 0.0, 1.0));
    }
    assert!(scores.updates.is_empty());
    // Features alone rank; what is needed of an item they do not say.
    let scores = of("features that are no numbers");
    assert!(scores.items.iter().all(|score| score.mas == 0.0));
}

#[test]
fn of_noise_nearly_all_is_kept() {
    let score = testing::noise(24, 24)
        .score::<MasJoint>(&PARAMS)
        .items
        .remove(0);
    assert!(score.mas < 0.01, "{}", score.mas);
    assert_eq!(score.unusual, 1.0);
}

#[test]
fn a_million_tokens_have_an_order() {
    let probe = testing::vast();
    let scores = probe.score::<MasJoint>(&PARAMS);
    assert_eq!(rules::scores(&scores, &probe.report), Ok(()));
    assert_eq!(scores.items[0].keep_order.len(), 1_000_000);
}

#[test]
fn the_greedy_part_is_bounded_by_what_it_costs() {
    // Two of each of many kinds of tokens: greedily one of each comes first.
    let order = |rows: u32| {
        let mut probe = Probe::new(64).image(rows, 2);
        for (number, feature) in probe.report.features.chunks_exact_mut(64).enumerate() {
            feature.fill(0.0);
            feature[number / 2 % 64] = 1.0;
        }
        let mut params = PARAMS;
        (params[2], params[5]) = (64.0, 1.0);
        probe.score::<MasJoint>(&params).items.remove(0).keep_order
    };
    let greedy = |order: &[u32]| {
        order
            .windows(2)
            .take_while(|pair| pair[0] + 2 == pair[1])
            .count()
    };
    assert_eq!(greedy(&order(64)), 63);
    // 16,384 tokens of 64 features: 16 are affordable.
    assert_eq!(greedy(&order(8192)), 15);
}

#[test]
fn the_calibration_of_another_model_makes_all_unusual_and_drops_nothing() {
    // Attention that hardly departs from 1, features of another length, prompts of another size.
    let cell = |mean, variance| Cell {
        mean,
        variance,
        count: 5000.0,
    };
    let other = Calibration::from_cells(&[
        (8, cell(0.02, 1e-4)),
        (9, cell(0.9, 1e-4)),
        (10, cell(0.0, 0.0)),
        (11, cell(7.0, 0.1)),
        (12, cell(0.1, 1e-3)),
        (13, cell(6.0, 0.1)),
        (64 + 16, cell(0.0, 0.0)),
    ]);
    let mut probe = Probe::new(2).image(6, 6);
    probe.report.items[0].relevance = 1.4;
    probe.calibration = other;
    let scores = probe.score::<MasJoint>(&PARAMS);
    assert_eq!(rules::scores(&scores, &probe.report), Ok(()));
    assert!(scores.items[0].unusual > 0.99);
    assert!(scores.items[0].necessity > 0.5);
    assert_eq!(scores.items[0].keep_order.len(), 36);
}
