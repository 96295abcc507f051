//! Pictures from one end to the other: what is kept stays, what is not costs little, and the geometry is exact.

// Helpers of tests are tests too.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use msao_media::ship::{
    ImageWay, Region, Rest, SentImage, SentPicture, Shipment, Shipped, encode_jpeg, open_shipment,
    regions, scaled_size, share, ship_image,
};
use msao_media::{Limits, MediaError, RgbImage, decode_image};

use crate::support::scenes::{apart, holds, pixel, places, psnr_db, rectangle, scene};

/// Everything, in good quality.
const WHOLE: ImageWay<'_> = ImageWay {
    scale: 1.0,
    quality: 90,
    rest: Rest::Send,
    kept: None,
};

fn opened(shipped: &Shipped<SentImage>) -> RgbImage {
    match open_shipment(&shipped.bytes, &Limits::default()).unwrap() {
        Shipment::Image { image, sent } => {
            assert_eq!(sent, shipped.sent);
            assert_eq!((image.width, image.height), sent.canvas);
            image
        }
        other => panic!("{other:?}"),
    }
}

/// The cells of a grid whose number divides by four, in stripes that no rectangle is good for: 25% of them.
fn every_fourth(rows: u32, columns: u32) -> Vec<(u32, u32)> {
    (0..rows)
        .flat_map(|row| (0..columns).map(move |column| (row, column)))
        .filter(|(row, column)| (row + column) % 4 == 0)
        .collect()
}

// Where the bounds of 34 and 38 dB come from: quality 90 has quantisation steps of 2 to 24 levels. Rounding to a step is an
// error of a twelfth of its square: 32 dB if all were of the coarsest, 53 of the finest. With noise, which needs them
// all, pictures lie near the lower end; slopes without noise need only the finer ones.

#[test]
fn a_whole_picture_comes_back_close_to_what_it_was() {
    let image = scene(200, 120, 12);
    let shipped = ship_image(&image, &WHOLE).unwrap();
    assert_eq!(shipped.sent.canvas, (200, 120));
    assert_eq!(
        shipped.sent.picture.region,
        Region::whole(shipped.sent.canvas)
    );
    let db = psnr_db(
        &opened(&shipped),
        &image,
        Region::whole(shipped.sent.canvas),
    );
    println!("{db:.1} dB");
    assert!(db > 34.0, "{db:.1} dB");
}

#[test]
fn a_picture_by_itself_is_coded_as_in_a_shipment() {
    let image = scene(200, 120, 12);
    let jpeg = encode_jpeg(&image, WHOLE.quality).unwrap();
    let shipped = ship_image(&image, &WHOLE).unwrap();
    assert!(shipped.bytes.ends_with(&jpeg));
    let back = decode_image(&jpeg, &Limits::default()).unwrap();
    assert_eq!(back, opened(&shipped));
    for quality in [0, 101] {
        let error = encode_jpeg(&image, quality).unwrap_err();
        assert!(matches!(error, MediaError::BadWay { .. }), "{error}");
    }
    let short = RgbImage {
        data: vec![0; 9],
        ..image
    };
    let error = encode_jpeg(&short, 90).unwrap_err();
    assert!(matches!(error, MediaError::BadWay { .. }), "{error}");
}

#[test]
fn a_crop_sends_the_rectangle_around_what_is_kept() {
    let image = scene(300, 200, 12);
    let kept = [rectangle(85, 50, 70, 40), rectangle(120, 70, 56, 61)];
    let way = ImageWay {
        rest: Rest::Crop { align_px: 16 },
        kept: Some(&kept),
        ..WHOLE
    };
    let shipped = ship_image(&image, &way).unwrap();
    let SentPicture {
        region,
        painted,
        fill,
    } = shipped.sent.picture;
    assert_eq!((region, painted), (rectangle(80, 48, 96, 96), false));
    let back = opened(&shipped);
    let db = psnr_db(&back, &image, region);
    println!("{db:.1} dB");
    assert!(db > 34.0, "{db:.1} dB");
    for place in places(Region::whole((300, 200))).filter(|&place| !holds(region, place)) {
        assert_eq!(pixel(&back, place.0, place.1), fill);
    }
    let whole = ship_image(&image, &WHOLE).unwrap();
    let (part, all) = (shipped.bytes.len(), whole.bytes.len());
    println!("{part} of {all} bytes");
    assert!((part as f64) < 0.25 * all as f64, "{part} of {all} bytes");
}

#[test]
fn paint_saves_bytes_and_leaves_what_is_kept_as_it_would_have_been() {
    let (cell, canvas) = (28, (28 * 16, 28 * 12));
    let image = scene(canvas.0, canvas.1, 12);
    let kept = regions(
        &every_fourth(12, 16),
        (f64::from(cell), f64::from(cell)),
        canvas,
    );
    assert_eq!(share(&kept, canvas), 0.25);
    let way = ImageWay {
        rest: Rest::Flatten,
        kept: Some(&kept),
        ..WHOLE
    };
    let (whole, flat) = (
        ship_image(&image, &WHOLE).unwrap(),
        ship_image(&image, &way).unwrap(),
    );
    assert!(flat.sent.picture.painted);
    let (as_whole, as_flat) = (opened(&whole), opened(&flat));
    for &region in &kept {
        // To the bit: JPEG codes its blocks each for itself, and those of a kept region hold nothing else.
        assert!(
            places(region).all(|(x, y)| pixel(&as_whole, x, y) == pixel(&as_flat, x, y)),
            "{region:?}"
        );
        let db = psnr_db(&as_flat, &image, region);
        assert!(db > 34.0, "{region:?}: {db:.1} dB");
    }
    // What lies further from every kept region than its blocks reach is paint, but for rounding in the coding of it.
    let grown: Vec<Region> = kept.iter().map(|region| region.grown(8)).collect();
    for (x, y) in places(Region::whole(canvas))
        .filter(|&place| !grown.iter().any(|&region| holds(region, place)))
    {
        assert!(apart(pixel(&as_flat, x, y), flat.sent.picture.fill) <= 2);
    }
    let (part, all) = (flat.bytes.len(), whole.bytes.len());
    println!("{part} of {all} bytes with a quarter kept");
    assert!((part as f64) < 0.6 * all as f64, "{part} of {all} bytes");
}

#[test]
fn paint_that_would_reach_the_edge_is_not_sent() {
    let image = scene(300, 200, 12);
    let kept = [rectangle(50, 50, 10, 10), rectangle(100, 90, 10, 10)];
    let way = ImageWay {
        rest: Rest::Flatten,
        kept: Some(&kept),
        ..WHOLE
    };
    let shipped = ship_image(&image, &way).unwrap();
    assert_eq!(shipped.sent.picture.region, rectangle(48, 48, 64, 56));
    let back = opened(&shipped);
    assert_eq!(pixel(&back, 299, 199), shipped.sent.picture.fill);
    assert!(apart(pixel(&back, 80, 70), shipped.sent.picture.fill) <= 2);
    // One rectangle of whole blocks leaves nothing to paint.
    let kept = [rectangle(48, 48, 16, 8)];
    let way = ImageWay {
        kept: Some(&kept),
        ..way
    };
    let picture = ship_image(&image, &way).unwrap().sent.picture;
    assert_eq!(
        (picture.region, picture.painted),
        (rectangle(48, 48, 16, 8), false)
    );
}

#[test]
fn without_a_region_inside_everything_is_kept() {
    let image = scene(50, 30, 12);
    let outside = [rectangle(50, 0, 9, 9), rectangle(3, 3, 0, 8)];
    for rest in [Rest::Send, Rest::Crop { align_px: 8 }, Rest::Flatten] {
        for kept in [None, Some([].as_slice()), Some(outside.as_slice())] {
            let way = ImageWay {
                rest,
                kept,
                ..WHOLE
            };
            assert_eq!(
                ship_image(&image, &way).unwrap(),
                ship_image(&image, &WHOLE).unwrap(),
                "{way:?}"
            );
        }
    }
}

#[test]
fn a_scaled_picture_is_the_scene_at_that_size() {
    // Without noise scaling by a half is the mean of four pixels, up to the slope within them.
    let image = scene(240, 160, 0);
    let way = ImageWay {
        scale: 0.5,
        ..WHOLE
    };
    let shipped = ship_image(&image, &way).unwrap();
    assert_eq!(shipped.sent.canvas, scaled_size((240, 160), 0.5));
    let half = scene(120, 80, 0);
    let db = psnr_db(&opened(&shipped), &half, rectangle(4, 4, 112, 72));
    println!("{db:.1} dB");
    assert!(db > 38.0, "{db:.1} dB");
    for (scale, size) in [(0.3, (72, 48)), (1e-6, (1, 1)), (0.999, (240, 160))] {
        let shipped = ship_image(&image, &ImageWay { scale, ..WHOLE }).unwrap();
        assert_eq!(shipped.sent.canvas, size);
        opened(&shipped);
    }
    let dot = scene(1, 1, 0);
    assert!(
        apart(
            pixel(&opened(&ship_image(&dot, &WHOLE).unwrap()), 0, 0),
            pixel(&dot, 0, 0)
        ) <= 3
    );
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let image = scene(177, 93, 20);
    let kept = [rectangle(3, 5, 20, 20), rectangle(60, 33, 9, 30)];
    for rest in [Rest::Send, Rest::Crop { align_px: 8 }, Rest::Flatten] {
        let way = ImageWay {
            scale: 0.7,
            rest,
            kept: Some(&kept),
            ..WHOLE
        };
        let twice = [&image, &image.clone()].map(|image| ship_image(image, &way).unwrap().bytes);
        assert_eq!(twice[0], twice[1]);
        // The order in which regions are named is no difference either.
        let backward = [kept[1], kept[0]];
        let way = ImageWay {
            kept: Some(&backward),
            ..way
        };
        assert_eq!(ship_image(&image, &way).unwrap().bytes, twice[0]);
    }
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    let image = scene(20, 10, 0);
    let refused = |way: &ImageWay| match ship_image(&image, way) {
        Err(MediaError::BadWay { detail }) => detail,
        other => panic!("{way:?}: {other:?}"),
    };
    for scale in [0.0, -1.0, 1.5, f64::NAN, f64::INFINITY] {
        assert!(refused(&ImageWay { scale, ..WHOLE }).contains("scale"));
    }
    for quality in [0, 101] {
        assert!(refused(&ImageWay { quality, ..WHOLE }).contains("quality"));
    }
    let short = RgbImage {
        data: vec![0; 599],
        ..image.clone()
    };
    assert!(matches!(
        ship_image(&short, &WHOLE),
        Err(MediaError::BadWay { .. })
    ));
    let long = scene(65_536, 1, 0);
    assert!(matches!(
        ship_image(&long, &WHOLE),
        Err(MediaError::Unsupported { .. })
    ));
    ship_image(
        &long,
        &ImageWay {
            scale: 0.99,
            ..WHOLE
        },
    )
    .unwrap();
}
