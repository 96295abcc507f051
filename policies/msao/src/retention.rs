//! What is kept of media, for the draft model and for the target, and how the target's node gets it.
//!
//! ```text
//! rho  = keep-min + (1 - MAS) * (1 - keep-min)          the system's formula, with a minimum of its own for each model
//! rho  = min(rho, keep-max)                             for the target
//! keep = rho + unusual * (1 - rho)                      1 from 0.95 on; 0 where necessity < drop * (1 - unusual)
//! ```
//!
//! The draft model gets that wherever its drafts are verified. For the target, and for answers of the draft model
//! alone, there are levels, each of which does more harm than the one before:
//!
//! | level | what is sent | what is read |
//! |---|---|---|
//! | whole | the original bytes | all |
//! | coarse | all, as JPEG of `target-quality` | all |
//! | pruned | the original bytes | `keep` |
//! | cut | what is kept, as JPEG of `target-quality`; the rest painted over | `keep` |
//! | small | the same, scaled by `target-scale-min` | `keep`, fewer by the scale's square |
//!
//! Levels are gone up to where each takes at least a share of the whole predicted time off uploading and reading
//! ([`Media::pick`]): `prune-worth` where tokens are left out for a target and all else is as it came, `worth` where media are made
//! anew or the draft model's own answer has less to go by. Digits in images suffer first: so by default nothing is scaled, and quality and minimum are high.
//!
//! Bytes of what is made anew are thought to be `bytes * keep * scale^2 * quality / 100`, corrected by what was sent
//! for such requests before. A peer that has the originals already has nothing of what is made anew.

use alloc::vec::Vec;

use msao_plugin::{Part, PartPlan, PlanInput, Rest, Route, Treatment, flag, modality};

use crate::arms::Arm;
use crate::cells::{self, seen};
use crate::model::{Link, Machine, amount};
use crate::shape::Shape;
use crate::{Settings, larger, smaller, within};

/// Levels.
pub(crate) const LEVELS: usize = 5;
pub(crate) const WHOLE: usize = 0;
pub(crate) const COARSE: usize = 1;
pub(crate) const PRUNED: usize = 2;
pub(crate) const CUT: usize = 3;
pub(crate) const SMALL: usize = 4;

/// A medium of so many bytes is asked for before it is sent, as nodes have it.
const ASKED_FROM: f64 = 65_536.0;
/// All is kept of what so large a share would be kept of.
const NEARLY_ALL: f64 = 0.95;
/// What the formula is thought to keep before it has kept anything.
const ASSUMED_KEPT: f64 = 0.7;
/// What is made anew is never thought to have less than this share of the formula's bytes, nor more than the tenfold.
const FAR_OFF: f64 = 0.1;

/// Share of the part's tokens that is kept: between `least` and `most`, and `most` where that is less; more of what is
/// unusual, and nothing where necessity is below `drop_below`. All of what nobody has looked at, or where a score is none.
pub(crate) fn kept(part: &Part, least: f64, most: f64, drop_below: f64) -> f64 {
    let is_share = |value: f64| (0.0..=1.0).contains(&value);
    if !(is_share(part.mas) && is_share(part.unusual) && is_share(part.necessity)) {
        return 1.0;
    }
    let usual = 1.0 - part.unusual;
    if part.necessity < drop_below * usual {
        return 0.0;
    }
    let least = within(least, 0.0, 1.0);
    let rho = smaller(
        least + (1.0 - part.mas) * (1.0 - least),
        within(most, 0.0, 1.0),
    );
    let keep = rho + part.unusual * (1.0 - rho);
    // So little is not worth the doubt whether it was needed.
    if keep < NEARLY_ALL { keep } else { 1.0 }
}

fn kept_by_target(part: &Part, settings: &Settings) -> f64 {
    kept(
        part,
        settings.target_keep_min,
        settings.target_keep_max,
        settings.target_drop,
    )
}

fn kept_by_draft(part: &Part, settings: &Settings) -> f64 {
    kept(part, settings.draft_keep_min, 1.0, settings.draft_drop)
}

/// How much there is to send and to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Media {
    /// The probe has run: of a prompt without media there is nothing that it could look at.
    pub(crate) scored: bool,
    /// Bytes of media for the target's node, by level. Where nobody has looked at them yet, those of levels that prune
    /// are what they are thought to become.
    pub(crate) bytes: [f64; LEVELS],
    /// Of these, those of the largest medium.
    pub(crate) largest: [f64; LEVELS],
    /// Tokens for the target, text included, by level.
    pub(crate) tokens: [f64; LEVELS],
    /// Tokens for a draft model whose drafts are verified, text included.
    pub(crate) draft_tokens: f64,
    /// Tokens of media, nothing left out.
    pub(crate) media_tokens: f64,
    /// Share of these that the formula keeps for the target; where nobody has looked at them, what it is thought to.
    pub(crate) kept: f64,
    /// How far off the formula's bytes of what is made anew were before, which `bytes` is corrected by.
    pub(crate) bytes_off: f64,
}

impl Media {
    pub(crate) fn of(input: &PlanInput, settings: &Settings, shape: Shape) -> Media {
        let mut media = Media {
            scored: shape.mix != 0 && input.request.has(flag::PROBED),
            bytes: [0.0; LEVELS],
            largest: [0.0; LEVELS],
            tokens: [0.0; LEVELS],
            draft_tokens: 0.0,
            media_tokens: 0.0,
            kept: 0.0,
            bytes_off: 1.0,
        };
        if shape.mix != 0 {
            let calibration = input.calibration;
            let assumed = match seen(calibration.get(cells::kept(shape))) {
                Some((mean, _)) => within(mean, 0.0, 1.0),
                None => ASSUMED_KEPT,
            };
            let off = seen(calibration.get(cells::bytes(shape))).map_or(1.0, |(mean, _)| mean);
            media.bytes_off = within(off, FAR_OFF, 1.0 / FAR_OFF);
            let quality = within(f64::from(settings.target_quality), 1.0, 100.0) / 100.0;
            let anew = Anew {
                assumed: (!media.scored).then_some(assumed),
                bytes: media.bytes_off * quality,
                scale: within(settings.target_scale_min, 0.1, 1.0),
            };
            for part in input.parts.iter().filter(|part| part.is_media()) {
                media.add(part, settings, &anew);
            }
        }
        media.kept = match media.media_tokens > 0.0 {
            true => media.kept / media.media_tokens,
            false => 1.0,
        };
        let mut text_tokens = 0.0;
        for part in input.parts.iter().filter(|part| !part.is_media()) {
            text_tokens += f64::from(part.tokens);
        }
        for tokens in &mut media.tokens {
            *tokens += text_tokens;
        }
        media.draft_tokens += text_tokens;
        media
    }

    fn add(&mut self, part: &Part, settings: &Settings, anew: &Anew) {
        let (tokens, bytes) = (f64::from(part.tokens), amount(part.bytes, 0.0));
        let (keep, draft_keep) = match anew.assumed {
            Some(assumed) => (assumed, 1.0),
            None => (
                kept_by_target(part, settings),
                kept_by_draft(part, settings),
            ),
        };
        self.media_tokens += tokens;
        self.kept += tokens * keep;
        self.draft_tokens += tokens * draft_keep;
        let area = if is_picture(part) {
            anew.scale * anew.scale
        } else {
            1.0
        };
        let coarse = if is_picture(part) {
            bytes * anew.bytes
        } else {
            bytes
        };
        let cut = coarse * keep;
        let originals = if keep > 0.0 { bytes } else { 0.0 };
        let bytes_by_level = [bytes, coarse, originals, cut, cut * area];
        for (all, more) in self.bytes.iter_mut().zip(bytes_by_level) {
            *all += more;
        }
        for (largest, bytes) in self.largest.iter_mut().zip(bytes_by_level) {
            *largest = larger(bytes, *largest);
        }
        let read = tokens * keep;
        let tokens_by_level = [tokens, tokens, read, read, read * area];
        for (all, more) in self.tokens.iter_mut().zip(tokens_by_level) {
            *all += more;
        }
    }

    /// Bytes that have to be sent to a node that has so many.
    pub(crate) fn bytes_to_send(&self, level: usize, cached: f64) -> f64 {
        let bytes = self.bytes.get(level).copied().unwrap_or(0.0);
        if makes_anew(level) {
            bytes
        } else {
            larger(bytes - cached, 0.0)
        }
    }

    /// Round trips until a node that has so many bytes of the originals has been asked the question.
    pub(crate) fn round_trips(&self, level: usize, cached: f64) -> f64 {
        let bytes = self.bytes_to_send(level, cached);
        let largest = self.largest.get(level).copied().unwrap_or(0.0);
        if bytes <= 0.0 {
            1.0
        } else if smaller(largest, bytes) < ASKED_FROM {
            2.0
        } else {
            3.0
        }
    }

    /// Time of uploading and of reading, in ms.
    pub(crate) fn times_ms(&self, level: usize, peer: &Peer) -> (f64, f64) {
        let tokens = self.tokens.get(level).copied().unwrap_or(0.0);
        (
            self.bytes_to_send(level, peer.cached) * peer.link.byte_ms,
            tokens * peer.machine.read_ms,
        )
    }

    /// The level that a peer is served by: the mildest one, and from there each up to `most` that takes at least
    /// `gain_ms` off; `prune_ms` is enough where tokens are only left out.
    pub(crate) fn pick(&self, peer: &Peer, gain_ms: f64, prune_ms: f64, most: usize) -> usize {
        if self.media_tokens == 0.0 {
            return WHOLE;
        }
        let time_ms = |level: usize| {
            let (upload_ms, read_ms) = self.times_ms(level, peer);
            upload_ms + read_ms
        };
        let (mut best, mut best_ms) = (WHOLE, time_ms(WHOLE));
        for level in COARSE..=most {
            let level_ms = time_ms(level);
            let gain_ms = if level == PRUNED { prune_ms } else { gain_ms };
            // Not even where nothing has to be gained is a level taken that gains nothing.
            if level_ms < best_ms && best_ms - level_ms >= gain_ms {
                (best, best_ms) = (level, level_ms);
            }
        }
        best
    }
}

/// How media are made anew.
struct Anew {
    /// What is kept of what nobody has looked at.
    assumed: Option<f64>,
    /// Share of a picture's bytes, all of it kept at full size.
    bytes: f64,
    scale: f64,
}

/// Whether media are made anew at a level.
pub(crate) fn makes_anew(level: usize) -> bool {
    !matches!(level, WHOLE | PRUNED)
}

/// Where media are sent to and read.
pub(crate) struct Peer<'a> {
    pub(crate) link: &'a Link,
    pub(crate) machine: &'a Machine,
    /// Bytes of the originals that it has.
    pub(crate) cached: f64,
}

/// Images, clips, and what later versions bring: not sounds.
fn is_picture(part: &Part) -> bool {
    part.modality != modality::AUDIO
}

/// How the target gets a part at a level.
fn for_target(part: &Part, level: usize, settings: &Settings) -> Treatment {
    let keep = match level {
        PRUNED | CUT | SMALL => kept_by_target(part, settings),
        _ => 1.0,
    };
    let mut treatment = Treatment::keeping(keep);
    if !makes_anew(level) {
        return treatment;
    }
    // A sound has no pixels: whole, it is sent as it came.
    if is_picture(part) || keep < 1.0 {
        treatment.quality = settings.target_quality.clamp(1, 100);
    }
    if keep < 1.0 {
        treatment.rest = Rest::Flatten;
    }
    if level == SMALL && is_picture(part) {
        treatment.scale = within(settings.target_scale_min, 0.1, 1.0);
    }
    treatment
}

/// What the plan says of parts; none where everything is as it came.
pub(crate) fn part_plans(
    input: &PlanInput,
    settings: &Settings,
    media: &Media,
    arm: &Arm,
) -> Vec<PartPlan> {
    let prunes_draft = media.scored && arm.route == Route::Speculate;
    let as_came = arm.level == WHOLE && arm.level_there == WHOLE;
    if media.media_tokens == 0.0 || (as_came && !prunes_draft) {
        return Vec::new();
    }
    let mut plans = Vec::with_capacity(input.parts.len());
    let mut whole = true;
    for part in input.parts {
        let mut plan = PartPlan::WHOLE;
        if part.is_media() {
            plan.target = for_target(part, arm.level_there, settings);
            // On other routes the draft model answers, be it for a peer that is lost: it is spared no more than a target would be.
            plan.draft = Treatment::keeping(match prunes_draft {
                true => kept_by_draft(part, settings),
                false => for_target(part, arm.level, settings).keep,
            });
        }
        whole &= plan == PartPlan::WHOLE;
        plans.push(plan);
    }
    if whole {
        return Vec::new();
    }
    plans
}
