//! What a plan makes of a question's media: tokens for either model, bytes for the link, and what is lost.
//!
//! Of an item with `N` tokens in `F` frames, scaled by `s`, of which the shares `keep` of tokens and `frames` of frames stay:
//!
//! ```text
//! held = N * s^2 * ceil(frames * F) / F      what the frames that stay hold
//! kept = min(ceil(keep * N * s^2), held)
//! ```
//!
//! as nodes do it (`host/node/src/request/retain.rs`). What has no meaning for a part is not looked at: frames of a picture,
//! sides of a sound, anything of text. To the target media go made smaller, so that its encoders see `held`; the draft model's
//! see all frames, since nothing is sent to it. An item that is dropped whole is not encoded at all.

use msao_core::offload::{Part, PartPlan, Plan, Rest, Treatment, modality};

use crate::traffic::{Medium, Question};

const WHOLE: PartPlan = PartPlan {
    draft: Treatment::WHOLE,
    target: Treatment::WHOLE,
};
/// The JPEG quality of a picture that is made anew though its original bytes were planned, as nodes have it.
const BEST_QUALITY: u32 = 95;
/// More than rounding adds to a product: 0.07 of 100 is 7, though it is 7.000000000000001 in f64.
const ROUNDING: f64 = 1e-9;

/// Takes out what treats no part in any way: nothing stands for everything as it came.
pub(crate) fn clear_whole(parts: &mut Vec<PartPlan>) {
    if parts.iter().all(|part| *part == WHOLE) {
        parts.clear();
    }
}

/// Turns what is planned for parts into what a node does: once the probe has read a medium the draft model has it at its full
/// size (`host/node/src/request/treatment.rs`). Says whether that is something else.
pub(crate) fn behind_probe(planned: &mut [PartPlan], parts: &[Part]) -> bool {
    let mut differs = false;
    for (planned, part) in planned.iter_mut().zip(parts) {
        let has_sides = !matches!(part.modality, modality::TEXT | modality::AUDIO);
        let draft = &mut planned.draft;
        if has_sides && draft.keep > 0.0 && draft.scale < 1.0 {
            draft.scale = 1.0;
            differs = true;
        }
    }
    differs
}

/// Tokens that encoders make, by what they make them of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MediaTokens {
    pub pictures: u32,
    pub clips: u32,
    pub sounds: u32,
}

impl MediaTokens {
    /// All of a question's media.
    pub fn of(question: &Question) -> MediaTokens {
        let mut all = MediaTokens::default();
        for medium in &question.media {
            all.add(medium.modality, medium.tokens);
        }
        all
    }

    fn add(&mut self, modality: u8, tokens: u32) {
        *match modality {
            modality::AUDIO => &mut self.sounds,
            modality::VIDEO => &mut self.clips,
            _ => &mut self.pictures,
        } += tokens;
    }

    pub fn sum(self) -> u32 {
        self.pictures + self.clips + self.sounds
    }
}

/// What is read and sent of a question.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Treated {
    /// Tokens that the draft model reads, and of media what its encoders make.
    pub draft_tokens: u32,
    pub draft_media: MediaTokens,
    pub target_tokens: u32,
    pub target_media: MediaTokens,
    /// Bytes of media that a peer does not have.
    pub upload_bytes: u64,
    /// Of these, those of the largest medium.
    pub largest_bytes: u64,
    /// Share of what the answer needs of the media that is dropped, in `[0, 1]`: of an item with necessity `R` and sparsity `MAS` of
    /// which the share `k` is kept, `R * max(0, 1 - k / (1 - MAS))`, in the mean over the items, weighted by `R`.
    pub draft_lost: f64,
    pub target_lost: f64,
}

impl Treated {
    pub fn of(question: &Question, plan: &Plan) -> Treated {
        let mut treated = Treated {
            draft_tokens: question.text_tokens,
            target_tokens: question.text_tokens,
            ..Treated::default()
        };
        let (mut needed, mut draft_lost, mut target_lost) = (0.0, 0.0, 0.0);
        for (place, medium) in question.media.iter().enumerate() {
            let planned = plan.parts.get(place).unwrap_or(&WHOLE);
            let draft = Left::of(medium, &planned.draft);
            let encoded = draft.encoded(draft.all_frames);
            treated.draft_media.add(medium.modality, encoded);
            treated.draft_tokens += draft.kept;
            draft_lost += medium.necessity * lost(medium, draft.kept);
            let target = Left::of(medium, &planned.target);
            let encoded = target.encoded(target.held);
            treated.target_media.add(medium.modality, encoded);
            treated.target_tokens += target.kept;
            target_lost += medium.necessity * lost(medium, target.kept);
            needed += medium.necessity;
            let bytes = bytes(medium, &planned.target, &target);
            treated.upload_bytes += bytes;
            treated.largest_bytes = treated.largest_bytes.max(bytes);
        }
        if needed > 0.0 {
            treated.draft_lost = draft_lost / needed;
            treated.target_lost = target_lost / needed;
        }
        treated
    }
}

/// What a treatment leaves of an item, in tokens.
struct Left {
    /// Of all its frames, at its new size.
    all_frames: u32,
    /// Of the frames that stay.
    held: u32,
    /// That are read.
    kept: u32,
    /// Of the pixels, or of the sound.
    share: f64,
}

impl Left {
    fn of(medium: &Medium, how: &Treatment) -> Left {
        let scale = match medium.modality {
            modality::AUDIO => 1.0,
            _ => how.scale * how.scale,
        };
        let frames = match (medium.modality, medium.frames) {
            (modality::IMAGE, _) | (_, 0) => 1.0,
            (_, frames) => {
                let frames = f64::from(frames);
                (how.frames * frames - ROUNDING).ceil().max(1.0) / frames
            }
        };
        let whole = f64::from(medium.tokens) * scale;
        let up = |tokens: f64| (tokens - ROUNDING).ceil().max(0.0);
        let held = up(whole * frames);
        let kept = up(whole * how.keep).min(held);
        // Casting saturates.
        Left {
            all_frames: up(whole) as u32,
            held: held as u32,
            kept: kept as u32,
            share: scale * frames,
        }
    }

    fn encoded(&self, tokens: u32) -> u32 {
        if self.kept == 0 { 0 } else { tokens }
    }
}

fn lost(medium: &Medium, kept: u32) -> f64 {
    let share = f64::from(kept) / f64::from(medium.tokens.max(1));
    let needed = 1.0 - medium.mas;
    if needed <= 0.0 {
        return 0.0;
    }
    (1.0 - share / needed).clamp(0.0, 1.0)
}

/// Bytes that go up. How many bytes a quality takes has not been measured: as many as its share of 100.
fn bytes(medium: &Medium, how: &Treatment, left: &Left) -> u64 {
    let whole =
        left.share >= 1.0 && how.quality == 0 && (how.keep >= 1.0 || how.rest == Rest::Send);
    if left.kept == 0 || (medium.cached && whole) {
        return 0;
    }
    let quality = match (medium.modality, how.quality) {
        (modality::AUDIO, _) => 1.0,
        (_, 0) if whole => 1.0,
        (_, 0) => f64::from(BEST_QUALITY) / 100.0,
        (_, quality) => f64::from(quality) / 100.0,
    };
    let rest = match how.rest {
        Rest::Send => 1.0,
        Rest::Crop | Rest::Flatten => how.keep.clamp(0.0, 1.0),
    };
    (medium.bytes * left.share * quality * rest).ceil() as u64
}

#[cfg(test)]
mod tests {
    use msao_core::offload::{Route, modality};

    use super::*;

    fn question(mas: f64) -> Question {
        let medium = |necessity| Medium {
            modality: modality::IMAGE,
            tokens: 100,
            frames: 1,
            width_px: 280,
            height_px: 280,
            duration_ms: 0.0,
            bytes: 1e5,
            cached: false,
            necessity,
            mas,
            unusual: 0.0,
        };
        Question {
            media: vec![medium(1.0), medium(0.0)],
            ..Question::plain(0, 50, 10)
        }
    }

    #[test]
    fn what_is_whole_is_whole() {
        let treated = Treated::of(&question(0.5), &Plan::plain(Route::Cloud, 1));
        let pictures = |tokens| MediaTokens {
            pictures: tokens,
            ..MediaTokens::default()
        };
        let expected = Treated {
            draft_tokens: 250,
            draft_media: pictures(200),
            target_tokens: 250,
            target_media: pictures(200),
            upload_bytes: 200_000,
            largest_bytes: 100_000,
            draft_lost: 0.0,
            target_lost: 0.0,
        };
        assert_eq!(treated, expected);
    }

    #[test]
    fn what_can_go_is_no_loss_and_what_nobody_needs_neither() {
        let half = Treatment {
            keep: 0.5,
            rest: Rest::Crop,
            ..Treatment::WHOLE
        };
        let none = Treatment {
            keep: 0.0,
            ..Treatment::WHOLE
        };
        let quarter = Treatment {
            scale: 0.5,
            ..Treatment::WHOLE
        };
        let plan = Plan {
            parts: vec![
                PartPlan {
                    draft: quarter,
                    target: half,
                },
                PartPlan {
                    draft: none,
                    target: none,
                },
                WHOLE,
            ],
            ..Plan::plain(Route::Speculate, 1)
        };
        let treated = Treated::of(&question(0.5), &plan);
        let media = (treated.draft_media.sum(), treated.target_media.sum());
        assert_eq!((treated.target_tokens, media.1), (100, 100));
        assert_eq!((treated.draft_tokens, media.0), (75, 25));
        // Made anew, if at the best quality.
        assert_eq!(treated.upload_bytes, 47_500);
        // Half was needed: half of it is there of a half, and a half of it of a quarter.
        assert_eq!((treated.target_lost, treated.draft_lost), (0.0, 0.5));
        assert_eq!(Treated::of(&question(1.0), &plan).draft_lost, 0.0);
        assert_eq!(Treated::of(&question(0.0), &plan).target_lost, 0.5);
    }

    #[test]
    fn frames_hold_no_more_than_they_have_and_what_has_no_meaning_changes_nothing() {
        let how = |keep, frames, scale| PartPlan {
            draft: Treatment {
                keep,
                frames,
                scale,
                ..Treatment::WHOLE
            },
            target: Treatment {
                keep,
                frames,
                scale,
                ..Treatment::WHOLE
            },
        };
        let treated = |kind: u8, frames: u32, part: PartPlan| {
            let mut question = question(0.0);
            question.media.truncate(1);
            question.media[0].modality = kind;
            question.media[0].frames = frames;
            let plan = Plan {
                parts: vec![part, WHOLE],
                ..Plan::plain(Route::Speculate, 1)
            };
            let treated = Treated::of(&question, &plan);
            let (draft, target) = (treated.draft_media, treated.target_media);
            // Nothing of it is counted as something else.
            let others = match kind {
                modality::IMAGE => draft.clips + draft.sounds,
                modality::VIDEO => draft.pictures + draft.sounds,
                _ => draft.pictures + draft.clips,
            };
            assert_eq!(others, 0);
            let media = (draft.sum(), target.sum());
            (treated.target_tokens - 50, media, treated.upload_bytes)
        };
        // Three of ten frames hold 30 tokens; half of all tokens would be 50.
        let clip = treated(modality::VIDEO, 10, how(0.5, 0.3, 1.0));
        assert_eq!(clip, (30, (100, 30), 28_500));
        let clip = treated(modality::VIDEO, 10, how(0.2, 0.3, 0.5));
        assert_eq!(clip, (5, (25, 8), 7_125));
        assert_eq!(treated(modality::VIDEO, 10, how(1.0, 0.001, 1.0)).0, 10);
        let whole = (100, (100, 100), 100_000);
        assert_eq!(treated(modality::IMAGE, 1, how(1.0, 0.1, 1.0)), whole);
        assert_eq!(treated(modality::AUDIO, 10, how(1.0, 1.0, 0.1)), whole);
        // 0.07 of 100 is 7, whatever binary fractions add.
        assert_eq!(treated(modality::IMAGE, 1, how(0.07, 1.0, 1.0)).0, 7);
    }

    #[test]
    fn what_peers_have_is_sent_again_only_if_it_is_made_anew() {
        let mut question = question(0.5);
        question.media.iter_mut().for_each(|it| it.cached = true);
        let with = |target: Treatment| {
            let part = PartPlan { target, ..WHOLE };
            let plan = Plan {
                parts: vec![part, part, WHOLE],
                ..Plan::plain(Route::Cloud, 1)
            };
            Treated::of(&question, &plan).upload_bytes
        };
        // A list of what is kept names tokens of what is there.
        let pruned = Treatment {
            keep: 0.5,
            ..Treatment::WHOLE
        };
        assert_eq!((with(Treatment::WHOLE), with(pruned)), (0, 0));
        let cropped = Treatment {
            rest: Rest::Crop,
            ..pruned
        };
        assert_eq!(with(cropped), 95_000);
        let coarse = Treatment {
            quality: 60,
            ..pruned
        };
        assert_eq!(with(coarse), 120_000);
    }

    #[test]
    fn behind_the_probe_a_draft_model_has_everything_at_its_size() {
        let part = |modality| Part {
            modality,
            ..Part::default()
        };
        let parts = [modality::IMAGE, modality::AUDIO, modality::TEXT].map(part);
        let half = |keep| {
            let how = Treatment {
                keep,
                scale: 0.5,
                ..Treatment::WHOLE
            };
            PartPlan {
                draft: how,
                target: how,
            }
        };
        let mut planned = vec![half(0.5), half(0.5), WHOLE];
        assert!(behind_probe(&mut planned, &parts));
        assert_eq!((planned[0].draft.scale, planned[0].draft.keep), (1.0, 0.5));
        assert_eq!(planned[0].target, half(0.5).target);
        // A sound has no sides, and of what is dropped there is no size.
        let mut planned = vec![half(0.0), half(0.5), WHOLE];
        assert!(!behind_probe(&mut planned, &parts));
        assert_eq!(planned, [half(0.0), half(0.5), WHOLE]);
    }
}
