//! Exchanging generations while requests come in.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use msao_core::offload::record::GenerationId;
use msao_core::offload::{Decision, Item, Plan, Report, Scores, StepInput, modality};

use crate::deployment::NotNow;
use crate::driver::{Driver, Scenario};
use crate::runtime::{Arrival, Choice, Plugins, Refused};

/// How much is to be done.
#[derive(Clone, Copy, Debug)]
pub struct SwapRun {
    /// Activations before the first that counts: until then the allocator takes up what such traffic needs, thread by thread.
    pub before: u64,
    /// Activations.
    pub swaps: u64,
    /// Rollbacks, after the activations.
    pub rollbacks: u64,
    /// Threads that decide about requests all the while.
    pub threads: usize,
    /// Calls of plug-ins at least.
    pub calls: u64,
    /// Calls of `step` a request.
    pub steps: u32,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct SwapFigures {
    /// Activations.
    pub swaps: u64,
    /// Requests.
    pub requests: u64,
    /// Calls of plug-ins, those of before apart.
    pub calls: u64,
    /// Requests with a failed call of any export. A plug-in that is given another generation's memo is to fail.
    pub failed: u64,
    /// Requests whose plan was not that of the generation on their ticket.
    pub mixed: u64,
    /// From a change's being on the disk to the first decision by the new generation, ms: each activation.
    pub first_decision_ms: Vec<f64>,
    /// The same for each rollback, from the call of [`Plugins::rollback`].
    pub rollback_ms: Vec<f64>,
    /// A rollback until it is on the disk, ms.
    pub durable_ms: Vec<f64>,
    /// Resident memory, MiB: medians over the first tenth of the activations, and over the last. A single look would see
    /// how many generations just wait to be taken apart.
    pub memory_mib: (f64, f64),
    /// The same over the second tenth of the activations before.
    pub memory_before_mib: f64,
    /// Generations that decide, at the end: the active one alone, as nothing is under way.
    pub live_at_end: u64,
    /// Generations in memory at the end: the active one, and the warm one before it.
    pub in_memory_at_end: u64,
}

impl SwapFigures {
    /// The given share of `times` is at most so long; 0 of none.
    pub fn quantile(times: &[f64], share: f64) -> f64 {
        let mut sorted = times.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let rank = (sorted.len() as f64 * share).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
    }
}

/// Tells whether an answer is that of the generation.
pub struct Belongs<'a> {
    /// A plan.
    pub plan: &'a (dyn Fn(&GenerationId, &Plan) -> bool + Sync),
    /// Scores of one item, where the generation has a post-processor.
    pub scores: &'a (dyn Fn(&GenerationId, &Scores) -> bool + Sync),
}

/// What a probe of a small picture saw.
fn report() -> Report {
    const TOKENS: usize = 16;
    Report {
        items: vec![Item {
            modality: modality::IMAGE,
            tokens: TOKENS as u32,
            frames: 1,
            relevance: 1.0,
        }],
        dim: 1,
        saliency: vec![1.0; TOKENS],
        relevance: vec![0.5; TOKENS],
        baseline: vec![0.5; TOKENS],
        frame: vec![0; TOKENS],
        y: (0..TOKENS as u32).map(|token| token / 4).collect(),
        x: (0..TOKENS as u32).map(|token| token % 4).collect(),
        similarity: vec![2.0; TOKENS],
        features: vec![1.0; TOKENS],
    }
}

struct Shared<'a> {
    plugins: &'a Plugins,
    belongs: &'a Belongs<'a>,
    run: SwapRun,
    began: Instant,
    stop: AtomicBool,
    calls: AtomicU64,
    requests: AtomicU64,
    failed: AtomicU64,
    mixed: AtomicU64,
    /// When each generation first decided, ns after `began`; by number, from `base` on.
    base: u64,
    first: Vec<AtomicU64>,
    /// A number that is waited for, and when it decided.
    watched: AtomicU64,
    seen: AtomicU64,
}

impl Shared<'_> {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn serve(&self, scenarios: &[Scenario]) {
        let mut next = scenarios.iter().cycle();
        let report = Arc::new(report());
        while !self.stop.load(Ordering::Relaxed) {
            let Some(scenario) = next.next() else { return };
            let arrival = Arrival::new(&scenario.id, scenario.content);
            let mut ticket = self.plugins.admit(&arrival);
            let mut good = true;
            let mut calls = 2 + u64::from(self.run.steps);
            if ticket.generation().postprocessor.is_some() {
                let scores = ticket.score(&report, scenario.request.seed);
                good &= (self.belongs.scores)(ticket.generation(), &scores);
                calls += 1;
            }
            let decision = ticket.plan(&scenario.request, &scenario.parts, &scenario.nodes);
            let now = self.now();
            let number = ticket.number();
            let place = usize::try_from(number.saturating_sub(self.base)).unwrap_or(usize::MAX);
            if let Some(first) = self.first.get(place)
                && first.load(Ordering::Relaxed) == 0
            {
                // Somebody else may have been first.
                let _ = first.compare_exchange(0, now, Ordering::SeqCst, Ordering::SeqCst);
            }
            if self.watched.load(Ordering::SeqCst) == number {
                let _ = (self.seen).compare_exchange(0, now, Ordering::SeqCst, Ordering::SeqCst);
            }
            let mut input = StepInput::default();
            for step in 0..self.run.steps {
                input.unsent = step;
                ticket.step(&input);
            }
            good &= match &decision {
                Decision::Run(plan) => (self.belongs.plan)(ticket.generation(), plan),
                Decision::Probe => false,
            };
            self.mixed.fetch_add(u64::from(!good), Ordering::Relaxed);
            let outcome = msao_core::offload::Outcome {
                tokens: 1,
                ttft_ms: 1.0,
                total_ms: 1.0,
                drafted: vec![0; msao_core::offload::BINS],
                accepted: vec![0; msao_core::offload::BINS],
                ..Default::default()
            };
            let failed = u64::from(ticket.finish(outcome));
            self.failed.fetch_add(failed, Ordering::Relaxed);
            self.requests.fetch_add(1, Ordering::Relaxed);
            self.calls.fetch_add(calls, Ordering::Relaxed);
        }
    }

    /// Waits until the generation has decided something; ns after `began`.
    fn first_of(&self, number: u64) -> Option<u64> {
        let place = usize::try_from(number.saturating_sub(self.base)).unwrap_or(usize::MAX);
        let first = self.first.get(place)?;
        self.wait(|| first.load(Ordering::SeqCst))
    }

    fn wait(&self, value: impl Fn() -> u64) -> Option<u64> {
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            let found = value();
            if found != 0 {
                return Some(found);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        None
    }
}

/// Resident memory of this process, MiB; 0 where the system does not tell.
fn resident_mib() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

/// Exchanges generations made of `choices` in turn while threads decide about requests. `belongs` tells whether an answer is
/// that generation's.
///
/// # Errors
/// [`Refused`], where a change was.
pub fn swaps(
    plugins: &Plugins,
    choices: &[Choice],
    belongs: &Belongs,
    run: SwapRun,
) -> Result<SwapFigures, Refused> {
    let mut scenarios = vec![Vec::new(); run.threads.max(1)];
    for (thread, own) in scenarios.iter_mut().enumerate() {
        own.extend(Driver::new(thread as u64).take(256));
    }
    let base = plugins.deployment().active.number;
    let numbers = run.before + run.swaps + run.rollbacks + 16;
    let numbers = usize::try_from(numbers).unwrap_or(usize::MAX);
    let shared = Shared {
        plugins,
        belongs,
        run,
        began: Instant::now(),
        stop: AtomicBool::new(false),
        calls: AtomicU64::new(0),
        requests: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        mixed: AtomicU64::new(0),
        base,
        first: (0..numbers).map(|_| AtomicU64::new(0)).collect(),
        watched: AtomicU64::new(0),
        seen: AtomicU64::new(0),
    };
    let figures = Mutex::new(SwapFigures::default());
    let changed = std::thread::scope(|scope| {
        for own in &scenarios {
            scope.spawn(|| shared.serve(own));
        }
        let changed = change(&shared, choices, &figures);
        shared.stop.store(true, Ordering::SeqCst);
        changed
    });
    changed?;
    let mut figures = figures.into_inner().unwrap_or_else(PoisonError::into_inner);
    figures.calls = shared.calls.into_inner() - figures.calls;
    figures.requests = shared.requests.into_inner();
    figures.failed = shared.failed.into_inner();
    figures.mixed = shared.mixed.into_inner();
    // What was left last is taken apart by a thread of its own.
    let until = Instant::now() + Duration::from_secs(1);
    let known = 1 + u64::from(plugins.deployment().previous.is_some());
    while plugins.status().generations_in_memory > known && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    let status = plugins.status();
    figures.live_at_end = status.live_generations;
    figures.in_memory_at_end = status.generations_in_memory;
    Ok(figures)
}

fn change(
    shared: &Shared,
    choices: &[Choice],
    figures: &Mutex<SwapFigures>,
) -> Result<(), Refused> {
    let SwapRun {
        before,
        swaps,
        rollbacks,
        ..
    } = shared.run;
    let mut figures = figures.lock().unwrap_or_else(PoisonError::into_inner);
    let mut next = choices.iter().copied().cycle();
    let mut activate = || -> Result<(u64, Instant), Refused> {
        loop {
            let Some(choice) = next.next() else {
                return Err(NotNow::SameAsActive.into());
            };
            match shared.plugins.activate(choice) {
                Ok(receipt) => return Ok((receipt.number, receipt.effective)),
                // After a rollback it may be the very one.
                Err(Refused::NotNow(NotNow::SameAsActive)) if choices.len() > 1 => {}
                Err(error) => return Err(error),
            }
        }
    };
    let ms = |from: Instant, to_ns: u64| {
        let from = from.duration_since(shared.began).as_nanos() as f64;
        (to_ns as f64 - from).max(0.0) / 1e6
    };
    let median = |looks: &[f64]| SwapFigures::quantile(looks, 0.5);
    let mut looks = Vec::new();
    for swap in 0..before {
        let (number, _) = activate()?;
        shared.first_of(number);
        if swap * 10 / before == 1 {
            looks.push(resident_mib());
        }
    }
    figures.memory_before_mib = median(&looks);
    let calls = shared.calls.load(Ordering::Relaxed);
    figures.calls = calls;
    let mut memory = (Vec::new(), Vec::new());
    for swap in 0..swaps {
        let (number, effective) = activate()?;
        figures.swaps += 1;
        let first = shared.first_of(number);
        figures
            .first_decision_ms
            .push(first.map_or(f64::INFINITY, |first| ms(effective, first)));
        match swap * 10 / swaps {
            0 => memory.0.push(resident_mib()),
            9 => memory.1.push(resident_mib()),
            _ => {}
        }
        // The calls are spread over the activations.
        let due = calls + shared.run.calls * (swap + 1) / swaps.max(1);
        while shared.calls.load(Ordering::Relaxed) < due {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    figures.memory_mib = (median(&memory.0), median(&memory.1));
    for _ in 0..rollbacks {
        let before = shared.plugins.deployment().active.number;
        let (number, _) = activate()?;
        shared.first_of(number);
        // Requests of the generation before are over soon: none may be taken for one after the rollback.
        std::thread::sleep(Duration::from_millis(20));
        shared.seen.store(0, Ordering::SeqCst);
        shared.watched.store(before, Ordering::SeqCst);
        let called = Instant::now();
        shared.plugins.rollback("to see how long it takes")?;
        figures
            .durable_ms
            .push(called.elapsed().as_secs_f64() * 1000.0);
        let seen = shared.wait(|| shared.seen.load(Ordering::SeqCst));
        figures
            .rollback_ms
            .push(seen.map_or(f64::INFINITY, |seen| ms(called, seen)));
        shared.watched.store(0, Ordering::SeqCst);
    }
    Ok(())
}
