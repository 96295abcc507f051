//! Damaged shipments, many of them: never a panic, never more than the limits.

// Helpers of tests are tests too.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use msao_media::Limits;
use msao_media::ship::{Shipment, open_shipment};
use proptest::prelude::*;

use crate::support::scenes::shipments;

#[test]
fn every_truncation_is_an_error() {
    for (kind, bytes) in shipments() {
        for length in 0..bytes.len() {
            assert!(
                open_shipment(&bytes[..length], &Limits::default()).is_err(),
                "{kind:?} {length}"
            );
        }
    }
}

/// Opens, and holds what comes out against itself and the limits.
fn survives(bytes: &[u8]) {
    let limits = Limits {
        max_bytes: 1 << 20,
        max_pixels: 256 * 256,
        max_frames: 40,
        max_video_seconds: 10.0,
        max_audio_seconds: 10.0,
        max_decoded_bytes: 4 << 20,
    };
    match open_shipment(bytes, &limits) {
        Ok(Shipment::Image { image, sent }) => {
            assert_eq!((image.width, image.height), sent.canvas);
            assert_eq!(
                image.data.len() as u64,
                3 * u64::from(image.width) * u64::from(image.height)
            );
            assert!(image.data.len() as u64 <= 3 * limits.max_pixels);
        }
        Ok(Shipment::Video { clip, sent }) => {
            assert_eq!(clip.frames.len(), sent.sampled);
            assert_eq!(clip.indices.len(), sent.sampled);
            assert!(clip.indices.is_sorted() && clip.indices.iter().all(|&i| i < clip.info.frames));
            assert!(clip.info.fps > 0.0 && clip.info.fps.is_finite());
            assert!(
                clip.frames
                    .iter()
                    .all(|frame| (frame.width, frame.height) == sent.canvas)
            );
            let bytes: usize = clip.frames.iter().map(|frame| frame.data.len()).sum();
            assert!(bytes as u64 <= limits.max_decoded_bytes);
        }
        Ok(Shipment::Audio { sound, sent }) => {
            assert_eq!(sound.samples.len(), sent.samples);
            assert!(sent.samples <= 160_000);
            assert!(
                sent.segments
                    .iter()
                    .all(|segment| segment.end <= sent.samples)
            );
        }
        Err(_) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_shipment_is_survived(
        which in 0usize..3,
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        // Headers decide most; aim at them half of the time.
        near in any::<bool>(),
    ) {
        let mut bytes = shipments()[which].1.clone();
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let reach = if near { bytes.len().min(100) } else { bytes.len() };
        for (at, value) in flips {
            if reach > 0 {
                let at = at.index(reach);
                bytes[at] = value;
            }
        }
        survives(&bytes);
    }

    #[test]
    fn noise_behind_the_first_bytes_is_survived(
        kind in 1u8..4,
        rest in prop::collection::vec(prop_oneof![any::<u8>(), 0u8..4], 0..200),
    ) {
        let mut bytes = b"\xd3MSHIP\r\n".to_vec();
        bytes.extend([kind, 1, 0, 0]);
        bytes.extend(&rest);
        survives(&bytes);
        survives(&rest);
    }
}
