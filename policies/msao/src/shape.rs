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
/// Classes of how much text a prompt has.
pub(crate) const TEXTS: u32 = 44;
/// Up to so many tokens each number is a class of its own; then four are, up to twice as many.
const EACH: u32 = 32;
/// Answers after which a mean is as sure as it gets: the guess before the first one weighs like one more.
const SURE: f64 = 8.0;

/// A class of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Below [`MIXES`]. Bits. 1: images, and what later versions bring; 2: clips; 4: sounds.
    pub(crate) mix: u32,
    /// Below [`BUCKETS`].
    pub(crate) bucket: u32,
    /// Below [`TEXTS`]. Questions that are as long as each other are often alike: clients ask by templates, and what is asked for
    /// says more of an answer than what media there are.
    pub(crate) text: u32,
}

impl Shape {
    pub(crate) fn of(input: &PlanInput) -> Shape {
        let (mut mix, mut tokens) = (0, 0_u32);
        for part in input.parts {
            mix |= match part.modality {
                modality::TEXT => {
                    tokens = tokens.saturating_add(part.tokens);
                    0
                }
                modality::VIDEO => 2,
                modality::AUDIO => 4,
                _ => 1,
            };
        }
        let most = input.request.max_tokens;
        let bucket = ENDS.iter().filter(|end| most > **end).count() as u32;
        Shape {
            mix,
            bucket,
            text: text(tokens),
        }
    }

    /// Below `MIXES * BUCKETS`: of mix and bucket.
    pub(crate) fn number(self) -> u32 {
        self.mix * BUCKETS + self.bucket
    }

    /// The one with this number and text.
    pub(crate) fn with_number(number: u32, text: u32) -> Option<Shape> {
        let (mix, bucket) = (number / BUCKETS, number % BUCKETS);
        (mix < MIXES && text < TEXTS).then_some(Shape { mix, bucket, text })
    }
}

/// The class of so many tokens of text.
fn text(tokens: u32) -> u32 {
    if tokens < 2 * EACH {
        tokens.min(EACH + tokens.saturating_sub(EACH) / 4)
    } else {
        // 64, 128, 256, and 512 and more.
        (34 + tokens.ilog2()).min(TEXTS - 1)
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
    let guess = with_guess(own, guess);
    let alike = seen(calibration.get(cells::length_by_text(shape)));
    within(with_guess(alike, guess), 1.0, most)
}
