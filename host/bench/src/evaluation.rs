//! The evaluation against baselines: a grid of at most half an hour, asked and reported on by `msao bench` as anybody would,
//! and its aims as rows. What is measured and how it is judged is the evaluation's own affair (`docs/evaluation.md`).
//!
//! An interrupted run stays in its folder, and the next one goes on from there; a finished one is measured anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use msao_evaluate::report::{Aim, Duel, Met, Outcome, Summary, report};

use crate::adaptive::interrupt::Interrupt;
use crate::proof::{Part, prove};
use crate::report::Row;

/// What `msao bench` ends with when it was interrupted, by the shell's custom.
const INTERRUPTED: i32 = 130;
/// Rows, pages and the manifest.
const FOLDER: &str = "target/prove/bench";

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
    let parts: [Part; 1] = [(
        "bench",
        "The evaluation against baselines (demo pair, two processes: edge on core 0, cloud on core 1)",
        Box::new(|| match &asked {
            Ok(()) => Ok(rows(&grid.report()?)),
            Err(error) => bail!("{error:#}"),
        }),
    )];
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
    rows.extend(summary.duels.iter().map(cell));
    rows
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

#[cfg(test)]
mod tests {
    use msao_evaluate::report::Block;
    use msao_evaluate::stats::{Interval, Sample};

    use super::*;

    fn summary(met: Met, outcome: Outcome) -> Summary {
        Summary {
            name: "t".into(),
            turns_done: 8,
            turns: 8,
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
        assert!(rows[2].figure.starts_with("won: 0.500"));
        assert!(rows[2].name.contains("demo, slow, closed-1"));
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
