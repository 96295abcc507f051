//! What a request looks like, as far as is learned by it, and how long its answer is going to be.

use msao_plugin::{Calibration, PlanInput, Request, modality};

use crate::cells::{self, seen};
use crate::{Settings, smaller, within};

/// Mixes of media: which of image, video and audio there are.
pub(crate) const MIXES: u32 = 8;
/// Classes of `max-tokens`.
pub(crate) const BUCKETS: u32 = 8;
/// Up to how many tokens a class goes; the last one has no end.
const ENDS: [u32; 7] = [16, 32, 64, 128, 256, 512, 2048];
/// Answers after which a mean is as sure as it gets: the guess before the first one weighs like one more.
const SURE: f64 = 8.0;

/// A class of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Below [`MIXES`]. Bits. 1: images, and what later versions bring; 2: clips; 4: sounds.
    pub(crate) mix: u32,
    /// Below [`BUCKETS`].
    pub(crate) bucket: u32,
}

impl Shape {
    pub(crate) fn of(input: &PlanInput) -> Shape {
        let mut mix = 0;
        for part in input.parts {
            mix |= match part.modality {
                modality::TEXT => 0,
                modality::VIDEO => 2,
                modality::AUDIO => 4,
                _ => 1,
            };
        }
        let most = input.request.max_tokens;
        let bucket = ENDS.iter().filter(|end| most > **end).count() as u32;
        Shape { mix, bucket }
    }

    /// Below `MIXES * BUCKETS`.
    pub(crate) fn number(self) -> u32 {
        self.mix * BUCKETS + self.bucket
    }

    /// The one with this number.
    pub(crate) fn with_number(number: u32) -> Option<Shape> {
        let (mix, bucket) = (number / BUCKETS, number % BUCKETS);
        (mix < MIXES).then_some(Shape { mix, bucket })
    }
}

/// The mean of what was seen and of a guess that counts like one more.
fn with_guess(seen: Option<(f64, f64)>, guess: f64) -> f64 {
    match seen {
        Some((mean, count)) => {
            let count = smaller(count, SURE);
            (mean * count + guess) / (count + 1.0)
        }
        None => guess,
    }
}

/// Tokens that the answer is thought to have: what answers to such requests had, of those that it may have.
pub(crate) fn answer_tokens(
    request: &Request,
    calibration: &Calibration,
    settings: &Settings,
    shape: Shape,
) -> f64 {
    let most = f64::from(request.max_tokens.max(1));
    let by_bucket = seen(calibration.get(cells::length_by_bucket(shape)));
    let guess = with_guess(by_bucket, settings.length_prior * most);
    let own = seen(calibration.get(cells::length(shape)));
    within(with_guess(own, guess), 1.0, most)
}
