//! What a plan does to media, so far as it can be done.

use msao_core::digest::Digest;
use msao_core::offload::{self, Part, PartPlan, Plan, Treatment, flag, overrides};
use msao_processor::Processor;

use crate::node::Node;
use crate::request::{Medium, Prompt, Reach, Reaches, canvas, treatment};

/// Turns what is planned for the parts into what can be done; none are left where that is everything as it came. Says whether
/// it is something else than was planned.
pub fn treated(planned: &mut Vec<PartPlan>, parts: &[Part], reaches: Reaches) -> bool {
    let mut changed = false;
    if planned.len() == parts.len() {
        for (planned, part) in planned.iter_mut().zip(parts) {
            let (draft, draft_differs) = treatment(&planned.draft, part.modality, reaches.draft);
            let (target, target_differs) =
                treatment(&planned.target, part.modality, reaches.target);
            *planned = PartPlan { draft, target };
            changed |= draft_differs || target_differs;
        }
    } else {
        // One for each part, as the sandbox has seen to, or none.
        changed = !planned.is_empty();
        planned.clear();
    }
    clear_whole(planned);
    changed
}

/// Takes out what treats no part in any way: nothing stands for everything as it came.
pub fn clear_whole(planned: &mut Vec<PartPlan>) {
    const WHOLE: PartPlan = PartPlan {
        draft: Treatment::WHOLE,
        target: Treatment::WHOLE,
    };
    if planned.iter().all(|part| *part == WHOLE) {
        planned.clear();
    }
}

/// A plan as it runs.
pub struct Fitted {
    /// It.
    pub plan: Plan,
    /// What of it is otherwise than planned: bits of [`overrides`].
    pub overrides: u32,
    /// Where its models are.
    pub reaches: Reaches,
}

/// The plan for the target that it leads to, be it by way of an escalation: with the treatment of media that can be had
/// there. What is kept is named by the tokens of this node's own processor, so that a target with another one reads everything.
/// `media_stay`: media must not leave this node.
pub fn fitting(
    node: &Node,
    allowed: (Plan, u32),
    prompt: &Prompt,
    (request, parts): (&offload::Request, &[Part]),
    media_stay: bool,
) -> Fitted {
    let (mut plan, mut changed) = allowed;
    let probed = request.flags & flag::PROBED != 0;
    let way = node.target(plan.peer as usize, plan.route, media_stay);
    let row = way.map(|way| way.row);
    let reaches = Reaches {
        draft: if probed { Reach::Probed } else { Reach::Here },
        target: match row {
            // Where there is none nothing is sent either.
            None | Some(0) => Reach::Here,
            Some(row) if node.opens_shipments(row) => Reach::Ships,
            Some(_) => Reach::Lists,
        },
    };
    let asked = plan.parts.clone();
    let mut differs = treated(&mut plan.parts, parts, reaches);
    if let Some(model) = node.models.first() {
        let of = (parts, prompt.media.as_slice());
        differs |= settled(&mut plan.parts, &asked, of, &model.processor, reaches);
    }
    let target = row.and_then(|row| node.target_identity(row));
    if target.is_some_and(|target| target.processor != prompt.identity.processor) {
        for part in &mut plan.parts {
            differs |= part.target != Treatment::WHOLE;
            part.target = Treatment::WHOLE;
        }
        clear_whole(&mut plan.parts);
    }
    if differs {
        changed |= overrides::RETENTION;
    }
    Fitted {
        plan,
        overrides: changed,
        reaches,
    }
}

/// Leaves media at the size at which they came that have no tokens at another one, or none the fewer where nothing is sent.
/// Says whether there are any. `asked`: what was planned for the parts before [`treated`].
fn settled(
    planned: &mut Vec<PartPlan>,
    asked: &[PartPlan],
    (parts, media): (&[Part], &[Medium]),
    processor: &Processor,
    reaches: Reaches,
) -> bool {
    let mut changed = false;
    let all = planned.iter_mut().zip(asked).zip(parts).zip(media);
    for (((planned, asked), part), medium) in all {
        for (how, asked, reach) in [
            (&mut planned.draft, &asked.draft, reaches.draft),
            (&mut planned.target, &asked.target, reaches.target),
        ] {
            if how.scale >= 1.0 {
                continue;
            }
            let scaled = medium.extent.resized(canvas(medium.extent, how.scale));
            let saves = match processor.tokens_of(0, scaled) {
                Ok(grid) => reach == Reach::Ships || grid.patches() < medium.grid.patches(),
                Err(_) => false,
            };
            if !saves {
                let unscaled = Treatment {
                    scale: 1.0,
                    ..*asked
                };
                // What was to be made anew for its size alone is not made anew, and has no quality then.
                (*how, _) = treatment(&unscaled, part.modality, reach);
                changed = true;
            }
        }
    }
    clear_whole(planned);
    changed
}

/// How the media of a plan that ships them are sent; nothing where none are.
pub fn ways(plan: &Plan, reaches: Reaches, media: usize) -> Option<Vec<Treatment>> {
    let parts = plan.parts.iter().take(media).map(|part| part.target);
    (reaches.target == Reach::Ships).then(|| parts.collect())
}

/// Names how a model's input is made of media: by this processor, and by what is kept of them and how. `side`: the treatment of a
/// part that is the model's own.
pub fn encoding(
    processor: &Digest,
    parts: &[PartPlan],
    side: fn(&PartPlan) -> &Treatment,
) -> Digest {
    if parts.iter().all(|part| *side(part) == Treatment::WHOLE) {
        return *processor;
    }
    let mut text = processor.to_string();
    for part in parts {
        let Treatment {
            keep,
            scale,
            frames,
            quality,
            rest,
        } = side(part);
        text.push_str(&format!(" {keep}/{frames}/{scale}/{quality}/{rest:?}"));
    }
    Digest::of(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use msao_core::offload::modality;

    use super::*;
    use crate::request::BEST_QUALITY;

    #[test]
    fn what_is_kept_runs_as_planned_and_what_cannot_be_is_said() {
        let parts = [modality::VIDEO, modality::TEXT].map(|modality| Part {
            modality,
            ..Part::default()
        });
        let behind = |target, mut planned: Vec<PartPlan>| {
            let reaches = Reaches {
                draft: Reach::Here,
                target,
            };
            let changed = treated(&mut planned, &parts, reaches);
            (planned, changed)
        };
        let run = |planned| behind(Reach::Lists, planned);
        let whole = PartPlan {
            draft: Treatment::WHOLE,
            target: Treatment::WHOLE,
        };
        let keeping = |keep, scale| Treatment {
            keep,
            scale,
            ..Treatment::WHOLE
        };
        let pruned = PartPlan {
            draft: keeping(0.2, 1.0),
            target: keeping(0.5, 1.0),
        };
        assert_eq!(run(Vec::new()), (Vec::new(), false));
        assert_eq!(run(vec![whole, whole]), (Vec::new(), false));
        assert_eq!(run(vec![pruned, whole]), (vec![pruned, whole], false));
        let scaled = PartPlan {
            target: keeping(0.5, 0.7),
            ..pruned
        };
        assert_eq!(run(vec![scaled, whole]), (vec![pruned, whole], true));
        let only_scaled = PartPlan {
            target: keeping(1.0, 0.7),
            ..whole
        };
        assert_eq!(run(vec![only_scaled, whole]), (Vec::new(), true));
        // One for each part, or none.
        assert_eq!(run(vec![pruned]), (Vec::new(), true));
        let ships = behind(Reach::Ships, vec![scaled, whole]);
        let mut sent = scaled;
        sent.target.quality = BEST_QUALITY;
        assert_eq!(ships, (vec![sent, whole], false));
        let here = behind(Reach::Here, vec![scaled, whole]);
        assert_eq!(here, (vec![scaled, whole], false));
    }

    /// A picture so long that at a third of its size no processor takes it any more.
    fn thin(processor: &Processor) -> Medium {
        let extent = msao_processor::Extent::Image {
            width: 597,
            height: 3,
        };
        let grid = processor.tokens_of(0, extent).unwrap();
        Medium {
            modality: msao_core::chat::Modality::Image,
            bytes: bytes::Bytes::new(),
            digest: Digest::of(b""),
            size_px: (597, 3),
            frames: 1,
            sampled: Vec::new(),
            duration_ms: 0.0,
            tokens: grid.patches() as u32,
            grid,
            extent,
        }
    }

    #[test]
    fn what_stays_at_its_size_has_the_quality_that_it_is_made_with_or_none() {
        let models = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
        let processor = Processor::load(&models.join("demo-draft")).unwrap();
        let media = [thin(&processor)];
        let parts = [modality::IMAGE, modality::TEXT].map(|modality| Part {
            modality,
            ..Part::default()
        });
        let reaches = Reaches {
            draft: Reach::Here,
            target: Reach::Ships,
        };
        let whole = PartPlan {
            draft: Treatment::WHOLE,
            target: Treatment::WHOLE,
        };
        let ran = |target| {
            let asked = vec![PartPlan { target, ..whole }, whole];
            let mut planned = asked.clone();
            assert!(!treated(&mut planned, &parts, reaches));
            let of = (parts.as_slice(), media.as_slice());
            assert!(settled(&mut planned, &asked, of, &processor, reaches));
            planned
        };
        let third = Treatment {
            scale: 0.34,
            ..Treatment::WHOLE
        };
        // It goes as it came: nothing of it is compressed.
        assert_eq!(ran(third), Vec::new());
        for (quality, used) in [(0, BEST_QUALITY), (60, 60)] {
            let cropped = Treatment {
                keep: 0.5,
                rest: offload::Rest::Crop,
                quality,
                ..third
            };
            let unscaled = Treatment {
                scale: 1.0,
                quality: used,
                ..cropped
            };
            let planned = PartPlan {
                target: unscaled,
                ..whole
            };
            assert_eq!(ran(cropped), [planned, whole]);
        }
    }

    #[test]
    fn only_where_shipments_are_opened_are_media_sent_otherwise_than_they_came() {
        let half = Treatment {
            scale: 0.5,
            ..Treatment::WHOLE
        };
        let mut plan = Plan::plain(offload::Route::Cloud, 1);
        plan.parts = vec![
            PartPlan {
                draft: Treatment::WHOLE,
                target: half,
            };
            2
        ];
        let to = |target| Reaches {
            draft: Reach::Here,
            target,
        };
        // One for each medium, none for the text.
        assert_eq!(ways(&plan, to(Reach::Ships), 1), Some(vec![half]));
        assert_eq!(ways(&plan, to(Reach::Here), 1), None);
        assert_eq!(ways(&plan, to(Reach::Lists), 1), None);
    }

    #[test]
    fn what_is_kept_of_a_models_input_is_part_of_its_name() {
        let processor = Digest::of(b"processor");
        let part = |draft, target| PartPlan {
            draft: Treatment {
                keep: draft,
                ..Treatment::WHOLE
            },
            target: Treatment {
                keep: target,
                ..Treatment::WHOLE
            },
        };
        let target = |parts: &[PartPlan]| encoding(&processor, parts, |part| &part.target);
        assert_eq!(target(&[]), processor);
        assert_eq!(target(&[part(0.5, 1.0)]), processor);
        let half = target(&[part(1.0, 0.5)]);
        assert_ne!(half, processor);
        assert_eq!(half, target(&[part(0.1, 0.5)]));
        assert_ne!(half, target(&[part(1.0, 0.25)]));
        let mut coded = part(1.0, 0.5);
        let changes: [fn(&mut Treatment); 3] = [
            |how| how.scale = 0.5,
            |how| how.quality = 60,
            |how| how.rest = offload::Rest::Crop,
        ];
        for change in changes {
            let before = target(&[coded]);
            change(&mut coded.target);
            assert_ne!(target(&[coded]), before);
        }
        assert_eq!(
            encoding(&processor, &[part(0.5, 1.0)], |part| &part.draft),
            half
        );
    }
}
