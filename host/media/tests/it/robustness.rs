//! Damaged files, many of them: never a panic, never more than the limits.

// Helpers of tests are tests too.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use msao_media::ship::open_shipment;
use msao_media::{Limits, decode_audio, decode_image, decode_video, sniff};
use proptest::prelude::*;

use crate::support::References;

/// Tight, so that a file that grew by a flipped bit is refused quickly.
fn limits() -> Limits {
    Limits {
        max_bytes: 1 << 20,
        max_pixels: 256 * 256,
        max_frames: 40,
        max_video_seconds: 10.0,
        max_audio_seconds: 10.0,
        max_decoded_bytes: 16 << 20,
    }
}

fn survive(bytes: &[u8]) {
    let limits = limits();
    let _ = sniff(bytes);
    let _ = open_shipment(bytes, &limits);
    if let Ok(image) = decode_image(bytes, &limits) {
        assert!(u64::from(image.width) * u64::from(image.height) <= limits.max_pixels);
        assert_eq!(
            image.data.len(),
            image.width as usize * image.height as usize * 3
        );
    }
    if let Ok(clip) = decode_audio(bytes, &limits) {
        assert!(clip.samples.len() <= 160_001);
        assert!(
            clip.samples
                .iter()
                .all(|sample| (-1.0..=1.0).contains(sample))
        );
    }
    let every_third =
        &mut |info: &msao_media::VideoInfo| (0..info.frames).step_by(3).take(40).collect();
    if let Ok(clip) = decode_video(bytes, &limits, every_third) {
        assert!(clip.info.fps > 0.0 && clip.info.fps.is_finite());
        assert_eq!(clip.frames.len(), clip.indices.len());
        for frame in &clip.frames {
            assert_eq!(
                (frame.width, frame.height),
                (clip.info.width, clip.info.height)
            );
            assert_eq!(
                frame.data.len(),
                frame.width as usize * frame.height as usize * 3
            );
        }
    }
}

/// One valid file of every kind.
fn seeds() -> Vec<Vec<u8>> {
    let (shared, own) = (References::shared(), References::own());
    let ours = [
        "pyramid.mp4",
        "fragments.mp4",
        "in_band.mp4",
        "slices.mp4",
        "lossy.webp",
        "alpha_lossy.webp",
    ]
    .into_iter()
    .chain([
        "disposal3.gif",
        "cmyk.jpg",
        "restart_422.jpg",
        "turned6.jpg",
        "turned8.png",
        "palette2_transparent.png",
    ])
    .chain([
        "vbr_stereo.mp3",
        "cbr_no_xing.mp3",
        "stereo24.flac",
        "u8.wav",
        "mulaw.wav",
        "double.wav",
    ])
    .chain(["image.ship", "clip.ship", "sound.ship"]);
    let theirs = [
        "baseline.jpg",
        "progressive.jpg",
        "gray_alpha.png",
        "lossy.webp",
        "lossless.webp",
        "moving.webp",
    ]
    .into_iter()
    .chain([
        "moving.gif",
        "mono16k.mp3",
        "mono16k.flac",
        "mono16k_pcm24.wav",
        "baseline_faststart.mp4",
    ]);
    ours.map(|name| own.file(name))
        .chain(theirs.map(|name| shared.file(name)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_are_survived(
        which in any::<prop::sample::Index>(),
        cut in prop::option::of(any::<prop::sample::Index>()),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        // Headers decide most; aim at them half of the time.
        near in any::<bool>(),
    ) {
        let seeds = seeds();
        let mut bytes = which.get(&seeds).clone();
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let reach = if near { bytes.len().min(200) } else { bytes.len() };
        for (at, value) in flips {
            if reach > 0 {
                let at = at.index(reach);
                bytes[at] = value;
            }
        }
        survive(&bytes);
    }

    #[test]
    fn noise_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        survive(&bytes);
    }
}

/// A longer run than fits in every test run: `MSAO_FUZZ_SECONDS=60 cargo test -p msao-media -- --ignored hammer`.
#[test]
#[ignore = "runs for as long as MSAO_FUZZ_SECONDS says"]
fn hammer() {
    let seconds = std::env::var("MSAO_FUZZ_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(60);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
    let seeds = seeds();
    let mut state = std::env::var("MSAO_FUZZ_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1u64);
    let mut random = move |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below.max(1)
    };
    let mut runs = 0u64;
    while std::time::Instant::now() < until {
        let mut bytes = seeds[random(seeds.len())].clone();
        for _ in 0..=random(6) {
            let reach = if random(2) == 0 {
                bytes.len().min(300)
            } else {
                bytes.len()
            };
            let at = random(reach);
            match random(6) {
                0 => bytes.truncate(at.max(8)),
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, random(256) as u8),
                3 if at + 4 <= bytes.len() => {
                    bytes[at..at + 4].fill([0, 0xff, 0x7f, 0x80][random(4)])
                }
                4 => {
                    let other = &seeds[random(seeds.len())];
                    let from = random(other.len());
                    let piece = &other[from..(from + random(64)).min(other.len())];
                    bytes.splice(at..at, piece.iter().copied());
                }
                _ => bytes[at] = random(256) as u8,
            }
            if bytes.is_empty() {
                break;
            }
        }
        std::fs::write(std::env::temp_dir().join("msao-media-hammer.bin"), &bytes).unwrap();
        survive(&bytes);
        runs += 1;
    }
    println!("{runs} files");
}
