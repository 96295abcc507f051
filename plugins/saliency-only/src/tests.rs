use msao_plugin::{rules, testing};
use proptest::prelude::*;

use super::*;

fn scored(probe: &Probe) -> Vec<Score> {
    probe.score::<SaliencyOnly>(&[0.9]).items
}

#[test]
fn the_most_salient_comes_first_and_equals_in_their_own_order() {
    let mut probe = Probe::new(2).image(1, 5);
    probe.report.saliency = vec![1.0, 3.0, 0.0, 3.0, -0.0];
    assert_eq!(scored(&probe)[0].keep_order, [1, 3, 0, 2, 4]);
}

#[test]
fn the_question_does_not_count() {
    let mut asked = Probe::new(2).image(2, 3).video(2, 1, 2);
    asked.report.saliency = (0u8..10).map(f32::from).collect();
    let unasked = scored(&asked);
    asked.report.relevance = (0u8..10).map(|i| f32::from(i) / 10.0).rev().collect();
    asked.report.items[0].relevance = 9.0;
    assert_eq!(scored(&asked), unasked);
    assert_eq!(unasked[0].keep_order, [5, 4, 3, 2, 1, 0]);
    assert_eq!(unasked[1].keep_order, [3, 2, 1, 0]);
}

#[test]
fn every_item_is_needed_and_mas_is_the_formulas() {
    let mut probe = Probe::new(2).video(2, 2, 2);
    probe.report.saliency = vec![1.0, 1.0, 1.0, 5.0, 1.0, 1.0, 1.0, 5.0];
    probe.report.similarity[4..].copy_from_slice(&[0.99, 0.99, 0.0, 0.0]);
    let score = scored(&probe).remove(0);
    assert_eq!((score.necessity, score.unusual), (1.0, 0.0));
    assert!((score.mas - (1.0 - (64.0 / 112.0) * 0.5)).abs() < 1e-9);
}

#[test]
fn what_is_not_finite_goes_last() {
    let mut probe = Probe::new(2).image(1, 4);
    probe.report.saliency = vec![f32::NAN, f32::INFINITY, 0.5, f32::NEG_INFINITY];
    assert_eq!(scored(&probe)[0].keep_order, [2, 0, 1, 3]);
}

#[test]
fn no_item_and_no_token_have_an_answer() {
    assert!(scored(&Probe::new(2)).is_empty());
    assert!(scored(&Probe::new(2).image(0, 0))[0].keep_order.is_empty());
}

#[test]
fn hard_reports_and_vast_ones_have_answers_that_keep_the_rules() {
    let vast = ("a million tokens", testing::vast());
    for (name, probe) in testing::hard_probes().into_iter().chain([vast]) {
        let scores = probe.score::<SaliencyOnly>(&[0.9]);
        assert_eq!(rules::scores(&scores, &probe.report), Ok(()), "{name}");
        for (score, item) in scores.items.iter().zip(&probe.report.items) {
            assert_eq!(score.keep_order.len(), item.tokens as usize, "{name}");
        }
    }
}

proptest! {
    #[test]
    fn every_answer_is_in_range_whatever_the_probe_says(
        frames in 0u32..4,
        side in 0u32..6,
        tau in prop_oneof![-1.0f64..1.0, Just(f64::NAN)],
        noise in prop::collection::vec(prop::num::f32::ANY, 1..40),
        lacking in 0usize..8,
    ) {
        let mut probe = Probe::new(3).video(frames, side, side).image(side, 2);
        for (shift, list) in [&mut probe.report.saliency, &mut probe.report.similarity].into_iter().enumerate() {
            for (i, value) in list.iter_mut().enumerate() {
                *value = noise[(i * 7 + shift) % noise.len()];
            }
            // A list that ends early is none that a host hands over, and no reason to trap.
            list.truncate(list.len().saturating_sub(lacking));
        }
        let scores = probe.score::<SaliencyOnly>(&[tau]);
        prop_assert_eq!(rules::scores(&scores, &probe.report), Ok(()));
        for (score, item) in scores.items.iter().zip(&probe.report.items) {
            prop_assert!(lacking > 0 || score.keep_order.len() == item.tokens as usize);
        }
    }
}
