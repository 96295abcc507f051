//! Calls the function that a situation names, and tells what came of it.

use anyhow::bail;
use msao_core::offload::{Decision, Outcome, Plan};
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
    plan: Option<Plan>,
    outcome: Outcome,
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
            plan: None,
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
                ready.plan = Some(plan(policy, situation, "explain")?);
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
    ) -> Result<Value, Failure> {
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
                .map(|scores| answer::scores(&scores)),
            Plugin::Policy(policy) => match situation.call {
                Call::Step => policy
                    .step_metered(&situation.step, &self.memo, meter)
                    .map(answer::action),
                Call::Observe => policy
                    .observe_metered(&self.outcome, params, calibration, meter)
                    .map(|updates| answer::updates(&updates)),
                Call::Explain => {
                    let plan = self
                        .plan
                        .clone()
                        .unwrap_or(Plan::plain(msao_core::offload::Route::Cloud, 1));
                    policy
                        .explain_metered(situation.plan_input(), &plan, meter)
                        .map(|text| json!(text))
                }
                _ => policy
                    .plan_metered(situation.plan_input(), meter)
                    .map(|decision| answer::decision(policy.manifest(), &decision)),
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
    Ok(Asked::of(ready.call(plugin, situation, None)))
}
