//! The loop: one turn after the other, kept as it comes, until all are done or somebody wants it to end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::energy::{Energy, POWERCAP};
use crate::manifest::{Facts, Machine, Manifest, Run};
use crate::plan::{ItemRef, Plan, Purpose, Turn};
use crate::rounds::Wanted;
use crate::rows::{Folder, FolderError, Key, Measured, Row};
use crate::spec::Spec;

/// Whoever can ask nodes. One exists for a whole run; it may keep nodes and data sets from turn to turn, and may block.
///
/// ```
/// use msao_evaluate::manifest::Facts;
/// use msao_evaluate::plan::{ItemRef, Turn};
/// use msao_evaluate::rows::Measured;
/// use msao_evaluate::run::{Asker, Sink};
///
/// struct Instant;
///
/// impl Asker for Instant {
///     fn facts(&mut self) -> anyhow::Result<Facts> {
///         Ok(Facts { commit: "c0ffee".to_owned(), ..Facts::default() })
///     }
///
///     fn turn(&mut self, turn: &Turn, items: &[ItemRef], sink: &mut Sink) -> anyhow::Result<()> {
///         for item in items {
///             // Here `turn.policy` is asked item `item.index` of `turn.data` over `turn.link`, when `item.at_ms` is due.
///             let total_ms = Some(1.0);
///             if item.warm {
///                 sink.warmed()?;
///             } else {
///                 sink.put(item, Measured { total_ms, ..Measured::default() })?;
///             }
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait Asker {
    /// What it asks with. It is called once, before the first turn, and may take its time: a folder is gone on with only if this is as
    /// it was.
    ///
    /// # Errors
    /// What is missing.
    fn facts(&mut self) -> anyhow::Result<Facts>;

    /// Asks the items of a turn, those that do not count first, and hands [`Sink::put`] what each one that counts came to, in any
    /// order. A request that fails is a row too: an error is only what makes going on senseless.
    ///
    /// # Errors
    /// The turn cannot be asked, or [`Stop`], handed on as it came. The turn is repeated in the next run.
    fn turn(&mut self, turn: &Turn, items: &[ItemRef], sink: &mut Sink) -> anyhow::Result<()>;
}

/// No more is wanted: end the turn, and hand this on as its error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Stop {
    /// Somebody wants the run to end.
    #[error("interrupted")]
    Interrupted,
    /// A row cannot be kept. The run says why.
    #[error("a row cannot be kept")]
    Unkept,
}

/// How far a run is.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress<'a> {
    /// Finished, those of earlier runs too.
    pub turns_done: usize,
    /// That are wanted, by what is known.
    pub turns: usize,
    /// More may be wanted: accuracy is asked in rounds.
    pub open: bool,
    /// Requests of the turn under way that were asked.
    pub asked: u32,
    /// Requests of the turn under way.
    pub requests: u32,
    /// The turn under way.
    pub turn: &'a Turn,
    /// For all that is left of what is wanted, in s, if it goes on as it did. None before anything is known.
    pub left_s: Option<f64>,
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// All turns that are wanted are finished.
    pub finished: bool,
    /// Turns that are, those of earlier runs too.
    pub turns_done: usize,
    /// Turns that are wanted.
    pub turns: usize,
}

/// Takes what requests came to.
pub struct Sink<'a> {
    folder: &'a mut Folder,
    turn: &'a Turn,
    run: &'a str,
    /// Items that count, and whether their row is there.
    wanted: HashMap<u32, (u64, bool)>,
    /// Rows that are still to come.
    left: u32,
    asked: u32,
    interrupt: &'a AtomicBool,
    broken: Option<anyhow::Error>,
    tell: &'a mut dyn FnMut(u32),
}

impl<'a> Sink<'a> {
    /// Keeps what an item that counts came to.
    ///
    /// # Errors
    /// [`Stop`]: hand it on. The row is kept all the same if the run is only wanted to end, but for one without a whole answer:
    /// nodes that were started from a terminal hear of Ctrl-C too, and what they leave unanswered from then on says nothing of
    /// them.
    pub fn put(&mut self, item: &ItemRef, measured: Measured) -> Result<(), Stop> {
        if !measured.is_answered() {
            self.check()?;
        }
        match self.keep(item, measured) {
            Ok(()) => self.went_on(),
            Err(error) => {
                self.broken = Some(error);
                Err(Stop::Unkept)
            }
        }
    }

    /// Tells that an item was asked that does not count.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn warmed(&mut self) -> Result<(), Stop> {
        self.went_on()
    }

    /// Fails when no more is wanted; for whoever waits long between two answers.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn check(&self) -> Result<(), Stop> {
        if self.broken.is_some() {
            return Err(Stop::Unkept);
        }
        if self.interrupt.load(Ordering::SeqCst) {
            return Err(Stop::Interrupted);
        }
        Ok(())
    }

    /// What becomes true when somebody wants the run to end; for whoever waits elsewhere.
    pub fn interrupt(&self) -> &'a AtomicBool {
        self.interrupt
    }

    fn went_on(&mut self) -> Result<(), Stop> {
        self.asked += 1;
        (self.tell)(self.asked);
        self.check()
    }

    fn keep(&mut self, item: &ItemRef, measured: Measured) -> anyhow::Result<()> {
        let Some((seed, there)) = self.wanted.get_mut(&item.index) else {
            bail!(
                "a row for item {}, which does not count in this turn",
                item.index
            );
        };
        ensure!(!*there, "two rows for item {}", item.index);
        if let Some(wrong) = measured.wrong() {
            bail!("the row of item {}: {wrong}", item.index);
        }
        let row = Row {
            key: Key {
                run: self.run.to_owned(),
                turn: self.turn.id.clone(),
                repeat: self.turn.repeat,
                purpose: self.turn.purpose,
                data: self.turn.data.name.clone(),
                link: self.turn.link.name.clone(),
                arrival: self.turn.arrival.name().to_owned(),
                policy: self.turn.policy.name.clone(),
                index: item.index,
                seed: *seed,
            },
            measured,
        };
        self.folder.add(&row)?;
        *there = true;
        self.left = self.left.saturating_sub(1);
        Ok(())
    }
}

/// Runs a specification whose files are seen from `base`, into a folder, which may hold a part of it already.
///
/// # Errors
/// The folder holds something else, cannot be written, a file is missing, or the asker fails. What is finished stays.
pub fn run(
    spec: &Spec,
    base: &Path,
    asker: &mut dyn Asker,
    folder: &Path,
    progress: &mut dyn FnMut(&Progress),
    interrupt: &AtomicBool,
) -> anyhow::Result<Outcome> {
    let plan = Plan::new(spec, base)?;
    let mut manifest = Manifest::new(
        spec.clone(),
        spec.digest()?,
        Machine::here(),
        Facts::default(),
    );
    let before = Manifest::read(folder)?;
    if let Some(before) = &before {
        // Before anything takes long, and before anything in the folder is touched. What is asked with comes below.
        manifest.facts = before.facts.clone();
        manifest.clone().goes_on_with(before)?;
    }
    let store = Folder::open(folder)?;
    if before.is_none() && store.finished() > 0 {
        bail!(
            "{} has results but no manifest.json; restore it, or name another folder",
            folder.display()
        );
    }
    manifest.facts = asker.facts()?;
    manifest.facts.digests.extend(file_digests(spec, base)?);
    if let Some(before) = &before {
        manifest.goes_on_with(before)?;
    }
    let id = format!("r{}", manifest.runs.len() + 1);
    manifest.runs.push(Run {
        id: id.clone(),
        began_unix_ms: unix_ms(),
    });
    manifest.write(folder)?;
    Loop {
        spec: spec.clone(),
        plan,
        store,
        run: id,
        began: Instant::now(),
        spent: BTreeMap::new(),
        taught: BTreeSet::new(),
        energy: Energy::of(Path::new(POWERCAP)),
    }
    .go(asker, progress, interrupt)
}

/// Of the recordings that it names; a data set's are the asker's to tell.
fn file_digests(spec: &Spec, base: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut digests = BTreeMap::new();
    for (_, file) in spec.files() {
        let path = base.join(file);
        if path.is_dir() {
            continue;
        }
        let mut hash = Sha256::new();
        let mut open = File::open(&path).with_context(|| format!("{}", path.display()))?;
        let mut part = vec![0; 1 << 16];
        loop {
            let read = open
                .read(&mut part)
                .with_context(|| format!("{}", path.display()))?;
            if read == 0 {
                break;
            }
            hash.update(part.get(..read).unwrap_or(&[]));
        }
        let digest = hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        digests.insert(file.display().to_string(), digest);
    }
    Ok(digests)
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |it| it.as_millis() as u64)
}

struct Loop {
    spec: Spec,
    plan: Plan,
    store: Folder,
    run: String,
    began: Instant,
    /// Seconds and turns of this run, by what makes turns alike.
    spent: BTreeMap<(Purpose, String, String), (f64, u32)>,
    energy: Energy,
    /// Links and policies that have learned in this run.
    taught: BTreeSet<(String, String)>,
}

impl Loop {
    fn go(
        mut self,
        asker: &mut dyn Asker,
        progress: &mut dyn FnMut(&Progress),
        interrupt: &AtomicBool,
    ) -> anyhow::Result<Outcome> {
        let all = self.plan.turns().to_vec();
        let mut wanted = self.wanted()?;
        let mut round = 0;
        'turns: for (number, turn) in all.iter().enumerate() {
            if turn.round > round {
                // All that was wanted of the rounds before is finished.
                round = turn.round;
                wanted = self.wanted()?;
            }
            if self.store.is_finished(&turn.id) || !wanted.wants(turn) {
                continue;
            }
            if interrupt.load(Ordering::SeqCst) {
                break;
            }
            let key = (turn.link.name.clone(), turn.policy.name.clone());
            let learning = match self.taught.contains(&key) {
                true => Vec::new(),
                false => self.plan.learning(&self.spec, turn),
            };
            let (turns_done, turns) = self.counts(&wanted);
            for turn in learning.iter().chain([turn]) {
                let left = all.get(number..).unwrap_or(&[]).iter();
                let before_s = self.left_s(left.filter(|it| self.is_left(&wanted, it)));
                let began = Instant::now();
                let tell = &mut |asked: u32| {
                    let gone = began.elapsed().as_secs_f64();
                    progress(&Progress {
                        turns_done,
                        turns,
                        open: wanted.is_open(),
                        asked,
                        requests: turn.requests(),
                        turn,
                        left_s: before_s.map(|left| (left - gone).max(0.0)),
                    });
                };
                tell(0);
                if !self.one(turn, asker, tell, interrupt)? {
                    break 'turns;
                }
                self.took(turn, began.elapsed());
            }
            self.taught.insert(key);
        }
        let (turns_done, turns) = self.counts(&wanted);
        Ok(Outcome {
            finished: turns_done == turns,
            turns_done,
            turns,
        })
    }

    /// Which turns are wanted, by the rows that are there.
    fn wanted(&self) -> anyhow::Result<Wanted> {
        let accuracy = self.spec.accuracy.as_ref();
        if accuracy.is_none_or(|it| it.rounds.is_empty()) {
            return Ok(Wanted::default());
        }
        Ok(Wanted::of(&self.spec, &self.store.results()?.rows))
    }

    fn is_left(&self, wanted: &Wanted, turn: &Turn) -> bool {
        wanted.wants(turn) && !self.store.is_finished(&turn.id)
    }

    /// Turns that are finished, and turns that are wanted.
    fn counts(&self, wanted: &Wanted) -> (usize, usize) {
        let turns = self.plan.turns().iter().filter(|it| wanted.wants(it));
        turns.fold((0, 0), |(done, all), turn| {
            let is_done = self.store.is_finished(&turn.id);
            (done + usize::from(is_done), all + 1)
        })
    }

    /// False: somebody wants the run to end.
    fn one(
        &mut self,
        turn: &Turn,
        asker: &mut dyn Asker,
        tell: &mut dyn FnMut(u32),
        interrupt: &AtomicBool,
    ) -> anyhow::Result<bool> {
        let items = self.plan.items(turn);
        let counted = items.iter().filter(|item| !item.warm);
        let wanted: HashMap<u32, (u64, bool)> = counted
            .map(|item| (item.index, (item.seed, false)))
            .collect();
        let (began, began_unix_ms) = (Instant::now(), unix_ms());
        let warm = (items.len() - wanted.len()) as u32;
        let energy = &mut self.energy;
        energy.begin();
        let mut tell = |asked: u32| {
            // What it takes to start nodes and to warm them up is no answer's.
            if asked == warm {
                energy.begin();
            } else {
                energy.look();
            }
            tell(asked);
        };
        let mut sink = Sink {
            folder: &mut self.store,
            turn,
            run: &self.run,
            left: wanted.len() as u32,
            wanted,
            asked: 0,
            interrupt,
            broken: None,
            tell: &mut tell,
        };
        let told = asker.turn(turn, &items, &mut sink);
        let (left, broken) = (sink.left, sink.broken.take());
        let named = || {
            format!(
                "turn {} ({}, {}, {}, {})",
                turn.place,
                turn.data.name,
                turn.link.name,
                turn.arrival.name(),
                turn.policy.name
            )
        };
        if let Some(error) = broken {
            // A full disk says all that there is to say.
            return Err(match error.downcast::<FolderError>() {
                Ok(error) => error.into(),
                Err(error) => error.context(named()),
            });
        }
        if turn.counted() == 0 {
            // Nothing is kept of it: whoever goes on has to learn anew.
            return match told {
                _ if interrupt.load(Ordering::SeqCst) => Ok(false),
                told => told.map(|()| true).map_err(|error| error.context(named())),
            };
        }
        match told {
            Ok(()) if left == 0 => {}
            // It ended because it was told to.
            Ok(()) if interrupt.load(Ordering::SeqCst) => return Ok(false),
            Ok(()) => bail!(
                "{}: {left} requests have no row; each needs one, whatever became of it",
                named()
            ),
            // Whatever the asker made of being told to end. If all rows are there all the same, the turn is finished.
            Err(_) if interrupt.load(Ordering::SeqCst) => {
                if left > 0 {
                    return Ok(false);
                }
            }
            Err(error) => return Err(error.context(named())),
        }
        let wall_ms = began.elapsed().as_millis() as u64;
        let energy_j = self.energy.joules();
        self.store
            .finish(&turn.id, &self.run, began_unix_ms, wall_ms, energy_j)?;
        Ok(true)
    }

    fn took(&mut self, turn: &Turn, time: Duration) {
        let (seconds, turns) = self.spent.entry(alike(turn)).or_default();
        *seconds += time.as_secs_f64();
        *turns += 1;
    }

    /// Turns with the same data and arrivals take the same time; those of which none was seen, the mean of all. So it is with what is
    /// still to be learned before them.
    fn left_s<'a>(&self, left: impl Iterator<Item = &'a Turn>) -> Option<f64> {
        let (seconds, turns) =
            (self.spent.values()).fold((0.0, 0), |all, it| (all.0 + it.0, all.1 + it.1));
        if turns == 0 {
            return None;
        }
        // Without what was spent before the first turn, if that is most of it.
        let mean = seconds.min(self.began.elapsed().as_secs_f64()) / f64::from(turns);
        let of = |turn: &Turn| match self.spent.get(&alike(turn)) {
            Some((seconds, turns)) => seconds / f64::from(*turns),
            None => mean,
        };
        let mut untaught = BTreeSet::new();
        let all_s = left.map(|turn| {
            let key = (turn.link.name.as_str(), turn.policy.name.as_str());
            let is_taught = self.taught.contains(&(key.0.to_owned(), key.1.to_owned()));
            let learning = match !is_taught && untaught.insert(key) {
                true => self.plan.learning(&self.spec, turn),
                false => Vec::new(),
            };
            learning.iter().chain([turn]).map(of).sum::<f64>()
        });
        Some(all_s.sum())
    }
}

fn alike(turn: &Turn) -> (Purpose, String, String) {
    (
        turn.purpose,
        turn.data.name.clone(),
        turn.arrival.name().to_owned(),
    )
}

#[cfg(test)]
pub(crate) mod tests;
