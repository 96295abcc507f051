//! Sounds: any bytes give samples within the limits or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use msao_media::{Limits, SAMPLE_RATE, decode_audio};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits {
        max_audio_seconds: 20.0,
        ..Limits::default()
    };
    if let Ok(clip) = decode_audio(bytes, &limits) {
        assert!(clip.samples.len() <= 20 * SAMPLE_RATE as usize + 1);
        assert!(
            clip.samples
                .iter()
                .all(|sample| (-1.0..=1.0).contains(sample))
        );
    }
});
