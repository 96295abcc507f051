//! How media were treated, in words.

use msao_core::offload::{Part, PartPlan, Rest, Treatment, modality};

/// A line for each medium that a model got otherwise than as it came; `ran`: the parts as they ran, or none.
pub fn in_words(parts: &[Part], ran: &[PartPlan]) -> Vec<String> {
    let mut lines = Vec::new();
    for (number, (part, ran)) in parts.iter().zip(ran).enumerate() {
        for (model, how) in [("draft model", &ran.draft), ("target", &ran.target)] {
            if part.modality != modality::TEXT && *how != Treatment::WHOLE {
                let name = match part.modality {
                    modality::IMAGE => "image",
                    modality::VIDEO => "clip",
                    _ => "sound",
                };
                let number = number + 1;
                lines.push(format!(
                    "  part {number} ({name}) for the {model}: {}",
                    words(how)
                ));
            }
        }
    }
    lines
}

fn words(how: &Treatment) -> String {
    if how.keep <= 0.0 {
        return "nothing of it".to_owned();
    }
    let mut words = Vec::new();
    if how.frames < 1.0 {
        words.push(format!("{:.0}% of its frames", how.frames * 100.0));
    }
    if how.keep < 1.0 {
        words.push(format!("{:.0}% of its tokens", how.keep * 100.0));
    }
    if how.scale < 1.0 {
        words.push(format!("at {:.2} of its size", how.scale));
    }
    if how.quality > 0 {
        words.push(format!("JPEG of quality {}", how.quality));
    }
    match how.rest {
        Rest::Send => {}
        Rest::Crop => words.push("the rest cut off".to_owned()),
        Rest::Flatten => words.push("the rest painted over".to_owned()),
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_said_and_what_was_not_is_not() {
        let part = |modality| Part {
            modality,
            ..Part::default()
        };
        let whole = PartPlan {
            draft: Treatment::WHOLE,
            target: Treatment::WHOLE,
        };
        let parts = [modality::IMAGE, modality::AUDIO, modality::TEXT].map(part);
        let mut ran = [whole; 3];
        ran[0].target = Treatment {
            keep: 0.5,
            scale: 0.25,
            frames: 1.0,
            quality: 60,
            rest: Rest::Crop,
        };
        ran[0].draft.keep = 0.25;
        ran[1].target.keep = 0.0;
        assert_eq!(
            in_words(&parts, &ran),
            [
                "  part 1 (image) for the draft model: 25% of its tokens",
                "  part 1 (image) for the target: 50% of its tokens, at 0.25 of its size, JPEG of quality 60, the rest cut off",
                "  part 2 (sound) for the target: nothing of it",
            ]
        );
        assert!(in_words(&parts, &[]).is_empty());
        assert!(in_words(&parts, &[whole; 3]).is_empty());
    }
}
