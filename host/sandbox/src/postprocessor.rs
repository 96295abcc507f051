//! World `probe-postprocessor`.

use msao_core::digest::Digest;
use msao_core::offload::check;
use msao_core::offload::manifest::Manifest;
use msao_core::offload::{Calibration, MAX_UPDATES, Report, Scores};
use wasmtime::Store;
use wasmtime::component::{Instance as Linked, TypedFunc};

use crate::call::{Found, Functions, Loaded, Meter, Plug, Usage};
use crate::config::Limits;
use crate::error::{Export, Failure, LoadError};
use crate::inspect::Inspection;
use crate::instance::State;
use crate::typed;
use crate::wire;

type ScoreArgs<'a> = (wire::Report<'a>, u64, &'a [f64], wire::Calibration<'a>);

pub struct ScoreFunction {
    score: TypedFunc<ScoreArgs<'static>, (wire::Scores,)>,
    items: Vec<wire::Item>,
}

impl Functions for ScoreFunction {
    type Indices = typed::Export<ScoreArgs<'static>, (wire::Scores,)>;

    fn indices(found: &Found) -> Result<Self::Indices, LoadError> {
        found.export("postprocessor", "score", "postprocessor.score")
    }

    fn find(
        score: &Self::Indices,
        store: &mut Store<State>,
        instance: &Linked,
    ) -> wasmtime::Result<ScoreFunction> {
        Ok(ScoreFunction {
            score: score.find(store, instance)?,
            items: Vec::new(),
        })
    }
}

/// A post-processor that can be called from many threads at once. Every answer has been held against the contract.
pub struct PostProcessor {
    plug: Plug<ScoreFunction>,
}

impl PostProcessor {
    pub(crate) fn new(
        loaded: Loaded,
        inspection: &Inspection,
        compared: bool,
    ) -> Result<PostProcessor, LoadError> {
        Plug::new(loaded, inspection, compared).map(|plug| PostProcessor { plug })
    }

    /// The component's digest.
    pub fn digest(&self) -> &Digest {
        &self.plug.loaded.digest
    }

    /// The manifest that it was loaded with.
    pub fn manifest(&self) -> &Manifest {
        &self.plug.loaded.manifest
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.plug.loaded.limits
    }

    /// Makes instances until there are `count` of them, so that the first calls need not.
    ///
    /// # Errors
    /// [`LoadError::Instantiate`].
    pub fn warm(&self, count: u32) -> Result<(), LoadError> {
        self.plug.warm(count)
    }

    /// What it uses now.
    pub fn usage(&self) -> Usage {
        self.plug.usage()
    }

    /// Asks what of a request matters, when it is this caller's turn: it waits for those before it.
    ///
    /// # Errors
    /// [`Failure`]; [`crate::FailureKind::Overloaded`] where `score-threads` score and `score-queue` callers wait already;
    /// [`crate::FailureKind::Host`] where the host's own code failed.
    pub fn score(
        &self,
        report: &Report,
        seed: u64,
        params: &[f64],
        calibration: &Calibration,
    ) -> Result<Scores, Failure> {
        let turns = self.plug.loaded.engines.turns();
        turns
            .run(|| self.score_metered(report, seed, params, calibration, None))
            .unwrap_or_else(|why| Err(self.plug.not_run(Export::Score, why)))
    }

    /// [`PostProcessor::score`] without waiting for a turn, telling what it used: for tools, which score one after the other.
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn score_metered(
        &self,
        report: &Report,
        seed: u64,
        params: &[f64],
        calibration: &Calibration,
        meter: Option<&mut Meter>,
    ) -> Result<Scores, Failure> {
        let tokens: usize = report.items.iter().map(|item| item.tokens as usize).sum();
        let answer = report.items.len() * size_of::<wire::Score>()
            + tokens * size_of::<u32>()
            + MAX_UPDATES * size_of::<wire::Update>();
        self.plug.call(
            Export::Score,
            self.plug.loaded.limits.score_ms,
            answer,
            meter,
            |store, functions| {
                functions.items.clear();
                let items = report.items.iter().map(wire::Item::from);
                functions.items.extend(items);
                let args = (
                    wire::Report::new(report, &functions.items),
                    seed,
                    params,
                    calibration.into(),
                );
                functions.score.call(store, args)
            },
            |(scores,)| {
                let scores: Scores = scores.into();
                check::scores(&scores, report)?;
                Ok(scores)
            },
        )
    }
}
