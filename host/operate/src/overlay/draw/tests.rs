use std::collections::BTreeMap;

use msao_core::digest::Digest;
use msao_core::offload::kept::{MediumKept, TokenSet};
use msao_media::{Limits, decode_image};

use super::*;

fn extent(frames: u32, rows: u32, columns: u32) -> Extent {
    Extent {
        frames,
        rows,
        columns,
    }
}

fn some(kept: &[u32], tokens: u32) -> Option<Reading> {
    Some(Reading {
        extent: None,
        kept: Some(TokenSet::new(kept, tokens)),
    })
}

fn medium(
    modality: u8,
    extent: Extent,
    (draft, target): (Option<Reading>, Option<Reading>),
    seen: Seen,
) -> Medium {
    Medium {
        modality,
        kept: MediumKept {
            digest: Digest::of(b""),
            extent,
            sampled: Vec::new(),
            draft,
            target,
        },
        seen,
    }
}

fn picture(width: u32, height: u32, pixel: impl Fn(u32, u32) -> Colour) -> RgbImage {
    let rows = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    RgbImage {
        width,
        height,
        data: rows.flat_map(|(x, y)| pixel(x, y)).collect(),
    }
}

/// What `tests/data/overlay.py` draws in its own words.
fn media() -> Vec<Medium> {
    let image = picture(12, 8, |x, y| {
        [20 * x as u8, 30 * y as u8, 10 * (x + y) as u8]
    });
    let pair =
        |left: Colour, right: Colour| picture(2, 1, |x, _| if x == 0 { left } else { right });
    let frames = BTreeMap::from([
        (0, pair([200, 0, 0], [0, 200, 0])),
        (1, pair([0, 0, 200], [90, 90, 90])),
        (2, pair([250, 250, 0], [0, 250, 250])),
    ]);
    let samples = (0..2000_i32).map(|it| (it * it % 65 - 32) as f32 / 32.0);
    vec![
        medium(
            modality::IMAGE,
            extent(1, 2, 3),
            (some(&[0, 4], 6), some(&[1, 2, 3, 5], 6)),
            Seen::Image(image),
        ),
        medium(
            modality::VIDEO,
            extent(3, 1, 2),
            (some(&[0, 5], 6), Some(Reading::default())),
            Seen::Frames(frames),
        ),
        medium(
            modality::AUDIO,
            extent(5, 1, 1),
            (None, some(&[1, 3], 5)),
            Seen::Sound(samples.collect()),
        ),
        medium(
            modality::IMAGE,
            extent(1, 1, 2),
            (some(&[1], 2), None),
            Seen::Nothing,
        ),
        // Nobody has read it: it takes no room.
        medium(
            modality::IMAGE,
            extent(1, 9, 9),
            (None, None),
            Seen::Nothing,
        ),
    ]
}

#[test]
fn what_is_drawn_is_the_golden_picture_to_the_pixel() {
    let golden = include_bytes!("../../../tests/data/overlay.png");
    let golden = decode_image(golden, &Limits::default()).unwrap();
    let drawn = draw(&media()).unwrap();
    assert_eq!((drawn.width, drawn.height), (golden.width, golden.height));
    let differs = drawn
        .data
        .chunks(3)
        .zip(golden.data.chunks(3))
        .position(|(drawn, golden)| drawn != golden);
    let place = differs.map(|it| (it as u32 % golden.width, it as u32 / golden.width));
    assert_eq!(
        place, None,
        "the first pixel that differs, from the left and the top"
    );
    // And it is written as it was drawn.
    let png = msao_media::encode_png(&drawn).unwrap();
    assert_eq!(decode_image(&png, &Limits::default()).unwrap(), golden);
}

#[test]
fn another_extent_of_a_side_is_drawn_as_that_side_got_it() {
    let halved = Reading {
        extent: Some(extent(1, 1, 1)),
        kept: None,
    };
    let image = picture(4, 4, |_, _| [9; 3]);
    let drawn = |target| {
        let one = medium(
            modality::IMAGE,
            extent(1, 2, 2),
            (None, Some(target)),
            Seen::Image(image.clone()),
        );
        draw(&[one]).unwrap()
    };
    let around = 2 * (GAP + BORDER);
    assert_eq!(drawn(Reading::default()).width, 2 * 28 + around);
    assert_eq!(drawn(halved).width, 28 + around);
}

#[test]
fn what_cannot_be_drawn_is_told() {
    let nobody = [medium(
        modality::IMAGE,
        extent(1, 2, 2),
        (None, None),
        Seen::Nothing,
    )];
    let error = draw(&nobody).unwrap_err().to_string();
    assert!(error.contains("neither model"), "{error}");
    // A million frames of a token each, all kept.
    let endless = [medium(
        modality::VIDEO,
        extent(1 << 20, 1, 1),
        (Some(Reading::default()), None),
        Seen::Nothing,
    )];
    let error = draw(&endless).unwrap_err().to_string();
    assert!(error.contains("more than the 67108864"), "{error}");
    // A quarter of a million tokens of an image are drawn.
    let large = [medium(
        modality::IMAGE,
        extent(1, 1 << 9, 1 << 9),
        (some(&[], 1 << 18), None),
        Seen::Nothing,
    )];
    let drawn = draw(&large).unwrap();
    let side = 4 * 512 + 2 * (GAP + BORDER);
    assert_eq!((drawn.width, drawn.height), (side, side));
    // A clip of which nothing was kept is a bar.
    let nothing = [medium(
        modality::VIDEO,
        extent(4, 2, 2),
        (some(&[], 16), None),
        Seen::Nothing,
    )];
    assert_eq!(draw(&nothing).unwrap().height, BAR + 2 * (GAP + BORDER));
    // A sound without samples, or with such as are no numbers, has a wave of nothing, or of silence.
    for samples in [Vec::new(), vec![f32::NAN; 9], vec![f32::INFINITY; 9]] {
        let sound = [medium(
            modality::AUDIO,
            extent(9, 1, 1),
            (None, Some(Reading::default())),
            Seen::Sound(samples),
        )];
        draw(&sound).unwrap();
    }
}
