use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::*;
use super::{PARAMS, settings};

/// What a host makes of updates: the cells as they are afterwards.
fn learned(before: &Calibration, updates: &[Update]) -> Calibration {
    let before = before
        .keys
        .iter()
        .map(|&key| (key, before.get(key).unwrap()));
    let mut cells: BTreeMap<u32, Cell> = before.collect();
    for update in updates {
        let cell = cells.entry(update.key).or_insert(Cell {
            mean: 0.0,
            variance: 0.0,
            count: 0.0,
        });
        let apart = update.value - cell.mean;
        match update.operation {
            Operation::Add => cell.count += update.value,
            _ if cell.count == 0.0 => (cell.mean, cell.count) = (update.value, 1.0),
            _ => {
                let step = update.weight * apart;
                cell.mean += step;
                cell.variance = (1.0 - update.weight) * (cell.variance + step * apart);
                cell.count += 1.0;
            }
        }
    }
    let cells: Vec<(u32, Cell)> = cells.into_iter().collect();
    Calibration::from_cells(&cells)
}

/// The probe after so many requests like another.
fn after(mut probe: Probe, seen: &Probe, requests: usize) -> Probe {
    let mut seen = seen.clone();
    for _ in 0..requests {
        let updates = seen.score::<MasJoint>(&PARAMS).updates;
        seen.calibration = learned(&seen.calibration, &updates);
    }
    probe.calibration = seen.calibration;
    probe
}

/// How unusual each item is.
fn unusual(probe: &Probe) -> Vec<f64> {
    let scores = probe.score::<MasJoint>(&PARAMS);
    scores.items.iter().map(|score| score.unusual).collect()
}

fn image() -> Probe {
    Probe::new(2).image(8, 8)
}

/// A clip, and a sound of 12 tokens.
fn clip_and_sound(of_clip: f64, of_sound: f64) -> Probe {
    let mut probe = Probe::new(2).video(4, 4, 4).image(1, 12);
    let items = &mut probe.report.items;
    (items[0].relevance, items[1].relevance) = (of_clip, of_sound);
    items[1].modality = modality::AUDIO;
    items[1].frames = 12;
    probe
}

#[test]
fn nothing_is_usual_before_anything_was_seen() {
    assert_eq!(unusual(&image()), [1.0]);
    assert_eq!(unusual(&clip_and_sound(1.0, 1.0)), [1.0, 1.0]);
}

#[test]
fn what_is_seen_again_and_again_becomes_usual() {
    for mut probe in [image(), clip_and_sound(2.0, 0.5), image().image(4, 4)] {
        // Else the two pictures would differ in what they draw anyway.
        probe.report.baseline.fill(0.0);
        let mut last = 1.0;
        for requests in [1, 5, 20, 60, 400] {
            let now = unusual(&after(probe.clone(), &probe, requests));
            let most = now.iter().copied().fold(0.0, f64::max);
            assert!(most < last, "{most} after {requests}, {last} before");
            last = most;
        }
        assert!(last < 0.06, "{last}");
    }
}

#[test]
fn a_mix_is_the_more_unusual_the_less_it_is_like_those_seen() {
    let seen = image();
    let of = |probe: Probe| {
        let all = unusual(&after(probe, &seen, 200));
        // Whatever is in it, its picture was seen often enough.
        all[0]
    };
    let (same, two) = (of(image()), of(image().image(8, 8)));
    let four = of(image().image(8, 8).image(8, 8).image(8, 8));
    let with_clip = of(image().video(2, 4, 4));
    assert!(same < 0.1, "{same}");
    let falls = same + 0.1 < two && two + 0.1 < four && two + 0.1 < with_clip;
    assert!(falls, "{same} {two} {four} {with_clip}");
    assert!(with_clip > 0.8, "{with_clip}");
}

#[test]
fn a_mix_that_never_came_stays_unusual_however_often_its_parts_came_alone() {
    let clip = Probe::new(2).video(4, 4, 4);
    let mut both = after(image().video(4, 4, 4), &image(), 2000);
    let before = unusual(&both);
    let mut seen = clip.clone();
    seen.calibration = both.calibration;
    both.calibration = after(clip, &seen, 2000).calibration;
    for now in before.into_iter().chain(unusual(&both)) {
        assert!(now > 0.95, "{now}");
    }
}

#[test]
fn a_mix_that_is_about_something_else_is_unusual() {
    // The clip is what questions are about; then the sound is.
    let usual = clip_and_sound(3.0, 1.0 / 3.0);
    let mix = |probe: &Probe| {
        let mut mix = Mix::default();
        for view in probe.report.views() {
            let sparsity = Sparsity::of(&view, 0.9);
            let traits = Traits::of(&view, &sparsity, &order::unit_columns(&view), 0.5);
            let necessity = necessity::of(&traits, &Calibration::default(), &settings());
            mix.add(&traits, view.item.tokens, necessity);
        }
        mix
    };
    let mut calibration = Calibration::default();
    for _ in 0..200 {
        let updates: Vec<Update> = mix(&usual).updates(0.02).collect();
        calibration = learned(&calibration, &updates);
    }
    let of = |probe: &Probe| mix(probe).unusual(&calibration, &settings());
    assert!(of(&usual) < 0.1);
    assert!(of(&clip_and_sound(1.0 / 3.0, 3.0)) > 0.9);
}

#[test]
fn features_unlike_those_seen_are_unusual() {
    // Pictures with two kinds of places in them.
    let mut seen = Probe::new(2).image(8, 8);
    for (number, feature) in seen.report.features.chunks_exact_mut(2).enumerate() {
        feature.copy_from_slice(&[[1.0, 0.2], [0.9, 0.5]][number % 2]);
    }
    let mut scattered = seen.clone();
    for (number, feature) in scattered.report.features.chunks_exact_mut(2).enumerate() {
        feature.copy_from_slice(&[[1.0, 0.0], [-1.0, 0.0]][number % 2]);
    }
    let mut dazzling = seen.clone();
    dazzling.report.saliency.fill(40.0);
    let usual = unusual(&after(seen.clone(), &seen, 200))[0];
    for other in [scattered, dazzling] {
        let other = unusual(&after(other, &seen, 200))[0];
        assert!(usual < 0.1 && other > 0.9, "{usual} {other}");
    }
}

#[test]
fn what_could_not_be_measured_teaches_nothing_of_its_mix() {
    let mut probe = image().image(2, 2);
    probe.report.items[1].relevance = f64::NAN;
    let scores = probe.score::<MasJoint>(&PARAMS);
    let keys: Vec<u32> = scores.updates.iter().map(|update| update.key).collect();
    assert_eq!(keys, [8, 9, 10, 11, 12, 13]);
    assert!(Probe::new(2).score::<MasJoint>(&PARAMS).updates.is_empty());
}

proptest! {
    #[test]
    fn it_is_a_share_whatever_was_learned(
        cells in prop::collection::vec((0u32..200, prop::num::f64::ANY, prop::num::f64::ANY, prop::num::f64::ANY), 0..120),
        relevance in prop::num::f64::ANY,
        prior in 1.0f64..1e4,
    ) {
        let cells: Vec<(u32, Cell)> = cells
            .into_iter()
            .map(|(key, mean, variance, count)| (key, Cell { mean, variance, count }))
            .collect();
        let mut probe = clip_and_sound(relevance, 1.0).image(2, 3);
        probe.calibration = Calibration::from_cells(&cells);
        let mut params = PARAMS;
        params[6] = prior;
        for score in probe.score::<MasJoint>(&params).items {
            for share in [score.unusual, score.necessity] {
                prop_assert!((0.0..=1.0).contains(&share), "{share}");
            }
        }
    }
}
