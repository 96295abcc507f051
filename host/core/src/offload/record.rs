//! One decision as it is kept: everything that the plug-ins were given and answered, enough to replay it bit for bit.

use serde::{Deserialize, Serialize};

use super::kept::MediumKept;
use super::manifest::Probe;
use super::{
    Action, Decision, Node, Outcome, Part, Plan, Report, Request, Scores, StepInput, Update, flag,
};
use crate::digest::Digest;

/// The newest version of [`DecisionRecord`] that this program writes. It reads this one and those before it.
///
/// | version | |
/// |---|---|
/// | 1 | all but `media` |
/// | 2 | with `media` |
/// | 3 | with `ahead` |
pub const VERSION: u32 = 3;

/// The version of a record that tells this of media, and of a session that was opened ahead: the oldest that has it all, which
/// older programs can read.
pub fn version_with(media: &[MediumKept], ahead: Option<OpenedAhead>) -> u32 {
    match (media, ahead) {
        (_, Some(_)) => VERSION,
        ([], None) => 1,
        (_, None) => 2,
    }
}

/// What became of a session that was opened at a peer before there was a plan ([`super::manifest::Ahead`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OpenedAhead {
    /// The answer went on with it.
    Used,
    /// The plan was another one, or it could not be opened: what was sent for it was for nothing.
    Wasted,
}

/// A set of components and parameters that plans requests, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GenerationId {
    /// The policy's artifact. None: the built-in fallback.
    pub policy: Option<Digest>,
    /// The post-processor's artifact, where there is one.
    pub postprocessor: Option<Digest>,
    /// The revision of their parameters, from 1 on.
    pub revision: u64,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Called<T> {
    /// The plug-in's answer, as it gave it.
    Answered(T),
    /// It failed; the host's fallback took its place. Holds the kind of failure, as metrics name it.
    Failed(String),
}

impl<T> Called<T> {
    /// The answer, if there was one.
    pub fn answer(&self) -> Option<&T> {
        match self {
            Called::Answered(answer) => Some(answer),
            Called::Failed(_) => None,
        }
    }
}

/// What one component was given beside the request: its parameters, and its calibration by digest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Given {
    /// Values of the manifest's parameters, in its order.
    pub params: Vec<f64>,
    /// [`super::Calibration::digest`] of the snapshot.
    pub calibration: Digest,
}

/// The post-processor's part of a decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Scoring {
    /// What it was given beside the report.
    pub given: Given,
    /// What the probe saw. None where the operator's sampling left it out: the call is then not replayed.
    pub report: Option<Report>,
    /// What it answered.
    pub scores: Called<Scores>,
}

/// One call of `step`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Step {
    /// What happened.
    pub input: StepInput,
    /// What the policy said to it.
    pub action: Called<Action>,
}

/// One request's decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DecisionRecord {
    /// [`version_with`].
    pub version: u32,
    /// The request's id, as the client got it.
    pub id: String,
    /// Who decided.
    pub generation: GenerationId,
    /// What was asked.
    pub request: Request,
    /// Media in prompt order, then all text, with the scores that the last `plan` saw.
    pub parts: Vec<Part>,
    /// This node, then each peer.
    pub nodes: Vec<Node>,
    /// What the policy was given.
    pub given: Given,
    /// The post-processor's part, where the probe ran.
    pub scoring: Option<Scoring>,
    /// The first `plan`, with scores of -1, where the policy asks for the probe.
    pub asked: Option<Called<Decision>>,
    /// The last `plan`; None where the first one ran.
    pub planned: Option<Called<Decision>>,
    /// The peer refused before the first token, and the policy was asked again. All that is here is of that second time:
    /// the nodes as they were seen then, `planned` its answer, `asked` None, as the policy may not ask for the probe again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replanned: bool,
    /// The plan that ran, after fallbacks and overrides.
    pub ran: Plan,
    /// Every `step`, in order.
    pub steps: Vec<Step>,
    /// The media, in prompt order, and what was read of each. Empty where there are none, in records of version 1, and where
    /// the operator has it left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub media: Vec<MediumKept>,
    /// What became of a session that was opened before there was a plan; None where none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<OpenedAhead>,
    /// What became of it; None while it runs, or where the node stopped first.
    pub outcome: Option<Outcome>,
    /// What `observe` answered.
    pub updates: Option<Called<Vec<Update>>>,
}

/// How another policy would have come to a request that is over: what it is asked first, and what then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approach {
    /// As the request was: with scores if the probe ran, without if it did not.
    AsItWas,
    /// Without the scores that there are; no second look.
    Unprobed,
    /// Without the scores that there are, and again with them where it answers *probe*.
    UnprobedFirst,
    /// Not at all: it would have had the probe run first, which did not run. It is as if it had answered *probe*.
    Unknown,
}

impl Approach {
    /// That of a policy whose manifest says `probe`, to a request on which the probe has run or not.
    pub fn new(probe: Probe, probed: bool) -> Approach {
        match (probe, probed) {
            (Probe::None | Probe::Ask, false) | (Probe::Full, true) => Approach::AsItWas,
            (Probe::None, true) => Approach::Unprobed,
            (Probe::Ask, true) => Approach::UnprobedFirst,
            (Probe::Full, false) => Approach::Unknown,
        }
    }
}

impl Approach {
    /// The same to a request that was planned before (`replanned`): nobody looks twice.
    pub fn again(self, replanned: bool) -> Approach {
        match self {
            Approach::UnprobedFirst if replanned => Approach::AsItWas,
            other => other,
        }
    }
}

/// A request as a policy sees it before the probe.
pub fn unprobed(request: &Request, parts: &[Part]) -> (Request, Vec<Part>) {
    let request = Request {
        flags: request.flags & !flag::PROBED,
        ..request.clone()
    };
    let parts = parts.iter().map(|part| Part {
        necessity: -1.0,
        mas: -1.0,
        unusual: -1.0,
        ..part.clone()
    });
    (request, parts.collect())
}

impl DecisionRecord {
    /// How a policy whose manifest says `probe` would have come to this request. Where it was planned again, what the probe
    /// saw was known from the beginning.
    pub fn approach(&self, probe: Probe) -> Approach {
        let probed = self.request.flags & flag::PROBED != 0;
        Approach::new(probe, probed).again(self.replanned)
    }

    /// Parts as a policy sees them before the probe.
    pub fn unprobed_parts(&self) -> Vec<Part> {
        unprobed(&self.request, &self.parts).1
    }
}
