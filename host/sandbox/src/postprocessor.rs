//! World `probe-postprocessor`.

use std::sync::Arc;

use msao_core::digest::Digest;
use msao_core::offload::check;
use msao_core::offload::manifest::Manifest;
use msao_core::offload::{Calibration, MAX_UPDATES, Report, Scores};
use wasmtime::Store;
use wasmtime::component::{Component, Instance as Linked, TypedFunc};

use crate::call::{Functions, Loaded, Meter, Plug, Usage, export};
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

    fn indices(component: &Component, inspection: &Inspection) -> Result<Self::Indices, LoadError> {
        let full = "postprocessor.score";
        export(component, inspection, "postprocessor", "score", full)
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
    plug: Arc<Plug<ScoreFunction>>,
}

impl PostProcessor {
    pub(crate) fn new(loaded: Loaded, inspection: &Inspection) -> Result<PostProcessor, LoadError> {
        let plug = Arc::new(Plug::new(loaded, inspection)?);
        Ok(PostProcessor { plug })
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

    /// Asks what of a request matters, on one of the sandbox's threads for it; this one waits, for those before it too. What
    /// is large is shared with that thread, not copied.
    ///
    /// # Errors
    /// [`Failure`]; [`crate::FailureKind::Overloaded`] where `score-threads` are at work and `score-queue` callers wait already;
    /// [`crate::FailureKind::Host`] where the host's own code failed.
    pub fn score(
        &self,
        report: &Arc<Report>,
        seed: u64,
        params: &[f64],
        calibration: &Arc<Calibration>,
    ) -> Result<Scores, Failure> {
        let (plug, params) = (Arc::clone(&self.plug), params.to_vec());
        let (report, calibration) = (Arc::clone(report), Arc::clone(calibration));
        let engines = &self.plug.loaded.engines;
        engines
            .scorers()
            .run(move || score(&plug, &report, seed, &params, &calibration, None))
            .unwrap_or_else(|why| Err(self.plug.not_run(Export::Score, why)))
    }

    /// [`PostProcessor::score`] on the calling thread, telling what it used: for tools, which score one after the other.
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
        score(&self.plug, report, seed, params, calibration, meter)
    }
}

#[inline]
fn score(
    plug: &Plug<ScoreFunction>,
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
    plug.call(
        Export::Score,
        plug.loaded.limits.score_ms,
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
