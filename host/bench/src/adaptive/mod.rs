//! Modality sparsity and adaptation: whether scores mean something, what pruning and the probe cost, whether the adaptive
//! policy follows links and loads and declines what cannot pay, whether the guarantee holds, whether tuning finds what it
//! looks for, whether what was learned survives power cuts. `docs/adaptive.md` says what each part measures.
//!
//! Read first: [`Args`] (what may be asked for), [`run`] (the parts), [`measure::Measured`] (what is found out of a
//! question). `phases`, `turns`, `cost`, `disagreement` and `kills` need nodes that are processes.

pub mod checkpoint;
pub mod cost;
pub mod disagreement;
pub mod fit;
pub mod guarantee;
pub mod interrupt;
pub mod isotonic;
pub mod judges;
pub mod kills;
pub mod lab;
pub mod measure;
pub mod phases;
pub mod pins;
pub mod progress;
pub mod questions;
pub mod retention;
pub mod scores;
pub mod setting;
pub mod stats;
pub mod tuning;
pub mod turns;
pub mod unseen;
pub mod work;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use self::fit::fit;
use self::interrupt::Interrupt;
use self::judges::Judges;
use self::setting::Setting;
use crate::plugins::shipped::Shelf;
use crate::proof::{Part, prove};

/// What may be shown alone.
const PARTS: [&str; 9] = [
    scores::PART,
    retention::PART,
    cost::PART,
    phases::PART,
    "guarantee",
    disagreement::PART,
    "tuning",
    turns::DECLINES,
    kills::PART,
];
/// Questions over seen mixes, where nobody says how many: some minutes of two cores.
const QUESTIONS: usize = 1_200;

/// What may be asked for.
#[derive(clap::Args)]
pub struct Args {
    /// Show these parts only: scores, retention, cost, phases, guarantee, disagreement, tuning, declines, kills. May be given several times.
    #[arg(long, value_name = "PART", value_parser = PARTS)]
    only: Vec<String>,
    /// Ask so many held-out questions over mixes that the models were trained on, and half as many over others.
    #[arg(long, value_name = "N", default_value_t = QUESTIONS)]
    questions: usize,
    /// Calibrate mas-joint on the calibration set, write what came of it to FILE, and show no part.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["only", "questions", "fresh", "out"])]
    fit: Option<PathBuf>,
    /// Measure again what an interrupted run has measured.
    #[arg(long)]
    fresh: bool,
    /// Threads, each with models of its own [default: all cores, at most 8].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// The folder that holds demo-target, demo-draft and heldout [default: this checkout's models].
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Held-out questions, in a folder that models/recipe/data.py wrote [default: heldout in the models' folder].
    #[arg(long, value_name = "DIR")]
    heldout: Option<PathBuf>,
    /// Questions to calibrate with, likewise [default: target/data/calibration of this checkout, where `cargo xtask data` draws them].
    #[arg(long, value_name = "DIR")]
    calibration: Option<PathBuf>,
    /// The folder of components that `cargo xtask plugins` makes [default: plugins in cargo's target folder].
    #[arg(long, value_name = "DIR")]
    plugins: Option<PathBuf>,
    /// Where the figures are written [default: target/prove/adaptive.json; adaptive-partial.json for a part].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Shows the parts that are asked for, or fits alone. Whether every aim is met.
///
/// # Errors
/// Figures or the fit cannot be written, or the fit fails.
pub fn run(args: &Args) -> Result<bool> {
    let models = args.models.clone();
    let models = models.unwrap_or_else(|| msao_golden::root().join("../../models"));
    let within =
        |folder: &Option<PathBuf>, name: &str| folder.clone().unwrap_or_else(|| models.join(name));
    let setting = Setting {
        heldout: within(&args.heldout, "heldout"),
        calibration: (args.calibration.clone())
            .unwrap_or_else(|| msao_golden::root().join("../../target/data/calibration")),
        shelf: Shelf::new(args.plugins.as_deref())?,
        scratch: PathBuf::from("target/prove"),
        workers: args.threads.map_or_else(work::workers, usize::from),
        questions: args.questions,
        fresh: args.fresh,
        interrupt: Interrupt::watch()?,
        models,
    };
    if let Some(out) = &args.fit {
        return only_fit(&setting, out).map(|()| true);
    }
    let parts: [Part; 9] = [
        (
            scores::PART,
            "Scores of media beside what the target loses without them (demo pair, held-out questions)",
            Box::new(|| scores::rows(&setting)),
        ),
        (
            retention::PART,
            "Answers as less of a large picture is read (demo pair, held-out questions)",
            Box::new(|| retention::rows(&setting)),
        ),
        (
            cost::PART,
            "What the probe costs (twin of a 0.5B model, two processes: edge on core 0 with the client, cloud on core 1)",
            Box::new(|| cost::rows(&setting)),
        ),
        (
            phases::PART,
            "Links and loads that change (demo pair, two processes: edge on core 0, cloud on core 1)",
            Box::new(|| phases::rows(&setting)),
        ),
        (
            "guarantee",
            "The guarantee of confident mode (simulated streams of known truth)",
            Box::new(|| guarantee::rows(&setting)),
        ),
        (
            disagreement::PART,
            "The guarantee of confident mode on the demo pair (two processes: edge on core 0 with the clients, cloud on core 1)",
            Box::new(|| disagreement::rows(&setting)),
        ),
        (
            "tuning",
            "Bayesian optimisation: problems of known answer, and msao in the simulator over recorded requests",
            Box::new(|| tuning::rows(&setting)),
        ),
        (
            turns::DECLINES,
            "A policy that declines what cannot pay (demo pair, two processes: edge on core 0 with the client, cloud on core 1)",
            Box::new(|| turns::declines(&setting)),
        ),
        (
            kills::PART,
            "What was learned, and power cuts (one process)",
            Box::new(|| kills::rows(&setting)),
        ),
    ];
    // Fewer questions show less; another set is another proof.
    let cut = args.questions < QUESTIONS || args.heldout.is_some() || args.calibration.is_some();
    prove("adaptive", &parts, &args.only, cut, args.out.as_deref())
}

/// Calibrates, and writes down what came of it.
fn only_fit(setting: &Setting, out: &Path) -> Result<()> {
    let judges = Judges::load(&setting.shelf)?;
    let judge = judges.first()?.name;
    let text = fit(setting, &judges)?.toml(judge);
    std::fs::write(out, &text).with_context(|| out.display().to_string())?;
    println!("{text}");
    println!("written to {}", out.display());
    Ok(())
}
