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
    let mut differs = treated(&mut plan.parts, parts, reaches);
    if let Some(model) = node.models.first() {
        differs |= settled(&mut plan.parts, &prompt.media, &model.processor, reaches);
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
/// Says whether there are any.
fn settled(
    planned: &mut Vec<PartPlan>,
    media: &[Medium],
    processor: &Processor,
    reaches: Reaches,
) -> bool {
    let mut changed = false;
    for (part, medium) in planned.iter_mut().zip(media) {
        for (how, reach) in [
            (&mut part.draft, reaches.draft),
            (&mut part.target, reaches.target),
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
                how.scale = 1.0;
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
