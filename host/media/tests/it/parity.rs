//! What is decoded here against what Pillow, libsndfile and ffmpeg decode.
//!
//! Tolerances and where they come from:
//! - PNG, GIF, lossless WebP, WAV, FLAC: exact.
//! - Lossy WebP: exact without alpha, 2 where a decoder rounds otherwise. JPEG: another rounding in the inverse cosine
//!   transform and the conversion (3), another way to scale subsampled chroma up (8).
//! - H.264: the standard fixes the planes bit by bit, and the conversion to RGB is ffmpeg's: exact.
//! - MP3: decoders differ by rounding; resampling: by the filter, so not at the ends.

// Helpers of tests are tests too.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use msao_media::{Limits, probe_video};

use crate::support::{References, distance, planes_to_rgb, snr_db};

const BT601: (f64, f64) = (0.299, 0.114);
const BT709: (f64, f64) = (0.2126, 0.0722);

#[test]
fn lossless_pictures_are_exact() {
    let shared = References::shared();
    for name in [
        "rgb.png",
        "rgba.png",
        "gray.png",
        "gray_alpha.png",
        "palette.png",
        "lossless.webp",
        "alpha.webp",
        "still.gif",
    ] {
        let image = shared.image(name);
        assert_eq!((image.width, image.height), (47, 35));
        assert_eq!(
            distance(name, &image.data, &shared.bytes(&format!("{name}.rgb"))).largest,
            0,
            "{name}"
        );
    }
    let own = References::own();
    for name in [
        "gray16.png",
        "gray1.png",
        "palette2_transparent.png",
        "rgb16.png",
        "turned8.png",
        "turned8.webp",
    ] {
        let image = own.image(name);
        assert_eq!(
            own.shape(name),
            [image.height as usize, image.width as usize, 3],
            "{name}"
        );
        assert_eq!(
            distance(name, &image.data, &own.bytes(name)).largest,
            0,
            "{name}"
        );
    }
}

#[test]
fn lossy_pictures_are_within_rounding() {
    let shared = References::shared();
    for (name, key, largest, mean) in [
        ("baseline.jpg", "baseline.jpg.rgb", 4, 0.5),
        ("progressive.jpg", "progressive.jpg.rgb", 4, 0.5),
        ("full_chroma.jpg", "full_chroma.jpg.rgb", 4, 0.5),
        ("gray.jpg", "gray.jpg.rgb", 2, 0.5),
        ("turned.jpg", "turned.jpg.rgb_upright", 4, 0.5),
        ("lossy.webp", "lossy.webp.rgb", 2, 0.5),
    ] {
        let image = shared.image(name);
        assert_eq!(
            shared.shape(key),
            [image.height as usize, image.width as usize, 3],
            "{name}"
        );
        let apart = distance(name, &image.data, &shared.bytes(key));
        assert!(
            apart.largest <= largest && apart.mean <= mean,
            "{name}: {apart:?}"
        );
    }
    let own = References::own();
    let turned = (2..=8).map(|orientation| format!("turned{orientation}.jpg"));
    for name in turned.chain(["cmyk.jpg", "restart_422.jpg", "alpha_lossy.webp"].map(str::to_owned))
    {
        let image = own.image(&name);
        assert_eq!(
            own.shape(&name),
            [image.height as usize, image.width as usize, 3],
            "{name}"
        );
        let apart = distance(&name, &image.data, &own.bytes(&name));
        // With 4:2:2 the last column mixes in chroma from behind the edge; everything else is within 8.
        let largest = if name == "restart_422.jpg" { 24 } else { 8 };
        assert!(
            apart.largest <= largest && apart.mean <= 0.5,
            "{name}: {apart:?}"
        );
    }
}

#[test]
fn animations_are_composed() {
    let shared = References::shared();
    for name in ["moving.gif", "moving.webp"] {
        let clip = shared.clip(name);
        assert_eq!(clip.info.frames, 4);
        assert!(
            (clip.info.fps - 4.0 / 0.7).abs() < 1e-9,
            "{}",
            clip.info.fps
        );
        let frames: Vec<u8> = clip
            .frames
            .iter()
            .flat_map(|frame| frame.data.clone())
            .collect();
        assert_eq!(
            distance(name, &frames, &shared.bytes(&format!("{name}.rgb"))).largest,
            0,
            "{name}"
        );
        // As a picture it is its first frame.
        assert_eq!(shared.image(name), clip.frames[0], "{name}");
    }
    let own = References::own();
    for (name, seconds, largest) in [
        ("disposal1.gif", 0.18, 0),
        ("disposal2.gif", 0.18, 0),
        ("disposal3.gif", 0.18, 0),
        ("lossy.webp", 0.12, 2),
    ] {
        let clip = own.clip(name);
        assert!(
            (clip.info.fps - 3.0 / seconds).abs() < 1e-9,
            "{name}: {}",
            clip.info.fps
        );
        let frames: Vec<u8> = clip
            .frames
            .iter()
            .flat_map(|frame| frame.data.clone())
            .collect();
        assert!(
            distance(name, &frames, &own.bytes(&format!("{name}.clip"))).largest <= largest,
            "{name}"
        );
    }
}

#[test]
fn a_still_picture_is_a_clip_of_one_frame() {
    let shared = References::shared();
    for name in ["still.gif", "lossless.webp", "lossy.webp", "alpha.webp"] {
        let clip = shared.clip(name);
        assert_eq!(
            (clip.info.frames, clip.indices.as_slice()),
            (1, [0].as_slice()),
            "{name}"
        );
        assert!(clip.info.fps > 0.0);
        assert_eq!(clip.frames[0], shared.image(name), "{name}");
    }
}

/// Frames against reference planes, all of them and in order.
fn check_planes(
    references: &References,
    name: &str,
    key: &str,
    fps: f64,
    weights: (f64, f64),
    full: bool,
) {
    let clip = references.clip(name);
    let [frames, rows, width] = references.shape(key)[..] else {
        panic!("{key}")
    };
    assert_eq!(
        (
            clip.info.frames,
            clip.info.width as usize,
            clip.info.height as usize
        ),
        (frames, width, rows * 2 / 3),
        "{name}"
    );
    assert!(
        (clip.info.fps - fps).abs() < 0.01,
        "{name}: {}",
        clip.info.fps
    );
    let planes = references.bytes(key);
    let mut worst = 0;
    for (index, (frame, planes)) in clip
        .frames
        .iter()
        .zip(planes.chunks_exact(rows * width))
        .enumerate()
    {
        let apart = distance(
            &format!("{name} {index}"),
            &frame.data,
            &planes_to_rgb(planes, width, weights, full),
        );
        worst = worst.max(apart.largest);
    }
    assert!(worst == 0, "{name}: {worst}");
}

#[test]
fn h264_frames_are_exact() {
    let shared = References::shared();
    for name in ["b_frames.mp4", "baseline_faststart.mp4"] {
        check_planes(
            &shared,
            name,
            &format!("{name}.yuv420p"),
            10.0,
            BT601,
            false,
        );
    }
    let own = References::own();
    for name in [
        "pyramid.mp4",
        "open_gop.mp4",
        "fragments.mp4",
        "fragments_old.mp4",
        "slices.mp4",
        "negative_offsets.mp4",
        "in_band.mp4",
    ] {
        check_planes(&own, name, &format!("{name}.yuv"), 12.5, BT601, false);
    }
    check_planes(&own, "bt709.mp4", "bt709.mp4.yuv", 12.5, BT709, false);
    check_planes(
        &own,
        "full_range.mp4",
        "full_range.mp4.yuv",
        12.5,
        BT601,
        true,
    );
}

#[test]
fn h264_colours_are_those_of_ffmpeg() {
    for (references, name, key) in [
        (References::shared(), "b_frames.mp4", "b_frames.mp4.rgb"),
        (References::own(), "pyramid.mp4", "pyramid.mp4.clip"),
        (References::own(), "bt709.mp4", "bt709.mp4.clip"),
        (References::own(), "full_range.mp4", "full_range.mp4.clip"),
    ] {
        let frames: Vec<u8> = references
            .clip(name)
            .frames
            .iter()
            .flat_map(|frame| frame.data.clone())
            .collect();
        // Of the crate's own clips the first frames; their planes are compared in all of them.
        let expected = references.bytes(key);
        assert!(!expected.is_empty() && frames.len() >= expected.len());
        let apart = distance(name, &frames[..expected.len()], &expected);
        assert!(apart.largest == 0, "{name}: {apart:?}");
    }
}

#[test]
fn chosen_frames_are_those_of_the_whole_clip() {
    let own = References::own();
    for name in ["pyramid.mp4", "open_gop.mp4", "disposal2.gif"] {
        let bytes = own.file(name);
        let all = own.clip(name);
        assert_eq!(probe_video(&bytes, &Limits::default()).unwrap(), all.info);
        let last = all.info.frames - 1;
        for chosen in [vec![0], vec![last], vec![1, 1, last / 2 + 1, last], vec![]] {
            let some =
                msao_media::decode_video(&bytes, &Limits::default(), &mut |_| chosen.clone())
                    .unwrap();
            assert_eq!(some.indices, chosen, "{name}");
            for (frame, index) in some.frames.iter().zip(&chosen) {
                assert_eq!(*frame, all.frames[*index], "{name} {index}");
            }
        }
    }
}

#[test]
fn lossless_sounds_are_exact() {
    let shared = References::shared();
    for (name, key) in [
        ("mono16k_pcm16.wav", "mono16k_pcm16.wav.samples"),
        ("mono16k_float.wav", "mono16k_float.wav.samples"),
        ("mono16k_pcm24.wav", "mono16k_pcm24.wav.samples"),
        ("mono16k.flac", "mono16k_pcm16.wav.samples"),
    ] {
        assert_eq!(shared.sound(name).samples, shared.floats(key), "{name}");
    }
    let own = References::own();
    for name in [
        "u8.wav",
        "pcm32_stereo.wav",
        "double.wav",
        "mulaw.wav",
        "stereo24.flac",
    ] {
        assert_eq!(
            own.sound(name).samples,
            own.floats(&format!("{name}.samples")),
            "{name}"
        );
    }
}

#[test]
fn mp3_is_as_long_and_as_loud_as_ffmpeg_reads_it() {
    let shared = References::shared();
    let db = snr_db(
        "mono16k.mp3",
        &shared.sound("mono16k.mp3").samples,
        &shared.floats("mono16k.mp3.samples"),
        0,
    );
    assert!(db > 80.0, "{db}");
    let own = References::own();
    for name in ["vbr_stereo.mp3", "cbr_no_xing.mp3"] {
        let got = own.sound(name).samples;
        let want = own.floats(&format!("{name}.samples"));
        println!("{name}: {} samples, ffmpeg {}", got.len(), want.len());
        let db = snr_db(name, &got, &want, 0);
        assert!(db > 80.0, "{name}: {db}");
    }
}

#[test]
fn resampling_is_near_another_filter() {
    let shared = References::shared();
    let got = shared.sound("stereo44k_pcm16.wav").samples;
    let db = snr_db(
        "stereo44k_pcm16.wav",
        &got,
        &shared.floats("stereo44k_pcm16.wav.mono16k"),
        100,
    );
    assert!(db > 40.0, "{db}");
}
