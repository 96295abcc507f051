use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::mmbench::Choice;
use crate::vqa::{Answers, Rules};

fn item(id: u64, mix: Mix, long: bool) -> Item {
    Item {
        id,
        set: "test".into(),
        kind: Arc::from(format!("kind {}", id % 3)),
        answer_type: "".into(),
        mix,
        text: String::new(),
        media: Vec::new(),
        needs: Vec::new(),
        long,
        seen_mix: true,
        answer: "".into(),
        reference: Reference::Vqa(Answers::new(Vec::new(), Rules::Official)),
    }
}

/// `each` short and long ones of every mix, no long ones of text alone, and some of mixes that nobody asked for.
fn items(each: u64) -> Vec<Item> {
    let both = Mix::of([
        msao_core::chat::Modality::Image,
        msao_core::chat::Modality::Audio,
    ]);
    let mut all = Vec::new();
    for mix in [Mix::IMAGE, Mix::VIDEO, Mix::AUDIO, Mix::TEXT, both] {
        for long in [false, true] {
            for _ in 0..if long && mix == Mix::TEXT { 0 } else { each } {
                all.push(item(all.len() as u64, mix, long));
            }
        }
    }
    let mut unseen = item(all.len() as u64, Mix::IMAGE, true);
    unseen.seen_mix = false;
    all.push(unseen);
    all
}

fn count(all: &[Item], sample: &Sample, is: impl Fn(&Item) -> bool) -> usize {
    sample
        .places
        .iter()
        .filter(|place| is(&all[**place]))
        .count()
}

#[test]
fn the_mixed_workload_has_the_shares_it_should() {
    let all = items(40);
    for total in [300, 100, 7, 1, 0] {
        let sample = Workload::default().draw(&all, total, 5).unwrap();
        assert_eq!(sample.places.len(), total);
        let near = |got: usize, share: f64| (got as f64 - share * total as f64).abs() <= 3.0;
        assert!(near(count(&all, &sample, |it| it.long), 0.4));
        for mix in [Mix::IMAGE, Mix::VIDEO, Mix::AUDIO, Mix::TEXT] {
            assert!(
                near(count(&all, &sample, |it| it.mix == mix), 0.25),
                "{total} {mix}"
            );
        }
    }
    let sample = Workload::default().draw(&all, 300, 5).unwrap();
    assert_eq!(count(&all, &sample, |it| it.long), 120);
    assert_eq!(count(&all, &sample, |it| it.mix == Mix::TEXT), 75);
    assert_eq!(
        count(&all, &sample, |it| it.mix == Mix::AUDIO && it.long),
        40
    );
    assert_eq!(count(&all, &sample, |it| !it.seen_mix), 0);
    // 75 of the 40 short texts.
    assert_eq!(sample.repeats, 35);
}

#[test]
fn nothing_comes_again_before_all_of_its_sort_have() {
    let all = items(10);
    let sample = Workload::default().draw(&all, 300, 1).unwrap();
    let mut times = vec![0_usize; all.len()];
    sample.places.iter().for_each(|place| times[*place] += 1);
    // 75 texts of ten: seven or eight times each.
    assert!(
        all.iter()
            .zip(&times)
            .filter(|(it, _)| it.mix == Mix::TEXT)
            .all(|(_, n)| (7..=8).contains(n))
    );
    let distinct = times.iter().filter(|times| **times > 0).count();
    assert_eq!(sample.repeats, 300 - distinct);
}

#[test]
fn what_cannot_be_is_said() {
    let all = items(10);
    let once = Workload {
        repeats: false,
        ..Workload::default()
    };
    let error = once.draw(&all, 300, 1).unwrap_err().to_string();
    assert!(error.contains("are needed and there are 10"), "{error}");
    let field = |workload: Workload| match workload.draw(&all, 10, 1) {
        Err(SampleError::Workload { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let default = Workload::default;
    assert_eq!(
        field(Workload {
            long_share: 0.8,
            ..default()
        }),
        "long_share"
    );
    assert_eq!(
        field(Workload {
            long_share: f64::NAN,
            ..default()
        }),
        "long_share"
    );
    assert_eq!(
        field(Workload {
            mixes: vec![],
            ..default()
        }),
        "mixes"
    );
    assert_eq!(
        field(Workload {
            mixes: vec![Mix::TEXT; 2],
            ..default()
        }),
        "mixes"
    );
    assert_eq!(
        field(Workload {
            mixes: vec![Mix::TEXT],
            ..default()
        }),
        "long_share"
    );
    let short: Vec<Item> = all
        .iter()
        .filter(|it| it.mix != Mix::VIDEO)
        .cloned()
        .collect();
    let error = Workload {
        long_share: 0.1,
        ..default()
    }
    .draw(&short, 40, 1)
    .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("short questions of the mix video"),
        "{error}"
    );
}

#[test]
fn rotations_come_together() {
    let mut all = Vec::new();
    for id in 1..=20_u64 {
        for turn in 0..4 {
            let mut it = item(id + turn * 1_000_000, Mix::IMAGE, false);
            it.kind = "one".into();
            it.reference = Reference::Choice(Choice {
                letter: 'A',
                options: Vec::new(),
                group: id,
                rotations: 4,
            });
            all.push(it);
        }
    }
    let sample = proportional(&all, 30, 9);
    assert_eq!(sample.places.len(), 32);
    let groups: BTreeSet<u64> = sample
        .places
        .iter()
        .map(|place| all[*place].id % 1_000_000)
        .collect();
    assert_eq!(groups.len(), 8);
}

#[test]
fn a_draw_is_this_one_on_every_machine() {
    let all = items(5);
    let first = Workload::default().draw(&all, 8, 42).unwrap();
    assert_eq!(first, Workload::default().draw(&all, 8, 42).unwrap());
    assert_ne!(
        first.places,
        Workload::default().draw(&all, 8, 43).unwrap().places
    );
    assert_eq!(first.places, GOLDEN);
}

proptest! {
    #[test]
    fn parts_add_up(shares in prop::collection::vec(0.0..5.0_f64, 1..8), count in 0_usize..1_000) {
        prop_assume!(shares.iter().sum::<f64>() > 0.1);
        let counts = apportion(&shares, count);
        prop_assert_eq!(counts.iter().sum::<usize>(), count);
        let sum: f64 = shares.iter().sum();
        for (got, share) in counts.iter().zip(&shares) {
            prop_assert!((*got as f64 - share / sum * count as f64).abs() < 1.0 + 1e-5);
        }
    }

    #[test]
    fn proportional_draws_have_no_repeats(each in 1_u64..12, count in 0_usize..80, seed in any::<u64>()) {
        let all = items(each);
        let sample = proportional(&all, count, seed);
        prop_assert_eq!(sample.places.len(), count.min(all.len()));
        let distinct: BTreeSet<usize> = sample.places.iter().copied().collect();
        prop_assert_eq!(distinct.len(), sample.places.len());
    }

    #[test]
    fn a_shuffle_loses_nothing(length in 0_usize..50, seed in any::<u64>()) {
        let mut all: Vec<usize> = (0..length).collect();
        Random::new(seed).shuffle(&mut all);
        all.sort_unstable();
        prop_assert_eq!(all, (0..length).collect::<Vec<_>>());
    }
}

const GOLDEN: [usize; 8] = [34, 23, 27, 13, 30, 18, 7, 0];
