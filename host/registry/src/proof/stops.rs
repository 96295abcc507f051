//! A process that changes what is active all the time, and one that kills it.
//!
//! The child says what it is about to do and what it has done, a line each, with a digest of the whole deployment: what is
//! active, what was before, the canary with its step, the shadow, the salt, numbers and revisions. The parent kills it at a
//! random moment (SIGKILL), now and then before it has said anything, starts it again, and holds what it finds then against
//! what may be. Each push is of a release that was not there yet, so that a kill can meet the writing of its files, and now and
//! then one that is not needed is removed; whatever is listed afterwards is read whole.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use msao_core::digest::Digest;
use msao_core::offload::manifest::ManifestError;
use msao_state::{CalibrationStore, RecordConfig, RecordRing, SledStorage, Storage};

use crate::bundle::Bundle;
use crate::config::{CanaryConfig, PolicyConfig};
use crate::deployment::{Deployment, Event};
use crate::driver::{Driver, Random, play};
use crate::parameters::Values;
use crate::plugin::Loader;
use crate::runtime::{Choice, Options, Pick, Plugins, Refused, Site};
use crate::store::{Release, Store};

/// What a child is given.
pub struct Torture {
    /// The runtime's folder.
    pub folder: PathBuf,
    /// The database's folder.
    pub state: PathBuf,
    /// Of what it does.
    pub seed: u64,
    /// Makes plug-ins.
    pub loader: Arc<dyn Loader>,
    /// What a fresh node boots; written as an author's folder, beside the runtime's.
    pub boot: Bundle,
    /// Policies that take turns.
    pub policies: Vec<Bundle>,
    /// Makes another component of one, which does the same: by a number.
    pub another: fn(&[u8], u64) -> Vec<u8>,
}

/// Pushes of which one brings a component that has to be compiled; the others bring another manifest alone.
const COMPONENT_EVERY: u64 = 4;
/// How soon after a change begins its process is killed, at the latest.
const CHANGE: Duration = Duration::from_millis(1);
/// Of so many pushes one comes after the removal of a release, if nothing needs that.
const REMOVE_EVERY: u64 = 3;

impl Torture {
    /// What the operator says: unsigned plug-ins, a boot policy, and a canary that is soon through.
    fn config(&self) -> io::Result<PolicyConfig> {
        let boot = self.folder.with_extension("boot");
        let component = format!("target/{}.wasm", self.boot.manifest.name);
        fs::create_dir_all(boot.join("target"))?;
        fs::write(boot.join("policy.toml"), &self.boot.manifest_text)?;
        fs::write(boot.join(component), &self.boot.wasm)?;
        Ok(PolicyConfig {
            allow_unsigned: true,
            boot: Some(boot),
            canary: CanaryConfig {
                steps: vec![0.5, 0.75, 1.0],
                min_samples: 20,
                ..CanaryConfig::default()
            },
            ..PolicyConfig::default()
        })
    }
}

/// `bundle` as a release that has not been there: every push writes files.
fn unseen(bundle: &Bundle, number: u64, torture: &Torture) -> Result<Bundle, ManifestError> {
    let number = torture.seed.wrapping_add(number);
    let wasm = match number % COMPONENT_EVERY {
        0 => (torture.another)(&bundle.wasm, number),
        _ => bundle.wasm.clone(),
    };
    let manifest = format!("{}# {number}\n", bundle.manifest_text);
    Bundle::new(wasm, manifest, None)
}

/// The active policy's digest or `none`, and the digest of the deployment.
fn told(deployment: &Deployment) -> String {
    let policy = deployment.active.policy;
    let policy = policy.map_or_else(|| "none".to_owned(), |it| it.artifact.to_string());
    // Plain numbers and strings can always be written.
    let bytes = serde_json::to_vec(deployment).unwrap_or_default();
    format!("{policy} {}", Digest::of(&bytes))
}

/// What becomes of `deployment` without anybody's doing: its canary steps, takes over, or is dropped.
fn by_itself(deployment: &Deployment, steps: usize) -> Vec<Deployment> {
    let mut all = vec![deployment.clone()];
    let mut at = deployment.clone();
    while let Some(rollout) = at.rollout.clone() {
        let number = rollout.candidate.number;
        let why = String::new();
        all.extend(at.advance(&Event::Left { number, why }));
        let event = match rollout.step + 1 {
            step if step < steps => Event::CanaryStepped { number, step },
            _ => Event::Promoted { number },
        };
        let Ok(next) = at.advance(&event) else { break };
        all.push(next.clone());
        at = next;
    }
    all
}

/// What a start may find after a stop in `deployment`, or in what becomes of it by itself: a canary at the last step goes
/// one back.
fn found(deployment: &Deployment, steps: usize) -> Vec<String> {
    let mut all = Vec::new();
    for deployment in by_itself(deployment, steps) {
        all.push(told(&deployment));
        if let Some(rollout) = &deployment.rollout
            && rollout.step > 0
            && rollout.step + 1 == steps
        {
            let back = Event::CanaryStepped {
                number: rollout.candidate.number,
                step: rollout.step - 1,
            };
            all.extend(deployment.advance(&back).iter().map(told));
        }
    }
    all
}

/// Changes what is active until it is killed. Writes `active X` first, then `push` before each push, `remove` before each
/// removal, `intend X` before and `done X` after each change, X the active policy's digest or `none`, and the deployment's;
/// `may X` for what a canary does by itself.
///
/// # Errors
/// What went wrong, for standard error.
pub fn torture(torture: Torture, out: &mut dyn Write) -> Result<(), Box<dyn std::error::Error>> {
    let opened = SledStorage::open(&torture.state)?;
    let storage: Arc<dyn Storage> = Arc::new(opened.storage);
    let calibration = Arc::new(CalibrationStore::open(Arc::clone(&storage))?);
    let records = Arc::new(RecordRing::open(storage, RecordConfig::default())?);
    let config = torture.config()?;
    let steps = config.canary.steps.len();
    let plugins = Plugins::open(Options {
        folder: torture.folder.clone(),
        config,
        loader: Arc::clone(&torture.loader),
        calibration,
        records: Some(records),
        site: Site {
            models: "draft/target".into(),
            node: "edge".into(),
        },
    })?
    .plugins;
    let mut child = Changes {
        plugins: &plugins,
        steps,
        out,
    };
    child.is("active")?;
    let mut random = Random::new(torture.seed);
    let mut traffic = Driver::new(torture.seed);
    for push in 0.. {
        for scenario in traffic.by_ref().take(3) {
            play(&plugins, &scenario);
        }
        let place = random.whole(0, u32::try_from(torture.policies.len() - 1)?) as usize;
        let bundle = torture.policies.get(place).ok_or("no policy to turn to")?;
        let bundle = unseen(bundle, push, &torture)?;
        // Before the push: what comes now is to be taken into use.
        if push.is_multiple_of(REMOVE_EVERY) {
            child.remove(&mut random)?;
        }
        child.say("push\n")?;
        let release = plugins.push(&bundle)?;
        match child.change(release, random.whole(0, 5)) {
            Ok(()) => {}
            // The same as what is active, or a canary that is under way.
            Err(Failed::Refused(Refused::NotNow(_))) => {}
            Err(Failed::Refused(error)) => return Err(error.into()),
            Err(Failed::Output(error)) => return Err(error.into()),
        }
        child.is("done")?;
    }
    Ok(())
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

struct Changes<'a> {
    plugins: &'a Plugins,
    steps: usize,
    out: &'a mut dyn Write,
}

impl Changes<'_> {
    fn say(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Says what is so now, in one piece with what may become of it.
    fn is(&mut self, word: &str) -> io::Result<()> {
        let now = self.plugins.deployment();
        let mut text = format!("{word} {}\n", told(&now));
        for may in found(&now, self.steps) {
            text.push_str(&format!("may {may}\n"));
        }
        self.say(&text)
    }

    /// Says what the event will make of the deployment, or of what becomes of that meanwhile.
    fn intend(&mut self, event: impl Fn(&Deployment) -> Event) -> Result<(), Failed> {
        let now = self.plugins.deployment();
        let mut text = String::new();
        for before in by_itself(&now, self.steps) {
            let Ok(after) = before.advance(&event(&before)) else {
                continue;
            };
            for may in found(&after, self.steps) {
                text.push_str(&format!("intend {may}\n"));
            }
        }
        Ok(self.say(&text)?)
    }

    /// Removes any release that is here, if nothing needs it.
    fn remove(&mut self, random: &mut Random) -> Result<(), Box<dyn std::error::Error>> {
        let releases = self.plugins.releases()?;
        let last = u32::try_from(releases.len().saturating_sub(1))?;
        let place = random.whole(0, last) as usize;
        let Some((release, ..)) = releases.get(place) else {
            return Ok(());
        };
        self.say("remove\n")?;
        match self.plugins.remove(*release) {
            Ok(_) | Err(Refused::InUse { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn change(&mut self, release: Release, verb: u32) -> Result<(), Failed> {
        let plugins = self.plugins;
        let to = Choice {
            policy: Pick::Take(release),
            postprocessor: Pick::Keep,
        };
        // Nobody is tuned or pinned here, and nothing is signed.
        let spec = |now: &Deployment| {
            let (pins, tuned) = (Values::new(), Values::new());
            now.draft(Some(release), now.active.postprocessor, pins, tuned)
        };
        let activated = |now: &Deployment| Event::Activated {
            spec: spec(now),
            claims: Vec::new(),
            why: None,
        };
        let begun = |now: &Deployment| Event::CanaryStarted {
            spec: spec(now),
            claims: Vec::new(),
        };
        match verb {
            0 => {
                self.intend(activated)?;
                plugins.activate(to)?;
            }
            1 | 2 => {
                self.intend(begun)?;
                let number = plugins.canary(to)?.number;
                self.intend(|_| Event::Promoted { number })?;
                plugins.promote()?;
            }
            3 => {
                self.intend(begun)?;
                plugins.canary(to)?;
            }
            4 => {
                self.intend(|now| {
                    let rollout = now.rollout.as_ref();
                    let leaves = rollout.map_or(&now.active, |it| &it.candidate);
                    Event::Left {
                        number: leaves.number,
                        why: String::new(),
                    }
                })?;
                plugins.rollback("gone back")?;
            }
            _ => {
                self.intend(|_| Event::Off)?;
                plugins.off()?;
            }
        }
        Ok(())
    }
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
    /// Kills in the middle of a push.
    pub in_a_push: u64,
    /// Kills in the middle of a removal, or just after it.
    pub in_a_removal: u64,
    /// Releases that are listed in the end, each read whole.
    pub releases: u64,
    /// Kills before a child had said anything.
    pub before_a_word: u64,
    /// How long the last child took to come up.
    pub start: Duration,
    /// What went wrong, a line each; empty: nothing.
    pub failures: Vec<String>,
}

/// What may be after the next start.
#[derive(Default)]
struct May {
    /// None: nothing is known yet.
    states: Option<BTreeSet<String>>,
}

impl May {
    /// Takes what a child said; counts, and notes what should not have been.
    fn hear(&mut self, stop: u64, lines: impl Iterator<Item = String>, figures: &mut StopFigures) {
        let mut intended = false;
        let (mut pushing, mut removing) = (false, false);
        let mut first = true;
        for line in lines {
            (pushing, removing) = (line == "push", line == "remove");
            if pushing || removing {
                continue;
            }
            let was_first = std::mem::replace(&mut first, false);
            let states = self.states.get_or_insert_default();
            match line.split_once(' ') {
                Some(("active", now)) if was_first => {
                    let known = !states.is_empty();
                    if known && !states.contains(now) {
                        let failure = format!("start {stop}: {now} was found; allowed: {states:?}");
                        figures.failures.push(failure);
                    }
                    // The first start boots.
                    if !known && now.starts_with("none") {
                        figures
                            .failures
                            .push(format!("start {stop}: it did not boot"));
                    }
                    *states = BTreeSet::from([now.to_owned()]);
                }
                Some(("done", now)) => {
                    *states = BTreeSet::from([now.to_owned()]);
                    figures.changes += 1;
                    intended = false;
                }
                Some(("intend", next)) => {
                    states.insert(next.to_owned());
                    intended = true;
                }
                Some(("may", next)) => {
                    states.insert(next.to_owned());
                }
                _ => figures
                    .failures
                    .push(format!("stop {stop}: the process said \"{line}\"")),
            }
        }
        figures.in_the_middle += u64::from(intended);
        figures.in_a_push += u64::from(pushing);
        figures.in_a_removal += u64::from(removing);
    }
}

/// Kills `stops` children one after the other at random moments within `longest`, every fourth before it has said anything, every
/// fourth within [`CHANGE`] of the next change that it begins, which is otherwise seldom met, and after every third one takes away or damages the database in `state`. `spawn` makes the command of a child, which is
/// to boot a policy and to work in `registry`; its standard output is read.
///
/// # Errors
/// Where a child cannot be started.
pub fn stop_at_random(
    spawn: &mut dyn FnMut(u64) -> Command,
    registry: &Path,
    state: &Path,
    stops: u64,
    seed: u64,
    longest: Duration,
) -> io::Result<StopFigures> {
    let mut figures = StopFigures::default();
    let mut random = Random::new(seed);
    let mut may = May::default();
    for stop in 0..stops {
        let began = Instant::now();
        let mut child = spawn(random.bits()).stdout(Stdio::piped()).spawn()?;
        let lines = lines_of(&mut child)?;
        let mut said = Vec::new();
        if stop % 4 == 3 {
            // As long as the last one took to come up, at most.
            std::thread::sleep(figures.start.mul_f64(random.unit()));
        } else {
            match lines.recv_timeout(Duration::from_secs(60)) {
                Ok(line) => said.push(line),
                Err(error) => {
                    let failure = format!("start {stop}: the process did not come up: {error}");
                    figures.failures.push(failure);
                }
            }
            figures.start = began.elapsed();
            std::thread::sleep(longest.mul_f64(random.unit()));
            if stop % 4 == 1 {
                said.extend(until_a_change(&lines));
                std::thread::sleep(CHANGE.mul_f64(random.unit()));
            }
        }
        child.kill()?;
        child.wait()?;
        figures.stops += 1;
        // What it said before it died lies in the pipe still.
        said.extend(lines);
        figures.before_a_word += u64::from(said.is_empty());
        may.hear(stop, said.into_iter(), &mut figures);
        figures.releases = whole(stop, registry, &mut figures.failures)?;
        if stop % 3 == 2 {
            figures.without_database += 1;
            damage(state, random.chance(0.5))?;
        }
    }
    Ok(figures)
}

/// What a child says until it begins another change than it has begun by now.
fn until_a_change(lines: &Receiver<String>) -> Vec<String> {
    let mut said: Vec<String> = lines.try_iter().collect();
    while let Ok(line) = lines.recv_timeout(Duration::from_secs(10)) {
        let begins = line.starts_with("intend ");
        said.push(line);
        if begins {
            break;
        }
    }
    said
}

/// Reads every release that is listed; how many. What is not whole goes to `failures`.
fn whole(stop: u64, registry: &Path, failures: &mut Vec<String>) -> io::Result<u64> {
    let store = Store::open(registry).map_err(io::Error::other)?;
    let releases = store.releases().map_err(io::Error::other)?;
    for release in &releases {
        if let Err(error) = store.get(release) {
            failures.push(format!("stop {stop}: a release is listed, and {error}"));
        }
    }
    Ok(releases.len() as u64)
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
