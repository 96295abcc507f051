//! Pictures and sounds that are made, not read, and how close two pictures are in a region.

use msao_media::ship::{
    FrameWay, ImageWay, Region, Rest, VideoWay, ship_audio, ship_image, ship_video,
};
use msao_media::{AudioClip, MediaKind, RgbImage, VideoClip, VideoInfo};

/// Numbers without a pattern, the same each time.
pub fn noise(seed: u64) -> impl FnMut() -> i32 {
    let mut state = seed;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as i32
    }
}

/// Colours that change slowly, under noise that is the same in the three of them, as a camera's in poor light.
pub fn scene(width: u32, height: u32, noise_levels: i32) -> RgbImage {
    let mut random = noise(u64::from(width * 31 + height));
    let mut data = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let grain = random() % (2 * noise_levels + 1) - noise_levels;
            let slope = |of: u32, by: u32| (200 * of / by.max(1)) as i32 + 28;
            for value in [
                slope(x, width),
                slope(y, height),
                slope(x + y, width + height),
            ] {
                data.push((value + grain).clamp(0, 255) as u8);
            }
        }
    }
    RgbImage {
        width,
        height,
        data,
    }
}

pub fn pixel(image: &RgbImage, x: u32, y: u32) -> [u8; 3] {
    let at = (y as usize * image.width as usize + x as usize) * 3;
    image.data[at..at + 3].try_into().unwrap()
}

pub fn places(region: Region) -> impl Iterator<Item = (u32, u32)> {
    (region.y..region.y + region.height)
        .flat_map(move |y| (region.x..region.x + region.width).map(move |x| (x, y)))
}

pub fn holds(region: Region, (x, y): (u32, u32)) -> bool {
    (region.x..region.x + region.width).contains(&x)
        && (region.y..region.y + region.height).contains(&y)
}

/// Peak signal to noise in dB between two pictures of one size, over one region.
pub fn psnr_db(a: &RgbImage, b: &RgbImage, region: Region) -> f64 {
    assert_eq!((a.width, a.height), (b.width, b.height));
    let (mut sum, mut count) = (0.0, 0.0);
    for (x, y) in places(region) {
        for (a, b) in pixel(a, x, y).into_iter().zip(pixel(b, x, y)) {
            sum += f64::from(a.abs_diff(b)).powi(2);
            count += 1.0;
        }
    }
    10.0 * (255.0 * 255.0 * count / f64::max(sum, 1e-9)).log10()
}

/// The largest difference of one colour of a pixel.
pub fn apart(a: [u8; 3], b: [u8; 3]) -> u8 {
    a.into_iter()
        .zip(b)
        .map(|(a, b)| a.abs_diff(b))
        .max()
        .unwrap()
}

pub fn rectangle(x: u32, y: u32, width: u32, height: u32) -> Region {
    Region {
        y,
        x,
        width,
        height,
    }
}

/// A small shipment of each kind.
pub fn shipments() -> [(MediaKind, Vec<u8>); 3] {
    let kept = [rectangle(8, 8, 8, 8), rectangle(24, 16, 3, 3)];
    let image = ImageWay {
        scale: 1.0,
        quality: 40,
        rest: Rest::Flatten,
        kept: Some(&kept),
    };
    let frames = [0, 2].map(|position| FrameWay {
        position,
        kept: Some(&kept),
    });
    let video = VideoWay {
        scale: 1.0,
        quality: 40,
        rest: Rest::Crop { align_px: 8 },
        frames: &frames,
    };
    let clip = VideoClip {
        info: VideoInfo {
            width: 40,
            height: 32,
            frames: 9,
            fps: 25.0,
        },
        frames: vec![scene(40, 32, 3); 3],
        indices: vec![0, 3, 6],
    };
    let sound = AudioClip {
        samples: (0..900).map(|i| (i as f32 / 20.0).sin() / 2.0).collect(),
    };
    let image = ship_image(&scene(40, 32, 3), &image).unwrap().bytes;
    let video = ship_video(&clip, &video).unwrap().bytes;
    let audio = ship_audio(&sound, &[10..400, 500..900]).unwrap().bytes;
    [
        (MediaKind::Image, image),
        (MediaKind::Video, video),
        (MediaKind::Audio, audio),
    ]
}
