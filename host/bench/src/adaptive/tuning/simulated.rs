//! Bayesian optimisation beside random search and a dense grid where nobody knows the answer: two parameters of `msao`, which is
//! played by the simulator over recorded requests, as `msao calibrate` does it.
//!
//! Everybody looks at the same function: the same requests, in the same world, with the same seed. A point is played when somebody
//! wants to know of it, and not again by whoever comes to it later.
//!
//! As they were recorded the requests ask for 16 tokens at most, and most of them for one or two: whatever `msao` is told about drafts
//! makes no difference there, and every search finds the same. So it is asked for more of the answers that the limit had cut short
//! ([`demand`]), and for the target's own answers: then the draft model's is no way out, and nothing is gained by agreeing less often.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use msao_adapt::tune::Point;
use msao_adapt::tune::trial::Comparison;
use msao_calibrate::judge::{Judge, Measured, Wanted};
use msao_calibrate::play::Player;
use msao_calibrate::scene::{Scene, SceneArgs};
use msao_calibrate::search::{Origin, Played, Search, Trial, Trials, go_on};
use msao_calibrate::tunable::Tunables;
use msao_core::offload::flag;
use msao_core::offload::manifest::{Manifest, Value};
use msao_simulate::traffic::Traffic;

use super::{EVALUATIONS, SEEDS, figures};
use crate::adaptive::progress::Progress;
use crate::adaptive::setting::Setting;
use crate::adaptive::work::share;
use crate::report::Row;

/// The policy.
const POLICY: &str = "msao";
/// What is tuned of it: which share of its time a draft is charged, and by how many drafts a round is full. Both decide with every
/// draft, so that hardly two points are alike; all else stays as it is declared.
const TUNED: [&str; 2] = ["draft-charge", "rounds-per-pass"];
/// What is played, from the golden vectors' folder: requests of which no drafts were recorded, so that the simulator's own take their
/// place, a fifth of which are wrong; those of the other recordings are nearly all right, and it does not matter how many are made.
const RECORDS: &str = "../../tests/data/decisions/cloud-only.jsonl.zst";
/// Where, likewise.
const WORLD: &str = "../../configs/simulate/tuning.toml";
/// Requests for a point: the twelve recorded ones again and again, drawn anew each time.
const REQUESTS: u32 = 300;
/// How much faster they come than they did: slower, for what is asked takes longer.
const PACE: f64 = 0.25;
/// Tokens of the answers that were cut short, and of any answer at most.
const LONG: u32 = 96;
const MOST: u32 = 128;
/// Of all that links draw.
const WORLD_SEED: u64 = 1;
/// As `msao calibrate` has it where nobody says otherwise.
const WANTED: Wanted = Wanted {
    weight: 1000.0,
    delta: 0.05,
    budget: None,
};
/// Steps of the dense grid along each parameter's scale.
const STEPS: u32 = 20;
/// Evaluations that are told beside those that the aims are for.
const TOLD: u32 = 20;

/// The rows.
///
/// # Errors
/// The component, the records or the world are not there or cannot be used, or it is interrupted.
pub(super) fn rows(setting: &Setting) -> Result<Vec<Row>> {
    let (_, manifest) = setting.shelf.get(POLICY)?;
    let held = held(&manifest)?;
    let tunables = Tunables::new(&manifest, &held)?;
    let component = setting.shelf.folder().join(format!("{POLICY}.wasm"));
    let grid = grid(&tunables);
    let points = SEEDS as usize * (1 + 2 * EVALUATIONS as usize) + grid.len();
    // The longest first: at the end all threads have something to do.
    let mut jobs: Vec<Job> = (0..SEEDS).map(Job::Search).collect();
    jobs.extend(grid.into_iter().map(Job::Point));

    let name = format!("points of {POLICY} in the simulator");
    let progress = Mutex::new(Progress::new(name, points, 0));
    let table = Table::default();
    let mut found = Found::default();
    share(
        &jobs,
        setting.workers,
        &setting.interrupt,
        || Ok(Player::new(scene(&component, &held)?, WORLD_SEED)),
        |player, job| {
            let mut play = |params: Vec<f64>| -> Result<Played> {
                let stop = setting.interrupt.flag();
                let played = table.at(params, |params| {
                    player.play(params, stop, &mut |_share: f64| ())
                })?;
                let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
                progress.step();
                Ok(played)
            };
            match job {
                Job::Search(seed) => {
                    let mut search = Search::new(tunables.clone(), WANTED, *seed, EVALUATIONS);
                    let over = go_on(
                        &mut search,
                        &mut |_: Origin, params: Vec<f64>| play(params),
                        &mut |_: &Search| Ok(()),
                    )?;
                    Ok(over.then(|| Done::Search(*seed, search.trials().clone())))
                }
                Job::Point(point) => match play(tunables.params(point))? {
                    Played::Over(measured) => Ok(Some(Done::Point(Trial {
                        point: point.clone(),
                        measured,
                    }))),
                    Played::Stopped => Ok(None),
                },
            }
        },
        |_, done| {
            found.take(done);
            Ok(())
        },
    )?;
    let progress = progress
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    progress.end();
    (setting.interrupt).check("nothing is kept of a search that was not finished")?;
    told(&found, &tunables)
}

/// What a thread does at once.
enum Job {
    /// All points of the search with that seed.
    Search(u64),
    /// One of the grid.
    Point(Point),
}

/// What came of it; nothing where it was interrupted.
enum Done {
    Search(u64, Trials),
    Point(Trial),
}

/// All that was found out.
#[derive(Default)]
struct Found {
    grid: Vec<Trial>,
    /// By seed, so that it does not matter which ended first.
    searches: BTreeMap<u64, Trials>,
}

impl Found {
    fn take(&mut self, done: Option<Done>) {
        match done {
            Some(Done::Search(seed, trials)) => {
                self.searches.insert(seed, trials);
            }
            Some(Done::Point(trial)) => self.grid.push(trial),
            None => {}
        }
    }
}

/// What the points came to that have been played, by the policy's parameters.
#[derive(Default)]
struct Table(Mutex<HashMap<Vec<u64>, Option<Measured>>>);

impl Table {
    fn known(&self) -> MutexGuard<'_, HashMap<Vec<u64>, Option<Measured>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What these parameters come to: as it is known, or as `play` finds it. Two threads that want to know the same at the same time
    /// both play it, and find the same.
    fn at(
        &self,
        params: Vec<f64>,
        play: impl FnOnce(Vec<f64>) -> Result<Played>,
    ) -> Result<Played> {
        let key: Vec<u64> = params.iter().map(|value| value.to_bits()).collect();
        let known = self.known().get(&key).cloned();
        if let Some(measured) = known {
            return Ok(Played::Over(measured));
        }
        let played = play(params)?;
        if let Played::Over(measured) = &played {
            self.known().insert(key, measured.clone());
        }
        Ok(played)
    }
}

/// Everything that is declared as tunable but for what is tuned here, at its declared value.
fn held(manifest: &Manifest) -> Result<BTreeMap<String, Value>> {
    let tunable = || manifest.parameters.iter().filter(|it| it.tune);
    for name in TUNED {
        ensure!(
            tunable().any(|it| it.name == name),
            "{} declares no {name} as tunable: name two parameters that it does in {}",
            manifest.name,
            file!()
        );
    }
    let others = tunable().filter(|it| !TUNED.contains(&it.name.as_str()));
    Ok(others
        .map(|it| (it.name.clone(), it.default.clone()))
        .collect())
}

/// Every point of the grid: even steps along both scales, as the searches look at them.
fn grid(tunables: &Tunables) -> Vec<Point> {
    let places = || (0..=STEPS).map(|step| f64::from(step) / f64::from(STEPS));
    let pairs = places().flat_map(|x| places().map(move |y| [x, y]));
    pairs
        .map(|places| tunables.rounded(&tunables.space().point(&places)))
        .collect()
}

/// What a thread plays, again and again.
fn scene(component: &Path, held: &BTreeMap<String, Value>) -> Result<Scene> {
    let args = SceneArgs {
        policy: component.to_owned(),
        records: msao_golden::root().join(RECORDS),
        postprocessor: None,
        requests: REQUESTS,
        pace: PACE,
        profile: None,
        // The world has engines of its own.
        draft: String::new(),
        target: String::new(),
        world: Some(msao_golden::root().join(WORLD)),
        param: held.clone().into_iter().collect(),
    };
    // The seed is that of audits, and without a budget there are none.
    let mut scene = args.scene(&WANTED, WORLD_SEED)?;
    demand(&mut scene.traffic);
    Ok(scene)
}

/// Asks for more where the recorded limit had cut an answer short, and for the target's own answer wherever media may leave the edge.
fn demand(traffic: &mut Traffic) {
    for question in &mut traffic.questions {
        if question.answer_tokens >= question.max_tokens {
            question.answer_tokens = LONG;
        }
        // For all alike: how long an answer is going to be nobody knows beforehand.
        question.max_tokens = MOST;
        if question.flags & flag::MEDIA_AT_EDGE == 0 {
            question.flags |= flag::EXACT;
        }
    }
}

/// The best of those trials that keep the constraint, with what it came to.
fn best<'a>(
    judge: &Judge,
    trials: impl IntoIterator<Item = &'a Trial>,
) -> Option<(f64, &'a Trial)> {
    let kept = trials.into_iter().filter_map(|trial| {
        let measured = trial.measured.as_ref()?;
        judge
            .keeps(measured)
            .then(|| (judge.objective(measured), trial))
    });
    kept.min_by(|a, b| a.0.total_cmp(&b.0))
}

/// What both kinds of search had reached after so many evaluations beside the declared values, with which both begin. None where
/// one had found nothing that keeps the constraint.
fn reached(judge: &Judge, grid: f64, found: &Found, evaluations: u32) -> Option<Comparison> {
    let mut comparison = Comparison {
        grid,
        tuned: Vec::new(),
        random: Vec::new(),
    };
    for search in found.searches.values() {
        let lowest = |trials: &[Trial]| {
            let first = trials.iter().take(evaluations as usize);
            best(judge, search.declared.iter().chain(first)).map(|(objective, _)| objective)
        };
        comparison.tuned.push(lowest(&search.tuned)?);
        comparison.random.push(lowest(&search.random)?);
    }
    Some(comparison)
}

/// The rows of what was found.
fn told(found: &Found, tunables: &Tunables) -> Result<Vec<Row>> {
    let mut declared = (found.searches.values()).filter_map(|it| it.declared.as_ref());
    let declared = declared.find_map(|it| it.measured.as_ref());
    let declared = declared.context("no search has tried the declared values")?;
    let judge = Judge::new(WANTED, declared);
    let (lowest, at) =
        best(&judge, &found.grid).context("no point of the grid keeps the constraint")?;
    let mut rows = Vec::new();
    for evaluations in [EVALUATIONS, TOLD] {
        let name =
            format!("{POLICY} in the simulator over recorded requests, {evaluations} evaluations");
        let comparison = reached(&judge, lowest, found, evaluations)
            .context("a search has found nothing that keeps the constraint")?;
        rows.extend(figures(&name, &comparison, evaluations == EVALUATIONS));
    }
    if let Some(first) = rows.first_mut() {
        // Where the grid is flat there is nothing to find, and the aims say nothing.
        let more = landscape(&judge, found, (lowest, at), declared, tunables);
        first.details.extend(more);
    }
    Ok(rows)
}

/// How much there was to find, for people.
fn landscape(
    judge: &Judge,
    found: &Found,
    (lowest, at): (f64, &Trial),
    declared: &Measured,
    tunables: &Tunables,
) -> [String; 2] {
    let played = || found.grid.iter().filter_map(|it| it.measured.as_ref());
    let highest = played()
        .map(|it| judge.objective(it))
        .fold(lowest, f64::max);
    let kept = played().filter(|it| judge.keeps(it)).count();
    let values = tunables.values(&at.point);
    let values: Vec<String> = values
        .iter()
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    let [edge, cloud, cloud_draft, speculate] = declared.routes;
    [
        format!(
            "grid's best {lowest:.1} ms ({}), worst {highest:.1} ms, {:.1} % above it; {kept} of {} points keep the constraint",
            values.join(", "),
            100.0 * (highest - lowest) / lowest.abs(),
            found.grid.len()
        ),
        format!(
            "declared values {:.1} ms: of {} requests {edge} by edge, {cloud} by cloud, {cloud_draft} by cloud-draft, {speculate} by \
             speculate; {} calls failed at any of the grid's points",
            judge.objective(declared),
            declared.requests,
            played().map(|it| it.failures).sum::<u64>()
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::BufReader;

    use anyhow::bail;
    use msao_registry::state::read_jsonl;
    use msao_simulate::World;
    use msao_simulate::traffic::Recorded;

    use super::*;

    fn manifest() -> Manifest {
        let file = msao_golden::root().join("../../policies/msao/policy.toml");
        Manifest::parse(&std::fs::read_to_string(file).unwrap()).unwrap()
    }

    fn tunables() -> Tunables {
        let manifest = manifest();
        Tunables::new(&manifest, &held(&manifest).unwrap()).unwrap()
    }

    #[test]
    fn two_parameters_are_tuned_and_the_grid_covers_them() {
        let tunables = tunables();
        assert_eq!(tunables.names().collect::<Vec<_>>(), TUNED);
        let grid = grid(&tunables);
        assert_eq!(grid.len(), 21 * 21);
        for corner in [[0.0, 0.25], [0.0, 64.0], [1.0, 0.25], [1.0, 64.0]] {
            assert!(grid.iter().any(|it| *it == corner), "{corner:?}");
        }
        let mut distinct: Vec<Vec<u64>> = grid
            .iter()
            .map(|it| it.iter().map(|value| value.to_bits()).collect())
            .collect();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), grid.len());
        assert!(grid.iter().all(|it| tunables.allow(it)));
        // All else is as it is declared.
        let params = tunables.params(&tunables.declared());
        assert_eq!(params, manifest().defaults());
        let mut other = manifest();
        for parameter in &mut other.parameters {
            parameter.tune &= parameter.name != TUNED[1];
        }
        let error = held(&other).unwrap_err().to_string();
        assert!(
            error.starts_with("msao declares no rounds-per-pass as tunable"),
            "{error}"
        );
    }

    #[test]
    fn recorded_requests_demand_the_target_and_more_of_what_was_cut_short() {
        let text = std::fs::read_to_string(msao_golden::root().join(WORLD)).unwrap();
        let edges = World::parse(&text).unwrap().edge_count();
        let file = File::open(msao_golden::root().join(RECORDS)).unwrap();
        let records = read_jsonl(BufReader::new(file)).unwrap().decisions;
        let recorded = Recorded {
            edges,
            pace: PACE,
            ..Recorded::default()
        };
        let before = recorded.traffic(&records).unwrap();
        let mut traffic = before.clone();
        demand(&mut traffic);
        traffic.check(edges).unwrap();
        let (mut long, mut here) = (0, 0);
        for (before, now) in before.questions.iter().zip(&traffic.questions) {
            let cut = before.answer_tokens == before.max_tokens;
            let stays = before.flags & flag::MEDIA_AT_EDGE != 0;
            assert_eq!(now.max_tokens, MOST);
            assert_eq!(
                now.answer_tokens,
                if cut { LONG } else { before.answer_tokens }
            );
            assert_eq!(
                now.flags & flag::EXACT != 0,
                !stays || before.flags & flag::EXACT != 0
            );
            assert_eq!((now.seed, now.arrives_ms), (before.seed, before.arrives_ms));
            long += u32::from(cut && !stays);
            here += u32::from(stays);
        }
        // Without long answers there is nothing to tune.
        assert!(long >= 2 && here <= 1, "{long} {here}");
    }

    #[test]
    fn equal_points_are_played_once_and_what_was_stopped_is_not_known() {
        let table = Table::default();
        let measured = |latency_ms| {
            Some(Measured {
                latency_ms,
                requests: 100,
                ..Measured::default()
            })
        };
        let never = |_: Vec<f64>| -> Result<Played> { bail!("it is played again") };
        let first = table
            .at(vec![0.5, 4.0], |params| {
                assert_eq!(params, [0.5, 4.0]);
                Ok(Played::Over(measured(7.0)))
            })
            .unwrap();
        assert_eq!(first, Played::Over(measured(7.0)));
        assert_eq!(table.at(vec![0.5, 4.0], never).unwrap(), first);
        let other = table.at(vec![0.5, 4.5], |_| Ok(Played::Stopped)).unwrap();
        assert_eq!(other, Played::Stopped);
        // That nothing was answered is known as well.
        let other = table.at(vec![0.5, 4.5], |_| Ok(Played::Over(None)));
        assert_eq!(other.unwrap(), Played::Over(None));
        assert_eq!(table.at(vec![0.5, 4.5], never).unwrap(), Played::Over(None));
        assert!(table.at(vec![0.5, 5.0], never).is_err());
        assert!(table.at(vec![0.5, 5.0], |_| Ok(Played::Stopped)).is_ok());
    }

    fn trial(latency_ms: f64, unanswered: u32) -> Trial {
        Trial {
            point: vec![latency_ms / 1000.0, 4.0],
            measured: Some(Measured {
                latency_ms,
                requests: 100,
                unanswered,
                routes: [1, 40, 0, 59],
                ..Measured::default()
            }),
        }
    }

    fn trials(tuned: &[f64], random: &[f64]) -> Trials {
        let all = |of: &[f64]| of.iter().map(|it| trial(*it, 0)).collect();
        Trials {
            declared: Some(trial(100.0, 0)),
            tuned: all(tuned),
            random: all(random),
        }
    }

    fn found(searches: &[Trials]) -> Found {
        Found {
            // The last one is fast since it answers less.
            grid: vec![trial(200.0, 0), trial(80.0, 0), trial(10.0, 1)],
            searches: (0..).zip(searches.iter().cloned()).collect(),
        }
    }

    #[test]
    fn rows_hold_what_searches_reached_against_each_other_and_the_grid() {
        let found = found(&[
            trials(&[90.0, 80.0], &[120.0, 95.0]),
            trials(&[150.0, 82.0], &[130.0, 110.0]),
        ]);
        let rows = told(&found, &tunables()).unwrap();
        let value = |row: &Row| row.value.map(|it| (1e6 * it).round() / 1e6);
        // Means 81 and 97.5, the second search's random points being no better than the declared values.
        assert_eq!(
            (value(&rows[0]), value(&rows[1])),
            (Some(20.625), Some(1.25))
        );
        assert!(rows[0].met && rows[1].met && rows.len() == 4, "{rows:?}");
        assert!(rows[0].name.starts_with(
            "msao in the simulator over recorded requests, 30 evaluations: random search less tuning"
        ));
        assert!(!rows[0].aim.is_empty() && rows[2].aim.is_empty());
        let details = rows[0].details.join("\n");
        for part in [
            "better with 2 of 2 seeds",
            "grid's best 80.0 ms (draft-charge 0.08, rounds-per-pass 4), worst 200.0 ms, 150.0 % above it; 2 of 3 points keep",
            "declared values 100.0 ms: of 100 requests 1 by edge, 40 by cloud, 0 by cloud-draft, 59 by speculate; 0 calls failed",
        ] {
            assert!(details.contains(part), "{part}: {details}");
        }
        // After one evaluation: 90 and the declared 100; at random nothing better than declared.
        let judge = Judge::new(WANTED, &trial(100.0, 0).measured.unwrap());
        let early = reached(&judge, 80.0, &found, 1).unwrap();
        assert_eq!(early.tuned, [90.0, 100.0]);
        assert_eq!(early.random, [100.0, 100.0]);
    }

    #[test]
    fn where_all_points_are_alike_the_aim_is_missed() {
        let flat = Found {
            grid: vec![trial(100.0, 0); 3],
            searches: BTreeMap::from([(0, trials(&[100.0], &[100.0]))]),
        };
        let rows = told(&flat, &tunables()).unwrap();
        assert!(!rows[0].met, "{rows:?}");
        assert!(rows[0].details.join("\n").contains("0.0 % above it"));
        let none = Found {
            searches: flat.searches,
            ..Found::default()
        };
        let error = told(&none, &tunables()).unwrap_err().to_string();
        assert!(error.contains("no point of the grid"), "{error}");
        assert!(told(&Found::default(), &tunables()).is_err());
    }
}
