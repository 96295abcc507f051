//! The end of a request: the plug-ins learn, the canary is told, the decision goes to the shadow and into the ring.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use msao_core::offload::record::{Called, DecisionRecord, Given, Scoring, version_with};
use msao_core::offload::{Decision, Outcome, Status, Update, overrides};
use msao_sandbox::Export;
use msao_state::Wanted;

use super::ticket::Ticket;
use crate::canary::{End, Sample};
use crate::cases::CaseInput;
use crate::shadow::Job;

impl Ticket {
    /// Ends the request: the plug-ins learn from `outcome`, the decision is recorded, the shadow is told. To be called
    /// after the answer. The memo and the fallback's bit are filled in here. Returns whether any of the request's calls
    /// failed, this last one included.
    pub fn finish(mut self, mut outcome: Outcome) -> bool {
        let elapsed_ms = self.inner.now_ms().saturating_sub(self.began_ms) as f64;
        outcome.memo.clone_from(&self.plan.memo);
        if self.failed {
            outcome.overrides |= overrides::FALLBACK;
        }
        let mut updates = None;
        if self.generation.policy.is_some() {
            updates = Some(self.observe(&mut outcome));
        }
        self.learn(updates.as_ref());
        self.finished = true;
        self.report(Some(sample(&outcome, self.blamed, elapsed_ms)));
        self.hand_on(outcome, updates);
        self.failed
    }

    /// Ends a request that never ran: the host refused it, or the client left while it was being planned. Nothing is
    /// learned or recorded, and a canary is charged only with what its own calls did.
    pub fn withdraw(mut self) {
        self.finished = true;
        let Some(arm) = &self.arm else { return };
        let mut trial = arm.trial.lock().unwrap_or_else(PoisonError::into_inner);
        if self.blamed {
            let sample = Sample {
                end: End::Failed,
                ..Sample::default()
            };
            trial.report(arm.side, self.number, Some(sample));
        } else {
            trial.withdraw(arm.side, self.number);
        }
    }

    fn observe(&mut self, outcome: &mut Outcome) -> Called<Vec<Update>> {
        let cells = Arc::clone(&self.policy_cells);
        self.call(
            Export::Observe,
            |generation| match &generation.policy {
                Some(part) => {
                    let calibration = cells.calibration();
                    part.plugin.observe(outcome, &part.params, calibration)
                }
                None => Ok(Vec::new()),
            },
            |ticket| CaseInput::Observe {
                outcome: outcome.clone(),
                params: ticket.policy_params(),
                calibration: ticket.policy_cells.calibration().clone(),
            },
        )
    }

    fn learn(&mut self, updates: Option<&Called<Vec<Update>>>) {
        // False: the store is closed, because the node is stopping.
        if let Some(part) = &self.generation.postprocessor {
            let _ = part.cells.update(std::mem::take(&mut self.score_updates));
        }
        if let (Some(part), Some(Called::Answered(updates))) = (&self.generation.policy, updates) {
            let _ = part.cells.update(updates.clone());
        }
    }

    /// Tells the canary; None: the request was given up.
    fn report(&self, sample: Option<Sample>) {
        let Some(arm) = &self.arm else { return };
        let mut trial = arm.trial.lock().unwrap_or_else(PoisonError::into_inner);
        trial.report(arm.side, self.number, sample);
    }

    /// Gives the decision to the shadow and to the ring.
    fn hand_on(&mut self, outcome: Outcome, updates: Option<Called<Vec<Update>>>) {
        let Some((request, parts, nodes)) = self.input.take() else {
            return;
        };
        let steps = std::mem::take(&mut self.steps);
        let probed = self.probed.take();
        if let Some(shadow) = self.shadow.take() {
            let generation = Arc::clone(&self.generation);
            let reason = |number: u32| {
                let manifest = generation.policy.as_ref().map(|it| it.plugin.manifest());
                let named = manifest.and_then(|it| it.reasons.get(number as usize));
                named.map_or_else(|| number.to_string(), |reason| reason.name.clone())
            };
            let report = probed.as_ref().and_then(|it| it.report.clone());
            shadow.offer(Job {
                content: self.content,
                request: request.clone(),
                parts: parts.clone(),
                nodes: nodes.clone(),
                probe: report.zip(probed.as_ref().map(|it| it.seed)),
                decision: self.last_decision(),
                replanned: self.replanned,
                reason: reason(self.plan.reason),
                steps: steps.clone(),
                outcome: outcome.clone(),
            });
        }
        if self.wanted == Wanted::Nothing {
            return;
        }
        let Some(records) = &self.inner.records else {
            return;
        };
        let mut snapshots = vec![Arc::clone(&self.policy_cells)];
        let scoring = probed.map(|probed| {
            snapshots.push(Arc::clone(&self.postprocessor_cells));
            Scoring {
                given: Given {
                    params: self.postprocessor_params(),
                    calibration: self.postprocessor_cells.digest(),
                },
                // The record has it for itself, as a rule: whoever scored is done with it.
                report: probed.report.map(Arc::unwrap_or_clone),
                scores: probed.scores,
            }
        });
        let record = DecisionRecord {
            version: version_with(&self.media, self.ahead),
            id: std::mem::take(&mut self.id),
            generation: self.generation.id.clone(),
            request,
            parts,
            nodes,
            given: Given {
                params: self.policy_params(),
                calibration: self.policy_cells.digest(),
            },
            scoring,
            asked: self.asked.take(),
            planned: self.planned.take(),
            replanned: self.replanned,
            ran: self.plan.clone(),
            steps,
            media: std::mem::take(&mut self.media),
            ahead: self.ahead,
            outcome: Some(outcome),
            updates,
        };
        // What the ring has no room for is counted there.
        records.push(record, snapshots);
    }

    /// What ran in the end, as the policy decided it.
    fn last_decision(&self) -> Decision {
        let last = self.planned.as_ref().or(self.asked.as_ref());
        let answer = last.and_then(Called::answer).cloned();
        answer.unwrap_or_else(|| Decision::Run(self.plan.clone()))
    }
}

/// What a canary is told of a request that took `elapsed_ms` in all.
fn sample(outcome: &Outcome, blamed: bool, elapsed_ms: f64) -> Sample {
    let end = match outcome.status {
        _ if blamed => End::Failed,
        it if it <= Status::Degraded as u8 => End::Answered,
        it if it == Status::Cancelled as u8 => End::Cancelled,
        it if it == Status::Refused as u8 => End::Refused,
        _ => End::Failed,
    };
    let cancelled = outcome.status == Status::Cancelled as u8;
    let answered = outcome.status <= Status::Degraded as u8;
    let ttft_ms = match outcome.ttft_ms {
        known if known >= 0.0 => (answered || cancelled).then_some(known),
        // The client had waited so long, and would have had to wait longer.
        _ => cancelled.then_some(elapsed_ms),
    };
    Sample {
        end,
        overridden: outcome.overrides & !overrides::FALLBACK != 0,
        ttft_ms,
        total_ms: (answered && outcome.total_ms >= 0.0).then_some(outcome.total_ms),
        cost: outcome.cost,
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.finished {
            self.report(None);
        }
        self.generation.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_is_told_how_a_request_ended_and_how_long_its_client_waited() {
        let told = |status: u8, ttft_ms: f64, blamed: bool| {
            let outcome = Outcome {
                status,
                ttft_ms,
                total_ms: if ttft_ms < 0.0 { -1.0 } else { 300.0 },
                ..Outcome::default()
            };
            let sample = sample(&outcome, blamed, 9000.0);
            (sample.end, sample.ttft_ms, sample.total_ms)
        };
        let (answered, degraded) = (Status::Answered as u8, Status::Degraded as u8);
        let (cancelled, refused) = (Status::Cancelled as u8, Status::Refused as u8);
        let both = (Some(200.0), Some(300.0));
        for (status, ttft_ms, blamed, expected) in [
            (answered, 200.0, false, (End::Answered, both.0, both.1)),
            (degraded, 200.0, false, (End::Answered, both.0, both.1)),
            (answered, 200.0, true, (End::Failed, both.0, both.1)),
            (cancelled, 200.0, false, (End::Cancelled, both.0, None)),
            (cancelled, -1.0, false, (End::Cancelled, Some(9000.0), None)),
            (cancelled, -1.0, true, (End::Failed, Some(9000.0), None)),
            (refused, -1.0, false, (End::Refused, None, None)),
            (
                Status::Failed as u8,
                200.0,
                false,
                (End::Failed, None, None),
            ),
            // A status that this program does not know is none that is good.
            (250, 200.0, false, (End::Failed, None, None)),
        ] {
            assert_eq!(told(status, ttft_ms, blamed), expected, "status {status}");
        }
    }
}
