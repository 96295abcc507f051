//! Clips and sounds from one end to the other: the frames and segments that were chosen, where they belong.

// Helpers of tests are tests too.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]
// One segment is a list of one range here.
#![allow(clippy::single_range_in_vec_init)]

use std::ops::Range;

use msao_media::ship::{
    FrameWay, ImageWay, Region, Rest, SentAudio, SentFrame, SentVideo, Shipment, Shipped, VideoWay,
    open_shipment, ship_audio, ship_image, ship_video,
};
use msao_media::{AudioClip, Limits, MediaError, RgbImage, VideoClip, VideoInfo};

use crate::support::References;
use crate::support::scenes::{noise, psnr_db, rectangle, scene};

fn opened_clip(shipped: &Shipped<SentVideo>) -> VideoClip {
    match open_shipment(&shipped.bytes, &Limits::default()).unwrap() {
        Shipment::Video { clip, sent } => {
            assert_eq!(sent, shipped.sent);
            clip
        }
        other => panic!("{other:?}"),
    }
}

fn opened_sound(shipped: &Shipped<SentAudio>) -> AudioClip {
    match open_shipment(&shipped.bytes, &Limits::default()).unwrap() {
        Shipment::Audio { sound, sent } => {
            assert_eq!(sent, shipped.sent);
            sound
        }
        other => panic!("{other:?}"),
    }
}

fn clip(frames: usize) -> VideoClip {
    VideoClip {
        info: VideoInfo {
            width: 96,
            height: 64,
            frames: 100,
            fps: 29.97,
        },
        frames: (0..frames)
            .map(|level| {
                let mut frame = scene(96, 64, 6);
                let dim = |value: &mut u8| *value = value.saturating_sub(10 * level as u8);
                frame.data.iter_mut().for_each(dim);
                frame
            })
            .collect(),
        indices: (0..frames).map(|index| index * 7).collect(),
    }
}

/// As it comes back where it goes over alone, whole and half as wide and high.
fn halved(image: &RgbImage) -> RgbImage {
    let way = ImageWay {
        scale: 0.5,
        quality: 90,
        rest: Rest::Send,
        kept: None,
    };
    let bytes = ship_image(image, &way).unwrap().bytes;
    match open_shipment(&bytes, &Limits::default()).unwrap() {
        Shipment::Image { image, .. } => image,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_clip_keeps_its_timing_and_the_frames_that_were_chosen() {
    let clip = clip(6);
    let kept = [rectangle(20, 10, 10, 10)];
    let frame = |position, kept| FrameWay { position, kept };
    let frames = [
        frame(1, None),
        frame(2, Some(kept.as_slice())),
        frame(4, None),
    ];
    let way = VideoWay {
        scale: 0.5,
        quality: 90,
        rest: Rest::Crop { align_px: 8 },
        frames: &frames,
    };
    let shipped = ship_video(&clip, &way).unwrap();
    let sent = &shipped.sent;
    assert_eq!((sent.canvas, sent.sampled), ((48, 32), 6));
    let found: Vec<(usize, Region)> = sent
        .frames
        .iter()
        .map(|frame: &SentFrame| (frame.position, frame.picture.region))
        .collect();
    let whole = Region::whole((48, 32));
    assert_eq!(
        found,
        [(1, whole), (2, rectangle(16, 8, 16, 16)), (4, whole)]
    );
    assert_eq!(shipped, ship_video(&clip, &way).unwrap());

    let back = opened_clip(&shipped);
    assert_eq!(
        back.info,
        VideoInfo {
            width: 48,
            height: 32,
            ..clip.info
        }
    );
    assert_eq!(back.indices, clip.indices);
    assert_eq!(back.frames.len(), 6);
    // What was not sent shows what was: the first for those before it, then the last one.
    for (position, shown) in [(0, 1), (3, 2), (5, 4)] {
        assert_eq!(back.frames[position], back.frames[shown]);
    }
    for (frame, (position, region)) in sent.frames.iter().zip(found) {
        let wanted = halved(&clip.frames[position]);
        let db = psnr_db(&back.frames[position], &wanted, region);
        // Blocks of the one are blocks of the other.
        assert!(db > 60.0, "{frame:?}: {db:.1} dB");
    }
}

#[test]
fn a_repeated_frame_may_be_sampled_and_a_decoded_clip_shipped() {
    let mut clip = References::shared().clip("moving.gif");
    clip.frames.insert(0, clip.frames[0].clone());
    clip.indices.insert(0, 0);
    let frames: Vec<FrameWay> = (0..clip.frames.len())
        .map(|position| FrameWay {
            position,
            kept: None,
        })
        .collect();
    let way = VideoWay {
        scale: 1.0,
        quality: 95,
        rest: Rest::Send,
        frames: &frames,
    };
    let back = opened_clip(&ship_video(&clip, &way).unwrap());
    assert_eq!(back.info, clip.info);
    assert_eq!(back.indices, clip.indices);
    assert_eq!(back.frames.len(), clip.frames.len());
}

#[test]
fn a_sound_keeps_its_segments_to_the_bit_and_is_silent_elsewhere() {
    let sound = References::shared().sound("mono16k_pcm16.wav");
    let all = sound.samples.len();
    let whole = ship_audio(&sound, &[0..all]).unwrap();
    assert_eq!(opened_sound(&whole), sound);

    let segments = [100..200, 200..333, 2000..2001, all - 9..all];
    let shipped = ship_audio(&sound, &segments).unwrap();
    assert_eq!(
        shipped.sent,
        SentAudio {
            samples: all,
            segments: vec![100..333, 2000..2001, all - 9..all]
        }
    );
    let back = opened_sound(&shipped);
    assert_eq!(back.samples.len(), all);
    for (at, (got, was)) in back.samples.iter().zip(&sound.samples).enumerate() {
        let real = segments.iter().any(|segment| segment.contains(&at));
        assert_eq!(*got, if real { *was } else { 0.0 }, "sample {at}");
    }
    assert!(shipped.bytes.len() < whole.bytes.len() / 4);
    assert_eq!(shipped, ship_audio(&sound, &segments).unwrap());
}

#[test]
fn a_sound_with_finer_samples_is_rounded() {
    let mut random = noise(5);
    let samples = (0..3000)
        .map(|_| random() as f32 / (1 << 23) as f32 - 1.0)
        .collect();
    let sound = AudioClip { samples };
    let back = opened_sound(&ship_audio(&sound, &[0..3000]).unwrap());
    // Half a step of 16 bits, and a whole one at +1, which 16 bits do not have.
    let far = |(a, b): (&f32, &f32)| (a - b).abs() > 0.5 / 32_768.0 && *b < 0.9999;
    assert!(!back.samples.iter().zip(&sound.samples).any(far));
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    let frames_refused = |clip: &VideoClip, positions: &[usize]| {
        let frames: Vec<FrameWay> = positions
            .iter()
            .map(|&position| FrameWay {
                position,
                kept: None,
            })
            .collect();
        let way = VideoWay {
            scale: 1.0,
            quality: 50,
            rest: Rest::Send,
            frames: &frames,
        };
        matches!(ship_video(clip, &way), Err(MediaError::BadWay { .. }))
    };
    let good = clip(3);
    assert!(!frames_refused(&good, &[0, 2]));
    for positions in [&[][..], &[1, 0], &[1, 1], &[3]] {
        assert!(frames_refused(&good, positions), "{positions:?}");
    }
    let mut other_sizes = good.clone();
    other_sizes.frames[1] = scene(95, 64, 0);
    assert!(frames_refused(&other_sizes, &[0, 1]));
    for indices in [vec![0, 7], vec![0, 7, 100], vec![7, 0, 14]] {
        let clip = VideoClip {
            indices,
            ..good.clone()
        };
        assert!(frames_refused(&clip, &[0]));
    }
    let mut timeless = good.clone();
    timeless.info.fps = 0.0;
    assert!(frames_refused(&timeless, &[0]));

    let sound = AudioClip {
        samples: vec![0.0; 10],
    };
    let backwards = Range { start: 5, end: 3 };
    for segments in [&[][..], &[3..3], &[0..11], &[5..7, 6..8], &[backwards]] {
        assert!(
            matches!(ship_audio(&sound, segments), Err(MediaError::BadWay { .. })),
            "{segments:?}"
        );
    }
}
