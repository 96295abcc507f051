//! The evaluation against baselines: a grid of at most half an hour, asked and reported on by `msao bench` as anybody would,
//! and its aims as rows. What is measured and how it is judged is the evaluation's own affair (`docs/evaluation.md`).
//!
//! An interrupted run stays in its folder, and the next one goes on from there; a finished one is measured anew.
//!
//! Behind it the same cells are simulated, by a profile that is measured then and there. What is simulated has tables of its own, and
//! meets no aim but that of being near what was measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use msao_evaluate::capacity::Capacity;
use msao_evaluate::report::{Accurate, Aim, Duel, Met, Outcome, Summary, report};
use msao_evaluate::simulated::{Beside, Compared};

use crate::adaptive::interrupt::Interrupt;
use crate::proof::{Part, prove};
use crate::report::Row;

/// What `msao bench` ends with when it was interrupted, by the shell's custom.
const INTERRUPTED: i32 = 130;
/// Rows, pages and the manifest.
const FOLDER: &str = "target/prove/bench";
/// What the machine was found to cost.
const PROFILE: &str = "target/prove/bench-profile.toml";
/// How many clients clouds serve, which only a simulation can say; by these numbers of clouds.
const CAPACITY: &str = "configs/simulate/capacity.toml";
const CLOUDS: &str = "1,10";
/// Requests that are to be simulated in a minute.
const PACE: f64 = 100_000.0;
/// By how many percent simulated means may be off, in the mean over the grid.
const MOST_OFF: f64 = 10.0;

/// What may be asked for.
#[derive(clap::Args)]
pub struct Args {
    /// Another grid; it is another proof [default: configs/bench/prove.toml of this checkout].
    #[arg(long, value_name = "SPEC.toml")]
    spec: Option<PathBuf>,
    /// Ask again what an interrupted run has asked.
    #[arg(long)]
    fresh: bool,
    /// The folder that holds demo-target, demo-draft and heldout [default: this checkout's models].
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// The folder of components that `cargo xtask plugins` makes [default: plugins in cargo's target folder].
    #[arg(long, value_name = "DIR")]
    plugins: Option<PathBuf>,
    /// Where the figures are written [default: target/prove/bench.json; bench-partial.json for another grid].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Measures the grid and shows its aims. Whether every one is met.
///
/// # Errors
/// It was interrupted, or the figures cannot be written.
pub fn run(args: &Args) -> Result<bool> {
    let prover = std::env::current_exe().context("this program's own path")?;
    let root = msao_golden::root().join("../..");
    let beside = prover.parent().and_then(Path::parent);
    let plugins = args.plugins.clone();
    let grid = Grid {
        msao: prover.with_file_name("msao"),
        spec: (args.spec.clone()).unwrap_or_else(|| root.join("configs/bench/prove.toml")),
        models: args.models.clone().unwrap_or_else(|| root.join("models")),
        plugins: plugins
            .or_else(|| beside.map(|folder| folder.join("plugins")))
            .context("the folder of components: give --plugins")?,
        folder: PathBuf::from(FOLDER),
    };
    // Whoever interrupts it wants the grid to end in order, and to be told how to go on.
    let interrupt = Interrupt::watch()?;
    grid.clear(args.fresh)?;
    let asked = grid.ask();
    interrupt.check("what was measured stays, and the same command goes on from there")?;
    let whole = "the grid is whole and stays in its folder; the same command measures it anew";
    let simulated = match &asked {
        Ok(()) => grid.simulate(),
        Err(_) => Err(anyhow!("there is nothing to hold it against")),
    };
    interrupt.check(whole)?;
    let capacity = grid.capacity(&root.join(CAPACITY));
    interrupt.check(whole)?;
    let parts: [Part; 3] = [
        (
            "bench",
            "The evaluation against baselines (demo pair, two processes: edge on core 0, cloud on core 1)",
            Box::new(|| match &asked {
                Ok(()) => Ok(rows(&grid.report()?)),
                Err(error) => bail!("{error:#}"),
            }),
        ),
        (
            "simulator",
            "The same cells simulated, by a profile measured in the same run (ranked nowhere)",
            Box::new(|| match &simulated {
                Ok(found) => Ok(off(found)),
                Err(error) => bail!("{error:#}"),
            }),
        ),
        (
            "capacity",
            "Clients that clouds serve, simulated on assumed machines (RTX 3090 and A100)",
            Box::new(|| match &capacity {
                Ok(found) => Ok(served(found)),
                Err(error) => bail!("{error:#}"),
            }),
        ),
    ];
    prove(
        "bench",
        &parts,
        &[],
        args.spec.is_some(),
        args.out.as_deref(),
    )
}

struct Grid {
    msao: PathBuf,
    spec: PathBuf,
    models: PathBuf,
    plugins: PathBuf,
    folder: PathBuf,
}

impl Grid {
    /// Removes what an earlier run has finished, or all of it: only what was interrupted is gone on with.
    fn clear(&self, fresh: bool) -> Result<()> {
        let finished = || {
            let found = report(&self.folder).ok()?;
            Some(found.summary.turns_done >= found.summary.turns)
        };
        if self.folder.exists() && (fresh || finished() == Some(true)) {
            let shown = || self.folder.display().to_string();
            fs::remove_dir_all(&self.folder).with_context(shown)?;
        }
        Ok(())
    }

    /// Asks what is not yet there. Progress goes to standard error.
    fn ask(&self) -> Result<()> {
        if let Some(parent) = self.folder.parent() {
            fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        let mut command = Command::new(&self.msao);
        command.args(["bench", "run"]).arg(&self.spec);
        command.arg("--out").arg(&self.folder);
        command.arg("--models").arg(&self.models);
        command.arg("--plugins").arg(&self.plugins);
        let shown = || self.msao.display().to_string();
        let status = command.stdout(Stdio::null()).status().with_context(shown)?;
        match status.code() {
            Some(0) => Ok(()),
            Some(INTERRUPTED) => bail!("interrupted; the same command goes on from there"),
            _ => bail!(
                "`msao bench run` failed ({status}), and said why; --fresh begins anew in {}",
                self.folder.display()
            ),
        }
    }

    /// Measures what this machine costs, and simulates the grid's cells by that. Progress goes to standard error.
    fn simulate(&self) -> Result<Compared> {
        let mut profile = Command::new(&self.msao);
        profile.args(["bench", "profile", "--out", PROFILE]);
        profile.arg("--models").arg(&self.models);
        profile.arg("--plugins").arg(&self.plugins);
        self.told(profile.stdout(Stdio::null()))?;
        let mut simulate = Command::new(&self.msao);
        simulate.args(["bench", "--json", "simulate"]);
        simulate.arg(&self.folder).args(["--profile", PROFILE]);
        simulate.arg("--plugins").arg(&self.plugins);
        // Recorded links are seen from where the specification is.
        let base = self.spec.parent().filter(|it| !it.as_os_str().is_empty());
        simulate.arg("--base").arg(base.unwrap_or(Path::new(".")));
        let told = self.told(&mut simulate)?;
        serde_json::from_slice(&told).context("what `msao bench simulate` told")
    }

    /// Simulates how many clients clouds serve.
    fn capacity(&self, spec: &Path) -> Result<Capacity> {
        let mut command = Command::new(&self.msao);
        command.args(["bench", "--json", "capacity"]);
        command.arg(spec).args(["--clouds", CLOUDS]);
        let told = self.told(&mut command)?;
        serde_json::from_slice(&told).context("what `msao bench capacity` told")
    }

    /// What a command told on its standard output.
    fn told(&self, command: &mut Command) -> Result<Vec<u8>> {
        let shown = || self.msao.display().to_string();
        command.stderr(Stdio::inherit());
        let output = command.output().with_context(shown)?;
        match output.status.code() {
            Some(0) => Ok(output.stdout),
            Some(INTERRUPTED) => bail!("interrupted"),
            _ => bail!(
                "`msao bench` failed ({}): {}",
                output.status,
                String::from_utf8_lossy(&output.stdout).trim()
            ),
        }
    }

    /// Writes the pages. What is on the first of them.
    fn report(&self) -> Result<Summary> {
        let found = report(&self.folder)?;
        for (name, text) in [("report.html", &found.html), ("report.md", &found.markdown)] {
            let path = self.folder.join(name);
            fs::write(&path, text).with_context(|| path.display().to_string())?;
        }
        println!("\nall of it: {}", self.folder.join("report.html").display());
        Ok(found.summary)
    }
}

/// The aims, and what the subject came to in each cell.
fn rows(summary: &Summary) -> Vec<Row> {
    let (done, turns) = (summary.turns_done, summary.turns);
    let missing = (done < turns).then(|| format!("{} turns are not finished", turns - done));
    let mut rows = vec![Row::all("turns", turns, missing.into_iter().collect())];
    if summary.aims.is_empty() {
        rows.push(Row::failed(
            "aims",
            "all",
            "the grid has none: the pair is a twin, or the subject takes no part",
        ));
    }
    rows.extend(summary.aims.iter().map(aim));
    rows.extend(summary.accuracy.iter().map(accuracy));
    rows.extend(summary.duels.iter().map(cell));
    rows
}

/// It has no aim of its own: aims are about who is ranked.
fn accuracy(found: &Accurate) -> Row {
    let name = format!(
        "{}, {}: accuracy of {} less the baseline's",
        found.data, found.link, found.policy
    );
    let mut row = Row::told(name, f64::NAN, "");
    row.value = found.verdict.map(|it| it.difference);
    row.figure = match found.verdict {
        Some(it) => format!(
            "{:+.2} [{:+.2}, {:+.2}] points, {} items",
            it.difference, it.lower, it.upper, it.items
        ),
        None => "not measured".to_owned(),
    };
    row.with_details(vec![found.standing.clone()])
}

fn aim(aim: &Aim) -> Row {
    // What was found begins with the figure itself.
    let figure = aim.found.split(';').next().unwrap_or_default();
    Row {
        name: aim.what.clone(),
        figure: match aim.met {
            Met::NotMeasured => format!("open: {figure}"),
            Met::Met | Met::Missed => figure.to_owned(),
        },
        value: aim.value,
        aim: aim.wanted.clone(),
        met: aim.met == Met::Met,
        details: vec![aim.found.clone()],
    }
}

/// It has no aim of its own: that no cell is lost is one of the evaluation's.
fn cell(duel: &Duel) -> Row {
    let block = &duel.block;
    let best = duel.best.as_deref().unwrap_or("any baseline");
    let outcome = match duel.outcome {
        Outcome::Won => "won",
        Outcome::Even => "even",
        Outcome::Lost => "lost",
        Outcome::Unranked => "not ranked",
        Outcome::Unmeasured => "not measured",
    };
    let value = duel.ratio.map_or(f64::NAN, |ratio| ratio.value);
    let name = format!(
        "{}, {}, {}: mean latency over {best}",
        block.data, block.link, block.arrival
    );
    let mut row = Row::told(name, value, "");
    row.value = duel.ratio.map(|ratio| ratio.value);
    row.figure = match duel.ratio {
        Some(ratio) => format!(
            "{outcome}: {:.3} [{:.3}, {:.3}]",
            ratio.value, ratio.low, ratio.high
        ),
        None => outcome.to_owned(),
    };
    row.with_more((!duel.why.is_empty()).then(|| duel.why.clone()))
}

/// How far off the simulator is: in the mean, and cell by cell.
fn off(found: &Compared) -> Vec<Row> {
    let shown = |it: &Beside| {
        let cell = &it.cell;
        format!(
            "{}, {}, {}, {}",
            cell.data, cell.link, cell.arrival, cell.policy
        )
    };
    let name = "mean latency, simulated beside measured: off in the mean over cells";
    let mean = match found.mean_error_percent {
        Some(off) => Row::at_most(name, off, MOST_OFF, " %"),
        None => Row::failed(
            name,
            &format!("<= {MOST_OFF} %"),
            "no cell could be compared",
        ),
    };
    // A cell that says nothing would make the mean look better than it is.
    let whole = |it: &&Beside| it.error_percent.is_some() && it.played_unanswered == 0;
    let missing = found.cells.iter().filter(|it| !whole(it)).map(|it| {
        let unanswered = it.played_unanswered;
        format!(
            "{}: not compared, or simulated without {unanswered} answers",
            shown(it)
        )
    });
    let all = Row::all(
        "cells simulated whole",
        found.cells.len(),
        missing.collect(),
    );
    let mut rows = vec![mean.with_details(found.assumed.clone()), all];
    rows.extend(found.cells.iter().map(|it| {
        let mut row = Row::told(format!("{}: off by", shown(it)), f64::NAN, "");
        row.value = it.error_percent;
        row.figure = match (it.error_percent, it.played_ms, it.measured_ms) {
            (Some(error), Some(played), Some(measured)) => {
                format!("{error:+.1} % ({played:.1} ms for {measured:.1} ms)")
            }
            _ => "not compared".to_owned(),
        };
        row
    }));
    rows
}

/// How many clients are served by whom, beside the formula. What is assumed and simulated meets no aim but that of being fast.
fn served(found: &Capacity) -> Vec<Row> {
    let mut rows = vec![Row::at_least(
        "requests simulated in a minute",
        found.requests_per_min(),
        PACE,
        "",
    )];
    for point in &found.points {
        let name = format!("{} clouds: clients served where", point.clouds);
        for (who, served) in [
            ("edges draft", &point.edges_draft),
            ("clouds draft for themselves", &point.clouds_draft),
        ] {
            rows.push(Row::told(
                format!("{name} {who}"),
                f64::from(served.clients),
                "",
            ));
        }
        let name = format!("{} clouds: times as many where edges draft", point.clouds);
        rows.push(match point.ratio() {
            Some(ratio) => Row::told(name, ratio, ""),
            None => Row::told(name, f64::NAN, "").with_details(vec![
                "clouds that draft for themselves serve nobody at this goal".to_owned(),
            ]),
        });
    }
    let formula = Row::told(
        "the formula for that: 1 + gamma * t_d / t_v",
        found.formula.ratio(),
        "",
    );
    rows.push(formula.with_details(found.assumed.clone()));
    rows
}

#[cfg(test)]
mod tests {
    use msao_evaluate::capacity::{Formula, Point, Served};
    use msao_evaluate::plan::{Cell, Purpose};
    use msao_evaluate::report::Block;
    use msao_evaluate::stats::{Interval, Sample};

    use super::*;

    fn summary(met: Met, outcome: Outcome) -> Summary {
        Summary {
            name: "t".into(),
            turns_done: 8,
            turns: 8,
            accuracy: vec![Accurate {
                data: "demo".into(),
                link: "slow".into(),
                policy: "msao".into(),
                standing: "ranked".into(),
                verdict: None,
            }],
            duels: vec![Duel {
                block: Block {
                    data: "demo".into(),
                    link: "slow".into(),
                    arrival: "closed-1".into(),
                },
                best: Some("cloud-only".into()),
                ratio: Some(Interval {
                    value: 0.5,
                    low: 0.4,
                    high: 0.6,
                    sample: Sample::Repeats,
                }),
                outcome,
                why: "ways speculate 100%".into(),
            }],
            oracle: Vec::new(),
            aims: vec![Aim {
                what: "mean latency".into(),
                wanted: "50% lower".into(),
                found: "50.1% lower; enough in 1 of 1 cells".into(),
                value: Some(50.1),
                met,
            }],
        }
    }

    #[test]
    fn an_aim_is_met_or_missed_and_what_is_open_is_missed_too() {
        let met = |met| rows(&summary(met, Outcome::Won)).iter().all(|row| row.met);
        assert!(met(Met::Met));
        assert!(!met(Met::Missed) && !met(Met::NotMeasured));
        let rows = rows(&summary(Met::Met, Outcome::Won));
        assert_eq!(rows[1].figure, "50.1% lower");
        assert_eq!(rows[1].value, Some(50.1));
        assert_eq!(
            rows[2].name,
            "demo, slow: accuracy of msao less the baseline's"
        );
        assert_eq!(
            (rows[2].figure.as_str(), rows[2].met),
            ("not measured", true)
        );
        assert_eq!(rows[2].details, ["ranked"]);
        assert!(rows[3].figure.starts_with("won: 0.500"));
        assert!(rows[3].name.contains("demo, slow, closed-1"));
    }

    fn compared(errors: &[Option<f64>]) -> Compared {
        let cell = |(number, error): (usize, &Option<f64>)| Beside {
            cell: Cell {
                purpose: Purpose::Timed,
                data: "demo".into(),
                link: format!("link-{number}"),
                arrival: "closed-1".into(),
                policy: "msao".into(),
            },
            measured_ms: Some(100.0),
            played_ms: error.map(|error| 100.0 + error),
            error_percent: *error,
            played_unanswered: 0,
        };
        let sizes: Vec<f64> = errors.iter().flatten().map(|it| it.abs()).collect();
        Compared {
            cells: errors.iter().enumerate().map(cell).collect(),
            mean_error_percent: (!sizes.is_empty())
                .then(|| sizes.iter().sum::<f64>() / sizes.len() as f64),
            assumed: vec!["something".into()],
        }
    }

    #[test]
    fn the_simulator_is_near_enough_in_the_mean_and_each_cell_is_told() {
        let rows = off(&compared(&[Some(-15.0), Some(4.0)]));
        assert!(rows.iter().all(|row| row.met), "{rows:?}");
        assert_eq!((rows[0].value, rows.len()), (Some(9.5), 4));
        assert_eq!(rows[2].figure, "-15.0 % (85.0 ms for 100.0 ms)");
        assert!(rows[3].name.starts_with("demo, link-1, closed-1, msao"));
        assert!(rows[3].aim.is_empty());
        assert!(!off(&compared(&[Some(-17.0), Some(4.0)]))[0].met);
        // What says nothing is not left out of it unseen.
        let part = off(&compared(&[Some(1.0), None]));
        assert!(part[0].met && !part[1].met);
        let mut lost = compared(&[Some(1.0)]);
        lost.cells[0].played_unanswered = 2;
        assert!(!off(&lost)[1].met);
        assert!(!off(&compared(&[]))[0].met);
    }

    #[test]
    fn capacity_is_told_beside_the_formula_and_only_its_pace_is_judged() {
        let served = |clients: u32| Served {
            clients,
            p95_ms: Some(900.0),
        };
        let mut found = Capacity {
            name: "made up".into(),
            profile: "assumed".into(),
            goal_p95_ms: 1000.0,
            every_s: 60.0,
            points: vec![Point {
                clouds: 10,
                edges_draft: served(300),
                clouds_draft: served(120),
            }],
            formula: Formula {
                gamma: 4,
                draft_ms: 5.0,
                verify_ms: 10.0,
            },
            requests: 2_000,
            took_s: 1.0,
            assumed: vec!["all of it".into()],
        };
        let rows = super::served(&found);
        let values: Vec<_> = rows.iter().map(|row| row.value.unwrap()).collect();
        assert_eq!(values, [120_000.0, 300.0, 120.0, 2.5, 3.0]);
        assert!(rows.iter().all(|row| row.met));
        assert!(rows[1..].iter().all(|row| row.aim.is_empty()));
        found.took_s = 2.0;
        assert!(!super::served(&found)[0].met);
    }

    #[test]
    fn turns_that_are_missing_and_a_grid_without_aims_are_misses() {
        let mut part = summary(Met::Met, Outcome::Won);
        part.turns_done = 7;
        assert!(!rows(&part)[0].met);
        let mut none = summary(Met::Met, Outcome::Won);
        none.aims.clear();
        assert!(rows(&none).iter().any(|row| !row.met));
    }

    #[test]
    fn only_what_was_interrupted_is_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let grid = Grid {
            msao: "msao".into(),
            spec: "prove.toml".into(),
            models: "models".into(),
            plugins: "plugins".into(),
            folder: folder.path().join("bench"),
        };
        grid.clear(true).unwrap();
        fs::create_dir(&grid.folder).unwrap();
        fs::write(grid.folder.join("rows.csv"), "torn").unwrap();
        grid.clear(false).unwrap();
        assert!(grid.folder.exists());
        grid.clear(true).unwrap();
        assert!(!grid.folder.exists());
    }
}
