//! What a plan does to media, so far as it can be done.

use msao_core::digest::Digest;
use msao_core::offload::{Part, PartPlan, Plan, Treatment, overrides};

use crate::node::Node;
use crate::request::{Prompt, draft_treatment, target_treatment};

/// Turns what is planned for the parts into what can be done; none are left where that is everything as it came. Says whether
/// it is something else than was planned.
pub fn treated(planned: &mut Vec<PartPlan>, parts: &[Part]) -> bool {
    let mut changed = false;
    if planned.len() == parts.len() {
        for (planned, part) in planned.iter_mut().zip(parts) {
            let (draft, draft_differs) = draft_treatment(&planned.draft, part.modality);
            let (target, target_differs) = target_treatment(&planned.target, part.modality);
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

/// The plan and what was changed of it, for the target that it leads to, be it by way of an escalation: what is kept is named
/// by the tokens of this node's own processor, so that a target with another one reads everything. `media_stay`: media must not
/// leave this node.
pub fn fitting(
    node: &Node,
    allowed: (Plan, u32),
    prompt: &Prompt,
    media_stay: bool,
) -> (Plan, u32) {
    let (mut plan, mut changed) = allowed;
    if plan.parts.is_empty() || prompt.media.is_empty() {
        return (plan, changed);
    }
    let way = node.target(plan.peer as usize, plan.route, media_stay);
    let target = way.and_then(|way| node.target_identity(way.row));
    if target.is_none_or(|target| target.processor == prompt.identity.processor) {
        return (plan, changed);
    }
    for part in &mut plan.parts {
        if part.target != Treatment::WHOLE {
            part.target = Treatment::WHOLE;
            changed |= overrides::RETENTION;
        }
    }
    clear_whole(&mut plan.parts);
    (plan, changed)
}

/// Names how a model's input is made of media: by this processor, and by what is kept of them. `side`: the treatment of a part
/// that is the model's own.
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
        let how = side(part);
        text.push_str(&format!(" {}/{}", how.keep, how.frames));
    }
    Digest::of(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use msao_core::offload::modality;

    use super::*;

    #[test]
    fn what_is_kept_runs_as_planned_and_what_cannot_be_is_said() {
        let parts = [modality::VIDEO, modality::TEXT].map(|modality| Part {
            modality,
            ..Part::default()
        });
        let run = |mut planned: Vec<PartPlan>| {
            let changed = treated(&mut planned, &parts);
            (planned, changed)
        };
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
        assert_eq!(
            encoding(&processor, &[part(0.5, 1.0)], |part| &part.draft),
            half
        );
    }
}
