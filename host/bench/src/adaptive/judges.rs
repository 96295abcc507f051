//! The post-processors that are compared, as components in the sandbox.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use msao_core::offload::manifest::Manifest;
use msao_core::offload::{Calibration, Report, Scores};
use msao_sandbox::{Limits, Plugin, PostProcessor, Sandbox, SandboxConfig};

use crate::plugins::shipped::Shelf;

/// The one that is judged, and the baselines.
pub const NAMES: [&str; 4] = ["mas-joint", "uniform", "random", "saliency-only"];

/// Ms that a score may take: what is measured is what is said, on a machine that may be busy.
const SCORE_MS: u32 = 2_000;

/// A post-processor with what it is given beside a report.
pub struct Judge {
    /// Its name.
    pub name: &'static str,
    /// Values of its parameters, in its manifest's order.
    pub params: Vec<f64>,
    /// What it has learned.
    pub calibration: Calibration,
    post: Arc<PostProcessor>,
}

impl Judge {
    /// What it makes of a report.
    ///
    /// # Errors
    /// It fails, or its answer breaks the contract.
    pub fn score(&self, report: &Report, seed: u64) -> Result<Scores> {
        self.score_by(&self.params, &self.calibration, report, seed)
    }

    /// What it would make of a report by other parameters, and another calibration.
    ///
    /// # Errors
    /// As [`Judge::score`].
    pub fn score_by(
        &self,
        params: &[f64],
        calibration: &Calibration,
        report: &Report,
        seed: u64,
    ) -> Result<Scores> {
        let scores = (self.post).score_metered(report, seed, params, calibration, None);
        scores.with_context(|| format!("{} gives no scores", self.name))
    }

    /// What its author says of it.
    pub fn manifest(&self) -> &Manifest {
        self.post.manifest()
    }
}

/// All of them, in the order of [`NAMES`].
pub struct Judges {
    all: Vec<Judge>,
    /// Runs them.
    _sandbox: Sandbox,
}

impl Judges {
    /// Loads them from a folder of components, with the defaults of their parameters and nothing learned.
    ///
    /// # Errors
    /// One is not there, or is refused.
    pub fn load(shelf: &Shelf) -> Result<Judges> {
        let sandbox = Sandbox::new(&SandboxConfig {
            limits: Limits {
                score_ms: SCORE_MS,
                ..Limits::default()
            },
            ..SandboxConfig::default()
        })?;
        let one = |name: &'static str| -> Result<Judge> {
            let (wasm, manifest) = shelf.get(name)?;
            let loaded = sandbox.load(&wasm, &manifest);
            match loaded.with_context(|| name.to_owned())? {
                Plugin::PostProcessor(post) => Ok(Judge {
                    name,
                    params: manifest.defaults(),
                    calibration: Calibration::default(),
                    post,
                }),
                Plugin::Policy(_) => bail!("{name} is a policy; a post-processor is wanted"),
            }
        };
        Ok(Judges {
            all: NAMES.into_iter().map(one).collect::<Result<_>>()?,
            _sandbox: sandbox,
        })
    }

    /// All of them.
    pub fn all(&self) -> &[Judge] {
        &self.all
    }

    /// The one that is judged.
    ///
    /// # Errors
    /// None was loaded.
    pub fn first(&self) -> Result<&Judge> {
        self.all.first().context("no post-processor is loaded")
    }

    /// Tells the one that is judged what it is to go by.
    pub fn calibrate(&mut self, params: Vec<f64>, calibration: Calibration) {
        if let Some(first) = self.all.first_mut() {
            first.params = params;
            first.calibration = calibration;
        }
    }

    /// Names what they are and go by: figures of others are other figures.
    pub fn named(&self) -> String {
        let each = self.all.iter().map(|judge| {
            format!(
                "{} {} {:?} {}",
                judge.name,
                judge.post.digest(),
                judge.params,
                judge.calibration.digest()
            )
        });
        each.collect::<Vec<_>>().join("; ")
    }
}
