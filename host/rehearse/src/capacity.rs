//! How many clients so many clouds serve at a goal for the 95th of a hundred answers, where edges draft and where clouds draft for
//! themselves, beside the formula `1 + gamma * t_d / t_v`.
//!
//! Clients ask independently of each other, each so often in the mean, so that `n` of them are a rate; it rises and falls over a day.
//! The most that are served are found by doubling and halving: whether so many are is one trial, a simulation of a day.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use msao_core::offload::{Action, Plan, PlanInput, Route, Status, StepInput};
use msao_evaluate::capacity::{Capacity, CapacityArgs, Formula, Point, Served};
use msao_link::estimate::EstimateConfig;
use msao_link::shaper::LinkConfig;
use msao_simulate::traffic::{Generator, Mix, Pattern};
use msao_simulate::{CloudGroup, Decides, EdgeGroup, Options, Plain, Profile, Rules, World, run};
use serde::Deserialize;

/// Bytes of a specification at most.
const MOST_BYTES: u64 = 1 << 20;
/// Numbers of clouds at most.
const MOST_POINTS: usize = 64;
/// Clients at most.
const MOST_CLIENTS: u32 = 10_000_000;
/// Where the first trial begins, for one cloud.
const FIRST_GUESS: u32 = 64;
/// The most that are served are found to within this share.
const NEAR: f64 = 0.04;
/// The share of requests that must be answered in time.
const IN_TIME: f64 = 0.95;
/// An edge waits for a verdict so long before it looks after it, in ms.
const PATIENCE_MS: f64 = 60_000.0;

/// What is assumed whatever the profile.
const ASSUMED: [&str; 3] = [
    "a day is as short as its requests allow, and its hours still long beside answers",
    "an edge knows one cloud, and clients come to edges at random; who finds no room is not served",
    "edges send rounds of gamma drafts and wait; clouds choose how many they draft for themselves, on the target's own device",
];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Spec {
    name: String,
    seed: u64,
    clouds: Vec<u32>,
    draft: String,
    target: String,
    beside: String,
    profile: Option<PathBuf>,
    gamma: u32,
    goal_p95_ms: f64,
    every_s: f64,
    swing: f64,
    requests_per_cloud: u32,
    least_requests: u32,
    edges: Vec<Edges>,
    #[serde(default)]
    mix: Mix,
}

/// Edges that are alike.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Edges {
    count: u32,
    #[serde(default)]
    link: LinkConfig,
}

impl Spec {
    fn read(args: &CapacityArgs) -> Result<Spec> {
        let told = || args.spec.display().to_string();
        let size = std::fs::metadata(&args.spec).with_context(told)?.len();
        ensure!(
            size <= MOST_BYTES,
            "{} has {size} bytes; allowed: up to {MOST_BYTES}",
            told()
        );
        let text = std::fs::read_to_string(&args.spec).with_context(told)?;
        Spec::parse(&text, &args.clouds).with_context(told)
    }

    /// `clouds`: in place of the specification's own, if there are any.
    fn parse(text: &str, clouds: &[u32]) -> Result<Spec> {
        let mut spec: Spec = toml::from_str(text)?;
        if !clouds.is_empty() {
            spec.clouds = clouds.to_vec();
        }
        spec.check()?;
        Ok(spec)
    }

    /// What worlds, profiles and generators do not check themselves.
    fn check(&self) -> Result<()> {
        let count = self.clouds.len();
        ensure!(
            (1..=MOST_POINTS).contains(&count),
            "clouds: has {count} entries; allowed: 1 to {MOST_POINTS}"
        );
        let edges = self.edge_count();
        for clouds in &self.clouds {
            ensure!(
                (1..=edges).contains(clouds),
                "clouds: has {clouds}; allowed: 1 to {edges}, as many as there are edges"
            );
        }
        ensure!(
            (1..=64).contains(&self.gamma),
            "gamma: is {}; allowed: 1 to 64",
            self.gamma
        );
        for (name, value, least, most) in [
            ("goal-p95-ms", self.goal_p95_ms, 1.0, 3_600_000.0),
            ("every-s", self.every_s, 0.01, 86_400.0),
            ("swing", self.swing, 0.0, 0.999),
        ] {
            ensure!(
                value >= least && value <= most,
                "{name}: is {value}; allowed: {least} to {most}"
            );
        }
        for (name, value) in [
            ("requests-per-cloud", self.requests_per_cloud),
            ("least-requests", self.least_requests),
        ] {
            ensure!(
                (100..=1_000_000).contains(&value),
                "{name}: is {value}; allowed: 100 to 1000000"
            );
        }
        Ok(())
    }

    fn edge_count(&self) -> u32 {
        (self.edges.iter()).fold(0, |all, group| all.saturating_add(group.count))
    }

    fn profile(&self, base: &Path) -> Result<Profile> {
        match &self.profile {
            Some(path) => crate::read_profile(&base.join(path)),
            None => Ok(Profile::assumed()?),
        }
    }

    /// `base`: the folder that traces are seen from.
    fn world(&self, clouds: u32, profile: &Profile, base: &Path) -> World {
        let edges = self.edges.iter().cloned().map(|mut group| {
            for way in [&mut group.link.up, &mut group.link.down] {
                if let Some(trace) = &mut way.trace {
                    trace.file = base.join(&trace.file);
                }
            }
            EdgeGroup {
                count: group.count,
                draft: Some(self.draft.clone()),
                target: None,
                cores: None,
                peers: 1,
                link: group.link,
            }
        });
        World {
            clouds: vec![CloudGroup {
                count: clouds,
                target: self.target.clone(),
                draft: Some(self.beside.clone()),
                price_per_mtok: 0.0,
                one_device: true,
                // Models have devices of their own; a host's cores suffice for the rest.
                cores: None,
                // What an engine has room for is what counts.
                most_sessions: u32::MAX,
            }],
            edges: edges.collect(),
            rules: Rules::default(),
            estimate: EstimateConfig::default(),
            profile: Some(profile.clone()),
        }
    }
}

/// Who drafts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drafts {
    Edges,
    Clouds,
}

impl Drafts {
    fn decides(self, gamma: u32) -> Box<dyn Decides> {
        let route = match self {
            Drafts::Edges => Route::Speculate,
            Drafts::Clouds => Route::CloudDraft,
        };
        let plan = Plan {
            gamma_max: gamma,
            in_flight_max: 1,
            patience_ms: PATIENCE_MS,
            ..Plan::plain(route, 1)
        };
        Box::new(Plain::new(
            move |_: PlanInput| plan.clone(),
            move |input: &StepInput| match input {
                _ if input.in_flight > 0 => Action::Wait,
                _ if input.unsent >= gamma => Action::Send,
                _ => Action::Draft,
            },
        ))
    }
}

/// What is searched with.
struct Search<'a> {
    spec: &'a Spec,
    profile: &'a Profile,
    base: &'a Path,
    told: &'a mut dyn FnMut(&str),
    stop: &'a AtomicBool,
    requests: u64,
}

/// Simulates what the specification wants. None: `stop` was set.
///
/// # Errors
/// The specification, the profile or a trace is not there or cannot be.
pub fn capacity(
    args: &CapacityArgs,
    told: &mut dyn FnMut(&str),
    stop: &AtomicBool,
) -> Result<Option<Capacity>> {
    let spec = Spec::read(args)?;
    let base = args.spec.parent().unwrap_or(Path::new(""));
    let profile = spec.profile(base)?;
    let (target, beside) = match (
        profile.engines.get(&spec.target),
        profile.engines.get(&spec.beside),
    ) {
        (Some(target), Some(beside)) => (target.clone(), beside.clone()),
        _ => bail!(
            "target is \"{}\" and beside is \"{}\"; allowed: engines of the profile, which has {}",
            spec.target,
            spec.beside,
            Vec::from_iter(profile.engines.keys().cloned()).join(", ")
        ),
    };
    let began = Instant::now();
    let mut search = Search {
        spec: &spec,
        profile: &profile,
        base,
        told,
        stop,
        requests: 0,
    };
    let mut points = Vec::with_capacity(spec.clouds.len());
    // As many a cloud as were served before.
    let mut guesses = [FIRST_GUESS; 2];
    for &clouds in &spec.clouds {
        let mut found = Vec::with_capacity(2);
        for (drafts, guess) in [Drafts::Edges, Drafts::Clouds]
            .into_iter()
            .zip(&mut guesses)
        {
            let Some(served) = search.most(clouds, drafts, guess.saturating_mul(clouds))? else {
                return Ok(None);
            };
            *guess = (served.clients / clouds).max(1);
            found.push(served);
        }
        if let (Some(clouds_draft), Some(edges_draft)) = (found.pop(), found.pop()) {
            points.push(Point {
                clouds,
                edges_draft,
                clouds_draft,
            });
        }
    }
    Ok(Some(Capacity {
        name: spec.name.clone(),
        profile: profile.name.clone(),
        goal_p95_ms: spec.goal_p95_ms,
        every_s: spec.every_s,
        points,
        formula: Formula {
            gamma: spec.gamma,
            draft_ms: beside.pass_ms,
            verify_ms: target.pass_ms + f64::from(spec.gamma) * target.draft_ms,
        },
        requests: search.requests,
        took_s: began.elapsed().as_secs_f64(),
        assumed: ASSUMED.map(str::to_owned).into(),
    }))
}

impl Search<'_> {
    /// The most clients that so many clouds serve. None: it was stopped.
    fn most(&mut self, clouds: u32, drafts: Drafts, guess: u32) -> Result<Option<Served>> {
        let world = self.spec.world(clouds, self.profile, self.base);
        let mut search = |clients: u32| self.trial(&world, clouds, drafts, clients);
        most(guess, &mut search)
    }

    /// Whether so many clients are served, and what 95% of their answers take at most.
    fn trial(
        &mut self,
        world: &World,
        clouds: u32,
        drafts: Drafts,
        clients: u32,
    ) -> Result<Option<(bool, f64)>> {
        if self.stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let spec = self.spec;
        let count = (spec.requests_per_cloud.saturating_mul(clouds)).max(spec.least_requests);
        let per_s = f64::from(clients) / spec.every_s;
        let generator = Generator {
            seed: spec.seed,
            edges: spec.edge_count(),
            count,
            pattern: Pattern::Diurnal {
                per_s,
                swing: spec.swing,
                day_ms: 1000.0 * f64::from(count) / per_s,
            },
            mix: spec.mix.clone(),
        };
        let mut decides = drafts.decides(spec.gamma);
        let options = Options {
            seed: spec.seed,
            keep: true,
            stop: Some(self.stop),
            ..Options::default()
        };
        let results = run(world, &generator.traffic()?, decides.as_mut(), options)?;
        self.requests += u64::from(results.summary.requests);
        if results.stopped {
            return Ok(None);
        }
        let in_time = results.ended.iter().filter(|ended| {
            let outcome = &ended.outcome;
            // What a draft model gave by itself, because nobody else would, is another answer.
            outcome.status == Status::Answered as u8 && outcome.total_ms <= spec.goal_p95_ms
        });
        let served = in_time.count() as f64 >= IN_TIME * f64::from(count);
        let p95_ms = results.summary.latency_ms.p95;
        let who = match drafts {
            Drafts::Edges => "edges draft",
            Drafts::Clouds => "clouds draft",
        };
        let verdict = if served { "served" } else { "too many" };
        (self.told)(&format!(
            "{clouds} clouds, {who}: {clients} clients, 95% within {p95_ms:.0} ms: {verdict}"
        ));
        Ok(Some((served, p95_ms)))
    }
}

/// The most of which a trial says that they are served, to within [`NEAR`]: first by doubling, then by halving what is left between.
fn most(
    guess: u32,
    trial: &mut dyn FnMut(u32) -> Result<Option<(bool, f64)>>,
) -> Result<Option<Served>> {
    let mut best = Served {
        clients: 0,
        p95_ms: None,
    };
    let mut too_many: Option<u32> = None;
    let mut clients = guess.clamp(1, MOST_CLIENTS);
    loop {
        let Some((served, p95_ms)) = trial(clients)? else {
            return Ok(None);
        };
        if served {
            best = Served {
                clients,
                p95_ms: Some(p95_ms),
            };
        } else {
            too_many = Some(clients);
        }
        let low = best.clients;
        clients = match too_many {
            None if low >= MOST_CLIENTS => return Ok(Some(best)),
            None => low.saturating_mul(2).min(MOST_CLIENTS),
            Some(high) => {
                let between = high - low;
                if between <= 1 || f64::from(between) <= NEAR * f64::from(low) {
                    return Ok(Some(best));
                }
                low + between / 2
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One cloud whose device is the only thing that takes time.
    const SPEC: &str = r#"
        name = "test"
        seed = 3
        clouds = [1, 2]
        draft = "edge"
        target = "target"
        beside = "beside"
        profile = "profile.toml"
        gamma = 4
        goal-p95-ms = 3000.0
        every-s = 20.0
        swing = 0.0
        requests-per-cloud = 300
        least-requests = 300
        [[edges]]
        count = 40
        [edges.link]
        up = { delay-ms = 5.0 }
        down = { delay-ms = 5.0 }
        [mix]
        text-tokens = [20, 20]
        answer-tokens = [30, 30]
        max-tokens = 32
        images = 0.0
        clips = 0.0
        sounds = 0.0
        deadlines = 0.0
        exact = 1.0
        media-at-edge = 0.0
        doubt = [0.2, 0.2]
    "#;

    fn engine(name: &str, pass_ms: f64, row_ms: f64) -> String {
        format!(
            "[engines.{name}]\npass-ms = {pass_ms:?}\nrow-ms = {row_ms:?}\ndraft-ms = 0.0\nprefill-tok-per-s = 1e6\n\
             encoder-ms-per-token = 0.0\nprobe-share = 0.0\nprobe-ms = 0.0\nkv-bytes-per-token = 1.0\nkv-mib = 64.0\n\
             flops-per-token = 0.0\nprefill-flops-per-token = 0.0\nflops-per-token-pair = 0.0\nencoder-flops-per-token = 0.0\n\
             limits.waiting = 10000\n"
        )
    }

    fn simulated(folder: &Path, spec: &str, stop: &AtomicBool) -> Result<Option<Capacity>> {
        // A pass takes as much longer for each answer in it as it takes at all: nothing is won by sharing it.
        let profile = "name = \"made up\"\n".to_owned()
            + &engine("edge", 2.0, 2.0)
            + &engine("beside", 2.0, 2.0)
            + &engine("target", 8.0, 8.0);
        std::fs::write(folder.join("profile.toml"), profile)?;
        let path = folder.join("spec.toml");
        std::fs::write(&path, spec)?;
        let args = CapacityArgs {
            spec: path,
            clouds: Vec::new(),
        };
        capacity(&args, &mut |_| {}, stop)
    }

    #[test]
    fn a_cloud_that_only_verifies_serves_more_and_two_serve_more_than_one() {
        let folder = tempfile::tempdir().unwrap();
        let stop = AtomicBool::new(false);
        let found = simulated(folder.path(), SPEC, &stop).unwrap().unwrap();
        let [one, two] = found.points.as_slice() else {
            panic!("{found:?}");
        };
        // 1 + 4 * 2 / 8
        assert_eq!(found.formula.ratio(), 2.0);
        for point in [one, two] {
            assert!(point.clouds_draft.clients > 0, "{found:?}");
            // A queue near its limit, and rounds that need not be gamma long: near the formula and not at it.
            let ratio = point.ratio().unwrap();
            assert!((1.2..3.0).contains(&ratio), "{found:?}");
            let p95_ms = point.edges_draft.p95_ms.unwrap();
            assert!(p95_ms > 0.0 && p95_ms <= 3000.0, "{found:?}");
        }
        let more = f64::from(two.edges_draft.clients) / f64::from(one.edges_draft.clients);
        assert!((1.5..2.7).contains(&more), "{found:?}");
        assert!(found.requests >= 4 * 300);
        // The same again comes to the same.
        let again = simulated(folder.path(), SPEC, &stop);
        assert_eq!(again.unwrap().unwrap().points, found.points);
        // Who wants it to end gets nothing.
        stop.store(true, Ordering::Relaxed);
        let none = simulated(folder.path(), SPEC, &stop).unwrap();
        assert_eq!(none, None);
    }

    #[test]
    fn the_most_that_are_served_are_found_from_any_guess() {
        for limit in [0, 1, 7, 900, 12_345] {
            for guess in [1, 64, 1_000_000] {
                let mut trials = 0;
                let found = most(guess, &mut |clients| {
                    trials += 1;
                    Ok(Some((clients <= limit, 1.0)))
                });
                let clients = found.unwrap().unwrap().clients;
                assert!(clients <= limit, "{clients} of {limit}");
                let least = (f64::from(limit) * (1.0 - NEAR) - 1.0).max(0.0);
                assert!(f64::from(clients) >= least, "{clients} of {limit}");
                assert!(trials < 40, "{trials}");
            }
        }
        // Whoever can serve all is asked no further.
        let all = most(1, &mut |_| Ok(Some((true, 1.0)))).unwrap().unwrap();
        assert_eq!(all.clients, MOST_CLIENTS);
        assert_eq!(most(1, &mut |_| Ok(None)).unwrap(), None);
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (from, to, named) in [
            ("clouds = [1, 2]", "clouds = []", "clouds: has 0 entries"),
            (
                "clouds = [1, 2]",
                "clouds = [41]",
                "clouds: has 41; allowed: 1 to 40",
            ),
            ("gamma = 4", "gamma = 0", "gamma: is 0"),
            ("every-s = 20.0", "every-s = nan", "every-s: is NaN"),
            ("swing = 0.0", "swing = 1.0", "swing: is 1; allowed"),
            (
                "least-requests = 300",
                "least-requests = 5",
                "least-requests: is 5",
            ),
        ] {
            let error = Spec::parse(&SPEC.replacen(from, to, 1), &[]).unwrap_err();
            let told = error.to_string();
            assert!(told.starts_with(named), "{told}\nshould begin with {named}");
        }
        assert!(Spec::parse(&SPEC.replacen("swing", "swings", 1), &[]).is_err());
        assert_eq!(Spec::parse(SPEC, &[5]).unwrap().clouds, [5]);
        let folder = tempfile::tempdir().unwrap();
        let other = SPEC.replacen("\"target\"", "\"another\"", 1);
        let error = simulated(folder.path(), &other, &AtomicBool::new(false)).unwrap_err();
        assert!(error.to_string().contains("another"), "{error}");
    }

    #[test]
    fn the_shipped_specification_can_be_simulated() {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/simulate/capacity.toml");
        let args = CapacityArgs {
            spec: path.clone(),
            clouds: vec![2],
        };
        let spec = Spec::read(&args).unwrap();
        let base = path.parent().unwrap();
        let profile = spec.profile(base).unwrap();
        assert_eq!(spec.edge_count(), 1000);
        let world = spec.world(2, &profile, base);
        assert!(world.check().is_ok());
        // One trial of few clients, whose links are traces that lie where the specification says.
        let stop = AtomicBool::new(false);
        let mut search = Search {
            spec: &Spec {
                least_requests: 100,
                requests_per_cloud: 100,
                ..spec
            },
            profile: &profile,
            base,
            told: &mut |_| {},
            stop: &stop,
            requests: 0,
        };
        let trial = search.trial(&world, 2, Drafts::Edges, 10).unwrap().unwrap();
        assert!(trial.1 > 0.0);
        assert_eq!(search.requests, 200);
    }
}
