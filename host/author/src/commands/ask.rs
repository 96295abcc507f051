//! Calls the function that a situation names, and tells what came of it.

use anyhow::bail;
use msao_core::offload::manifest::Manifest;
use msao_core::offload::{Action, Decision, Outcome, Plan, Route, Scores, Update};
use msao_sandbox::{Failure, Meter, Plugin, Policy};
use serde_json::{Value, json};

use crate::cases::situation::Situation;
use crate::cases::{Call, answer};

/// What came of a call.
pub struct Asked {
    /// The answer as JSON, or the failure.
    pub answer: Value,
    /// What went wrong.
    pub failure: Option<Failure>,
}

impl Asked {
    fn of(answer: Result<Value, Failure>) -> Asked {
        match answer {
            Ok(answer) => Asked {
                answer,
                failure: None,
            },
            Err(failure) => Asked {
                answer: answer::failure(failure.kind.name(), &failure.message),
                failure: Some(failure),
            },
        }
    }
}

/// The plan that a call depends on: the situation's own, or what the policy plans.
fn plan(policy: &Policy, situation: &Situation, wanted_by: &str) -> anyhow::Result<Plan> {
    if let Some(plan) = &situation.plan {
        return Ok(plan.clone());
    }
    match policy.plan(situation.plan_input()) {
        Ok(Decision::Run(plan)) => Ok(plan),
        Ok(Decision::Probe) => bail!(
            "{wanted_by} needs a plan, and `plan` asks for the probe here: give a part its necessity and mas, or give `plan`"
        ),
        Err(failure) => Err(anyhow::Error::new(failure).context(format!(
            "{wanted_by} needs a plan, and `plan` failed; or give `plan` or `memo`"
        ))),
    }
}

fn memo(policy: &Policy, situation: &Situation, wanted_by: &str) -> anyhow::Result<Vec<u8>> {
    match &situation.memo {
        Some(memo) => Ok(memo.clone()),
        None => plan(policy, situation, wanted_by).map(|plan| plan.memo),
    }
}

/// A call that is ready to be made, again and again.
pub struct Ready {
    memo: Vec<u8>,
    plan: Plan,
    outcome: Outcome,
}

/// What a call answered, in the host's own types.
pub enum Answer {
    /// Of `plan`.
    Decision(Decision),
    /// Of `step`.
    Action(Action),
    /// Of `observe`.
    Updates(Vec<Update>),
    /// Of `explain`.
    Words(Option<String>),
    /// Of `score`.
    Scores(Scores),
}

impl Answer {
    fn to_json(&self, manifest: &Manifest) -> Value {
        match self {
            Answer::Decision(decision) => answer::decision(manifest, decision),
            Answer::Action(action) => answer::action(*action),
            Answer::Updates(updates) => answer::updates(updates),
            Answer::Words(words) => json!(words),
            Answer::Scores(scores) => answer::scores(scores),
        }
    }
}

impl Ready {
    /// Finds out what the call depends on.
    ///
    /// # Errors
    /// When the plug-in has no such function, or a plan that the call needs cannot be had.
    pub fn new(plugin: &Plugin, situation: &Situation) -> anyhow::Result<Ready> {
        let call = situation.call;
        let mut ready = Ready {
            memo: Vec::new(),
            plan: Plan::plain(Route::Cloud, 1),
            outcome: situation.outcome.clone(),
        };
        match (plugin, call) {
            (Plugin::Policy(_), Call::Plan) | (Plugin::PostProcessor(_), Call::Score) => {}
            (Plugin::Policy(policy), Call::Step) => ready.memo = memo(policy, situation, "step")?,
            (Plugin::Policy(policy), Call::Observe) => {
                ready.outcome.memo = match situation.outcome.memo.is_empty() {
                    true => memo(policy, situation, "observe")?,
                    false => situation.outcome.memo.clone(),
                };
            }
            (Plugin::Policy(policy), Call::Explain) => {
                ready.plan = plan(policy, situation, "explain")?;
            }
            (plugin, call) => bail!(
                "call = \"{}\": a {} has no such function",
                call.name(),
                plugin.manifest().world
            ),
        }
        Ok(ready)
    }

    /// Makes the call.
    ///
    /// # Errors
    /// As the plug-in fails.
    pub fn call(
        &self,
        plugin: &Plugin,
        situation: &Situation,
        meter: Option<&mut Meter>,
    ) -> Result<Answer, Failure> {
        let Situation {
            params,
            calibration,
            ..
        } = situation;
        match plugin {
            Plugin::PostProcessor(it) => it
                .score_metered(
                    &situation.report,
                    situation.request.seed,
                    params,
                    calibration,
                    meter,
                )
                .map(Answer::Scores),
            Plugin::Policy(policy) => match situation.call {
                Call::Step => policy
                    .step_metered(&situation.step, &self.memo, meter)
                    .map(Answer::Action),
                Call::Observe => policy
                    .observe_metered(&self.outcome, params, calibration, meter)
                    .map(Answer::Updates),
                Call::Explain => policy
                    .explain_metered(situation.plan_input(), &self.plan, meter)
                    .map(Answer::Words),
                _ => policy
                    .plan_metered(situation.plan_input(), meter)
                    .map(Answer::Decision),
            },
        }
    }
}

/// Makes the call that `situation` names, once.
///
/// # Errors
/// As [`Ready::new`]; a call that fails is an answer.
pub fn ask(plugin: &Plugin, situation: &Situation) -> anyhow::Result<Asked> {
    let ready = Ready::new(plugin, situation)?;
    let answer = ready.call(plugin, situation, None);
    Ok(Asked::of(
        answer.map(|answer| answer.to_json(plugin.manifest())),
    ))
}
