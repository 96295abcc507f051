use proptest::prelude::*;

use super::*;
use crate::config::Activation;
use crate::near::LEVEL;

const SIDE: usize = 14;
const GRID: Grid = Grid { t: 1, h: 4, w: 6 };

fn config() -> VisionConfig {
    VisionConfig {
        depth: 1,
        hidden_size: 16,
        intermediate_size: 16,
        out_hidden_size: 16,
        heads: 1,
        channels: 3,
        patch_size: SIDE,
        temporal_patch_size: 2,
        merge_size: 2,
        activation: Activation::Silu,
        windows: None,
    }
}

/// A pixel of a clip: temporal patch, frame in it, channel, row, column.
type Pixel = (usize, usize, usize, usize, usize);

/// The values of a clip of `t` temporal patches, whose pixels have these grey levels.
fn clip(t: usize, level: impl Fn(Pixel) -> f32) -> (Vec<f32>, Grid) {
    let mut values = Vec::new();
    for t in 0..t {
        for patch in 0..GRID.h * GRID.w {
            let (block, within) = (patch / 4, patch % 4);
            let top = (block / (GRID.w / 2) * 2 + within / 2) * SIDE;
            let left = (block % (GRID.w / 2) * 2 + within % 2) * SIDE;
            for plane in 0..6 {
                for pixel in 0..SIDE * SIDE {
                    let (y, x) = (top + pixel / SIDE, left + pixel % SIDE);
                    values.push(LEVEL * level((t, plane % 2, plane / 2, y, x)));
                }
            }
        }
    }
    (values, Grid { t, ..GRID })
}

/// A number in [0, 1) for a pixel and a seed.
fn scattered((t, frame, channel, y, x): Pixel, seed: u64) -> f32 {
    let place = [t, frame, channel, y, x]
        .into_iter()
        .fold(seed, |place, n| {
            place.wrapping_mul(1009).wrapping_add(n as u64)
        });
    let mut z = place.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^= z >> 31;
    (z >> 40) as f32 / (1u64 << 24) as f32
}

/// A still picture with things in it of several sizes.
fn picture((_, _, channel, y, x): Pixel) -> f32 {
    let coarse = scattered((0, 0, channel, y / 9, x / 8), 1);
    let fine = scattered((0, 0, channel, y, x), 2);
    120.0 * coarse + 20.0 * fine - 70.0
}

fn near(values: &[f32], grid: Grid) -> Option<Repeats> {
    Repeats::of_clip(values, grid, &config(), Some(&NearDuplicates::default()))
}

/// For each segment the segment whose features it takes.
fn owners(repeats: Option<Repeats>, segments: usize) -> Vec<usize> {
    match repeats {
        Some(repeats) => (repeats.source.iter())
            .map(|&place| repeats.encoded[place])
            .collect(),
        None => (0..segments).collect(),
    }
}

#[test]
fn stills_and_clips_of_nothing_have_no_repeats() {
    let (still, grid) = clip(1, picture);
    assert_eq!(near(&still, grid), None);
    let nothing = Grid { t: 9, h: 0, w: 0 };
    assert_eq!(near(&[], nothing), None);
    assert_eq!(near(&[], Grid { t: 0, ..nothing }), None);
    let (two, _) = clip(2, picture);
    // What does not divide is refused elsewhere.
    assert_eq!(near(&two, Grid { t: 5, ..GRID }), None);
}

#[test]
fn what_only_changes_its_colour_is_a_change() {
    let (values, grid) = clip(2, |pixel| {
        let moved = match pixel {
            (1, _, 0, 20..36, 30..46) => 20.0,
            // The luma stays.
            (1, _, 1, 20..36, 30..46) => -20.0 * 0.299 / 0.587,
            _ => 0.0,
        };
        picture(pixel) + moved
    });
    assert_eq!(near(&values, grid), None);
}

#[test]
fn what_is_no_number_is_like_nothing_but_itself() {
    let (mut values, grid) = clip(4, picture);
    let size = values.len() / 4;
    values[size + 777] = f32::NAN;
    values[2 * size + 777] = f32::NAN;
    values[3 * size + 5] = f32::INFINITY;
    assert_eq!(owners(near(&values, grid), 4), [0, 1, 1, 3]);
}

#[test]
fn an_exact_repeat_is_found_beyond_what_lies_between() {
    // The third is the first again; the fourth is near it.
    let (values, grid) = clip(5, |pixel| match pixel.0 {
        1 | 4 => -picture(pixel),
        3 => picture(pixel) + 0.5,
        _ => picture(pixel),
    });
    let exact = Repeats::of_clip(&values, grid, &config(), None);
    assert_eq!(owners(exact, 5), [0, 1, 0, 3, 1]);
    let near = near(&values, grid).unwrap();
    assert!(near.merges_near());
    assert_eq!(owners(Some(near), 5), [0, 1, 0, 0, 1]);
}

#[test]
fn lists_of_equal_segments_are_made_equal() {
    let repeats = Repeats::new(&[0, 0, 2, 0, 2], false).unwrap();
    let mut values = [1.0, 2.0, 1.1, 2.1, 3.0, 4.0, 1.2, 2.2, 3.1, 4.1];
    repeats.level(&mut values);
    assert_eq!(values, [1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0]);
    assert_eq!(repeats.rows(2), [0, 1, 0, 1, 2, 3, 0, 1, 2, 3]);
    assert_eq!(Repeats::new(&[0, 1, 2], false), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn each_picture_is_encoded_once_and_all_come_back(labels in prop::collection::vec(0usize..4, 1..8)) {
        let (values, grid) = clip(labels.len(), |pixel| picture(pixel) + 40.0 * labels[pixel.0] as f32);
        let repeats = Repeats::of_clip(&values, grid, &config(), None);
        let mut distinct = labels.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let Some(repeats) = repeats else {
            prop_assert_eq!(distinct.len(), labels.len());
            return Ok(());
        };
        prop_assert_eq!(repeats.encoded().len(), distinct.len());
        prop_assert!(!repeats.merges_near());
        let (gathered, fewer) = repeats.gather(&values, grid);
        prop_assert_eq!(fewer, Grid { t: distinct.len(), ..grid });
        let size = 6 * SIDE * SIDE;
        let rows = repeats.rows(GRID.h * GRID.w);
        let back = rows.iter().flat_map(|&row| &gathered[row as usize * size..][..size]);
        let same = back.zip(&values).all(|(a, b)| a.to_bits() == b.to_bits());
        prop_assert!(same && rows.len() * size == values.len());
    }

    #[test]
    fn the_chunks_of_a_sound_are_told_by_all_their_rows(
        labels in prop::collection::vec(0usize..3, 2..7), bins in 1usize..5, length in 1usize..90, tail in 0usize..9,
    ) {
        let frames = labels.len() * length + tail;
        // Chunks differ in a single value of the last row.
        let sound: Vec<f32> = (0..bins * frames)
            .map(|at| {
                let (bin, frame) = (at / frames, at % frames);
                let last = bin + 1 == bins && frame % length == length - 1;
                let label = labels.get(frame / length).filter(|_| last);
                (frame % length) as f32 + label.map_or(0.0, |&label| label as f32 / 8.0)
            })
            .collect();
        let repeats = Repeats::of_sound(&sound, frames, length, labels.len());
        let first = |label: &usize| labels.iter().position(|other| other == label).unwrap();
        let expected: Vec<usize> = labels.iter().map(first).collect();
        prop_assert_eq!(owners(repeats, labels.len()), expected);
    }

    #[test]
    fn noise_is_passed_over(seed in any::<u64>()) {
        let (values, grid) = clip(3, |pixel| {
            let noise = 2.0 * scattered(pixel, seed) - 1.0;
            picture(pixel) + noise
        });
        let repeats = near(&values, grid);
        prop_assert_eq!(owners(repeats, 3), [0, 0, 0]);
        prop_assert_eq!(Repeats::of_clip(&values, grid, &config(), None), None);
    }

    #[test]
    fn one_changed_block_of_16_by_16_is_seen_wherever_it_is(
        frame in 0usize..2,
        (y, x) in (0usize..=4 * SIDE - 16, 0usize..=6 * SIDE - 16),
        channel in prop::option::of(0usize..3),
        by in 2.1f32..60.0,
        darker in any::<bool>(),
    ) {
        // A change in one channel counts a third.
        let by = if channel.is_some() { 3.0 * by } else { by };
        let by = if darker { -by } else { by };
        let (values, grid) = clip(2, |pixel| {
            let (t, of, c, row, column) = pixel;
            let changed = t == 1
                && of == frame
                && channel.is_none_or(|channel| channel == c)
                && (y..y + 16).contains(&row)
                && (x..x + 16).contains(&column);
            picture(pixel) + if changed { by } else { 0.0 }
        });
        prop_assert_eq!(near(&values, grid), None);
    }

    #[test]
    fn a_slow_drift_ends_in_a_patch_of_its_own(step in 0.05f32..0.9, t in 3usize..12) {
        let (values, grid) = clip(t, |pixel| picture(pixel) + step * pixel.0 as f32);
        let owners = owners(near(&values, grid), t);
        for (number, owner) in owners.iter().enumerate() {
            // Each differs from the one that was encoded by less than a level.
            prop_assert!((number - owner) as f32 * step <= 1.01, "{owners:?}");
        }
        // And the next to come from the last encoded by more: none is encoded for nothing.
        for pair in owners.windows(2) {
            prop_assert!(pair[0] == pair[1] || (pair[1] - pair[0]) as f32 * step > 0.99, "{owners:?}");
        }
    }
}
