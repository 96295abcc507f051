//! Any sampling rate to 16 kHz, block by block.

use rubato::{FftFixedInOut, Resampler as _};

use super::SAMPLE_RATE;
use crate::error::MediaError;
use crate::sniff::Format;

/// Input samples per block, about: long enough for a steep filter (a transition band of some 2% of the lower rate),
/// short enough to cost nothing.
const BLOCK: usize = 8192;

/// Takes mono samples at one rate and gives them at [`SAMPLE_RATE`], with the filter's delay taken out and exactly
/// `round(n * 16000 / rate)` samples long.
pub(super) struct Resampler {
    rate: u32,
    taken: u64,
    /// `None` where the rate is right already.
    filter: Option<Filter>,
    out: Vec<f32>,
}

struct Filter {
    inner: FftFixedInOut<f32>,
    /// Samples that do not fill a block yet.
    pending: Vec<f32>,
    block_out: [Vec<f32>; 1],
}

impl Resampler {
    pub(super) fn new(rate: u32) -> Result<Self, MediaError> {
        let filter = if rate == SAMPLE_RATE {
            None
        } else {
            Some(Filter::new(rate)?)
        };
        Ok(Self {
            rate,
            taken: 0,
            filter,
            out: Vec::new(),
        })
    }

    /// How many samples came in.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    pub(super) fn push(&mut self, samples: &[f32]) -> Result<(), MediaError> {
        self.taken += samples.len() as u64;
        match &mut self.filter {
            None => self.out.extend_from_slice(samples),
            Some(filter) => filter.push(samples, &mut self.out)?,
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Vec<f32>, MediaError> {
        let Some(filter) = &mut self.filter else {
            return Ok(self.out);
        };
        let rate = u64::from(self.rate);
        let length = ((self.taken * u64::from(SAMPLE_RATE) + rate / 2) / rate) as usize;
        let delay = filter.inner.output_delay();
        while self.out.len() < delay + length {
            let silence = vec![0.0; filter.inner.input_frames_next()];
            filter.push(&silence, &mut self.out)?;
        }
        self.out.drain(..delay);
        self.out.truncate(length);
        // A steep filter rings beyond what goes in.
        self.out
            .iter_mut()
            .for_each(|sample| *sample = sample.clamp(-1.0, 1.0));
        Ok(self.out)
    }
}

impl Filter {
    fn new(rate: u32) -> Result<Self, MediaError> {
        let unit = (rate / gcd(rate, SAMPLE_RATE)) as usize;
        // An even number of units: the filter's centre then falls on a sample of either rate, and the delay is whole.
        let units = BLOCK.div_ceil(unit).next_multiple_of(2);
        let inner = FftFixedInOut::new(rate as usize, SAMPLE_RATE as usize, unit * units, 1)
            .map_err(failed)?;
        let block_out = [vec![0.0; inner.output_frames_max()]];
        Ok(Self {
            inner,
            pending: Vec::new(),
            block_out,
        })
    }

    fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) -> Result<(), MediaError> {
        self.pending.extend_from_slice(samples);
        let size = self.inner.input_frames_next();
        let mut used = 0;
        while let Some(block) = self.pending.get(used..used + size) {
            let (_, made) = self
                .inner
                .process_into_buffer(&[block], &mut self.block_out, None)
                .map_err(failed)?;
            let [block_out] = &self.block_out;
            out.extend(block_out.iter().take(made));
            used += size;
        }
        self.pending.drain(..used);
        Ok(())
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The resampler refuses only what the caller got wrong; still a value, not a panic.
fn failed(error: impl std::fmt::Display) -> MediaError {
    MediaError::unsupported(Format::Wav, format!("this sampling rate ({error})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(rate: u32, hz: f64, n: usize) -> Vec<f32> {
        let step = std::f64::consts::TAU * hz / f64::from(rate);
        (0..n)
            .map(|i| (0.5 * (step * i as f64).sin()) as f32)
            .collect()
    }

    fn resampled(rate: u32, samples: &[f32], piece: usize) -> Vec<f32> {
        let mut resampler = Resampler::new(rate).unwrap();
        for piece in samples.chunks(piece) {
            resampler.push(piece).unwrap();
        }
        resampler.finish().unwrap()
    }

    /// Signal to noise in dB over the middle: the ends see the silence around the sound.
    fn snr_db(got: &[f32], want: &[f32]) -> f64 {
        let middle = want.len() / 8..want.len() * 7 / 8;
        let (mut signal, mut noise) = (0.0, 0.0);
        for (g, w) in got[middle.clone()].iter().zip(&want[middle]) {
            signal += f64::from(*w).powi(2);
            noise += f64::from(g - w).powi(2);
        }
        10.0 * (signal / noise).log10()
    }

    #[test]
    fn a_tone_stays_where_it_is() {
        for rate in [
            8_000, 11_025, 22_050, 24_000, 32_000, 44_100, 48_000, 44_099, 96_000,
        ] {
            let n = rate as usize * 2;
            let got = resampled(rate, &tone(rate, 1000.0, n), 1000);
            assert_eq!(got.len(), 32_000, "{rate}");
            let db = snr_db(&got, &tone(16_000, 1000.0, 32_000));
            assert!(db > 90.0, "{rate} Hz: {db:.1} dB");
        }
    }

    #[test]
    fn what_cannot_be_kept_is_gone() {
        let got = resampled(48_000, &tone(48_000, 9_000.0, 96_000), 4096);
        let loudest = got[4_000..28_000]
            .iter()
            .fold(0.0f32, |max, s| max.max(s.abs()));
        assert!(loudest < 1e-4, "{loudest}");
    }

    #[test]
    fn the_length_is_rounded_and_pieces_do_not_matter() {
        for n in [1, 2, 3, 100, 4410, 44_101] {
            let samples = tone(44_100, 440.0, n);
            let got = resampled(44_100, &samples, 7);
            assert_eq!(
                got.len(),
                (n as f64 * 16_000.0 / 44_100.0).round() as usize,
                "{n}"
            );
            assert_eq!(got, resampled(44_100, &samples, 100_000));
        }
        assert_eq!(resampled(16_000, &[0.25, -0.5], 1), [0.25, -0.5]);
    }
}
