//! The command: its arguments, and what is done with them in which order.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use msao_operate::client::Client;
use msao_operate::interrupt::Interrupt;
use msao_operate::output::{Output, code, plain};
use msao_operate::{Connect, Revision, files};
use serde_json::json;

use crate::judge::Wanted;
use crate::play::Player;
use crate::progress::Progress;
use crate::report::Report;
use crate::scene::{Scene, SceneArgs};
use crate::search::{MOST_EVALUATIONS, Origin, Search, go_on};
use crate::state::{Settings, State};
use crate::tunable::Tunables;

/// Find better values for what a policy declares as tunable, in the simulator, over recorded traffic
///
/// The requests of recorded decisions are asked again in a world that the records tell of, on a virtual clock, each time with
/// other parameters; the component is the real one. Bayesian optimisation says what is tried next. Low is to be
///
///   mean latency + weight * mean cost                         (ms, of those answered; the cost of a request)
///
/// as long as no more requests stay without an answer than with the declared defaults, no more is dropped of what answers need of
/// their media, and the audits' bound on the share of requests with an unverified disagreement is within the budget (--budget), or
/// else no higher than with the defaults. docs/simulator.md says what is simulated and what is assumed.
///
/// The folder of --out gets the trace (trace.json, trace.svg), what is needed to go on (state.json), and, if something better was
/// found, a revision of parameters (revision.json), which a node takes as a canary. Ctrl-C ends it; what was found so far is there,
/// and --resume goes on.
///
///   msao node decisions --last 10000 --jsonl --out decisions.jsonl
///   msao calibrate --policy policies/fixed-speculate --records decisions.jsonl
///   msao policy tune --from calibrated-fixed-speculate/revision.json --gradually
#[derive(Args, Clone, Debug)]
#[command(verbatim_doc_comment, args_override_self = true)]
pub struct CalibrateArgs {
    #[command(flatten)]
    scene: SceneArgs,
    /// Points that the tuner may try; as many are drawn at random, for comparison.
    #[arg(long, default_value_t = 40, value_name = "N")]
    evaluations: u32,
    /// What a unit of the operator's money is worth for one request, in ms.
    #[arg(long, default_value_t = 1000.0, value_name = "MS")]
    weight: f64,
    /// Share of requests that may have a token committed unverified that the target would not have chosen [default: no more than
    /// with the declared defaults].
    #[arg(long, value_name = "SHARE")]
    budget: Option<f64>,
    /// Chance that the bound on that share is wrong, at most.
    #[arg(long, default_value_t = 0.05, value_name = "P")]
    delta: f64,
    /// Of all draws: the same one gives the same trace.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// The folder for what is found [default: calibrated-NAME].
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Go on with what that folder holds.
    #[arg(long)]
    resume: bool,
    /// Have a node take what is found, as a canary: the address of its operator API.
    #[arg(long, value_name = "NODE")]
    push: Option<String>,
    /// For all sessions at once, without a canary before.
    #[arg(long, requires = "push")]
    at_once: bool,
    /// A file with a token for that node [default: $MSAO_OPERATOR_TOKEN, $MSAO_OPERATOR_TOKEN_FILE].
    #[arg(long, value_name = "FILE", requires = "push")]
    token_file: Option<PathBuf>,
    /// Certificates (PEM) to trust, for a node behind https [default: $MSAO_OPERATOR_CA].
    #[arg(long, value_name = "FILE", requires = "push")]
    ca: Option<PathBuf>,
    /// Answer with one JSON value on standard output; an error is {"error": "..."}.
    #[arg(long)]
    json: bool,
}

/// Where things lie.
struct Places {
    folder: PathBuf,
}

impl Places {
    fn state(&self) -> PathBuf {
        self.folder.join("state.json")
    }

    fn trace(&self) -> PathBuf {
        self.folder.join("trace.json")
    }

    fn picture(&self) -> PathBuf {
        self.folder.join("trace.svg")
    }

    fn revision(&self) -> PathBuf {
        self.folder.join("revision.json")
    }
}

impl CalibrateArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// What went wrong and what to do about it. Being interrupted is no error: the exit code says so.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let output = Output { json: self.json };
        output.or_error(self.calibrate(output).map(code))
    }

    fn wanted(&self) -> anyhow::Result<Wanted> {
        let share = |value: f64| value > 0.0 && value < 1.0;
        if !(self.weight >= 0.0 && self.weight <= 1e12) {
            bail!("--weight is {}; allowed: 0 to 1e12", self.weight);
        }
        if let Some(budget) = self.budget.filter(|budget| !share(*budget)) {
            bail!("--budget is {budget}; allowed: above 0 and below 1");
        }
        if !share(self.delta) {
            bail!("--delta is {}; allowed: above 0 and below 1", self.delta);
        }
        Ok(Wanted {
            weight: self.weight,
            delta: self.delta,
            budget: self.budget,
        })
    }

    /// The node that is to take it, before anything takes long.
    fn node(&self) -> anyhow::Result<Option<Client>> {
        let Some(url) = &self.push else {
            return Ok(None);
        };
        let client = Connect::to(url, self.token_file.clone(), self.ca.clone()).client()?;
        client.get("/v1/state")?;
        Ok(Some(client))
    }

    /// True if it came to its end.
    fn calibrate(&self, output: Output) -> anyhow::Result<bool> {
        let most = MOST_EVALUATIONS;
        if !(1..=most).contains(&self.evaluations) {
            bail!(
                "--evaluations is {}; allowed: 1 to {most}",
                self.evaluations
            );
        }
        let wanted = self.wanted()?;
        let client = self.node()?;
        let scene = self.scene.scene(&wanted, self.seed)?;
        for note in &scene.notes {
            output.note(format_args!("note: {note}"));
        }
        let tunables = Tunables::new(&scene.manifest, &scene.played.held)?;
        let settings = Settings {
            played: scene.played.clone(),
            parameters: tunables
                .names()
                .map(str::to_owned)
                .zip(tunables.space().dimensions().iter().copied())
                .collect(),
            wanted,
            seed: self.seed,
        };
        let places = Places {
            folder: self
                .out
                .clone()
                .unwrap_or_else(|| PathBuf::from(format!("calibrated-{}", scene.manifest.name))),
        };
        let search = Search::new(tunables, wanted, self.seed, self.evaluations);
        let search = self.taken_up(search, &settings, &places.state())?;
        fs::create_dir_all(&places.folder)
            .with_context(|| format!("cannot make {}", places.folder.display()))?;
        // An earlier search's result must not be taken for this one's.
        remove(&places.revision())?;

        let policy = (
            scene.manifest.name.clone(),
            scene.manifest.version.to_string(),
        );
        let notes = scene.notes.clone();
        let (search, finished) = self.search(search, scene, &settings, &places.state())?;
        let mut report = Report::new(policy, settings, &search, finished, notes);
        self.write(&mut report, &places)?;
        if finished && let (true, Some(client)) = (report.better, &client) {
            match Revision::read(&places.revision())?.push(client, !self.at_once) {
                Ok(receipt) => {
                    report.pushed = Some(receipt);
                    report.next = Some(format!("msao top --node {}", client.url()));
                }
                // What was found is told all the same.
                Err(error) => report.refused = Some(error.to_string()),
            }
        }
        output.answer(&report, |report| self.told(report, client.as_ref()))?;
        Ok(finished && report.refused.is_none())
    }

    /// The search with the trials that there are, if it is to go on.
    fn taken_up(&self, search: Search, settings: &Settings, path: &Path) -> anyhow::Result<Search> {
        let there = path.is_file();
        if !self.resume {
            if there && !State::read(path)?.finished {
                bail!(
                    "{} holds a search that has not come to its end: --resume goes on with it, --out names another folder",
                    path.display()
                );
            }
            return Ok(search);
        }
        if !there {
            bail!(
                "there is no {}: nothing to go on with; leave --resume out to begin",
                path.display()
            );
        }
        let trials = State::read(path)?.trials_for(settings, path)?;
        let tried = trials.tuned.len();
        if tried > self.evaluations as usize {
            bail!(
                "{} has {tried} points of the tuner's already; --evaluations must be at least that",
                path.display()
            );
        }
        search
            .resume(trials)
            .with_context(|| format!("{} cannot be gone on with", path.display()))
    }

    /// Tries point after point until all are tried, or somebody wants it to end.
    fn search(
        &self,
        mut search: Search,
        scene: Scene,
        settings: &Settings,
        path: &Path,
    ) -> anyhow::Result<(Search, bool)> {
        let interrupt = Interrupt::watch().context("signals cannot be watched")?;
        let (done, all) = search.progress();
        let progress = std::cell::RefCell::new(Progress::new(self.json, done, all));
        let mut player = Player::new(scene, self.seed);
        let mut play = |origin: Origin, params: Vec<f64>| {
            let what = match origin {
                Origin::Declared => "the declared defaults",
                Origin::Tuned => "tuned",
                Origin::Random => "random",
            };
            let mut watch = |share: f64| progress.borrow_mut().within(what, share);
            watch(0.0);
            player.play(params, interrupt.flag(), &mut watch)
        };
        let mut save = |search: &Search| {
            let best = search.best().map(|best| best.objective);
            progress.borrow_mut().tried(best);
            let (done, all) = search.progress();
            State::new(settings.clone(), search.trials().clone(), done == all).write(path)
        };
        let finished = go_on(&mut search, &mut play, &mut save);
        progress.borrow_mut().end();
        Ok((search, finished?))
    }

    /// Writes what was found.
    fn write(&self, report: &mut Report, places: &Places) -> anyhow::Result<()> {
        let shown = |path: PathBuf| path.display().to_string();
        report.files.insert("trace", shown(places.trace()));
        report.files.insert("picture", shown(places.picture()));
        report.files.insert("state", shown(places.state()));
        let best = report.best.as_ref().filter(|_| report.better);
        if let Some(best) = best {
            let found = json!({
                "objective": best.objective,
                "declared": report.declared.as_ref().and_then(|it| it.objective),
                "seed": self.seed,
                "finished": report.finished,
            });
            let revision = Revision {
                plugin: report.policy.clone(),
                version: report.version.clone(),
                values: best.values.clone(),
                found,
            };
            let path = places.revision();
            revision.write(&path)?;
            report.next = Some(format!(
                "msao policy tune --from {} --gradually",
                path.display()
            ));
            report.files.insert("revision", shown(path));
        }
        if !report.finished {
            let out = places.folder.display();
            report.next = Some(format!(
                "the same command with --resume --out {out} goes on"
            ));
        }
        files::write_with(&places.picture(), |out| {
            Ok(out.write_all(report.svg().as_bytes())?)
        })?;
        let trace = serde_json::to_vec_pretty(&*report)?;
        files::write_with(&places.trace(), |out| Ok(out.write_all(&trace)?))
    }

    fn told(&self, report: &Report, client: Option<&Client>) -> String {
        let mut text = report.text();
        if !report.finished {
            text.push_str("it was interrupted before its end\n");
        }
        if let Some(why) = &report.refused {
            text.push_str(&format!("the node did not take it: {why}\n"));
        }
        if let (Some(receipt), Some(client)) = (&report.pushed, client) {
            let how = if self.at_once { "" } else { ", as a canary" };
            text.push_str(&format!(
                "{}: tuned at {}{how}\n",
                plain(&report.policy),
                client.url()
            ));
            let notes = receipt.get("notes").and_then(|it| it.as_array());
            for note in notes.into_iter().flatten().filter_map(|it| it.as_str()) {
                text.push_str(&format!("note: {}\n", plain(note)));
            }
        }
        text
    }
}

/// Removes a file, if it is there.
fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
