//! What a replay found: counts, flips, a table by reason, estimates.

use std::collections::BTreeMap;
use std::time::Duration;

use msao_core::digest::Digest;
use msao_core::offload::manifest::Manifest;
use msao_core::offload::record::{Called, DecisionRecord};
use msao_core::offload::{Decision, Plan};
use serde::Serialize;

use super::compare::Verdict;
use super::estimate::{Estimate, estimate};
use crate::cases::answer::reason_name;
use crate::output::table;

/// Differing decisions that are shown in full.
const EXAMPLES: usize = 10;

/// What is left out of the comparison.
const HOST_FAILED: &str =
    "failed when they were recorded, for want of room or time or by an open breaker";

/// What the estimates are, in a line.
pub const ESTIMATES: &str = "estimates, not measurements: each plan's time, bytes and cost by the system's formulas from \
                             the recorded speeds, for the recorded number of tokens (`msao policy replay --help` has them)";

/// Sums over decisions for which both plans can be estimated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Sums {
    /// How many.
    pub decisions: u64,
    /// Candidate less recorded, mean time to the first token.
    pub ttft_ms: f64,
    /// Candidate less recorded, mean time to the last token.
    pub total_ms: f64,
    /// Candidate less recorded, mean bytes to the peer.
    pub sent_bytes: f64,
    /// Candidate less recorded, mean cost.
    pub cost: f64,
}

impl Sums {
    /// Takes one more decision into the means.
    fn add(&mut self, recorded: &Estimate, candidate: &Estimate) {
        self.decisions += 1;
        let weight = 1.0 / self.decisions as f64;
        for (mean, difference) in [
            (&mut self.ttft_ms, candidate.ttft_ms - recorded.ttft_ms),
            (&mut self.total_ms, candidate.total_ms - recorded.total_ms),
            (
                &mut self.sent_bytes,
                candidate.sent_bytes - recorded.sent_bytes,
            ),
            (&mut self.cost, candidate.cost - recorded.cost),
        ] {
            *mean += (difference - *mean) * weight;
        }
    }
}

/// How many calls were answered as recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Agreement {
    /// Calls.
    pub calls: u64,
    /// Of them, answered as recorded, to the bit.
    pub same: u64,
}

impl Agreement {
    fn add(&mut self, same: bool) {
        self.calls += 1;
        self.same += u64::from(same);
    }
}

/// A row of the table by reason.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ReasonRow {
    /// Decisions for which the candidate gives this reason.
    pub decisions: u64,
    /// Decided as recorded, to the bit.
    pub same: u64,
    /// The same route, peer and mode; something else differs.
    pub changed: u64,
    /// Another route, peer or mode.
    pub flipped: u64,
    /// Estimates over the changed and flipped.
    pub estimate: Sums,
}

/// A decision that differs.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Example {
    /// The request's id.
    pub id: String,
    /// How it differs.
    pub verdict: Verdict,
    /// The fields that differ.
    pub fields: Vec<String>,
    /// What was recorded, in a few words.
    pub recorded: String,
    /// What the candidate says, in a few words.
    pub candidate: String,
}

/// How fast it went.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Speed {
    /// Reading and parsing the file, s.
    pub read_s: f64,
    /// Making inputs from records, s.
    pub prepare_s: f64,
    /// In the calls of `plan`, s.
    pub plan_s: f64,
    /// From the first byte read to the last comparison, s.
    pub whole_s: f64,
    /// Calls of `plan` a second, nothing else counted. A decision takes one, or two where it asks for the probe.
    pub plans_per_s: f64,
    /// Decisions a second in the calls of `plan` alone.
    pub decisions_per_s: f64,
    /// Decisions a second, everything counted.
    pub whole_per_s: f64,
}

/// What came of a replay.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// The candidate.
    pub policy: String,
    /// Its component.
    pub digest: Digest,
    /// Whether it folded its own updates.
    pub learned: bool,
    /// Who decided when it was recorded, and how many decisions of each.
    pub recorded_by: BTreeMap<String, u64>,
    /// Decisions.
    pub decisions: u64,
    /// Calls of `plan` that they took.
    pub plan_calls: u64,
    /// Lines of the file that could not be read and were left out.
    pub skipped_lines: u64,
    /// How many of each verdict.
    pub verdicts: BTreeMap<Verdict, u64>,
    /// `recorded -> candidate` of those that flipped.
    pub flips: BTreeMap<String, u64>,
    /// Calls of `step`.
    pub steps: Agreement,
    /// Calls of `observe`.
    pub observes: Agreement,
    /// By the reason that the candidate gives.
    pub by_reason: BTreeMap<String, ReasonRow>,
    /// Over everything that changed or flipped.
    pub estimate: Sums,
    /// What the estimates are.
    pub estimates_are: &'static str,
    /// The first that differ.
    pub examples: Vec<Example>,
    /// How fast it went.
    pub speed: Speed,
    #[serde(skip)]
    manifest: Manifest,
}

/// One decision, replayed.
pub struct Replayed<'a> {
    /// What was recorded.
    pub record: &'a DecisionRecord,
    /// What `plan` said then.
    pub recorded: &'a Called<Decision>,
    /// What it says now.
    pub candidate: &'a Called<Decision>,
    /// How they stand to each other.
    pub verdict: Verdict,
    /// Fields of the plan that differ.
    pub differing: &'a [&'static str],
}

/// The word by which files name a route.
fn route(plan: &Plan) -> &'static str {
    use msao_core::offload::Route;
    match plan.route {
        Route::Edge => "edge",
        Route::Cloud => "cloud",
        Route::CloudDraft => "cloud-draft",
        Route::Speculate => "speculate",
    }
}

/// A decision in a word or two.
fn brief(decision: &Called<Decision>) -> String {
    match decision {
        Called::Answered(Decision::Run(plan)) if plan.peer == 0 => route(plan).to_owned(),
        Called::Answered(Decision::Run(plan)) => format!("{} {}", route(plan), plan.peer),
        Called::Answered(Decision::Probe) => "probe".to_owned(),
        Called::Failed(kind) => format!("failed: {kind}"),
    }
}

impl Report {
    /// An empty one.
    pub fn new(manifest: &Manifest, digest: &Digest, learned: bool) -> Report {
        Report {
            policy: format!("{} {}", manifest.name, manifest.version),
            digest: *digest,
            learned,
            recorded_by: BTreeMap::new(),
            decisions: 0,
            plan_calls: 0,
            skipped_lines: 0,
            verdicts: BTreeMap::new(),
            flips: BTreeMap::new(),
            steps: Agreement::default(),
            observes: Agreement::default(),
            by_reason: BTreeMap::new(),
            estimate: Sums::default(),
            estimates_are: ESTIMATES,
            examples: Vec::new(),
            speed: Speed::default(),
            manifest: manifest.clone(),
        }
    }

    pub(super) fn timed(&mut self, calls: u64, decisions: u64, elapsed: Duration) {
        self.plan_calls += calls;
        self.decisions += decisions;
        self.speed.plan_s += elapsed.as_secs_f64();
    }

    pub(super) fn stepped(&mut self, same: bool) {
        self.steps.add(same);
    }

    pub(super) fn observed(&mut self, same: bool) {
        self.observes.add(same);
    }

    pub(super) fn decided(&mut self, replayed: Replayed) {
        let record = replayed.record;
        let who = match &record.generation.policy {
            Some(digest) => format!("{} revision {}", digest.short(), record.generation.revision),
            None => "the built-in fallback".to_owned(),
        };
        *self.recorded_by.entry(who).or_default() += 1;
        *self.verdicts.entry(replayed.verdict).or_default() += 1;
        let reason = match replayed.candidate {
            Called::Answered(Decision::Run(plan)) => {
                let name = reason_name(&self.manifest, plan.reason);
                name.map_or_else(|| plan.reason.to_string(), str::to_owned)
            }
            Called::Answered(Decision::Probe) => "(probe)".to_owned(),
            Called::Failed(_) => "(failed)".to_owned(),
        };
        let row = self.by_reason.entry(reason).or_default();
        row.decisions += 1;
        match replayed.verdict {
            Verdict::Same => row.same += 1,
            Verdict::Changed => row.changed += 1,
            Verdict::HostFailed => {}
            _ => row.flipped += 1,
        }
        if matches!(replayed.verdict, Verdict::Same | Verdict::HostFailed) {
            return;
        }
        if let (Called::Answered(Decision::Run(a)), Called::Answered(Decision::Run(b))) =
            (replayed.recorded, replayed.candidate)
        {
            let tokens = match &record.outcome {
                Some(outcome) => outcome.tokens,
                None => record.request.max_tokens,
            };
            let of = |plan| estimate(plan, &record.parts, &record.nodes, tokens);
            if let (Some(a), Some(b)) = (of(a), of(b)) {
                row.estimate.add(&a, &b);
                self.estimate.add(&a, &b);
            }
        }
        if replayed.verdict != Verdict::Changed {
            let flip = format!(
                "{} -> {}",
                brief(replayed.recorded),
                brief(replayed.candidate)
            );
            *self.flips.entry(flip).or_default() += 1;
        }
        if self.examples.len() < EXAMPLES {
            self.examples.push(Example {
                id: record.id.clone(),
                verdict: replayed.verdict,
                fields: replayed
                    .differing
                    .iter()
                    .map(|&field| field.to_owned())
                    .collect(),
                recorded: brief(replayed.recorded),
                candidate: brief(replayed.candidate),
            });
        }
    }

    /// Fills in what follows from the times.
    pub fn finish(&mut self, read: Duration, whole: Duration) {
        let per_s = |number: u64, s: f64| number as f64 / s.max(1e-9);
        self.speed.read_s = read.as_secs_f64();
        self.speed.whole_s = whole.as_secs_f64();
        self.speed.plans_per_s = per_s(self.plan_calls, self.speed.plan_s);
        self.speed.decisions_per_s = per_s(self.decisions, self.speed.plan_s);
        self.speed.whole_per_s = per_s(self.decisions, self.speed.whole_s);
    }

    /// Decisions of this verdict.
    pub fn count(&self, verdict: Verdict) -> u64 {
        self.verdicts.get(&verdict).copied().unwrap_or(0)
    }

    /// Whether everything was answered as recorded, to the bit; what the host failed at was not answered.
    pub fn is_same(&self) -> bool {
        self.count(Verdict::Same) + self.count(Verdict::HostFailed) == self.decisions
            && self.steps.calls == self.steps.same
            && self.observes.calls == self.observes.same
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} ({}) against {} recorded decisions, {}\n",
            self.policy,
            self.digest.short(),
            self.decisions,
            if self.learned {
                "folding its own updates"
            } else {
                "calibration frozen as recorded"
            }
        );
        if self.skipped_lines > 0 {
            text.push_str(&format!(
                "  {} lines of the file cannot be read and are left out\n",
                self.skipped_lines
            ));
        }
        for (who, count) in &self.recorded_by {
            text.push_str(&format!("  {count} were decided by {who}\n"));
        }
        if self.is_same() {
            text.push_str("no difference, to the bit");
            let left_out = self.count(Verdict::HostFailed);
            if left_out > 0 {
                text.push_str(&format!(" ({left_out} left out: {HOST_FAILED})"));
            }
        } else {
            let said = [
                (Verdict::Same, "same"),
                (Verdict::Changed, "changed"),
                (Verdict::Flipped, "flipped"),
                (Verdict::Fails, "fail"),
                (Verdict::Mended, "mended"),
                (Verdict::WantsProbe, "want a probe that was not recorded"),
                (Verdict::HostFailed, HOST_FAILED),
            ];
            let said: Vec<String> = (said.iter())
                .filter(|(verdict, _)| self.count(*verdict) > 0)
                .map(|(verdict, word)| format!("{} {word}", self.count(*verdict)))
                .collect();
            text.push_str(&said.join(", "));
        }
        text.push_str(&format!(
            "; step {} of {} the same, observe {} of {}\n",
            self.steps.same, self.steps.calls, self.observes.same, self.observes.calls
        ));
        if !self.flips.is_empty() {
            text.push_str("\nflips (recorded -> candidate)\n");
            let mut flips: Vec<_> = self.flips.iter().collect();
            flips.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            for (flip, count) in flips {
                text.push_str(&format!("  {count:>7}  {flip}\n"));
            }
        }
        text.push_str(&self.reasons());
        if !self.examples.is_empty() {
            text.push_str("\nfirst differences\n");
            for example in &self.examples {
                let fields = match example.fields.as_slice() {
                    [] => String::new(),
                    fields => format!("  ({})", fields.join(", ")),
                };
                text.push_str(&format!(
                    "  {}: {} -> {}{fields}\n",
                    example.id, example.recorded, example.candidate
                ));
            }
        }
        let speed = &self.speed;
        text.push_str(&format!(
            "\n{:.0} decisions/s in `plan` alone ({} calls in {:.3} s); with reading {:.3} s and preparing {:.3} s, {:.0} \
             decisions/s in all\n",
            speed.decisions_per_s,
            self.plan_calls,
            speed.plan_s,
            speed.read_s,
            speed.prepare_s,
            speed.whole_per_s
        ));
        text
    }

    fn reasons(&self) -> String {
        let row = |name: &str, row: &ReasonRow| {
            let sums = &row.estimate;
            let estimate = |value: f64, decimals: usize| match sums.decisions {
                0 => "-".to_owned(),
                _ => format!("{value:+.decimals$}"),
            };
            vec![
                name.to_owned(),
                row.decisions.to_string(),
                row.same.to_string(),
                row.changed.to_string(),
                row.flipped.to_string(),
                estimate(sums.ttft_ms, 1),
                estimate(sums.total_ms, 1),
                estimate(sums.sent_bytes, 0),
                estimate(sums.cost, 6),
            ]
        };
        let rows: Vec<Vec<String>> = (self.by_reason.iter())
            .map(|(name, line)| row(name, line))
            .collect();
        let head = [
            "reason",
            "decisions",
            "same",
            "changed",
            "flipped",
            "~ttft ms",
            "~total ms",
            "~bytes",
            "~cost",
        ];
        let mut text = format!("\nby the candidate's reason\n{}", table(&head, &rows));
        if self.estimate.decisions > 0 {
            text.push_str(&format!(
                "  ~ candidate less recorded, mean over {} that differ; {ESTIMATES}\n",
                self.estimate.decisions
            ));
        }
        text
    }
}
