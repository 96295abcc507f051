//! Clips: any bytes give frames within the limits or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use msao_media::{Limits, decode_video};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits {
        max_pixels: 1 << 18,
        max_video_seconds: 20.0,
        ..Limits::default()
    };
    let clip = decode_video(bytes, &limits, &mut |info| {
        (0..info.frames).step_by(2).take(32).collect()
    });
    if let Ok(clip) = clip {
        assert_eq!(clip.frames.len(), clip.indices.len());
        for frame in &clip.frames {
            assert_eq!(
                (frame.width, frame.height),
                (clip.info.width, clip.info.height)
            );
        }
    }
});
