//! Reference arrays and the ways to compare with them.

// Helpers of tests are tests too.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

pub mod scenes;

use std::path::{Path, PathBuf};

use msao_media::{
    AudioClip, Limits, RgbImage, VideoClip, decode_audio, decode_image, decode_video,
};
use safetensors::SafeTensors;

/// A folder of files and of what established decoders read from them.
pub struct References {
    folder: PathBuf,
    tensors: Vec<u8>,
}

impl References {
    pub fn own() -> Self {
        Self::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data"))
    }

    /// The golden vectors that the whole platform shares.
    pub fn shared() -> Self {
        Self::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/decoders"))
    }

    fn open(folder: PathBuf) -> Self {
        let packed = std::fs::File::open(folder.join("expected.safetensors.zst")).unwrap();
        let tensors = zstd::decode_all(packed).unwrap();
        Self { folder, tensors }
    }

    pub fn file(&self, name: &str) -> Vec<u8> {
        msao_media::read_file(&self.folder.join(name), &Limits::default()).unwrap()
    }

    pub fn shape(&self, key: &str) -> Vec<usize> {
        let tensors = SafeTensors::deserialize(&self.tensors).unwrap();
        tensors
            .tensor(key)
            .unwrap_or_else(|error| panic!("{key}: {error}"))
            .shape()
            .to_vec()
    }

    pub fn bytes(&self, key: &str) -> Vec<u8> {
        let tensors = SafeTensors::deserialize(&self.tensors).unwrap();
        tensors
            .tensor(key)
            .unwrap_or_else(|error| panic!("{key}: {error}"))
            .data()
            .to_vec()
    }

    pub fn floats(&self, key: &str) -> Vec<f32> {
        self.bytes(key)
            .chunks_exact(4)
            .map(|four| f32::from_le_bytes(four.try_into().unwrap()))
            .collect()
    }

    pub fn image(&self, name: &str) -> RgbImage {
        decode_image(&self.file(name), &Limits::default())
            .unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn sound(&self, name: &str) -> AudioClip {
        decode_audio(&self.file(name), &Limits::default())
            .unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// All frames of a clip.
    pub fn clip(&self, name: &str) -> VideoClip {
        decode_video(&self.file(name), &Limits::default(), &mut |info| {
            (0..info.frames).collect()
        })
        .unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

/// How far two pictures are apart.
#[derive(Debug)]
pub struct Distance {
    pub largest: u8,
    pub mean: f64,
}

pub fn distance(name: &str, got: &[u8], want: &[u8]) -> Distance {
    assert_eq!(got.len(), want.len(), "{name}");
    let apart: Vec<u8> = got.iter().zip(want).map(|(a, b)| a.abs_diff(*b)).collect();
    let distance = Distance {
        largest: apart.iter().copied().max().unwrap_or(0),
        mean: apart.iter().map(|&d| f64::from(d)).sum::<f64>() / apart.len() as f64,
    };
    println!(
        "{name}: largest {} mean {:.3}",
        distance.largest, distance.mean
    );
    distance
}

/// Signal to noise in dB, over the middle where `ends` says how many samples to leave out.
pub fn snr_db(name: &str, got: &[f32], want: &[f32], ends: usize) -> f64 {
    assert_eq!(got.len(), want.len(), "{name}");
    let (mut signal, mut noise) = (0.0, 0.0);
    for (g, w) in got.iter().zip(want).skip(ends).take(want.len() - 2 * ends) {
        signal += f64::from(*w).powi(2);
        noise += f64::from(g - w).powi(2);
    }
    let db = 10.0 * (signal / noise.max(1e-30)).log10();
    println!("{name}: {db:.1} dB");
    db
}

/// Planes Y, U, V below each other to RGB as ffmpeg's vector code does it: what a frame should be. `weights` are those
/// of red and blue in luma.
pub fn planes_to_rgb(yuv: &[u8], width: usize, (red, blue): (f64, f64), full: bool) -> Vec<u8> {
    let height = yuv.len() / width * 2 / 3;
    let (luma, rest) = yuv.split_at(width * height);
    let (u, v) = rest.split_at(rest.len() / 2);
    let (black, luma_span, chroma_span) = if full {
        (0, 255.0, 255.0)
    } else {
        (16, 219.0, 224.0)
    };
    let green = 1.0 - red - blue;
    let times = |value: i32, factor: f64| {
        (f64::from(8 * value) * (factor * 8192.0).round() / 65536.0).floor()
    };
    let mut rgb = Vec::new();
    for row in 0..height {
        for column in 0..width {
            let at = row / 2 * (width / 2) + column / 2;
            let y = times(
                i32::from(luma[row * width + column]) - black,
                255.0 / luma_span,
            );
            let (cb, cr) = (i32::from(u[at]) - 128, i32::from(v[at]) - 128);
            let chroma = 255.0 / chroma_span;
            let r = y + times(cr, 2.0 * (1.0 - red) * chroma);
            let g = y
                + times(cb, -2.0 * (1.0 - blue) * blue / green * chroma)
                + times(cr, -2.0 * (1.0 - red) * red / green * chroma);
            let b = y + times(cb, 2.0 * (1.0 - blue) * chroma);
            rgb.extend([r, g, b].map(|value| value.clamp(0.0, 255.0) as u8));
        }
    }
    rgb
}
