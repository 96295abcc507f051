//! Pictures: any bytes give a picture within the limits or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use msao_media::{Limits, decode_image};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits {
        max_pixels: 1 << 18,
        ..Limits::default()
    };
    if let Ok(image) = decode_image(bytes, &limits) {
        assert_eq!(
            image.data.len() as u64,
            u64::from(image.width) * u64::from(image.height) * 3
        );
        assert!(image.data.len() <= 3 << 18);
    }
});
