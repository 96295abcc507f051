//! The simulator beside what was measured: how far off its mean latency is, cell by cell.
//!
//! Who plays is handed in; here the figures are put beside each other, in a table of their own. What was played is never
//! ranked, and stands in no table of a report.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::plan::Cell;
use crate::report::{Analysis, Block, number};
use crate::rows::Results;

/// How cells are played.
#[derive(Args, Clone, Debug)]
pub struct PlayArgs {
    /// The folder of components that `cargo xtask plugins` makes.
    #[arg(long, value_name = "FOLDER", default_value = "target/plugins")]
    pub plugins: PathBuf,
    /// What models cost on kinds of node (TOML, docs/simulator.md) [default: the figures of this project's own measurements,
    /// which are of other machines].
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// The profile's engine for draft models [default: `draft`, as `msao bench profile` names it; demo-draft-zen3 without a profile].
    #[arg(long, value_name = "ENGINE")]
    pub draft: Option<String>,
    /// The profile's engine for targets [default: `target`, likewise; demo-target-zen3 without a profile].
    #[arg(long, value_name = "ENGINE")]
    pub target: Option<String>,
    /// Cores of each node, which its models share with all else that it does; 0: cores to spare [default: as the folder's
    /// manifest says, or 1 where it does not, as evaluations had it before].
    #[arg(long, value_name = "CORES")]
    pub cores: Option<u32>,
}

impl PlayArgs {
    /// The engines for draft models and for targets.
    pub fn engines(&self) -> (&str, &str) {
        let defaults = match self.profile {
            Some(_) => ("draft", "target"),
            None => ("demo-draft-zen3", "demo-target-zen3"),
        };
        let (draft, target) = (self.draft.as_deref(), self.target.as_deref());
        (draft.unwrap_or(defaults.0), target.unwrap_or(defaults.1))
    }
}

/// What was played.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plays {
    /// In the order of the specification.
    pub cells: Vec<Played>,
    /// What had to be assumed, a sentence each.
    pub assumed: Vec<String>,
}

/// What a cell came to when it was played.
#[derive(Clone, Debug, PartialEq)]
pub struct Played {
    /// Which.
    pub cell: Cell,
    /// Questions.
    pub asked: usize,
    /// Of them, with a whole answer.
    pub answered: usize,
    /// From arrival to the last token, in ms. None: nothing was answered.
    pub mean_ms: Option<f64>,
}

/// A cell, measured and played.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Beside {
    /// Which.
    pub cell: Cell,
    /// Mean latency, in ms. None: not measured.
    pub measured_ms: Option<f64>,
    /// Mean latency as it was played, in ms.
    pub played_ms: Option<f64>,
    /// By how many percent of the measured one the played one is off; above 0 it is slower.
    pub error_percent: Option<f64>,
    /// Questions without an answer when it was played.
    pub played_unanswered: usize,
}

/// All cells, and the mean of their errors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Compared {
    /// In the order of the specification.
    pub cells: Vec<Beside>,
    /// The mean of the errors' sizes, in percent. None: no cell has one.
    pub mean_error_percent: Option<f64>,
    /// What had to be assumed, a sentence each.
    pub assumed: Vec<String>,
}

impl Compared {
    /// Puts what was played beside what was measured.
    pub fn of(results: &Results, plays: &Plays) -> Compared {
        let analysis = Analysis::of(results);
        let cells: Vec<Beside> = (plays.cells.iter())
            .map(|played| {
                let cell = &played.cell;
                let block = Block {
                    data: cell.data.clone(),
                    link: cell.link.clone(),
                    arrival: cell.arrival.clone(),
                };
                let figures = analysis.figures(&block, &cell.policy);
                let measured_ms = figures.and_then(|it| it.mean("total_ms"));
                let both = measured_ms.zip(played.mean_ms);
                Beside {
                    cell: cell.clone(),
                    measured_ms,
                    played_ms: played.mean_ms,
                    error_percent: both
                        .filter(|(measured, _)| *measured > 0.0)
                        .map(|(measured, played)| 100.0 * (played / measured - 1.0)),
                    played_unanswered: played.asked - played.answered.min(played.asked),
                }
            })
            .collect();
        let errors: Vec<f64> = (cells.iter())
            .filter_map(|it| it.error_percent.map(f64::abs))
            .collect();
        Compared {
            cells,
            mean_error_percent: crate::stats::mean(&errors),
            assumed: plays.assumed.clone(),
        }
    }

    /// As a table for people.
    pub fn text(&self) -> String {
        let mut out = "simulated, beside the same cells measured (mean latency in ms)\n".to_owned();
        for it in &self.cells {
            let cell = &it.cell;
            let told = |ms: Option<f64>| ms.map_or("-".to_owned(), number);
            let error = it
                .error_percent
                .map_or("-".to_owned(), |error| format!("{error:+.1}%"));
            out.push_str(&format!(
                "{}, {}, {}, {}: simulated {}, measured {}: {error}",
                cell.data,
                cell.link,
                cell.arrival,
                cell.policy,
                told(it.played_ms),
                told(it.measured_ms)
            ));
            if it.played_unanswered > 0 {
                out.push_str(&format!("; simulated unanswered: {}", it.played_unanswered));
            }
            out.push('\n');
        }
        out.push_str(&match self.mean_error_percent {
            Some(error) => format!("off by {error:.1}% in the mean over cells\n"),
            None => "no cell could be compared\n".to_owned(),
        });
        for assumed in &self.assumed {
            out.push_str(&format!("assumed: {assumed}\n"));
        }
        out
    }
}
