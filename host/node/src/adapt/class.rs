//! Requests that are alike as far as audits are concerned: what they have shown of one class says nothing of another.

use std::fmt;

use msao_core::offload::{Part, PartPlan, Treatment, modality};
use serde::{Deserialize, Serialize};

/// How much of media a model reads, at least of each: coarse, so that few classes share the audits.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Retained {
    /// Everything, as it came. Text alone is that too.
    #[default]
    Whole,
    /// At least half.
    Half,
    /// At least a quarter.
    Quarter,
    /// Less.
    Little,
}

/// How wild tokens are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Heat {
    /// Temperature 0.
    Greedy,
    /// Up to 0.7.
    Mild,
    /// Beyond.
    Hot,
}

impl Heat {
    /// That of a sampling temperature.
    pub fn of(temperature: f64) -> Heat {
        match temperature {
            t if t <= 0.0 => Heat::Greedy,
            t if t <= 0.7 => Heat::Mild,
            _ => Heat::Hot,
        }
    }
}

/// A class of requests to one pair of models: class of retention, and class of temperature. The pair's precision is part
/// of its digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Class {
    /// What the draft model reads of media.
    pub draft: Retained,
    /// What the target reads.
    pub target: Retained,
    /// The target's media are compressed anew.
    pub recoded: bool,
    /// How tokens are chosen.
    pub heat: Heat,
}

impl Class {
    /// Of a request in which nothing is dropped.
    pub fn whole(temperature: f64) -> Class {
        Class {
            draft: Retained::Whole,
            target: Retained::Whole,
            recoded: false,
            heat: Heat::of(temperature),
        }
    }

    /// Of a request of these parts, of which a plan keeps so much: `planned` has one for each part, or none where all is
    /// kept.
    pub fn of(planned: &[PartPlan], parts: &[Part], temperature: f64) -> Class {
        let media = || {
            let both = planned.iter().zip(parts);
            both.filter(|(_, part)| part.modality != modality::TEXT)
        };
        let least = |side: fn(&PartPlan) -> &Treatment| {
            let classes = media().map(|(planned, _)| retained(side(planned)));
            classes.max().unwrap_or_default()
        };
        Class {
            draft: least(|planned| &planned.draft),
            target: least(|planned| &planned.target),
            recoded: media().any(|(planned, _)| planned.target.quality != 0),
            heat: Heat::of(temperature),
        }
    }
}

/// The share of a medium's information that a treatment leaves, roughly: tokens, frames and pixels alike.
fn retained(treatment: &Treatment) -> Retained {
    let left = treatment.keep * treatment.frames * treatment.scale * treatment.scale;
    match left {
        left if left >= 1.0 => Retained::Whole,
        left if left >= 0.5 => Retained::Half,
        left if left >= 0.25 => Retained::Quarter,
        _ => Retained::Little,
    }
}

/// For people and metrics: `draft whole, target half, greedy`.
impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |retained| match retained {
            Retained::Whole => "whole",
            Retained::Half => "half",
            Retained::Quarter => "quarter",
            Retained::Little => "little",
        };
        let heat = match self.heat {
            Heat::Greedy => "greedy",
            Heat::Mild => "mild",
            Heat::Hot => "hot",
        };
        let recoded = if self.recoded { " recoded" } else { "" };
        write!(
            f,
            "draft {}, target {}{recoded}, {heat}",
            share(self.draft),
            share(self.target)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(modality: u8) -> Part {
        Part {
            modality,
            ..Part::default()
        }
    }

    fn keeping(keep: f64, scale: f64, quality: u32) -> Treatment {
        Treatment {
            keep,
            scale,
            quality,
            ..Treatment::WHOLE
        }
    }

    #[test]
    fn the_medium_of_which_least_is_kept_decides() {
        let parts = [
            part(modality::IMAGE),
            part(modality::AUDIO),
            part(modality::TEXT),
        ];
        let plan = |draft, target| PartPlan { draft, target };
        let whole = plan(Treatment::WHOLE, Treatment::WHOLE);
        assert_eq!(Class::of(&[], &parts, 0.0), Class::whole(0.0));
        let all = [whole, whole, whole];
        assert_eq!(Class::of(&all, &parts, 0.5), Class::whole(0.5));
        let some = [
            plan(keeping(0.1, 1.0, 0), keeping(0.9, 1.0, 0)),
            plan(keeping(0.6, 1.0, 0), keeping(1.0, 0.6, 70)),
            whole,
        ];
        let class = Class::of(&some, &parts, 1.0);
        assert_eq!(
            (class.draft, class.target, class.recoded, class.heat),
            (Retained::Little, Retained::Quarter, true, Heat::Hot)
        );
        assert_eq!(
            class.to_string(),
            "draft little, target quarter recoded, hot"
        );
    }

    #[test]
    fn temperatures_fall_into_three() {
        let heats = [0.0, 0.1, 0.7, 0.71, 2.0].map(Heat::of);
        let expected = [Heat::Greedy, Heat::Mild, Heat::Mild, Heat::Hot, Heat::Hot];
        assert_eq!(heats, expected);
    }
}
