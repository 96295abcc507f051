//! The figures of one rollout, and the judgement on them.

use std::collections::{HashMap, HashSet};

use msao_core::digest::Digest;
use serde::Serialize;

use super::compare::{fisher, welch};
use crate::config::CanaryConfig;

/// Probability that a candidate which is no worse is turned away at the end of any step.
pub const FALSE_ALARMS: f64 = 0.04;
/// The same at any look between.
pub const EARLY_FALSE_ALARMS: f64 = 0.01;
/// Measures that are tested at a step's end: errors, cancelled and refused answers, overrides, time to first token, total
/// time, cost.
const MEASURES: f64 = 7.0;
/// Measures that are looked at between: the first three.
const EARLY_MEASURES: f64 = 3.0;
/// Requests of the candidate at which it is looked at first; then at twice as many, four times, ...
pub const EARLY_SAMPLES: u64 = 20;
/// Failing inputs that are told apart a side; further ones count as often as they come.
const KEPT_INPUTS: usize = 1 << 16;

/// Level of each test at a step's end.
pub fn alpha(config: &CanaryConfig) -> f64 {
    FALSE_ALARMS / (MEASURES * config.steps.len().max(1) as f64)
}

/// Level of each test at the look number `look`, from 0 on. The look has half of a step's share if it is the first, a
/// quarter if it is the second, ... So however many there are, together they spend no more than that share.
pub fn early_alpha(look: u32, config: &CanaryConfig) -> f64 {
    let look_share =
        EARLY_FALSE_ALARMS / config.steps.len().max(1) as f64 * 0.5_f64.powi(look as i32 + 1);
    look_share / EARLY_MEASURES
}

/// Which look is due with so many requests.
fn look_due(requests: u64) -> Option<u32> {
    (requests / EARLY_SAMPLES).checked_ilog2()
}
/// Times that are kept a side: a uniform choice of all that came.
const KEPT_TIMES: usize = 4096;

/// Which generation a request ran on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that is to be replaced.
    Stable,
    /// The one that is to replace it.
    Candidate,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// With its answer.
    #[default]
    Answered,
    /// Its client left.
    Cancelled,
    /// The host or its peer refused it, after it was planned.
    Refused,
    /// It failed, or a call of a plug-in did by its own fault.
    Failed,
}

/// What a request reported.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// How it ended.
    pub end: End,
    /// The host ran it otherwise than planned.
    pub overridden: bool,
    /// Time to the first token, ms. Where the client left before it: for how long it had waited, which that time would have
    /// been at least. None where neither is known.
    pub ttft_ms: Option<f64>,
    /// Total time, ms, where the answer came to its end.
    pub total_ms: Option<f64>,
    /// In the operator's unit.
    pub cost: f64,
}

/// A uniform choice of a stream (Vitter's algorithm R, with a fixed sequence of random numbers).
#[derive(Clone, Debug, Default)]
struct Choice {
    seen: u64,
    kept: Vec<f64>,
    state: u64,
}

impl Choice {
    fn add(&mut self, value: f64) {
        self.seen += 1;
        if self.kept.len() < KEPT_TIMES {
            self.kept.push(value);
            return;
        }
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        let place = usize::try_from(bits % self.seen).unwrap_or(usize::MAX);
        if let Some(kept) = self.kept.get_mut(place) {
            *kept = value;
        }
    }
}

/// One side's requests at one step.
#[derive(Clone, Debug, Default)]
pub struct Arm {
    started: u64,
    reported: u64,
    lost: u64,
    failed: u64,
    cancelled: u64,
    refused: u64,
    overridden: u64,
    ttft: Choice,
    total: Choice,
    cost_mean: f64,
    cost_squares: f64,
    /// When each began, and its content.
    waiting: HashMap<u64, (u64, Digest)>,
    /// Contents that went without their whole answer.
    failing: HashSet<Digest>,
    /// Requests without their answer on a content that had been left without one before: they count for nothing.
    repeated: u64,
}

impl Arm {
    /// Whether an answer that did not come counts, by the request's content: one bad request sent again and again is one
    /// error, and one client that asks the same again and again and leaves has left once.
    fn counts(&mut self, content: Digest) -> bool {
        let new = self.failing.len() >= KEPT_INPUTS || self.failing.insert(content);
        self.repeated += u64::from(!new);
        new
    }

    fn lose(&mut self, content: Digest) {
        if self.counts(content) {
            self.lost += 1;
        }
    }

    fn report(&mut self, content: Digest, sample: Sample) {
        if sample.end != End::Answered && !self.counts(content) {
            return;
        }
        self.reported += 1;
        match sample.end {
            End::Answered => {}
            End::Cancelled => self.cancelled += 1,
            End::Refused => self.refused += 1,
            End::Failed => self.failed += 1,
        }
        self.overridden += u64::from(sample.overridden);
        if let Some(ttft) = sample.ttft_ms {
            self.ttft.add(ttft);
        }
        if let Some(total) = sample.total_ms {
            self.total.add(total);
        }
        let difference = sample.cost - self.cost_mean;
        self.cost_mean += difference / self.reported as f64;
        self.cost_squares += difference * (sample.cost - self.cost_mean);
    }

    /// Requests that are over, one way or the other.
    fn over(&self) -> u64 {
        self.reported + self.lost
    }

    fn cost_variance(&self) -> f64 {
        self.cost_squares / (self.reported.max(2) - 1) as f64
    }

    /// For people.
    pub fn figures(&self) -> ArmFigures {
        let over = self.over().max(1) as f64;
        ArmFigures {
            started: self.started,
            reported: self.reported,
            lost: self.lost,
            repeated: self.repeated,
            errors: (self.failed + self.lost) as f64 / over,
            cancelled: self.cancelled as f64 / over,
            refused: self.refused as f64 / over,
            overrides: self.overridden as f64 / over,
            ttft_p95_ms: percentile(&self.ttft.kept),
            total_p95_ms: percentile(&self.total.kept),
            cost: self.cost_mean,
        }
    }
}

/// An [`Arm`] in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ArmFigures {
    /// Requests that began.
    pub started: u64,
    /// Of them, those that reported.
    pub reported: u64,
    /// Of them, those that were given up.
    pub lost: u64,
    /// Of them, those that got no answer on a content that had got none before; they count for nothing.
    pub repeated: u64,
    /// Share of failed and lost.
    pub errors: f64,
    /// Share whose client left.
    pub cancelled: f64,
    /// Share that was refused after it was planned.
    pub refused: f64,
    /// Share that the host ran otherwise than planned.
    pub overrides: f64,
    /// 95th percentile of time to first token, ms, with the time that clients waited who left before it; -1: none.
    pub ttft_p95_ms: f64,
    /// 95th percentile of total time, ms; -1: none.
    pub total_p95_ms: f64,
    /// Mean cost.
    pub cost: f64,
}

/// The 95th percentile: the smallest value that at least 95% do not exceed. -1 of none.
fn percentile(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * 0.95).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(-1.0)
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Wait: too little is known.
    Hold(String),
    /// The candidate is worse; why.
    Worse(String),
    /// Nothing speaks against the next step.
    Fine,
}

impl Verdict {
    /// Which it is, in a word for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Verdict::Hold(_) => "hold",
            Verdict::Worse(_) => "worse",
            Verdict::Fine => "fine",
        }
    }
}

/// The figures of one rollout.
#[derive(Clone, Debug, Default)]
pub struct Trial {
    step: usize,
    stable: Arm,
    candidate: Arm,
    /// Looks that were taken at this step.
    looks: u32,
    /// The stable side of the step before.
    before: Option<Arm>,
}

impl Trial {
    /// At the given step, with nothing known yet.
    pub fn new(step: usize) -> Trial {
        Trial {
            step,
            ..Trial::default()
        }
    }

    /// The step that runs.
    pub fn step(&self) -> usize {
        self.step
    }

    /// Begins the next step.
    pub fn next(&mut self) {
        // Who began at the step before still has to report, or is lost at this one.
        let waiting = std::mem::take(&mut self.candidate.waiting);
        self.before = Some(std::mem::take(&mut self.stable));
        self.candidate = Arm {
            started: waiting.len() as u64,
            waiting,
            ..Arm::default()
        };
        self.looks = 0;
        self.step += 1;
    }

    fn arm(&mut self, side: Side) -> &mut Arm {
        match side {
            Side::Stable => &mut self.stable,
            Side::Candidate => &mut self.candidate,
        }
    }

    /// Both sides in figures: stable, candidate.
    pub fn figures(&self) -> (ArmFigures, ArmFigures) {
        (self.stable.figures(), self.candidate.figures())
    }

    /// A request of that content begins.
    pub fn start(&mut self, side: Side, id: u64, content: Digest, now_ms: u64) {
        let arm = self.arm(side);
        arm.started += 1;
        arm.waiting.insert(id, (now_ms, content));
    }

    /// A request reports; None: it was given up. What nobody waits for is ignored.
    pub fn report(&mut self, side: Side, id: u64, sample: Option<Sample>) {
        let arm = self.arm(side);
        let Some((_, content)) = arm.waiting.remove(&id) else {
            return;
        };
        match sample {
            Some(sample) => arm.report(content, sample),
            None => arm.lose(content),
        }
    }

    /// Forgets a request that never ran: it says nothing of either side.
    pub fn withdraw(&mut self, side: Side, id: u64) {
        let arm = self.arm(side);
        if arm.waiting.remove(&id).is_some() {
            arm.started -= 1;
        }
    }

    /// Gives up requests that began more than the operator's time before `now_ms`.
    pub fn expire(&mut self, now_ms: u64, config: &CanaryConfig) {
        let within = u64::from(config.report_within_s) * 1000;
        for arm in [&mut self.stable, &mut self.candidate] {
            let late = (arm.waiting)
                .extract_if(|_, (began, _)| now_ms.saturating_sub(*began) > within)
                .map(|(_, (_, content))| content);
            for content in late.collect::<Vec<_>>() {
                arm.lose(content);
            }
        }
    }

    /// Judges the candidate, and takes note of the look.
    pub fn look(&mut self, config: &CanaryConfig) -> Verdict {
        let verdict = self.judge(config);
        if let Some(due) = look_due(self.candidate.over()) {
            self.looks = self.looks.max(due + 1);
        }
        verdict
    }

    /// Judges the candidate as the next [`Self::look`] would.
    pub fn judge(&self, config: &CanaryConfig) -> Verdict {
        let last = self.step + 1 >= config.steps.len();
        let empty = Arm::default();
        let stable = if last {
            self.before.as_ref().unwrap_or(&empty)
        } else {
            &self.stable
        };
        let need = u64::from(config.min_samples);
        let have = (self.candidate.over(), stable.over());
        if have.1 == 0 {
            return Verdict::Hold(
                "no request of the stable generation is over: there is nothing to compare the candidate with"
                    .to_owned(),
            );
        }
        let enough = have.0 >= need && (last || have.1 >= need);
        let level = alpha(config);
        let early = look_due(have.0).filter(|look| *look >= self.looks);
        let unanswered_level = match early {
            _ if enough => level,
            Some(look) => early_alpha(look, config),
            None => return hold(have, need),
        };
        let new = &self.candidate;
        let errors = (new.failed + new.lost, stable.failed + stable.lost);
        let cancelled = (new.cancelled, stable.cancelled);
        let refused = (new.refused, stable.refused);
        let mut worse = Vec::new();
        for (name, hits, tolerance) in [
            ("errors", errors, config.errors),
            ("cancelled", cancelled, config.cancelled),
            ("refused", refused, config.refused),
        ] {
            worse.extend(share(name, hits, have, tolerance, unanswered_level));
        }
        if enough {
            let overridden = (new.overridden, stable.overridden);
            worse.extend(share(
                "overrides",
                overridden,
                have,
                config.overrides,
                level,
            ));
        }
        if enough && !last {
            for (name, times, old) in [
                ("time to first token", &new.ttft, &stable.ttft),
                ("total time", &new.total, &stable.total),
            ] {
                worse.extend(slower(name, &times.kept, &old.kept, config.latency, level));
            }
            worse.extend(dearer(new, stable, config.cost, level));
        }
        if !worse.is_empty() {
            Verdict::Worse(worse.join("; "))
        } else if enough {
            Verdict::Fine
        } else {
            hold(have, need)
        }
    }
}

fn hold(have: (u64, u64), need: u64) -> Verdict {
    Verdict::Hold(format!(
        "too few requests to judge: {} of the candidate and {} of the stable generation, {need} of each are needed",
        have.0, have.1
    ))
}

fn share(
    name: &str,
    hits: (u64, u64),
    of: (u64, u64),
    tolerance: f64,
    alpha: f64,
) -> Option<String> {
    let shares = (
        hits.0 as f64 / of.0.max(1) as f64,
        hits.1 as f64 / of.1.max(1) as f64,
    );
    let p = fisher(hits.0, of.0, hits.1, of.1);
    (p < alpha && shares.0 - shares.1 > tolerance).then(|| {
        format!(
            "{name}: {:.2}% of {} against {:.2}% of {} (p = {p:.1e})",
            shares.0 * 100.0,
            of.0,
            shares.1 * 100.0,
            of.1
        )
    })
}

fn slower(name: &str, new: &[f64], old: &[f64], tolerance: f64, alpha: f64) -> Option<String> {
    if new.is_empty() || old.is_empty() {
        return None;
    }
    let bar = percentile(&[new, old].concat());
    let above = |times: &[f64]| times.iter().filter(|time| **time > bar).count() as u64;
    let p = fisher(above(new), new.len() as u64, above(old), old.len() as u64);
    let (new, old) = (percentile(new), percentile(old));
    (p < alpha && new > old * (1.0 + tolerance))
        .then(|| format!("{name}: p95 {new:.1} ms against {old:.1} ms (p = {p:.1e})"))
}

fn dearer(new: &Arm, old: &Arm, tolerance: f64, alpha: f64) -> Option<String> {
    let p = welch(
        new.cost_mean,
        new.cost_variance(),
        new.reported,
        old.cost_mean,
        old.cost_variance(),
        old.reported,
    );
    (p < alpha && new.cost_mean > old.cost_mean * (1.0 + tolerance)).then(|| {
        format!(
            "cost: {:.4} a request against {:.4} (p = {p:.1e})",
            new.cost_mean, old.cost_mean
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> CanaryConfig {
        CanaryConfig::default()
    }

    fn content(number: u64) -> Digest {
        Digest::of(&number.to_le_bytes())
    }

    /// A deterministic stream of numbers in [0, 1).
    fn noise(seed: u64) -> impl FnMut() -> f64 {
        let mut state = seed;
        move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / (1_u64 << 31) as f64
        }
    }

    struct Kind {
        errors: f64,
        cancelled: f64,
        refused: f64,
        overrides: f64,
        slow: f64,
        cost: f64,
    }

    const GOOD: Kind = Kind {
        errors: 0.005,
        cancelled: 0.03,
        refused: 0.01,
        overrides: 0.02,
        slow: 1.0,
        cost: 1.0,
    };

    /// What becomes of a request. Who leaves before the first token has waited for some of the time to it.
    fn sample(kind: &Kind, random: &mut impl FnMut() -> f64) -> Sample {
        let time = -200.0 * (1.0 - random()).ln() * kind.slow;
        let end = match random() {
            it if it < kind.errors => End::Failed,
            it if it < kind.errors + kind.cancelled => End::Cancelled,
            it if it < kind.errors + kind.cancelled + kind.refused => End::Refused,
            _ => End::Answered,
        };
        let (waited, after) = (time * random(), 100.0 * random());
        Sample {
            end,
            overridden: random() < kind.overrides,
            ttft_ms: match end {
                End::Answered => Some(time),
                End::Cancelled => Some(waited),
                End::Refused | End::Failed => None,
            },
            total_ms: (end == End::Answered).then_some(time * 5.0 + after),
            cost: kind.cost * (0.5 + random()),
        }
    }

    const FAILED: Sample = Sample {
        end: End::Failed,
        overridden: false,
        ttft_ms: None,
        total_ms: None,
        cost: 0.0,
    };

    fn run(
        trial: &mut Trial,
        side: Side,
        kind: &Kind,
        count: u64,
        random: &mut impl FnMut() -> f64,
    ) {
        for id in 0..count {
            trial.start(side, id, content(id), 0);
            trial.report(side, id, Some(sample(kind, random)));
        }
    }

    fn verdict(kind: &Kind, seed: u64, count: u64) -> Verdict {
        let mut random = noise(seed);
        let mut trial = Trial::new(1);
        run(&mut trial, Side::Stable, &GOOD, 2000, &mut random);
        run(&mut trial, Side::Candidate, kind, count, &mut random);
        trial.judge(&config())
    }

    #[test]
    fn a_candidate_like_the_stable_one_is_seldom_turned_away() {
        let turned_away = (0..400)
            .filter(|&seed| verdict(&GOOD, seed, 200) != Verdict::Fine)
            .count();
        // Seven tests at 0.0014 each: 4 of 400 expected at most; 14 are five standard deviations beyond.
        assert!(turned_away <= 14, "{turned_away} of 400");
    }

    #[test]
    fn looking_again_and_again_seldom_turns_away_who_is_no_worse() {
        // Clients leave more often than requests fail: what is looked at between has to bear that.
        let restless = Kind {
            cancelled: 0.2,
            ..GOOD
        };
        let turned_away = (0..400).filter(|&seed| {
            let mut random = noise(seed);
            let mut trial = Trial::new(1);
            run(&mut trial, Side::Stable, &restless, 1000, &mut random);
            (0..200).any(|id| {
                trial.start(Side::Candidate, id, content(id), 0);
                let sample = sample(&restless, &mut random);
                trial.report(Side::Candidate, id, Some(sample));
                matches!(trial.look(&config()), Verdict::Worse(_))
            })
        });
        let turned_away = turned_away.count();
        // 0.0025 between and 0.01 at the end: 5 of 400 expected at most; 16 are five standard deviations beyond.
        assert!(turned_away <= 16, "{turned_away} of 400");
    }

    /// A time to the first token that nobody waits for never comes: it must not pass as no time at all.
    #[test]
    fn a_candidate_whose_clients_all_leave_is_turned_away() {
        let seen = |count: u64, waited_ms: f64| {
            let mut random = noise(8);
            let mut trial = Trial::new(1);
            run(&mut trial, Side::Stable, &GOOD, 2000, &mut random);
            for id in 0..count {
                trial.start(Side::Candidate, id, content(id), 0);
                let sample = Sample {
                    end: End::Cancelled,
                    ttft_ms: Some(waited_ms + id as f64),
                    ..Sample::default()
                };
                trial.report(Side::Candidate, id, Some(sample));
            }
            trial.judge(&config())
        };
        assert!(matches!(seen(19, 10_000.0), Verdict::Hold(_)));
        let Verdict::Worse(early) = seen(20, 10_000.0) else {
            panic!("twenty cancelled requests were not seen");
        };
        assert!(early.starts_with("cancelled: 100.00% of 20"), "{early}");
        let Verdict::Worse(late) = seen(200, 10_000.0) else {
            panic!("two hundred cancelled requests were not seen");
        };
        assert!(
            late.contains("cancelled") && late.contains("time to first token: p95 10189.0 ms"),
            "{late}"
        );
        assert!(matches!(seen(200, 1.0), Verdict::Worse(why) if why.contains("cancelled")));
    }

    #[test]
    fn one_client_that_asks_the_same_and_leaves_has_left_once() {
        let mut random = noise(9);
        let mut trial = Trial::new(1);
        run(&mut trial, Side::Stable, &GOOD, 2000, &mut random);
        for id in 0..100 {
            trial.start(Side::Candidate, id, content(7), 0);
            let sample = Sample {
                end: End::Cancelled,
                ttft_ms: Some(1.0),
                ..Sample::default()
            };
            trial.report(Side::Candidate, id, Some(sample));
        }
        let figures = trial.figures().1;
        assert_eq!((figures.reported, figures.repeated), (1, 99));
    }

    #[test]
    fn a_worse_candidate_is_turned_away_and_the_reason_named() {
        for (kind, named) in [
            (
                Kind {
                    errors: 0.1,
                    ..GOOD
                },
                "errors",
            ),
            (
                Kind {
                    cancelled: 0.15,
                    ..GOOD
                },
                "cancelled",
            ),
            (
                Kind {
                    refused: 0.1,
                    ..GOOD
                },
                "refused",
            ),
            (
                Kind {
                    overrides: 0.2,
                    ..GOOD
                },
                "overrides",
            ),
            (Kind { slow: 2.0, ..GOOD }, "time to first token"),
            (Kind { slow: 2.0, ..GOOD }, "total time"),
            (Kind { cost: 1.3, ..GOOD }, "cost"),
        ] {
            let found = (0..50).filter(|&seed| {
                matches!(verdict(&kind, seed, 400), Verdict::Worse(why) if why.contains(named))
            });
            let found = found.count();
            assert!(found >= 45, "{named}: {found} of 50");
        }
    }

    #[test]
    fn too_few_hold_unless_they_break_at_once() {
        assert!(matches!(verdict(&GOOD, 1, 199), Verdict::Hold(why) if why.contains("199")));
        let broken = Kind {
            errors: 1.0,
            ..GOOD
        };
        assert!(matches!(verdict(&broken, 1, 19), Verdict::Hold(_)));
        assert!(matches!(verdict(&broken, 1, 20), Verdict::Worse(_)));
    }

    #[test]
    fn what_is_done_with_how_many_requests_of_either_side() {
        use Verdict::{Fine, Hold, Worse};
        let held = |part: &str| Hold(part.to_owned());
        let broken = || Worse("errors".to_owned());
        let (nothing, few) = (
            || held("no request of the stable generation is over"),
            || held("too few requests to judge"),
        );
        // Step; requests of the stable side before it, of the stable side, of the candidate; the candidate's errors.
        for (step, before, stable, candidate, errors, expected) in [
            (1, None, 0, 0, 0.0, nothing()),
            // Whatever the candidate does: without a stable side there is no evidence.
            (1, None, 0, 100, 1.0, nothing()),
            (1, None, 0, 1000, 1.0, nothing()),
            (1, None, 1000, 19, 1.0, few()),
            (1, None, 1000, 20, 1.0, broken()),
            (1, None, 199, 1000, 0.0, few()),
            (1, None, 200, 200, 0.0, Fine),
            // At the last step nobody runs the stable generation: what was before it counts, if anything was.
            (3, None, 0, 1000, 0.0, nothing()),
            (3, None, 0, 1000, 1.0, nothing()),
            (2, Some(1000), 0, 199, 0.0, few()),
            (2, Some(1000), 0, 200, 0.0, Fine),
            (2, Some(1000), 0, 200, 1.0, broken()),
        ] {
            let mut random = noise(5);
            let mut trial = Trial::new(step);
            if let Some(before) = before {
                run(&mut trial, Side::Stable, &GOOD, before, &mut random);
                trial.next();
            }
            run(&mut trial, Side::Stable, &GOOD, stable, &mut random);
            let kind = Kind { errors, ..GOOD };
            run(&mut trial, Side::Candidate, &kind, candidate, &mut random);
            let found = trial.judge(&config());
            let like = match (&found, &expected) {
                (Hold(found), Hold(part)) | (Worse(found), Worse(part)) => found.starts_with(part),
                (found, expected) => found == expected,
            };
            assert!(
                like,
                "step {step}, {before:?}, {stable}, {candidate}: {found:?}"
            );
        }
    }

    #[test]
    fn one_bad_request_sent_again_and_again_is_one_error() {
        let mut random = noise(6);
        let mut trial = Trial::new(1);
        run(&mut trial, Side::Stable, &GOOD, 2000, &mut random);
        run(&mut trial, Side::Candidate, &GOOD, 150, &mut random);
        for id in 10_000..10_100 {
            trial.start(Side::Candidate, id, content(10_000), 0);
            // Some fail, some hang.
            trial.report(Side::Candidate, id, (id % 2 == 0).then_some(FAILED));
        }
        assert_eq!(trial.figures().1.repeated, 99);
        assert!(matches!(trial.judge(&config()), Verdict::Hold(why) if why.contains("151 of")));
    }

    #[test]
    fn looks_between_spend_their_share_and_no_more() {
        let config = config();
        let steps = config.steps.len() as f64;
        let looks = (0..40).map(|look| steps * EARLY_MEASURES * early_alpha(look, &config));
        let spent: f64 = looks.sum();
        assert!((spent - EARLY_FALSE_ALARMS).abs() < 1e-9, "{spent}");
        let spent = steps * MEASURES * alpha(&config) + spent;
        assert!((spent - 0.05).abs() < 1e-9, "{spent}");
        // Each is taken once, when the requests have doubled.
        let mut random = noise(7);
        let mut trial = Trial::new(1);
        run(&mut trial, Side::Stable, &GOOD, 2000, &mut random);
        run(&mut trial, Side::Candidate, &GOOD, 25, &mut random);
        trial.look(&config);
        for (more, seen) in [(0, false), (14, false), (1, true)] {
            for _ in 0..more {
                let id = 1000 + trial.candidate.started;
                trial.start(Side::Candidate, id, content(id), 0);
                trial.report(Side::Candidate, id, Some(FAILED));
            }
            let worse = matches!(trial.look(&config), Verdict::Worse(_));
            assert_eq!(worse, seen, "after {more} more");
        }
    }

    #[test]
    fn requests_that_never_report_turn_the_candidate_away() {
        let mut random = noise(3);
        let mut trial = Trial::new(0);
        run(&mut trial, Side::Stable, &GOOD, 2000, &mut random);
        for id in 0..30 {
            trial.start(Side::Candidate, id, content(id), 1000);
        }
        trial.expire(301_000, &config());
        assert!(matches!(trial.judge(&config()), Verdict::Hold(_)));
        trial.expire(301_001, &config());
        assert!(
            matches!(trial.judge(&config()), Verdict::Worse(why) if why.starts_with("errors: 100"))
        );
    }

    #[test]
    fn at_the_last_step_the_figures_before_it_count() {
        let mut random = noise(4);
        let mut trial = Trial::new(2);
        run(&mut trial, Side::Stable, &GOOD, 2000, &mut random);
        trial.next();
        run(&mut trial, Side::Candidate, &GOOD, 200, &mut random);
        assert_eq!(trial.judge(&config()), Verdict::Fine);
        let bad = Kind {
            errors: 0.1,
            ..GOOD
        };
        run(&mut trial, Side::Candidate, &bad, 200, &mut random);
        assert!(matches!(trial.judge(&config()), Verdict::Worse(_)));
    }

    #[test]
    fn what_never_ran_counts_for_nothing() {
        let mut trial = Trial::new(0);
        for id in 0..100 {
            trial.start(Side::Candidate, id, content(id), 0);
            trial.withdraw(Side::Candidate, id);
        }
        // What nobody waits for is ignored.
        trial.withdraw(Side::Candidate, 100);
        trial.expire(400_000, &config());
        assert_eq!(trial.figures().1, Arm::default().figures());
    }

    #[test]
    fn who_hangs_across_a_step_is_lost_at_the_next() {
        let mut trial = Trial::new(0);
        trial.start(Side::Candidate, 7, content(7), 0);
        trial.next();
        trial.expire(400_000, &config());
        assert_eq!(trial.figures().1.lost, 1);
        // A report after that is not counted twice.
        trial.report(Side::Candidate, 7, Some(Sample::default()));
        assert_eq!(trial.figures().1.reported, 0);
    }
}
