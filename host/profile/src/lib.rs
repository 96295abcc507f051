//! `msao bench profile`: what a pair of models and the nodes around them cost on this machine, as the simulator reads it.
//!
//! Two ways of measuring, because each shows what the other hides. In this process both models are loaded as a node loads them, and
//! their services are asked as a node asks them ([`engine`]): what a draft or an answer more adds to a pass, how fast prompts are
//! read and media encoded. Then an edge and a cloud are started as processes and asked over HTTP ([`nodes`]): what a token takes
//! through everything, and what nodes do beside their models. Questions are the held-out ones of the demo world.
//!
//! Promises:
//! - What is written can be read by the simulator, and says beside each figure how it was measured. Nothing is guessed: what cannot
//!   be measured is an error.
//! - Who interrupts it waits for one question at most, and no node is left.
//!
//! Read first: [`measure`], [`page::Page`].
#![forbid(unsafe_code)]

mod engine;
mod nodes;
mod page;
mod plugins;
mod questions;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use msao_evaluate::manifest::Machine;
use msao_evaluate::profiled::{ProfileArgs, Profiled};
use msao_node::config;
use msao_node::node::Models;
use msao_pair::pair::{CACHE_MIB, Places, WAITING, Wanted};
use msao_simulate::Profile;

use self::questions::Questions;

/// How both models are held, as `msao bench run` has nodes hold them.
const PRECISION: &str = "bf16";

/// What is measured in each way, and who is told how far it is.
pub(crate) struct Job<'a> {
    told: &'a mut dyn FnMut(&str),
    stop: &'a AtomicBool,
}

impl Job<'_> {
    /// Tells how far it is.
    ///
    /// # Errors
    /// Somebody wants it to end.
    pub fn tell(&mut self, what: &str) -> Result<()> {
        if self.stop.load(Ordering::SeqCst) {
            bail!("interrupted");
        }
        (self.told)(what);
        Ok(())
    }
}

/// Measures what `args` name with the program `msao`. `told` hears how far it is. None: somebody wanted it to end.
///
/// # Errors
/// Something that is needed is not there, or cannot be measured.
pub fn measure(
    msao: &Path,
    args: &ProfileArgs,
    told: &mut dyn FnMut(&str),
    stop: &AtomicBool,
) -> Result<Option<Profiled>> {
    let mut job = Job { told, stop };
    let measured = all(msao, args, &mut job);
    // A node that the same signal has ended makes errors of its own.
    if stop.load(Ordering::SeqCst) {
        return Ok(None);
    }
    measured.map(Some)
}

fn all(msao: &Path, args: &ProfileArgs, job: &mut Job) -> Result<Profiled> {
    let or = |given: &Option<PathBuf>, name: &str| -> Result<PathBuf> {
        let folder = given.clone().unwrap_or_else(|| args.models.join(name));
        // Nodes have other folders.
        std::path::absolute(&folder).with_context(|| folder.display().to_string())
    };
    let (draft, target) = (
        or(&args.draft, "demo-draft")?,
        or(&args.target, "demo-target")?,
    );
    let places = Places {
        msao: msao.to_owned(),
        models: std::path::absolute(&args.models)?,
        plugins: std::path::absolute(&args.plugins)?,
    };
    plugins::check(&places)?;
    job.tell("reading questions")?;
    let questions = Questions::read(&places.models.join("heldout"))?;
    job.tell("plug-ins")?;
    let plugins = plugins::measure(&places)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let config = node_of(&draft, &target, args.threads);
    let (draft_figures, target_figures) = runtime.block_on(async {
        job.tell("loading both models")?;
        let models = Models::load(&config).await?;
        let both = models.draft.as_ref().zip(models.target.as_ref());
        let (small, large) = both.context("a model is missing")?;
        let limits = msao_node::node::media_limits(&config.media);
        let draft = engine::measure("draft", small, &draft, (&questions, &limits), job).await?;
        let target = engine::measure("target", large, &target, (&questions, &limits), job).await?;
        anyhow::Ok((draft, target))
    })?;
    let wanted = Wanted {
        draft: Some(draft.clone()),
        target: Some(target.clone()),
        held: format!("precision = \"{PRECISION}\"\n"),
        threads: Some(args.threads),
        ..Wanted::default()
    };
    let nodes = runtime.block_on(nodes::measure(&places, &wanted, &questions, job))?;
    let machine = Machine::here();
    let page = page::Page {
        machine: &format!("{}, {} cores", machine.cpu, machine.cores),
        threads: args.threads,
        plugins: &plugins,
        draft: (&draft, &draft_figures),
        target: (&target, &target_figures),
        nodes: &nodes,
    };
    let (toml, figures) = page.written()?;
    Profile::parse(&toml).context("what was measured is no profile")?;
    Ok(Profiled { toml, figures })
}

/// A node that holds both models as those do that are asked later.
fn node_of(draft: &Path, target: &Path, threads: u16) -> config::NodeConfig {
    let model = |path: &Path| config::Model {
        path: path.to_owned(),
        precision: PRECISION.to_owned(),
        quantize: "none".to_owned(),
        device: "cpu".to_owned(),
        threads: threads.into(),
        cache_mib: CACHE_MIB,
        media_cache_mib: 64,
        prefixes: 64,
        waiting: WAITING,
    };
    config::NodeConfig {
        models: config::Models {
            draft: Some(model(draft)),
            target: Some(model(target)),
        },
        ..config::NodeConfig::default()
    }
}

/// Before each question: most of those that evaluations ask come to nodes that were idle for a moment, which take longer.
const PAUSE: Duration = Duration::from_millis(60);

pub(crate) async fn pause() {
    tokio::time::sleep(PAUSE).await;
}

pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Since a moment, in ms.
pub(crate) fn since(began: Instant) -> f64 {
    ms(began.elapsed())
}

/// The middle one; of two the lower.
///
/// # Errors
/// There is none.
pub(crate) fn median(values: &mut [f64]) -> Result<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.get(values.len().saturating_sub(1) / 2);
    middle.copied().context("nothing was measured")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_one_is_one_that_was_there() {
        assert_eq!(median(&mut [3.0, 1.0, 9.0]).unwrap(), 3.0);
        assert_eq!(median(&mut [3.0, 1.0]).unwrap(), 1.0);
        assert!(median(&mut []).is_err());
    }

    #[test]
    fn who_wants_it_to_end_gets_no_profile_and_no_error() {
        let stop = AtomicBool::new(true);
        let args = ProfileArgs {
            out: "profile.toml".into(),
            models: "models".into(),
            plugins: "plugins".into(),
            draft: None,
            target: None,
            threads: 1,
        };
        let ended = measure(Path::new("msao"), &args, &mut |_| panic!("told"), &stop);
        assert_eq!(ended.unwrap(), None);
        // Without components nothing begins.
        stop.store(false, Ordering::SeqCst);
        let refused = measure(Path::new("msao"), &args, &mut |_| panic!("told"), &stop);
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("cargo xtask plugins"), "{error}");
    }
}
