//! The loop: what happens next, and what comes of it at the same moment.
//!
//! ```text
//! arrives -> [probe] -> plan -> begin -> drafts, rounds, verdicts ... -> finish
//!   (arrive.rs)           (begin.rs; edge.rs here, way.rs between, cloud.rs there)         (finish.rs)
//! ```

mod arrive;
mod begin;
mod cloud;
mod edge;
mod finish;
mod pair;
mod set_up;
mod share;
mod spare;
mod way;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use msao_core::offload::Calibration;
use msao_link::estimate::EstimateConfig;

use crate::agenda::Agenda;
use crate::cells::Cells;
use crate::cores::Cores;
use crate::decide::Decides;
use crate::engine::{Done, Engine, Order, Seat, What};
use crate::error::Result;
use crate::link::Link;
use crate::node::Node;
use crate::profile::{NodeCosts, PluginCost};
use crate::results::{Results, Tally};
use crate::run::{Place, Run};
use crate::slab::{Key, Slab};
use crate::traffic::Traffic;
use crate::world::{Rules, World};

/// After so long, in ms, an answer is given up by whoever waits for it.
const LONGEST_MS: f64 = 3_600_000.0;
/// So often it is looked for such answers.
const SWEEP_EVERY_MS: f64 = 60_000.0;
/// Between looks at whether the simulation is wanted any more, in events.
const LOOK_EVERY: u64 = 4096;

/// How far a simulation is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Questions that have ended.
    pub ended: u32,
    /// Questions in all.
    pub questions: u32,
    /// Virtual time since the beginning.
    pub now_ms: f64,
}

/// How a simulation is run.
#[derive(Default)]
pub struct Options<'a> {
    /// Of what links draw. Questions have seeds of their own.
    pub seed: u64,
    /// Whether each request's outcome is kept, and not only sums.
    pub keep: bool,
    /// What the policy has learned already.
    pub calibration: Calibration,
    /// Told now and then how far it is.
    pub progress: Option<&'a mut dyn FnMut(Progress)>,
    /// Ends it early once this is set.
    pub stop: Option<&'a AtomicBool>,
}

/// Plays `traffic` in `world` as `decides` decides. The same arguments and seed give the same result to the bit.
///
/// ```
/// use msao_core::offload::{Action, Plan, Route};
/// use msao_simulate::traffic::{Question, Traffic};
/// use msao_simulate::{Options, Plain, Profile, World, run};
///
/// let world = World::pair(Profile::measured()?, "demo-draft-zen3", "twin-zen4", Default::default());
/// let traffic = Traffic { questions: vec![Question::plain(0, 100, 20)], ..Traffic::default() };
/// let mut cloud_only = Plain::new(|_| Plan::plain(Route::Cloud, 1), |_| Action::Wait);
/// let results = run(&world, &traffic, &mut cloud_only, Options::default())?;
/// assert_eq!((results.summary.answered, results.summary.tokens), (1, 20));
/// # Ok::<(), msao_simulate::SimulateError>(())
/// ```
///
/// # Errors
/// [`crate::SimulateError`]: what cannot be simulated, by the name of its field. Once it runs it does not fail.
pub fn run(
    world: &World,
    traffic: &Traffic,
    decides: &mut dyn Decides,
    options: Options,
) -> Result<Results> {
    let profile = world.costs()?;
    traffic.check(world.edge_count())?;
    let mut simulation = Simulation::new(world, &profile, traffic, decides, &options)?;
    simulation.begin();
    let stopped = simulation.play(options.progress, options.stop);
    Ok(simulation.results(stopped))
}

/// What happens. What belongs to an attempt of a request carries its number.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// A question comes.
    Arrives(u32),
    /// Its prompt has been laid out.
    Prepared(Key),
    /// Its plan has been made.
    Planned(Key, u32),
    /// Its scores are there.
    Scored(Key),
    /// An engine's pass is over.
    Passed(u32),
    /// A job on a node's cores is over, unless jobs have come or gone since that was noted.
    Cores(u32, u32),
    /// The peer has laid the prompt out.
    LaidOut(Key, u32),
    /// Work is over for which nobody has waited.
    Nothing,
    /// The next piece of an upload may go.
    Piece(Key, u32),
    /// The peer has all of it, and says so.
    Uploaded(Key, u32),
    /// The first frame that is under way arrives.
    ToCloud(Key, u32),
    ToEdge(Key, u32),
    /// A machine's time has come, if it is the moment that was noted last.
    EdgeTick(Key),
    CloudTick(Key),
    /// The client's time is up.
    Late(Key),
    /// The peer is asked again.
    Again(Key, u32),
    /// A node tells its figures.
    Figures(u32),
    Sweep,
}

pub(crate) struct Simulation<'a> {
    traffic: &'a Traffic,
    decides: &'a mut dyn Decides,
    rules: Rules,
    plugins: PluginCost,
    costs: NodeCosts,
    estimate: EstimateConfig,
    agenda: Agenda<Event>,
    nodes: Vec<Node>,
    engines: Vec<Engine>,
    /// By engine, another one on the same device.
    beside: Vec<Option<usize>>,
    /// By engine, the node that it is on.
    homes: Vec<usize>,
    /// By node, the cores that all its work shares. None: it has cores to spare.
    cores: Vec<Option<Cores<Event>>>,
    links: Vec<Link>,
    // Boxed: places are moved when there come to be more of them.
    runs: Slab<Box<Run>>,
    policy_cells: Cells,
    score_cells: Cells,
    /// By edge, the questions that are yet to be asked, where they come in turn.
    turns: Vec<VecDeque<u32>>,
    /// Engines that may have something to do now, nodes whose sessions may have to be told of capacity, and nodes on whose cores
    /// jobs have come or gone.
    stirred: Vec<usize>,
    flapped: Vec<usize>,
    shared: Vec<usize>,
    /// Memory that is used again.
    done: Vec<Done>,
    wire: Vec<u8>,
    keys: Vec<Key>,
    /// Bytes of a frame that says what a session has cost.
    cost_bytes: u64,
    /// Questions that have not ended.
    left: u32,
    tally: Tally,
}

impl Simulation<'_> {
    fn now_ms(&self) -> f64 {
        self.agenda.now_ms()
    }

    /// Goes on until everything has ended. True if it was stopped before.
    fn play(
        &mut self,
        mut progress: Option<&mut dyn FnMut(Progress)>,
        stop: Option<&AtomicBool>,
    ) -> bool {
        let questions = self.left;
        while self.left > 0 || !self.runs.is_empty() {
            let Some(event) = self.agenda.pop() else {
                return false;
            };
            self.happens(event);
            self.stir();
            self.note_cores();
            self.tally.events += 1;
            if self.tally.events.is_multiple_of(LOOK_EVERY) {
                if stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                    return true;
                }
                if let Some(progress) = &mut progress {
                    progress(Progress {
                        ended: questions - self.left,
                        questions,
                        now_ms: self.now_ms(),
                    });
                }
            }
        }
        false
    }

    /// What it came to.
    fn results(self, stopped: bool) -> Results {
        let now_ms = self.agenda.now_ms();
        let sent = self.links.iter().map(|link| link.sent_bytes).sum();
        let received = self.links.iter().map(|link| link.received_bytes).sum();
        Results {
            link_sent_bytes: sent,
            link_received_bytes: received,
            now_ms,
            stopped,
            ..self.tally.results()
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Arrives(question) => self.arrives(question),
            Event::Prepared(key) => self.prepared(key),
            Event::Planned(key, attempt) => {
                if self.attempt(key) == Some(attempt) {
                    self.begins(key);
                }
            }
            Event::Scored(key) => self.plan(key),
            Event::Passed(engine) => {
                let now_ms = self.now_ms();
                let mut done = std::mem::take(&mut self.done);
                if let Some(engine) = self.engines.get_mut(engine as usize) {
                    engine.passed(now_ms, &mut done);
                }
                self.heed(engine as usize, done);
                // Who shares the device is looked at first: they take turns.
                let other = self.shares_with(engine as usize);
                self.stirred.extend(other);
            }
            Event::Cores(node, round) => self.cores_are_due(node as usize, round),
            Event::LaidOut(key, attempt) => {
                if self.attempt(key) == Some(attempt) {
                    self.laid_out(key);
                }
            }
            Event::Nothing => {}
            Event::Piece(key, attempt) => {
                if self.attempt(key) == Some(attempt) {
                    self.piece(key);
                }
            }
            Event::Uploaded(key, attempt) => {
                if self.attempt(key) == Some(attempt) {
                    self.uploaded(key);
                }
            }
            Event::ToCloud(key, attempt) => {
                if self.attempt(key) == Some(attempt) {
                    self.reaches_cloud(key);
                }
            }
            Event::ToEdge(key, attempt) => {
                if self.attempt(key) == Some(attempt) {
                    self.reaches_edge(key);
                }
            }
            Event::EdgeTick(key) => self.edge_tick(key),
            Event::CloudTick(key) => self.cloud_tick(key),
            Event::Late(key) => self.late(key),
            Event::Again(key, attempt) => {
                if self.attempt(key) == Some(attempt) {
                    self.again(key);
                }
            }
            Event::Figures(node) => self.tells_figures(node),
            Event::Sweep => self.sweep(),
        }
    }

    fn attempt(&self, key: Key) -> Option<u32> {
        self.runs.get(key).map(|run| run.attempt)
    }

    fn tells_figures(&mut self, number: u32) {
        let now_ms = self.now_ms();
        if let Some(node) = self.nodes.get_mut(number as usize) {
            let figures = node.figures(now_ms, &self.engines);
            node.told.tell(now_ms, figures);
        }
        let next_ms = now_ms + f64::from(self.estimate.heartbeat_ms);
        self.agenda.at(next_ms, Event::Figures(number));
    }

    /// Gives up what has gone on for too long, whatever keeps it.
    fn sweep(&mut self) {
        let now_ms = self.now_ms();
        let old = (self.runs.entries()).filter(|(_, run)| now_ms - run.arrived_ms > LONGEST_MS);
        let old: Vec<Key> = old.map(|(key, _)| key).collect();
        for key in old {
            self.late(key);
            self.frees(key);
            self.forget(key);
        }
        self.agenda.at(now_ms + SWEEP_EVERY_MS, Event::Sweep);
    }

    /// Lets engines work on what they were given, until nothing more comes of it at this moment.
    fn stir(&mut self) {
        loop {
            if let Some(node) = self.flapped.pop() {
                self.tell_spare(node);
                continue;
            }
            let Some(number) = self.stirred.pop() else {
                return;
            };
            let now_ms = self.now_ms();
            let mut done = std::mem::take(&mut self.done);
            let other = self.shares_with(number).and_then(|it| self.engines.get(it));
            let free = other.is_none_or(|other| !other.is_busy());
            let engine = self.engines.get_mut(number);
            if let Some(end_ms) = engine.and_then(|engine| engine.turn(now_ms, free, &mut done)) {
                let home = self.homes.get(number).copied().unwrap_or(usize::MAX);
                self.works(home, end_ms, Event::Passed(number as u32));
            }
            if done.is_empty() {
                self.done = done;
            } else {
                self.heed(number, done);
            }
        }
    }

    /// The other engine on an engine's device.
    fn shares_with(&self, engine: usize) -> Option<usize> {
        self.beside.get(engine).copied().flatten()
    }

    /// Tells whom it concerns what an engine has done. The engine is looked at again, whatever comes of it.
    fn heed(&mut self, engine: usize, mut done: Vec<Done>) {
        self.stirred.push(engine);
        for done in done.drain(..) {
            self.has_done(done);
        }
        self.done = done;
    }

    fn has_done(&mut self, done: Done) {
        let Done {
            run: key,
            seat,
            sequence,
            what,
        } = done;
        match (seat, what) {
            (Seat::Edge, What::Probed) => self.probed(key, sequence),
            (Seat::Edge, what) => self.drafted(key, sequence, what),
            (Seat::Target, what) => self.target_done(key, sequence, what),
            (Seat::Beside, what) => self.beside_done(key, sequence, what),
        }
    }

    fn order(&mut self, place: Place, order: Order) {
        if let Some(engine) = self.engines.get_mut(place.engine) {
            engine.order(place.sequence, order);
            self.stirred.push(place.engine);
        }
    }

    /// Ends a seat; gives what it has cost.
    fn close(&mut self, place: Place) -> f64 {
        let Some(engine) = self.engines.get_mut(place.engine) else {
            return 0.0;
        };
        // Who waits for room may have it now.
        self.stirred.push(place.engine);
        engine.close(place.sequence)
    }
}
