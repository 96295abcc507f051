//! Bad input: every refusal says what was found and what is allowed, and none costs memory.

// Helpers of tests are tests too.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use msao_media::{
    Format, Limits, MediaError, RgbImage, decode_audio, decode_image, decode_video, probe_video,
    sniff,
};

use crate::support::References;

fn limits() -> Limits {
    Limits::default()
}

fn all_frames(bytes: &[u8], limits: &Limits) -> Result<usize, MediaError> {
    decode_video(bytes, limits, &mut |info| (0..info.frames).collect())
        .map(|clip| clip.frames.len())
}

#[test]
fn an_empty_file_is_empty_to_every_decoder() {
    assert!(matches!(
        decode_image(&[], &limits()),
        Err(MediaError::Empty)
    ));
    assert!(matches!(
        decode_audio(&[], &limits()),
        Err(MediaError::Empty)
    ));
    assert!(matches!(
        probe_video(&[], &limits()),
        Err(MediaError::Empty)
    ));
}

#[test]
fn a_text_file_named_mp4_is_called_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("holiday.mp4");
    std::fs::write(&path, "What I did in my holidays.\n").unwrap();
    let bytes = msao_media::read_file(&path, &limits()).unwrap();
    let error = all_frames(&bytes, &limits())
        .unwrap_err()
        .at(&path)
        .to_string();
    assert!(
        error.contains("holiday.mp4") && error.contains("text") && error.contains("MP4"),
        "{error}"
    );
}

#[test]
fn one_kind_is_not_taken_for_another() {
    let shared = References::shared();
    for (name, as_image, as_sound, as_clip) in [
        ("rgb.png", true, false, false),
        ("baseline.jpg", true, false, false),
        ("moving.gif", true, false, true),
        ("moving.webp", true, false, true),
        ("mono16k_pcm16.wav", false, true, false),
        ("mono16k.mp3", false, true, false),
        ("mono16k.flac", false, true, false),
        ("b_frames.mp4", false, false, true),
    ] {
        let bytes = shared.file(name);
        assert_eq!(decode_image(&bytes, &limits()).is_ok(), as_image, "{name}");
        assert_eq!(decode_audio(&bytes, &limits()).is_ok(), as_sound, "{name}");
        assert_eq!(probe_video(&bytes, &limits()).is_ok(), as_clip, "{name}");
        let found = sniff(&bytes).unwrap().to_string();
        let error = if as_image {
            decode_audio(&bytes, &limits()).unwrap_err()
        } else {
            decode_image(&bytes, &limits()).unwrap_err()
        };
        assert!(error.to_string().contains(&found), "{error}");
    }
}

/// A PNG whose header claims a size that its few bytes do not hold.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut header = b"IHDR".to_vec();
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend([8, 6, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    png.extend(&header);
    png.extend(crc32(&header).to_be_bytes());
    png.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    png
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[test]
fn a_png_of_100_megapixels_is_refused_by_its_header() {
    for (width, height) in [
        (10_000, 10_000),
        (i32::MAX as u32, i32::MAX as u32),
        (1, 100_000_000),
    ] {
        match decode_image(&png_header(width, height), &limits()) {
            Err(MediaError::TooManyPixels {
                width: w,
                height: h,
                limit,
            }) => {
                assert_eq!((w, h, limit), (width, height, limits().max_pixels));
            }
            other => panic!("{other:?}"),
        }
    }
    let message = decode_image(&png_header(10_000, 10_000), &limits())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("10000 x 10000") && message.contains("33177600"),
        "{message}"
    );
    // Within the limit it is merely incomplete.
    assert!(matches!(
        decode_image(&png_header(4, 4), &limits()),
        Err(MediaError::Corrupt { .. })
    ));
}

#[test]
fn every_format_is_held_against_the_pixel_limit() {
    let small = Limits {
        max_pixels: 47 * 35 - 1,
        ..limits()
    };
    let shared = References::shared();
    for name in [
        "rgb.png",
        "baseline.jpg",
        "progressive.jpg",
        "lossy.webp",
        "lossless.webp",
        "moving.webp",
        "still.gif",
    ] {
        let error = decode_image(&shared.file(name), &small).unwrap_err();
        assert!(
            matches!(
                error,
                MediaError::TooManyPixels {
                    width: 47,
                    height: 35,
                    ..
                }
            ),
            "{name}: {error}"
        );
    }
    let small = Limits {
        max_pixels: 44 * 36 - 1,
        ..limits()
    };
    for name in ["moving.gif", "moving.webp", "b_frames.mp4"] {
        let error = probe_video(&shared.file(name), &small).unwrap_err();
        assert!(
            matches!(error, MediaError::TooManyPixels { .. }),
            "{name}: {error}"
        );
    }
}

fn wav_header(rate: u32, channels: u16, data_bytes: u32) -> Vec<u8> {
    let mut wav = b"RIFF\xff\xff\xff\x7fWAVEfmt \x10\0\0\0\x01\0".to_vec();
    wav.extend(channels.to_le_bytes());
    wav.extend(rate.to_le_bytes());
    wav.extend((rate * u32::from(channels) * 2).to_le_bytes());
    wav.extend((channels * 2).to_le_bytes());
    wav.extend(b"\x10\0data");
    wav.extend(data_bytes.to_le_bytes());
    wav
}

#[test]
fn three_hours_of_sound_are_refused_by_the_header() {
    let mut wav = wav_header(16_000, 1, 3 * 3600 * 16_000 * 2);
    wav.extend([0; 64]);
    match decode_audio(&wav, &limits()) {
        Err(error @ MediaError::TooLong { seconds, limit, .. }) => {
            assert_eq!((seconds, limit), (10_800.0, 600.0));
            assert!(error.to_string().contains("max_audio_seconds"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    // STREAMINFO: 16 kHz, mono, 16 bits, 3 hours of samples.
    let samples: u64 = 3 * 3600 * 16_000;
    let packed = 16_000u64 << 44 | 15 << 36 | samples;
    let mut flac = b"fLaC\x80\0\0\x22\x10\0\x10\0\0\0\0\0\0\0".to_vec();
    flac.extend(packed.to_be_bytes());
    flac.extend([0; 80]);
    assert!(matches!(
        decode_audio(&flac, &limits()),
        Err(MediaError::TooLong { .. })
    ));
}

#[test]
fn a_sound_without_a_length_is_stopped_on_the_way() {
    let mut wav = wav_header(16_000, 1, u32::MAX);
    wav.extend(std::iter::repeat_n(0, 2 * 16_000 * 4));
    let short = Limits {
        max_audio_seconds: 3.0,
        ..limits()
    };
    assert!(matches!(
        decode_audio(&wav, &short),
        Err(MediaError::TooLong { .. })
    ));
    assert_eq!(decode_audio(&wav, &limits()).unwrap().samples.len(), 64_000);
    let mp3 = References::own().file("cbr_no_xing.mp3");
    let short = Limits {
        max_audio_seconds: 0.2,
        ..limits()
    };
    assert!(matches!(
        decode_audio(&mp3, &short),
        Err(MediaError::TooLong { .. })
    ));
}

#[test]
fn odd_rates_and_formats_are_named() {
    for rate in [0, 100, 3_999, 384_001, u32::MAX / 2] {
        let mut wav = wav_header(rate, 1, 64);
        wav.extend([0; 64]);
        let error = decode_audio(&wav, &limits()).unwrap_err();
        assert!(
            !matches!(error, MediaError::UnknownFormat { .. }),
            "{rate}: {error}"
        );
    }
    let mut adpcm = wav_header(16_000, 1, 64);
    adpcm[20] = 2;
    adpcm.extend([0; 64]);
    let error = decode_audio(&adpcm, &limits()).unwrap_err();
    assert!(
        matches!(
            error,
            MediaError::Unsupported {
                format: Format::Wav,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_float_sound_is_kept_in_its_range() {
    let mut wav = wav_header(16_000, 1, 16);
    wav[20] = 3;
    wav[32] = 4;
    wav[34] = 32;
    for value in [f32::NAN, f32::INFINITY, -7.0, 0.5] {
        wav.extend(value.to_le_bytes());
    }
    assert_eq!(
        decode_audio(&wav, &limits()).unwrap().samples,
        [0.0, 1.0, -1.0, 0.5]
    );
}

#[test]
fn whatever_ends_early_is_damaged() {
    let (shared, own) = (References::shared(), References::own());
    let expect = |name: &str, share: usize, result: Option<MediaError>| match result {
        Some(MediaError::Corrupt { .. } | MediaError::UnknownFormat { .. }) => {}
        other => panic!("{name} cut to {share}%: {other:?}"),
    };
    for share in [10, 30, 50, 70, 90, 99] {
        let cut = |references: &References, name: &str| {
            let mut bytes = references.file(name);
            bytes.truncate(bytes.len() * share / 100);
            bytes
        };
        for name in [
            "rgb.png",
            "palette.png",
            "baseline.jpg",
            "progressive.jpg",
            "lossy.webp",
            "alpha.webp",
            "moving.webp",
            "still.gif",
        ] {
            // The last percent of a PNG is behind its pixels.
            if share < 99 || !name.ends_with("png") {
                expect(
                    name,
                    share,
                    decode_image(&cut(&shared, name), &limits()).err(),
                );
            }
        }
        for name in ["mono16k_pcm16.wav", "mono16k_float.wav", "mono16k.flac"] {
            expect(
                name,
                share,
                decode_audio(&cut(&shared, name), &limits()).err(),
            );
        }
        // The last frames of this one are the encoder's padding.
        if share <= 70 {
            expect(
                "vbr_stereo.mp3",
                share,
                decode_audio(&cut(&own, "vbr_stereo.mp3"), &limits()).err(),
            );
        }
        for name in [
            "moving.gif",
            "moving.webp",
            "b_frames.mp4",
            "baseline_faststart.mp4",
        ] {
            // The last percent of this one is a tag behind the frames and their tables.
            if share < 99 || name != "b_frames.mp4" {
                expect(
                    name,
                    share,
                    all_frames(&cut(&shared, name), &limits()).err(),
                );
            }
        }
    }
}

#[test]
fn damage_inside_is_seen_by_checksums() {
    let shared = References::shared();
    let mut flac = shared.file("mono16k.flac");
    let middle = flac.len() / 2;
    flac[middle] ^= 0x10;
    assert!(matches!(
        decode_audio(&flac, &limits()),
        Err(MediaError::Corrupt { .. })
    ));
    let mut png = shared.file("rgb.png");
    let middle = png.len() / 2;
    png[middle] ^= 0x10;
    assert!(matches!(
        decode_image(&png, &limits()),
        Err(MediaError::Corrupt { .. })
    ));
}

#[test]
fn what_is_not_h264_8_bit_420_progressive_is_named() {
    let own = References::own();
    for (name, part) in [
        ("part2.mp4", "MPEG-4 Part 2"),
        ("interlaced.mp4", "interlaced"),
        ("chroma422.mp4", "4:2:2"),
        ("lossless.mp4", "lossless"),
        ("sound_only.mp4", "no video track"),
    ] {
        match all_frames(&own.file(name), &limits()) {
            Err(
                error @ MediaError::Unsupported {
                    format: Format::Mp4,
                    ..
                },
            ) => {
                assert!(error.to_string().contains(part), "{name}: {error}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn what_is_kept_of_a_clip_is_bounded_before_decoding() {
    let bytes = References::own().file("pyramid.mp4");
    let few = Limits {
        max_frames: 5,
        ..limits()
    };
    assert!(matches!(
        all_frames(&bytes, &few),
        Err(MediaError::TooManyFrames {
            frames: 24,
            limit: 5
        })
    ));
    let small = Limits {
        max_decoded_bytes: 36 * 28 * 3 * 23,
        ..limits()
    };
    assert!(matches!(
        all_frames(&bytes, &small),
        Err(MediaError::TooManyDecodedBytes { .. })
    ));
    let short = Limits {
        max_video_seconds: 1.9,
        ..limits()
    };
    assert!(matches!(
        probe_video(&bytes, &short),
        Err(MediaError::TooLong {
            setting: "max_video_seconds",
            ..
        })
    ));
    let mut repeated = |_: &_| vec![3; 6];
    assert!(matches!(
        decode_video(&bytes, &few, &mut repeated),
        Err(MediaError::TooManyFrames { .. })
    ));
    for choice in [vec![24], vec![2, 1]] {
        let result = decode_video(&bytes, &limits(), &mut |_| choice.clone());
        assert!(matches!(result, Err(MediaError::BadChoice { .. })));
    }
}

/// Finds the body of the first box with this name, by its bytes.
fn body_of(bytes: &[u8], name: &[u8; 4]) -> usize {
    bytes.windows(4).position(|window| window == name).unwrap() + 4
}

#[test]
fn a_sample_table_that_claims_billions_is_refused_without_a_list() {
    let mut bytes = References::shared().file("baseline_faststart.mp4");
    let stsz = body_of(&bytes, b"stsz");
    // One size for all, and as many samples as fit in 32 bits; the other tables claim as much.
    bytes[stsz + 4..stsz + 12].copy_from_slice(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]);
    let stts = body_of(&bytes, b"stts");
    bytes[stts + 8..stts + 12].copy_from_slice(&[0xff; 4]);
    assert!(matches!(
        probe_video(&bytes, &limits()),
        Err(MediaError::TooManyStoredFrames {
            frames: 4_294_967_295,
            ..
        } | MediaError::TooLong { .. })
    ));
    let mut bytes = References::own().file("fragments.mp4");
    let trun = body_of(&bytes, b"trun");
    bytes[trun..trun + 8].copy_from_slice(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    assert!(matches!(
        probe_video(&bytes, &limits()),
        Err(MediaError::TooManyStoredFrames { .. })
    ));
}

#[test]
fn an_image_says_its_size_and_not_its_pixels_when_printed() {
    let image = RgbImage {
        width: 1,
        height: 1,
        data: vec![0; 3],
    };
    assert_eq!(format!("{image:?}"), "RgbImage(1 x 1)");
}
