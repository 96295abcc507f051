//! The log-mel spectrogram that Whisper's encoder, and Omni's, reads.
//!
//! Formulas: `WhisperFeatureExtractor` of Hugging Face transformers 5.17 (`_torch_extract_fbank_features`): short-time
//! Fourier transform with a periodic Hann window and reflected ends, power, Slaney's mel filters (`audio_utils.py`),
//! `log10` not below 1e-10 and not more than 8 below the loudest, then `(x + 4) / 4`.

use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

use crate::config::SoundConfig;

/// Least mel power that is told from silence.
const FLOOR: f64 = 1e-10;
/// Highest frequency of the mel filters in Hz.
const MAX_HZ: f64 = 8000.0;

/// One mel bin's weights over the bins of the Fourier transform, those that are not zero.
#[derive(Clone, Debug)]
struct MelFilter {
    first: usize,
    weights: Vec<f64>,
}

/// Computes spectrograms for one configuration.
#[derive(Clone)]
pub(crate) struct MelExtractor {
    config: SoundConfig,
    window: Vec<f64>,
    filters: Vec<MelFilter>,
    fft: Arc<dyn RealToComplex<f64>>,
}

/// One sound's features.
#[derive(Debug)]
pub(crate) struct Spectrogram {
    /// `[mels, frames]`, `frames` the same for every sound.
    pub features: Vec<f32>,
    /// Frames that are sound, not padding.
    pub valid: usize,
}

impl std::fmt::Debug for MelExtractor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MelExtractor")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl MelExtractor {
    pub(crate) fn new(config: &SoundConfig) -> Self {
        let n = config.n_fft;
        let angle = |i: usize| std::f64::consts::TAU * i as f64 / n as f64;
        Self {
            window: (0..n).map(|i| 0.5 - 0.5 * angle(i).cos()).collect(),
            filters: mel_filters(config),
            fft: RealFftPlanner::new().plan_fft_forward(n),
            config: config.clone(),
        }
    }

    /// Frames of every spectrogram, padding included.
    pub(crate) fn frames(&self) -> usize {
        self.config.max_samples / self.config.hop
    }

    /// Mel bins of every spectrogram.
    pub(crate) fn mels(&self) -> usize {
        self.config.mels
    }

    /// Most samples of a sound that are heard.
    pub(crate) fn max_samples(&self) -> usize {
        self.config.max_samples
    }

    /// Frames of a sound of so many samples that are not padding.
    pub(crate) fn valid_frames(&self, samples: usize) -> usize {
        samples
            .min(self.config.max_samples)
            .div_ceil(self.config.hop)
            .min(self.frames())
    }

    /// The spectrogram of mono samples at the configured rate, cut or padded with silence to `max_samples`.
    pub(crate) fn extract(&self, samples: &[f32]) -> Spectrogram {
        let SoundConfig {
            mels,
            hop,
            n_fft,
            max_samples,
            ..
        } = self.config;
        let samples = samples.get(..max_samples).unwrap_or(samples);
        let frames = self.frames();
        // Later frames see nothing but padding; all of their bins are at the floor.
        let heard = (samples.len() + n_fft / 2).div_ceil(hop).min(frames);

        let mut logs = Vec::with_capacity(heard * mels);
        let mut input = self.fft.make_input_vec();
        let mut spectrum = self.fft.make_output_vec();
        let mut scratch = self.fft.make_scratch_vec();
        let mut power = vec![0.0; spectrum.len()];
        for frame in 0..heard {
            for (k, (value, window)) in input.iter_mut().zip(&self.window).enumerate() {
                let at = reflect(frame * hop + k, n_fft / 2, max_samples);
                *value = samples.get(at).map_or(0.0, |&sample| f64::from(sample)) * window;
            }
            // The buffers are the plan's own, so their lengths cannot be wrong.
            let done = self
                .fft
                .process_with_scratch(&mut input, &mut spectrum, &mut scratch);
            debug_assert!(done.is_ok());
            for (power, value) in power.iter_mut().zip(&spectrum) {
                *power = Complex::norm_sqr(value);
            }
            logs.extend(self.filters.iter().map(|filter| {
                let bins = power.get(filter.first..).unwrap_or_default();
                let mel: f64 = bins
                    .iter()
                    .zip(&filter.weights)
                    .map(|(power, weight)| power * weight)
                    .sum();
                mel.max(FLOOR).log10()
            }));
        }

        let silence = FLOOR.log10();
        let loudest = logs.iter().copied().fold(silence, f64::max);
        let scale = |log: f64| ((log.max(loudest - 8.0) + 4.0) / 4.0) as f32;
        let mut features = vec![scale(silence); mels * frames];
        for (mel, row) in features.chunks_exact_mut(frames).enumerate() {
            for (value, &log) in row.iter_mut().zip(logs.iter().skip(mel).step_by(mels)) {
                *value = scale(log);
            }
        }
        Spectrogram {
            features,
            valid: self.valid_frames(samples.len()),
        }
    }
}

/// The sample under position `at` of a signal of `length` samples that is reflected for `pad` samples at both ends.
fn reflect(at: usize, pad: usize, length: usize) -> usize {
    if at < pad {
        pad - at
    } else if at - pad < length {
        at - pad
    } else {
        (2 * (length - 1)).saturating_sub(at - pad)
    }
}

/// Slaney's mel scale: linear to 1000 Hz, logarithmic above.
fn hertz_to_mel(hertz: f64) -> f64 {
    if hertz < 1000.0 {
        3.0 * hertz / 200.0
    } else {
        15.0 + (hertz / 1000.0).ln() * (27.0 / 6.4_f64.ln())
    }
}

fn mel_to_hertz(mel: f64) -> f64 {
    if mel < 15.0 {
        200.0 * mel / 3.0
    } else {
        1000.0 * ((6.4_f64.ln() / 27.0) * (mel - 15.0)).exp()
    }
}

/// Triangles of equal area, evenly spaced in mel from 0 to 8000 Hz.
fn mel_filters(config: &SoundConfig) -> Vec<MelFilter> {
    let bins = config.n_fft / 2 + 1;
    let top = hertz_to_mel(MAX_HZ);
    let corner = |i: usize| mel_to_hertz(top * i as f64 / (config.mels + 1) as f64);
    let bin_hertz = |bin: usize| (config.sampling_rate / 2) as f64 * bin as f64 / (bins - 1) as f64;
    (0..config.mels)
        .map(|mel| {
            let (low, centre, high) = (corner(mel), corner(mel + 1), corner(mel + 2));
            let weight = |bin: usize| {
                let hertz = bin_hertz(bin);
                let triangle = ((hertz - low) / (centre - low))
                    .min((high - hertz) / (high - centre))
                    .max(0.0);
                triangle * 2.0 / (high - low)
            };
            let first = (0..bins).find(|&bin| weight(bin) > 0.0).unwrap_or(bins);
            let weights = (first..bins)
                .map(weight)
                .take_while(|&weight| weight > 0.0)
                .collect();
            MelFilter { first, weights }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> SoundConfig {
        SoundConfig {
            mels: 128,
            sampling_rate: 16_000,
            hop: 160,
            n_fft: 400,
            max_samples: 16_000,
        }
    }

    #[test]
    fn silence_is_flat_and_valid_frames_round_up() {
        let extractor = MelExtractor::new(&config());
        let spectrogram = extractor.extract(&[0.0; 161]);
        assert_eq!(spectrogram.features.len(), 128 * 100);
        assert_eq!(spectrogram.valid, 2);
        assert!(spectrogram.features.iter().all(|&value| value == -1.5));
        assert_eq!(
            extractor.valid_frames(1 << 30),
            100,
            "a longer sound is cut"
        );
    }

    #[test]
    fn a_tone_is_loudest_in_its_own_bin() {
        let extractor = MelExtractor::new(&config());
        let tone: Vec<f32> = (0..8000)
            .map(|i| (i as f32 * std::f32::consts::FRAC_PI_8).sin())
            .collect(); // 1000 Hz
        let spectrogram = extractor.extract(&tone);
        let column: Vec<f32> = spectrogram
            .features
            .iter()
            .skip(20)
            .step_by(100)
            .copied()
            .collect();
        let loudest = (0..128)
            .max_by(|&a, &b| column[a].total_cmp(&column[b]))
            .unwrap();
        let hertz = mel_to_hertz(hertz_to_mel(MAX_HZ) * (loudest + 1) as f64 / 129.0);
        assert!((hertz - 1000.0).abs() < 40.0, "{hertz}");
        assert!(
            (spectrogram.features[99] - (column[loudest] - 2.0)).abs() < 0.2,
            "padding is 8 below the loudest"
        );
    }

    #[test]
    fn mel_and_hertz_are_inverse() {
        for hertz in [0.0, 500.0, 1000.0, 4321.0, 8000.0] {
            assert!((mel_to_hertz(hertz_to_mel(hertz)) - hertz).abs() < 1e-9);
        }
    }

    #[test]
    fn ends_are_reflected_without_repeating_the_edge() {
        let at: Vec<usize> = (0..10).map(|at| reflect(at, 3, 4)).collect();
        assert_eq!(at, [3, 2, 1, 0, 1, 2, 3, 2, 1, 0]);
    }
}
