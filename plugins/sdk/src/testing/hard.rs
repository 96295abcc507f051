//! Reports that a post-processor must have an answer to, whatever it makes of them.

use alloc::vec::Vec;

use super::Probe;
use crate::{Report, modality};

/// Reports with little in them, with noise, and with numbers that are none, each with a name. A host hands over no item without
/// tokens and nothing that is not finite; a post-processor that has an answer to those as well is safe whatever a later
/// one does.
///
/// ```
/// use msao_plugin::prelude::*;
/// use msao_plugin::{rules, testing};
///
/// struct Keeper;
///
/// impl PostProcessor for Keeper {
///     fn score(input: &ScoreInput) -> Scores {
///         let whole = |_| Score {
///             necessity: 1.0,
///             mas: 0.0,
///             spatial: 0.0,
///             temporal: 0.0,
///             unusual: 1.0,
///             keep_order: Vec::new(),
///         };
///         Scores {
///             items: input.report.items.iter().map(whole).collect(),
///             updates: Vec::new(),
///         }
///     }
/// }
///
/// for (name, probe) in testing::hard_probes() {
///     let scores = probe.score::<Keeper>(&[]);
///     assert_eq!(rules::scores(&scores, &probe.report), Ok(()), "{name}");
/// }
/// ```
pub fn hard_probes() -> Vec<(&'static str, Probe)> {
    let numbers = |value: f32| {
        let mut probe = Probe::new(4).image(3, 5).video(3, 2, 2);
        for list in lists(&mut probe.report) {
            list.fill(value);
        }
        for item in &mut probe.report.items {
            item.relevance = f64::from(value);
        }
        probe
    };
    let mut features = Probe::new(4).image(3, 5).video(3, 2, 2);
    for value in features.report.features.iter_mut().step_by(3) {
        *value = f32::NAN;
    }
    let mut silence = Probe::new(4).image(0, 0).image(2, 2);
    for item in silence.report.items.iter_mut().take(1) {
        item.modality = modality::AUDIO;
        item.frames = 0;
    }
    let mut later = Probe::new(4).image(2, 2);
    for item in &mut later.report.items {
        item.modality = 200;
    }
    let mut many = Probe::new(1);
    for _ in 0..300 {
        many = many.image(1, 2);
    }
    Vec::from([
        ("nothing", Probe::new(4)),
        ("an item of no token", Probe::new(4).image(0, 0)),
        ("an empty sound before a picture", silence),
        ("one token", Probe::new(4).image(1, 1)),
        ("a noise", noise(24, 24)),
        ("features that are no numbers", features),
        ("no numbers at all", numbers(f32::NAN)),
        ("infinite numbers", numbers(f32::INFINITY)),
        ("numbers of minus infinity", numbers(f32::NEG_INFINITY)),
        ("the largest numbers", numbers(f32::MAX)),
        ("nothing but zeros", numbers(0.0)),
        ("a modality of a later contract", later),
        ("more items than may be learned from", many),
    ])
}

/// A picture of noise: nothing in it stands out, and no two tokens are alike.
pub fn noise(height: u32, width: u32) -> Probe {
    let mut probe = Probe::new(16).image(height, width);
    let mut state = 1_u64;
    // In [0, 1), by Knuth's MMIX generator.
    let mut next = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 24) as f32
    };
    for value in &mut probe.report.features {
        *value = 2.0 * next() - 1.0;
    }
    for value in &mut probe.report.saliency {
        *value = 2.2 + 0.2 * next();
    }
    for value in &mut probe.report.relevance {
        *value = 0.001 * next();
    }
    probe
}

/// A picture of a million tokens, with four features each: more than any model reads, and an answer all the same.
pub fn vast() -> Probe {
    Probe::new(4).image(1000, 1000)
}

fn lists(report: &mut Report) -> [&mut Vec<f32>; 5] {
    [
        &mut report.saliency,
        &mut report.relevance,
        &mut report.baseline,
        &mut report.similarity,
        &mut report.features,
    ]
}
