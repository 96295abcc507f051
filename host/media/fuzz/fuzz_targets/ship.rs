//! Shipments: any bytes give a medium within the limits or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use msao_media::Limits;
use msao_media::ship::{Shipment, open_shipment};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits {
        max_pixels: 1 << 18,
        max_decoded_bytes: 1 << 22,
        max_audio_seconds: 10.0,
        ..Limits::default()
    };
    match open_shipment(bytes, &limits) {
        Ok(Shipment::Image { image, sent }) => {
            assert_eq!((image.width, image.height), sent.canvas);
            assert!(image.data.len() <= 3 << 18);
        }
        Ok(Shipment::Video { clip, sent }) => {
            assert_eq!(clip.frames.len(), sent.sampled);
            let bytes: usize = clip.frames.iter().map(|frame| frame.data.len()).sum();
            assert!(bytes <= 1 << 22);
        }
        Ok(Shipment::Audio { sound, sent }) => {
            assert_eq!(sound.samples.len(), sent.samples);
            assert!(sent.samples <= 160_000);
        }
        Err(_) => {}
    }
});
