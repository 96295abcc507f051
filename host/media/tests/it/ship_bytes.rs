//! The bytes of shipments: as described, and never trusted.

// Helpers of tests are tests too.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]
// One segment is a list of one range here.
#![allow(clippy::single_range_in_vec_init)]

use msao_media::ship::{
    MAX_SEGMENTS, SentAudio, SentFrame, SentImage, SentPicture, SentVideo, Shipment, open_shipment,
    ship_audio,
};
use msao_media::{
    AudioClip, Format, Limits, MediaError, VideoInfo, decode_audio, decode_image, decode_video,
    probe_video, sniff,
};

use crate::support::References;
use crate::support::scenes::{apart, pixel, rectangle, scene, shipments};

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

#[test]
fn headers_lie_as_described() {
    let [(_, image), (_, video), (_, audio)] = shipments();
    let length = |bytes: usize| (bytes as u32).to_le_bytes();
    let scene = scene(40, 32, 3);
    let mean = [0, 1, 2].map(|colour| {
        let values = scene.data.iter().skip(colour).step_by(3);
        (values.map(|&value| f64::from(value)).sum::<f64>() / (40.0 * 32.0)).round() as u8
    });
    // Canvas 40 x 32; from (8, 8) 24 x 16 pixels, painted.
    let mut wanted = hex("d3 4d 53 48 49 50 0d 0a 01 01 00 00 24 00 00 00 28 00 20 00");
    wanted.extend(hex("08 00 08 00 18 00 10 00"));
    wanted.extend([&mean[..], &[1], &length(image.len() - 36)].concat());
    assert_eq!(image[..36], wanted);
    assert_eq!(image[36..39], [0xff, 0xd8, 0xff]);

    // 9 frames at 25.0 a second; 3 sampled, 2 sent, at positions 0 and 2, not painted.
    let mut wanted = hex("d3 4d 53 48 49 50 0d 0a 02 01 00 00 5c 00 00 00 28 00 20 00 09 00 00 00");
    wanted.extend(hex("00 00 00 00 00 00 39 40 03 00 00 00 02 00 00 00"));
    wanted.extend(hex("00 00 00 00 03 00 00 00 06 00 00 00"));
    let parts = (video.len() - 0x5c) / 2;
    for position in [0, 2] {
        wanted.extend([position, 0, 0, 0]);
        wanted.extend(hex("08 00 08 00 18 00 10 00"));
        wanted.extend([&mean[..], &[0], &length(parts)].concat());
    }
    assert_eq!(video[..0x5c], wanted);

    let mut wanted = hex("d3 4d 53 48 49 50 0d 0a 03 01 00 00 2c 00 00 00 84 03 00 00 02 00 00 00");
    wanted.extend(length(audio.len() - 44));
    wanted.extend(hex("0a 00 00 00 90 01 00 00 f4 01 00 00 84 03 00 00"));
    assert_eq!(audio[..44], wanted);
    assert_eq!(audio[44..48], *b"fLaC");
}

#[test]
fn a_silent_sound_is_these_bytes() {
    let sound = AudioClip {
        samples: vec![0.0; 16],
    };
    let mut wanted = hex("d3 4d 53 48 49 50 0d 0a 03 01 00 00 24 00 00 00 10 00 00 00 01 00 00 00");
    wanted.extend(hex("37 00 00 00 00 00 00 00 10 00 00 00"));
    // Marker, STREAMINFO: blocks of 4096, 16 kHz, mono, 16 bits, 16 samples.
    wanted.extend(hex("66 4c 61 43 80 00 00 22 10 00 10 00 00 00 00 00 00 00"));
    wanted.extend(hex("03 e8 00 f0 00 00 00 10"));
    wanted.extend([0; 16]);
    // Frame 0 of 15 + 1 samples, its checksum, a constant subframe of value 0, the frame's checksum.
    wanted.extend(hex("ff f8 75 08 00 00 0f da 00 00 00 27 17"));
    assert_eq!(ship_audio(&sound, &[0..16]).unwrap().bytes, wanted);
}

/// Files that `data/make_shipments.py` made from the description alone.
#[test]
fn what_others_write_by_the_description_opens() {
    let own = References::own();
    let limits = Limits::default();
    let Shipment::Image { image, sent } = open_shipment(&own.file("image.ship"), &limits).unwrap()
    else {
        panic!("no image");
    };
    let picture = SentPicture {
        region: rectangle(16, 8, 24, 16),
        painted: true,
        fill: [10, 20, 30],
    };
    let canvas = (64, 48);
    assert_eq!(sent, SentImage { canvas, picture });
    for (x, y, colour) in [
        (15, 8, [10, 20, 30]),
        (16, 7, [10, 20, 30]),
        (40, 23, [10, 20, 30]),
        (16, 8, [200, 40, 30]),
        (39, 23, [20, 60, 210]),
    ] {
        // Quality 95 rounds by a level or two, and the border between the colours runs through blocks.
        assert!(apart(pixel(&image, x, y), colour) <= 6, "{x} {y}");
    }

    let Shipment::Video { clip, sent } = open_shipment(&own.file("clip.ship"), &limits).unwrap()
    else {
        panic!("no clip");
    };
    let frame = |position, region, fill| SentFrame {
        position,
        picture: SentPicture {
            region,
            painted: false,
            fill,
        },
    };
    let frames = vec![
        frame(1, rectangle(0, 0, 16, 16), [1, 2, 3]),
        frame(3, rectangle(8, 0, 8, 16), [4, 5, 6]),
    ];
    let wanted = SentVideo {
        canvas: (16, 16),
        sampled: 5,
        frames,
    };
    assert_eq!(sent, wanted);
    assert_eq!((clip.info.frames, clip.info.fps), (30, 29.97));
    assert_eq!(clip.indices, [0, 6, 12, 18, 24]);
    assert_eq!(pixel(&clip.frames[4], 7, 0), [4, 5, 6]);
    assert!(apart(pixel(&clip.frames[4], 8, 0), [30, 200, 30]) <= 2);
    assert!(apart(pixel(&clip.frames[0], 8, 0), [160; 3]) <= 2);

    let Shipment::Audio { sound, sent } = open_shipment(&own.file("sound.ship"), &limits).unwrap()
    else {
        panic!("no sound");
    };
    let segments = vec![100..1100, 5000..6000];
    assert_eq!(
        sent,
        SentAudio {
            samples: 8000,
            segments
        }
    );
    for (at, sample) in sound.samples.iter().enumerate() {
        let wanted = match at {
            100..1100 => (at as f32 - 100.0) * 16.0 - 16_000.0,
            5000..6000 => (at as f32 - 4000.0) * 16.0 - 16_000.0,
            _ => 0.0,
        };
        assert_eq!(sample * 32_768.0, wanted, "sample {at}");
    }
}

#[test]
fn a_shipment_is_not_taken_for_a_file() {
    let limits = Limits::default();
    for (kind, bytes) in shipments() {
        assert_eq!(sniff(&bytes), Some(Format::Shipment(kind)));
        assert!(!Format::Shipment(kind).can_be(kind));
        let mut choose = |_: &VideoInfo| vec![0];
        for error in [
            decode_image(&bytes, &limits).err(),
            decode_audio(&bytes, &limits).err(),
            decode_video(&bytes, &limits, &mut choose).err(),
            probe_video(&bytes, &limits).err(),
        ] {
            let error = error.unwrap();
            assert!(matches!(error, MediaError::UnknownFormat { .. }));
            assert!(error.to_string().contains("only nodes send"), "{error}");
        }
    }
    let file = References::shared().file("rgb.png");
    let error = open_shipment(&file, &limits).unwrap_err().to_string();
    assert!(
        error.contains("PNG") && error.contains("shipment"),
        "{error}"
    );
    assert!(matches!(
        open_shipment(&[], &limits),
        Err(MediaError::Empty)
    ));
}

#[test]
fn limits_hold_before_anything_is_decoded() {
    let [(_, image), (_, video), (_, audio)] = shipments();
    let exact = Limits {
        max_bytes: [&image, &video, &audio]
            .map(Vec::len)
            .into_iter()
            .max()
            .unwrap() as u64,
        max_pixels: 40 * 32,
        max_frames: 3,
        max_decoded_bytes: 3 * 3 * 40 * 32,
        max_audio_seconds: 900.0 / 16_000.0,
        max_video_seconds: 9.0 / 240.0,
    };
    for bytes in [&image, &video, &audio] {
        open_shipment(bytes, &exact).unwrap();
    }
    // What follows the header is not JPEG or FLAC: whoever looked at it would say so.
    let gutted = |bytes: &[u8], header: usize| {
        let mut bytes = bytes.to_vec();
        bytes[header..].fill(0);
        bytes
    };
    let fails = |bytes: &[u8], change: &dyn Fn(&mut Limits)| {
        let mut limits = exact.clone();
        change(&mut limits);
        open_shipment(bytes, &limits).unwrap_err()
    };
    let (image, video, audio) = (gutted(&image, 36), gutted(&video, 0x5c), gutted(&audio, 44));
    let few_bytes: &dyn Fn(&mut Limits) = &|limits| limits.max_bytes = 300;
    for bytes in [&image, &video, &audio] {
        assert!(matches!(
            fails(bytes, few_bytes),
            MediaError::TooManyBytes { .. }
        ));
        assert!(matches!(
            open_shipment(bytes, &exact),
            Err(MediaError::Corrupt { .. })
        ));
    }
    for bytes in [&image, &video] {
        let error = fails(bytes, &|limits| limits.max_pixels -= 1);
        assert!(matches!(
            error,
            MediaError::TooManyPixels {
                width: 40,
                height: 32,
                ..
            }
        ));
    }
    let error = fails(&video, &|limits| limits.max_frames = 2);
    assert!(matches!(error, MediaError::TooManyFrames { frames: 3, .. }));
    let error = fails(&video, &|limits| limits.max_decoded_bytes -= 1);
    assert!(matches!(error, MediaError::TooManyDecodedBytes { .. }));
    let error = fails(&video, &|limits| limits.max_video_seconds = 8.0 / 240.0);
    assert!(matches!(
        error,
        MediaError::TooManyStoredFrames { frames: 9, .. }
    ));
    let error = fails(&audio, &|limits| limits.max_audio_seconds /= 2.0);
    assert!(matches!(error, MediaError::TooLong { .. }));
}

#[test]
fn a_header_that_contradicts_itself_is_damage() {
    let [(_, image), (_, video), (_, audio)] = shipments();
    let says = |bytes: &[u8], at: usize, values: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes[at..at + values.len()].copy_from_slice(values);
        match open_shipment(&bytes, &Limits::default()) {
            Err(error @ MediaError::Corrupt { .. }) => error.to_string(),
            other => panic!("{at}: {other:?}"),
        }
    };
    for (bytes, at, values, message) in [
        (&image, 10, &[1][..], "add up"),
        (&image, 12, &[0x25], "add up"),
        (&image, 16, &[0, 0], "0 x 32"),
        (&image, 20, &[17], "on its canvas"),
        (&image, 24, &[0], "on its canvas"),
        (&image, 24, &[23], "another size"),
        (&image, 24, &[25, 0], "another size"),
        (&image, 31, &[2], "on its canvas"),
        (&image, 36, b"\x89PNG\r\n\x1a\n", "no JPEG"),
        (&image, 32, &[0, 0, 0, 0], "lengths"),
        (&image, 32, &[0xff; 4], "ends before"),
        (&video, 20, &[0, 0, 0, 0], "not of its frames"),
        (&video, 24, &[0; 8], "rate as 0"),
        (&video, 24, &[0xff; 8], "rate as NaN"),
        (&video, 36, &[4], "4 of 3 frames"),
        (&video, 36, &[0], "0 of 3 frames"),
        (&video, 40, &[4], "not of its frames"),
        (&video, 48, &[9], "not of its frames"),
        (&video, 52, &[2], "not in order"),
        (&video, 72, &[3], "not in order"),
        (&audio, 16, &[0x83], "not in order"),
        (&audio, 20, &[0], "0 segments"),
        (
            &audio,
            20,
            &(MAX_SEGMENTS as u32 + 1).to_le_bytes(),
            "4097 segments",
        ),
        (&audio, 28, &[0x90, 1], "not in order"),
        (&audio, 36, &[0x8f, 1], "not in order"),
        (&audio, 28, &[11], "another length"),
        (&audio, 28, &[9], "another length"),
        (&audio, 62, &[3, 0xe9], "16 kHz"),
        (&audio, 44, b"RIFF", "no FLAC"),
    ] {
        let error = says(bytes, at, values);
        assert!(error.contains(message), "{at} {values:?}: {error}");
    }
    for (kind, mut bytes) in shipments() {
        bytes.push(0);
        let error = open_shipment(&bytes, &Limits::default()).unwrap_err();
        assert!(matches!(error, MediaError::Corrupt { .. }), "{kind:?}");
        bytes.pop();
        bytes[9] = 2;
        let error = open_shipment(&bytes, &Limits::default()).unwrap_err();
        assert!(error.to_string().contains("version 2"), "{error}");
        bytes[8] = 9;
        assert_eq!(sniff(&bytes), None);
    }
}
