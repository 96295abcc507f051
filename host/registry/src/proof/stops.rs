//! A process that changes what is active all the time, and one that kills it.
//!
//! The child says what it is about to do and what it has done, a line each; the parent kills it at a random moment (SIGKILL),
//! starts it again, and holds what is active then against what may be.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use msao_state::{CalibrationStore, RecordConfig, RecordRing, SledStorage, Storage};

use crate::bundle::Bundle;
use crate::config::PolicyConfig;
use crate::driver::{Driver, Random, play};
use crate::plugin::Loader;
use crate::runtime::{Choice, Options, Pick, Plugins, Refused, Site};
use crate::store::Release;

/// What a child is given.
pub struct Torture {
    /// The runtime's folder.
    pub folder: PathBuf,
    /// The database's folder.
    pub state: PathBuf,
    /// Of what it does.
    pub seed: u64,
    /// What operators allow; unsigned plug-ins have to be.
    pub config: PolicyConfig,
    /// Makes plug-ins.
    pub loader: Arc<dyn Loader>,
    /// Policies that take turns.
    pub policies: Vec<Bundle>,
}

fn active(plugins: &Plugins) -> String {
    let deployment = plugins.deployment();
    let policy = deployment.active.policy;
    policy.map_or_else(|| "none".to_owned(), |it| it.artifact.to_string())
}

/// Changes what is active until it is killed. Writes `active X` first, then `intend X` before and `done X` after each change,
/// X the active policy's digest or `none`.
///
/// # Errors
/// What went wrong, for standard error.
pub fn torture(torture: Torture, out: &mut dyn Write) -> Result<(), Box<dyn std::error::Error>> {
    let opened = SledStorage::open(&torture.state)?;
    let storage: Arc<dyn Storage> = Arc::new(opened.storage);
    let calibration = Arc::new(CalibrationStore::open(Arc::clone(&storage))?);
    let records = Arc::new(RecordRing::open(storage, RecordConfig::default())?);
    let plugins = Plugins::open(Options {
        folder: torture.folder,
        config: torture.config,
        loader: torture.loader,
        calibration,
        records: Some(records),
        site: Site {
            models: "draft/target".into(),
            node: "edge".into(),
        },
    })?
    .plugins;
    let mut say = |line: String| -> io::Result<()> {
        out.write_all(line.as_bytes())?;
        out.flush()
    };
    say(format!("active {}\n", active(&plugins)))?;
    let mut random = Random::new(torture.seed);
    let mut traffic = Driver::new(torture.seed);
    loop {
        for scenario in traffic.by_ref().take(3) {
            play(&plugins, &scenario);
        }
        let place = random.whole(0, u32::try_from(torture.policies.len() - 1)?) as usize;
        let bundle = torture.policies.get(place).ok_or("no policy to turn to")?;
        let release = plugins.push(bundle)?;
        let done = change(&plugins, release, random.whole(0, 5), &mut say);
        match done {
            Ok(()) => {}
            // The same as what is active, or a canary that is under way.
            Err(Failed::Refused(Refused::NotNow(_))) => {}
            Err(Failed::Refused(error)) => return Err(error.into()),
            Err(Failed::Output(error)) => return Err(error.into()),
        }
        say(format!("done {}\n", active(&plugins)))?;
    }
}

enum Failed {
    Refused(Refused),
    Output(io::Error),
}

impl From<Refused> for Failed {
    fn from(error: Refused) -> Failed {
        Failed::Refused(error)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Failed {
        Failed::Output(error)
    }
}

fn change(
    plugins: &Plugins,
    release: Release,
    verb: u32,
    say: &mut dyn FnMut(String) -> io::Result<()>,
) -> Result<(), Failed> {
    let to = Choice {
        policy: Pick::Take(release),
        postprocessor: Pick::Keep,
    };
    let deployment = plugins.deployment();
    match verb {
        0 => {
            say(format!("intend {}\n", release.artifact))?;
            plugins.activate(to)?;
        }
        1 | 2 => {
            plugins.canary(to)?;
            say(format!("intend {}\n", release.artifact))?;
            plugins.promote()?;
        }
        3 => {
            plugins.canary(to)?;
            plugins.rollback("turned away")?;
        }
        4 => {
            let before = deployment.previous.and_then(|spec| spec.policy);
            let before = before.map_or_else(|| "none".to_owned(), |it| it.artifact.to_string());
            say(format!("intend {before}\n"))?;
            plugins.rollback("gone back")?;
        }
        _ => {
            say("intend none\n".to_owned())?;
            plugins.off()?;
        }
    }
    Ok(())
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct StopFigures {
    /// Children that were killed.
    pub stops: u64,
    /// Of them, those with the database taken away or damaged before the next start.
    pub without_database: u64,
    /// Changes that the children had done.
    pub changes: u64,
    /// Kills between `intend` and `done`.
    pub in_the_middle: u64,
    /// What went wrong, a line each; empty: nothing.
    pub failures: Vec<String>,
}

/// Kills `stops` children one after the other at random moments within `longest`, and after every third one takes away or
/// damages the database in `state`. `spawn` makes the command of a child; its standard output is read.
///
/// # Errors
/// Where a child cannot be started.
pub fn stop_at_random(
    spawn: &mut dyn FnMut(u64) -> Command,
    state: &Path,
    stops: u64,
    seed: u64,
    longest: Duration,
) -> io::Result<StopFigures> {
    let mut figures = StopFigures::default();
    let mut random = Random::new(seed);
    let mut allowed: Option<BTreeSet<String>> = None;
    for stop in 0..stops {
        let mut child = spawn(random.bits()).stdout(Stdio::piped()).spawn()?;
        let lines = lines_of(&mut child)?;
        let up = lines.recv_timeout(Duration::from_secs(60)).ok();
        let Some(now) = up.as_deref().and_then(|line| line.strip_prefix("active ")) else {
            let failure = format!("start {stop}: the process did not come up: {up:?}");
            figures.failures.push(failure);
            child.kill()?;
            child.wait()?;
            continue;
        };
        if let Some(allowed) = &allowed
            && !allowed.contains(now)
        {
            let failure = format!("start {stop}: {now} is active; allowed: {allowed:?}");
            figures.failures.push(failure);
        }
        std::thread::sleep(longest.mul_f64(random.unit()));
        child.kill()?;
        child.wait()?;
        figures.stops += 1;
        // What it said before it died lies in the pipe still.
        let mut may = BTreeSet::from([now.to_owned()]);
        let mut intended = false;
        for line in lines {
            match line.split_once(' ') {
                Some(("done", now)) => {
                    may = BTreeSet::from([now.to_owned()]);
                    figures.changes += 1;
                    intended = false;
                }
                Some(("intend", next)) => {
                    may.insert(next.to_owned());
                    intended = true;
                }
                _ => figures
                    .failures
                    .push(format!("stop {stop}: the process said \"{line}\"")),
            }
        }
        figures.in_the_middle += u64::from(intended);
        allowed = Some(may);
        if stop % 3 == 2 {
            figures.without_database += 1;
            damage(state, random.chance(0.5))?;
        }
    }
    Ok(figures)
}

/// The whole lines that a child writes, until it is dead.
fn lines_of(child: &mut Child) -> io::Result<Receiver<String>> {
    let out = (child.stdout.take()).ok_or_else(|| io::Error::other("no standard output"))?;
    let (sender, lines) = channel();
    std::thread::Builder::new()
        .name("child".into())
        .spawn(move || {
            let mut out = BufReader::new(out);
            let mut line = String::new();
            // A line without an end was cut off by the kill: it was not said.
            while out.read_line(&mut line).is_ok_and(|read| read > 0) && line.ends_with('\n') {
                if sender.send(line.trim_end().to_owned()).is_err() {
                    break;
                }
                line.clear();
            }
        })?;
    Ok(lines)
}

/// Takes the database away, or writes garbage over all of its files.
fn damage(state: &Path, away: bool) -> io::Result<()> {
    if !state.exists() {
        return Ok(());
    }
    if away {
        return fs::remove_dir_all(state);
    }
    for entry in fs::read_dir(state)? {
        let path = entry?.path();
        if path.is_file() {
            let mut bytes = fs::read(&path)?;
            for byte in bytes.iter_mut().step_by(61) {
                *byte ^= 0xa5;
            }
            fs::write(&path, bytes)?;
        }
    }
    Ok(())
}
