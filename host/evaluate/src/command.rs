//! `msao bench`: its arguments, and what is done with them.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::capacity::{Capacity, CapacityArgs};
use crate::compare::compare;
use crate::manifest::write_whole;
use crate::plan::{Plan, Purpose, Turn};
use crate::profiled::{ProfileArgs, Profiled};
use crate::report::{self, Met, Outcome, Summary};
use crate::rows::Results;
use crate::run::{Asker, Progress, run};
use crate::simulated::{Compared, PlayArgs, Plays};
use crate::spec::Spec;

/// What a program that was interrupted ends with, by the shell's custom.
const INTERRUPTED: u8 = 130;
/// Of `compare`, when something got worse.
const WORSE: u8 = 3;
/// Between two looks of a terminal's line.
const REDRAWN: Duration = Duration::from_millis(200);
/// Between two lines elsewhere.
const REPEATED: Duration = Duration::from_secs(10);

/// Evaluate policies against each other: run a grid, report on it, compare two runs, hold the simulator against one
///
///   msao bench run configs/bench/quick.toml --out quick
///   msao bench report quick
///   msao bench compare before after
///   msao bench profile --out here.toml
///   msao bench simulate quick --profile here.toml
///   msao bench capacity configs/simulate/capacity.toml
#[derive(Args, Clone, Debug)]
#[command(verbatim_doc_comment)]
pub struct BenchArgs {
    /// Answer with one JSON value on standard output; an error is {"error": "..."}.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum BenchCommand {
    Run(RunArgs),
    Report(ReportArgs),
    Compare(CompareArgs),
    Profile(ProfileCommand),
    Simulate(SimulateArgs),
    Capacity(CapacityCommand),
}

/// Ask everything that a specification wants asked, and keep what it came to
///
/// The specification (TOML; configs/bench/ has examples with comments) names data sets, policies, links and ways in which requests
/// come. Each combination is a cell; each cell is asked in short turns, the policies of a block one after the other in an order that
/// changes with each repeat, so that what drifts hits all alike. All policies are asked the same items.
///
/// The folder gets rows.csv (a line for each request), turns.csv (what is finished) and manifest.json (machine, versions, commit,
/// digests, seeds). Ctrl-C ends it after the request under way; the same command goes on, as it does after a crash or a full disk.
/// Only `repeats` and `accuracy.requests` may be raised meanwhile. A folder of another specification, machine or build is refused.
///
/// Where accuracy has `rounds`, it is looked after each of them which policies are decided, and only the others are asked further.
///
///   msao bench run configs/bench/quick.toml --out quick
///   msao bench run configs/bench/quick.toml --check        what would be asked
#[derive(Args, Clone, Debug)]
#[command(verbatim_doc_comment)]
struct RunArgs {
    /// The specification.
    #[arg(value_name = "SPEC.toml")]
    spec: PathBuf,
    /// The folder for results, or one to go on with [default: bench-NAME].
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Check the specification and the files it names, say what would be asked, and ask nothing.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    with: With,
}

/// Where what is evaluated lies.
#[derive(Args, Clone, Debug)]
pub struct With {
    /// The folder with demo-draft, demo-target and heldout.
    #[arg(long, value_name = "FOLDER", default_value = "models")]
    pub models: PathBuf,
    /// The folder of components that `cargo xtask plugins` makes.
    #[arg(long, value_name = "FOLDER", default_value = "target/plugins")]
    pub plugins: PathBuf,
    /// The folder where twins are kept; one that a specification names is made there, once.
    #[arg(long, value_name = "FOLDER", default_value = "target/twins")]
    pub twins: PathBuf,
}

/// Say what a folder of results means: report.html, which needs nothing else, and report.md
///
/// Its first page says which cells are lost and why, and which aims are met. Only policies of equal accuracy are ranked: the
/// one-sided 95% bound of the paired difference to the baseline must be above the margin. The others are shown, and marked. It may be
/// called while a run is under way, or after one that was interrupted.
///
///   msao bench report quick
///   msao bench report quick --json | jq .aims
#[derive(Args, Clone, Debug)]
#[command(verbatim_doc_comment)]
struct ReportArgs {
    /// A folder of `msao bench run`.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Where report.html and report.md go [default: the same folder].
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// Compare two folders of results: what got worse, what got better
///
/// Cells of the same names are compared: means with 95% intervals over repeats, accuracies item by item. The exit code is 3 if
/// something got worse beyond noise. Of hundreds of figures some do so by chance: about one in forty.
///
///   msao bench compare before after
#[derive(Args, Clone, Debug)]
#[command(verbatim_doc_comment)]
struct CompareArgs {
    /// The folder that is held against.
    #[arg(value_name = "BEFORE")]
    before: PathBuf,
    /// The folder that is asked about.
    #[arg(value_name = "NOW")]
    now: PathBuf,
    /// Compare runs of different machines too.
    #[arg(long)]
    across_machines: bool,
}

/// Play the cells of a folder in the simulator, and say how far off its mean latencies are
///
/// Questions are made of what rows say, links and policies are the folder's own; how fast models are says the profile. The answer
/// names what is assumed. What is simulated stands in no report and is never ranked.
///
///   msao bench simulate quick
///   msao bench simulate quick --profile here.toml
#[derive(Args, Clone, Debug)]
#[command(verbatim_doc_comment)]
struct SimulateArgs {
    /// A folder of `msao bench run`.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// The folder that the specification's traces of links are seen from: its own.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    base: PathBuf,
    #[command(flatten)]
    with: PlayArgs,
}

/// Measure what models and nodes cost on this machine, and write it down for the simulator
///
/// Both models are loaded as nodes load them and asked as nodes ask them; then an edge and a cloud are started as processes and asked
/// held-out questions over HTTP. It takes some minutes, in which the machine should have nothing else to do. Each figure of the file
/// says how it was measured (docs/simulator.md). Nothing is written before all of it is there; Ctrl-C ends it.
///
///   msao bench profile --out here.toml
///   msao bench profile --draft target/twins/0.5b/draft --target target/twins/0.5b/target
#[derive(Args, Clone, Debug)]
#[command(verbatim_doc_comment)]
struct ProfileCommand {
    #[command(flatten)]
    with: ProfileArgs,
}

/// Simulate how many clients so many clouds serve: where edges draft, and where clouds draft for themselves
///
/// The specification (TOML; configs/simulate/capacity.toml has comments) names edges with their links, engines of a profile, what is asked
/// and within what time 95% of the requests are to be answered. For each number of clouds the most clients are looked for with which
/// that holds. Beside it stands what the formula 1 + gamma * t_d / t_v says. Everything is simulated; without a profile of your own
/// even the machines are assumed.
///
///   msao bench capacity configs/simulate/capacity.toml
///   msao bench capacity configs/simulate/capacity.toml --clouds 1,10 --json
#[derive(Args, Clone, Debug)]
#[command(verbatim_doc_comment)]
struct CapacityCommand {
    #[command(flatten)]
    with: CapacityArgs,
}

/// What needs nodes, models or the simulator, which are not known here.
pub trait Elsewhere {
    /// Who asks.
    type Asker: Asker;

    /// Makes who asks: of the specification, the folder that its files are seen from, and where the rest lies. Only where something
    /// is to be asked.
    ///
    /// # Errors
    /// What is missing.
    fn asker(&self, spec: &Spec, base: &Path, with: &With) -> anyhow::Result<Self::Asker>;

    /// Simulates the cells of these results. `base`: the folder that traces are seen from.
    ///
    /// # Errors
    /// What cannot be simulated.
    fn play(&self, results: &Results, base: &Path, with: &PlayArgs) -> anyhow::Result<Plays>;

    /// Measures this machine; `told` hears how far that is. None: `stop` was set.
    ///
    /// # Errors
    /// What cannot be measured.
    fn measure(
        &self,
        with: &ProfileArgs,
        told: &mut dyn FnMut(&str),
        stop: &AtomicBool,
    ) -> anyhow::Result<Option<Profiled>>;

    /// Simulates how many clients are served; `told` hears how far that is. None: `stop` was set.
    ///
    /// # Errors
    /// What cannot be simulated.
    fn capacity(
        &self,
        with: &CapacityArgs,
        told: &mut dyn FnMut(&str),
        stop: &AtomicBool,
    ) -> anyhow::Result<Option<Capacity>>;
}

impl BenchArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// What went wrong and what to do about it, unless `--json` has told it. Being interrupted is no error: the exit code says so.
    pub fn run(&self, elsewhere: &impl Elsewhere) -> anyhow::Result<ExitCode> {
        let told = match &self.command {
            BenchCommand::Run(args) => args.run(elsewhere, self.json),
            BenchCommand::Report(args) => args.run(self.json),
            BenchCommand::Compare(args) => args.run(self.json),
            BenchCommand::Profile(args) => args.run(elsewhere, self.json),
            BenchCommand::Simulate(args) => args.run(elsewhere, self.json),
            BenchCommand::Capacity(args) => args.run(elsewhere, self.json),
        };
        match told {
            Err(error) if self.json => {
                print(&format!("{}\n", json!({ "error": format!("{error:#}") })))?;
                Ok(ExitCode::FAILURE)
            }
            told => told,
        }
    }
}

impl RunArgs {
    fn run(&self, elsewhere: &impl Elsewhere, quiet: bool) -> anyhow::Result<ExitCode> {
        let spec = Spec::read(&self.spec)?;
        let base = self.spec.parent().unwrap_or(Path::new(""));
        if self.check {
            let told = would_ask(&spec, &Plan::new(&spec, base)?, quiet);
            print(&told)?;
            return Ok(ExitCode::SUCCESS);
        }
        let folder = match &self.out {
            Some(out) => out.clone(),
            None => PathBuf::from(format!("bench-{}", spec.name)),
        };
        let interrupt = watch()?;
        let mut asker = elsewhere.asker(&spec, base, &self.with)?;
        let mut shown = Shown::new(quiet);
        let outcome = run(
            &spec,
            base,
            &mut asker,
            &folder,
            &mut |it| shown.show(|| line(it)),
            &interrupt,
        );
        shown.end();
        let outcome = outcome?;
        let folder_told = folder.display();
        let told = if quiet {
            let value = json!({
                "folder": folder, "finished": outcome.finished, "turns-done": outcome.turns_done, "turns": outcome.turns,
            });
            format!("{value}\n")
        } else if outcome.finished {
            format!(
                "all {} turns are in {folder_told}\nnext: msao bench report {folder_told}\n",
                outcome.turns
            )
        } else {
            format!(
                "interrupted: {} of {} turns are in {folder_told}; the same command with --out {folder_told} goes on\n",
                outcome.turns_done, outcome.turns
            )
        };
        print(&told)?;
        Ok(if outcome.finished {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(INTERRUPTED)
        })
    }
}

/// What a run asks: of accuracy in rounds at least the first, at most all of them.
fn would_ask(spec: &Spec, plan: &Plan, json: bool) -> String {
    let count = |is_one: &dyn Fn(&Turn) -> bool| {
        let turns = plan.turns().iter().filter(|it| is_one(it));
        turns.fold((0_u64, 0_u64), |(turns, requests), it| {
            (turns + 1, requests + u64::from(it.requests()))
        })
    };
    let (turns, requests) = count(&|it| it.round == 0);
    let (most_turns, most_requests) = count(&|_| true);
    let name = &spec.name;
    let learn = u64::from(spec.learn) * (spec.links.len() * spec.policies.len()) as u64;
    if json {
        let told = json!({
            "name": name, "turns": turns, "requests": requests, "most-turns": most_turns, "most-requests": most_requests,
            "learn-requests": learn,
        });
        return format!("{told}\n");
    }
    let learn = match learn {
        0 => String::new(),
        learn => format!("; {learn} more come before, for nodes and policies to learn from"),
    };
    if most_turns == turns {
        return format!("{name}: {turns} turns, {requests} requests{learn}\n");
    }
    let apart = count(&|it| it.purpose == Purpose::Accuracy && it.round == 0);
    format!(
        "{name}: {turns} to {most_turns} turns, {requests} to {most_requests} requests; {} turns and {} requests of them are the first \
         round about accuracy, and who it decides is asked no further{learn}\n",
        apart.0, apart.1
    )
}

impl ReportArgs {
    fn run(&self, json: bool) -> anyhow::Result<ExitCode> {
        let report = report::report(&self.folder)?;
        let out = self.out.as_ref().unwrap_or(&self.folder);
        std::fs::create_dir_all(out).with_context(|| format!("{}", out.display()))?;
        for (name, text) in [
            ("report.html", &report.html),
            ("report.md", &report.markdown),
        ] {
            let path = out.join(name);
            write_whole(&path, text)
                .with_context(|| format!("{} cannot be written", path.display()))?;
        }
        if json {
            print(&format!("{}\n", serde_json::to_string(&report.summary)?))?;
        } else {
            print(&short(&report.summary, &out.join("report.html")))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A report's first page on a terminal.
fn short(summary: &Summary, page: &Path) -> String {
    let mut out = format!(
        "{}: {} of {} turns are finished\n",
        summary.name, summary.turns_done, summary.turns
    );
    for duel in summary
        .duels
        .iter()
        .filter(|it| it.outcome == Outcome::Lost)
    {
        let (block, best) = (&duel.block, duel.best.as_deref().unwrap_or("-"));
        out.push_str(&format!(
            "lost  {} {} {} to {best}: {}\n",
            block.data, block.link, block.arrival, duel.why
        ));
    }
    for aim in &summary.aims {
        let met = match aim.met {
            Met::Met => "met   ",
            Met::Missed => "missed",
            Met::NotMeasured => "open  ",
        };
        out.push_str(&format!(
            "{met} {} ({}): {}\n",
            aim.what, aim.wanted, aim.found
        ));
    }
    out.push_str(&format!("{}\n", page.display()));
    out
}

impl CompareArgs {
    fn run(&self, json: bool) -> anyhow::Result<ExitCode> {
        let read = |path: &Path| Results::read(path);
        let found = compare(
            &read(&self.before)?,
            &read(&self.now)?,
            self.across_machines,
        )?;
        if json {
            print(&format!("{}\n", serde_json::to_string(&found)?))?;
        } else {
            print(&found.text())?;
        }
        Ok(if found.is_worse() {
            ExitCode::from(WORSE)
        } else {
            ExitCode::SUCCESS
        })
    }
}

impl ProfileCommand {
    fn run(&self, elsewhere: &impl Elsewhere, json: bool) -> anyhow::Result<ExitCode> {
        let out = &self.with.out;
        let interrupt = watch()?;
        let mut shown = Shown::new(json);
        let mut told = |what: &str| shown.show(|| what.to_owned());
        let measured = elsewhere.measure(&self.with, &mut told, &interrupt);
        shown.end();
        let Some(found) = measured? else {
            return interrupted(json);
        };
        write_whole(out, &found.toml)
            .with_context(|| format!("{} cannot be written", out.display()))?;
        print(&if json {
            format!("{}\n", json!({ "file": out, "figures": found.figures }))
        } else {
            let (table, file) = (found.text(), out.display());
            format!(
                "{table}{file} says how each was measured\nnext: msao bench simulate FOLDER --profile {file}\n"
            )
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Nothing came of it.
fn interrupted(json: bool) -> anyhow::Result<ExitCode> {
    print(&match json {
        true => format!("{}\n", json!({ "interrupted": true })),
        false => "interrupted; nothing was written\n".to_owned(),
    })?;
    Ok(ExitCode::from(INTERRUPTED))
}

impl CapacityCommand {
    fn run(&self, elsewhere: &impl Elsewhere, json: bool) -> anyhow::Result<ExitCode> {
        let interrupt = watch()?;
        let mut shown = Shown::new(json);
        let mut told = |what: &str| shown.show(|| what.to_owned());
        let found = elsewhere.capacity(&self.with, &mut told, &interrupt);
        shown.end();
        let Some(found) = found? else {
            return interrupted(json);
        };
        print(&match json {
            true => format!("{}\n", serde_json::to_string(&found)?),
            false => found.text(),
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

impl SimulateArgs {
    fn run(&self, elsewhere: &impl Elsewhere, json: bool) -> anyhow::Result<ExitCode> {
        let results = Results::read(&self.folder)?;
        let plays = elsewhere.play(&results, &self.base, &self.with)?;
        let found = Compared::of(&results, &plays);
        if json {
            print(&format!("{}\n", serde_json::to_string(&found)?))?;
        } else {
            print(&found.text())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Whoever reads may have gone: that is no error.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("standard output")
        }
        _ => Ok(()),
    }
}

/// Ctrl-C and SIGTERM as a flag; a second one ends the program at once.
fn watch() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    // A terminal that is closed is no reason to leave nodes behind.
    for signal in [
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGHUP,
    ] {
        // In this order: the first one finds the flag as it was.
        signal_hook::flag::register_conditional_shutdown(
            signal,
            INTERRUPTED.into(),
            Arc::clone(&flag),
        )
        .context("signals cannot be watched")?;
        signal_hook::flag::register(signal, Arc::clone(&flag))
            .context("signals cannot be watched")?;
    }
    Ok(flag)
}

/// How far a run is, on standard error: a line that is written over on a terminal, elsewhere a line now and then.
struct Shown {
    /// None: nobody wants to know.
    terminal: Option<bool>,
    told: Option<Instant>,
    /// A line stands on the terminal.
    open: bool,
}

impl Shown {
    fn new(quiet: bool) -> Shown {
        Shown {
            terminal: (!quiet).then(|| std::io::stderr().is_terminal()),
            told: None,
            open: false,
        }
    }

    fn show(&mut self, line: impl FnOnce() -> String) {
        let Some(terminal) = self.terminal else {
            return;
        };
        let often = if terminal { REDRAWN } else { REPEATED };
        if self.told.is_some_and(|told| told.elapsed() < often) {
            return;
        }
        self.told = Some(Instant::now());
        let line = line();
        let mut out = std::io::stderr().lock();
        // What nobody can read is no reason to stop.
        let _unread = if terminal {
            self.open = true;
            write!(out, "\r\u{1b}[K{line}").and_then(|()| out.flush())
        } else {
            writeln!(out, "{line}")
        };
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.open) {
            let _unread = writeln!(std::io::stderr().lock());
        }
    }
}

fn line(progress: &Progress) -> String {
    let left = match progress.left_s {
        Some(left_s) => format!("{} left", span(left_s)),
        None => "the time left is not known yet".to_owned(),
    };
    let turn = progress.turn;
    // What comes behind a round is known when it is over.
    let or_more = if progress.open { " or more" } else { "" };
    format!(
        "turn {} of {}{or_more} ({}, {}, {}, {}), {} of {} requests; {left}",
        progress.turns_done + 1,
        progress.turns,
        turn.data.name,
        turn.link.name,
        turn.arrival.name(),
        turn.policy.name,
        progress.asked,
        progress.requests
    )
}

fn span(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests;
