//! What people ask of a decision: how each medium was scored, what was kept of it, and why it was decided so. Made of a record
//! and, where it is known, the manifest of the policy that decided.

use serde::Serialize;

use super::kept::{Extent, MediumKept, Reading, count_of, tokens_of};
use super::manifest::{Manifest, Named};
use super::record::{Called, DecisionRecord};
use super::{Decision, Part, PartPlan, Plan, Route, Scores, Treatment, modality};
use crate::digest::Digest;

/// An account of one decision.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Account {
    /// The media, in prompt order.
    pub media: Vec<MediumAccount>,
    /// Why it was decided so.
    pub decided: Decided,
}

/// One medium.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct MediumAccount {
    /// `image`, `video` or `audio`.
    pub modality: &'static str,
    /// Tokens in the prompt.
    pub tokens: u32,
    /// Its place in tokens; None where that was not recorded.
    pub extent: Option<Extent>,
    /// SHA-256 of its bytes; None where that was not recorded.
    pub digest: Option<Digest>,
    /// How it was scored; None where the probe did not run.
    pub scores: Option<ScoreAccount>,
    /// The draft model's side.
    pub draft: SideAccount,
    /// The target's side.
    pub target: SideAccount,
}

/// A medium's scores. Ranges: `record score` in `wit/types.wit`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ScoreAccount {
    /// How much the answer needs it.
    pub necessity: f64,
    /// The share of it that can go.
    pub mas: f64,
    /// The share that can go within a frame; None where the fallback scored.
    pub spatial: Option<f64>,
    /// The share that can go between frames; None where the fallback scored.
    pub temporal: Option<f64>,
    /// How far it is from what calibration has seen.
    pub unusual: f64,
    /// Tokens that the post-processor has ranked by need; the others follow in their own order.
    pub ranked: u32,
    /// Why the fallback's scores stand here rather than a post-processor's; None where one scored.
    pub fallback: Option<String>,
}

/// What one model was to get of a medium, and what it got.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SideAccount {
    /// By the policy's plan; None where the policy has made none.
    pub planned: Option<Portion>,
    /// As it ran; None where this model did not take part, or where what it read was not recorded.
    pub ran: Option<Portion>,
}

/// So much of a medium.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Portion {
    /// Tokens that are read.
    pub tokens: u32,
    /// Of so many.
    pub of: u32,
    /// Their share, in [0, 1]; 1 of nothing.
    pub share: f64,
    /// Frames (segments of a sound) of which anything is read; None where the extent is not known.
    pub frames: Option<u32>,
    /// How it was treated.
    pub treatment: Treatment,
}

/// Why it was decided so.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Decided {
    /// The policy's name and version; None where its manifest is not known, or the built-in fallback decided.
    pub policy: Option<String>,
    /// How its call of `plan` failed, so that the fallback planned.
    pub failed: Option<String>,
    /// The reason that the plan gives; None where there is no plan of the policy's.
    pub reason: Option<Reason>,
    /// The plan's terms, in the manifest's order.
    pub terms: Vec<Term>,
}

/// A plan's reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Reason {
    /// Its number in the manifest.
    pub number: u32,
    /// Its name; None where the manifest has none for it.
    pub name: Option<String>,
    /// What it says.
    pub meaning: Option<String>,
}

/// A term of a plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Term {
    /// Its name; None where the manifest has none for it.
    pub name: Option<String>,
    /// Its value.
    pub value: f64,
    /// Its unit; empty for none.
    pub unit: String,
    /// What it says.
    pub meaning: Option<String>,
    /// Whether it decided: the manifest names it beside the reason that was given.
    pub decided: bool,
}

impl Account {
    /// That of a record. `manifest`: of the policy that decided.
    pub fn of(record: &DecisionRecord, manifest: Option<&Manifest>) -> Account {
        let plan = planned(record);
        let media = record.parts.iter().enumerate();
        let media = media.filter(|(_, part)| part.modality != modality::TEXT);
        Account {
            media: media
                .enumerate()
                .map(|(number, (place, part))| medium(record, plan, number, place, part))
                .collect(),
            decided: decided(record, plan, manifest),
        }
    }
}

/// The policy's last plan; None where it made none.
fn planned(record: &DecisionRecord) -> Option<&Plan> {
    match last(record)?.answer()? {
        Decision::Run(plan) => Some(plan),
        Decision::Probe => None,
    }
}

fn last(record: &DecisionRecord) -> Option<&Called<Decision>> {
    record.planned.as_ref().or(record.asked.as_ref())
}

/// The medium that is `number` among the media and `place` among the parts.
fn medium(
    record: &DecisionRecord,
    plan: Option<&Plan>,
    number: usize,
    place: usize,
    part: &Part,
) -> MediumAccount {
    let kept = record.media.get(number);
    let side = |half: fn(&PartPlan) -> &Treatment, reading: fn(&MediumKept) -> Option<&Reading>| {
        let treatment = |parts: &[PartPlan]| {
            // None stands for everything as it came.
            parts.get(place).map_or(Treatment::WHOLE, |it| *half(it))
        };
        let ran = record
            .outcome
            .as_ref()
            .map(|outcome| treatment(&outcome.parts));
        SideAccount {
            planned: plan.map(|plan| meant(treatment(&plan.parts), part, kept)),
            ran: kept
                .and_then(|kept| Some((kept, reading(kept)?)))
                .map(|(kept, reading)| read(kept, reading, ran.unwrap_or(Treatment::WHOLE))),
        }
    };
    MediumAccount {
        modality: name_of(part.modality),
        tokens: part.tokens,
        extent: kept.map(|kept| kept.extent),
        digest: kept.map(|kept| kept.digest),
        scores: scores(record, number, part),
        draft: side(|it| &it.draft, |it| it.draft.as_ref()),
        target: side(|it| &it.target, |it| it.target.as_ref()),
    }
}

fn name_of(number: u8) -> &'static str {
    match number {
        modality::VIDEO => "video",
        modality::AUDIO => "audio",
        // As the contract has it for numbers that it does not know.
        _ => "image",
    }
}

/// What a treatment keeps of a medium.
fn meant(treatment: Treatment, part: &Part, kept: Option<&MediumKept>) -> Portion {
    let extent = kept.map(|kept| kept.extent);
    // Where the extent is not known, so many tokens in one frame: then the share of the frames says nothing of tokens.
    let counted = extent.unwrap_or(Extent {
        frames: 1,
        rows: 1,
        columns: part.tokens,
    });
    let frames = extent.map(|it| count_of(treatment.frames, it.frames as usize) as u32);
    portion(
        tokens_of(&treatment, &counted),
        part.tokens,
        frames,
        treatment,
    )
}

/// What was read of a medium.
fn read(kept: &MediumKept, reading: &Reading, treatment: Treatment) -> Portion {
    let extent = reading.extent.unwrap_or(kept.extent);
    let all = extent.tokens();
    match &reading.kept {
        None => portion(all, all, Some(extent.frames), treatment),
        Some(set) => {
            let per_frame = extent.per_frame().max(1);
            let mut frames: Vec<u32> = (0..set.tokens())
                .filter(|token| set.contains(*token))
                .map(|token| token / per_frame)
                .collect();
            frames.dedup();
            portion(
                set.count(),
                set.tokens(),
                Some(frames.len() as u32),
                treatment,
            )
        }
    }
}

fn portion(tokens: u32, of: u32, frames: Option<u32>, treatment: Treatment) -> Portion {
    Portion {
        tokens,
        of,
        share: match of {
            0 => 1.0,
            of => f64::from(tokens) / f64::from(of),
        },
        frames,
        treatment,
    }
}

fn scores(record: &DecisionRecord, number: usize, part: &Part) -> Option<ScoreAccount> {
    let as_seen = |fallback: &str| {
        // Nothing was scored where the probe did not run: that is -1 in the contract.
        (part.necessity >= 0.0).then(|| ScoreAccount {
            necessity: part.necessity,
            mas: part.mas,
            spatial: None,
            temporal: None,
            unusual: part.unusual,
            ranked: 0,
            fallback: Some(fallback.to_owned()),
        })
    };
    let Some(scoring) = &record.scoring else {
        return as_seen("there is no post-processor");
    };
    let scored = |scores: &Scores| {
        let score = scores.items.get(number)?;
        Some(ScoreAccount {
            necessity: score.necessity,
            mas: score.mas,
            spatial: Some(score.spatial),
            temporal: Some(score.temporal),
            unusual: score.unusual,
            ranked: score.keep_order.len() as u32,
            fallback: None,
        })
    };
    match &scoring.scores {
        Called::Answered(scores) => scored(scores),
        Called::Failed(kind) => as_seen(&format!("the post-processor failed ({kind})")),
    }
}

fn decided(record: &DecisionRecord, plan: Option<&Plan>, manifest: Option<&Manifest>) -> Decided {
    let reason = plan.map(|plan| plan.reason);
    let named = reason.and_then(|number| manifest?.reasons.get(number as usize));
    let names: &[Named] = manifest.map_or(&[][..], |it| it.terms.as_slice());
    let values = plan.map_or(&[][..], |plan| plan.terms.as_slice());
    let terms = values.iter().enumerate().map(|(number, value)| {
        let term = names.get(number);
        Term {
            name: term.map(|it| it.name.clone()),
            value: *value,
            unit: term.map(|it| it.unit.clone()).unwrap_or_default(),
            meaning: term.map(|it| it.meaning.clone()),
            decided: term
                .zip(named)
                .is_some_and(|(term, reason)| term.name == reason.term),
        }
    });
    Decided {
        policy: manifest.map(|it| format!("{} {}", it.name, it.version)),
        failed: match last(record) {
            Some(Called::Failed(kind)) => Some(kind.clone()),
            _ => None,
        },
        reason: reason.map(|number| Reason {
            number,
            name: named.map(|it| it.name.clone()),
            meaning: named.map(|it| it.meaning.clone()),
        }),
        terms: terms.collect(),
    }
}

/// The word by which files and people name a route.
pub fn route_name(route: Route) -> &'static str {
    match route {
        Route::Edge => "edge",
        Route::Cloud => "cloud",
        Route::CloudDraft => "cloud-draft",
        Route::Speculate => "speculate",
    }
}

#[cfg(test)]
mod tests;
