//! What a plan makes of a question's media: tokens for either model, bytes for the link, and what is lost.

use msao_core::offload::{PartPlan, Plan, Rest, Treatment};

use crate::traffic::{Medium, Question};

const WHOLE: PartPlan = PartPlan {
    draft: Treatment::WHOLE,
    target: Treatment::WHOLE,
};

/// What is read and sent of a question.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Treated {
    /// Tokens that the draft model reads, and of media what its encoders make.
    pub draft_tokens: u32,
    pub draft_media: u32,
    pub target_tokens: u32,
    pub target_media: u32,
    /// Bytes of media that a peer does not have.
    pub upload_bytes: u64,
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
            let (made, kept) = tokens(medium, &planned.draft);
            treated.draft_media += made;
            treated.draft_tokens += kept;
            draft_lost += medium.necessity * lost(medium, kept);
            let (made, kept) = tokens(medium, &planned.target);
            treated.target_media += made;
            treated.target_tokens += kept;
            target_lost += medium.necessity * lost(medium, kept);
            needed += medium.necessity;
            treated.upload_bytes += bytes(medium, &planned.target);
        }
        if needed > 0.0 {
            treated.draft_lost = draft_lost / needed;
            treated.target_lost = target_lost / needed;
        }
        treated
    }
}

/// Tokens that an encoder makes of it, and of them those that are kept.
fn tokens(medium: &Medium, treatment: &Treatment) -> (u32, u32) {
    let whole = f64::from(medium.tokens);
    let made = (whole * treatment.scale * treatment.scale * treatment.frames).ceil();
    let kept = (made * treatment.keep).ceil();
    // Dropped whole, it need not be encoded either. Casting saturates.
    let made = if kept == 0.0 { 0.0 } else { made };
    (made as u32, kept as u32)
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
fn bytes(medium: &Medium, treatment: &Treatment) -> u64 {
    let known = medium.cached && *treatment == Treatment::WHOLE;
    if treatment.keep == 0.0 || known {
        return 0;
    }
    let pixels = treatment.scale * treatment.scale * treatment.frames;
    let quality = match treatment.quality {
        0 => 1.0,
        quality => f64::from(quality) / 100.0,
    };
    let rest = match treatment.rest {
        Rest::Send => 1.0,
        Rest::Crop | Rest::Flatten => treatment.keep,
    };
    (medium.bytes * pixels * quality * rest).ceil() as u64
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
        let expected = Treated {
            draft_tokens: 250,
            draft_media: 200,
            target_tokens: 250,
            target_media: 200,
            upload_bytes: 200_000,
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
        assert_eq!((treated.target_tokens, treated.target_media), (100, 100));
        assert_eq!((treated.draft_tokens, treated.draft_media), (75, 25));
        assert_eq!(treated.upload_bytes, 50_000);
        // Half was needed: half of it is there of a half, and a half of it of a quarter.
        assert_eq!((treated.target_lost, treated.draft_lost), (0.0, 0.5));
        assert_eq!(Treated::of(&question(1.0), &plan).draft_lost, 0.0);
        assert_eq!(Treated::of(&question(0.0), &plan).target_lost, 0.5);
    }
}
