//! Nodes, engines and links as a world has them, and how everything begins.

use std::collections::VecDeque;

use msao_link::shaper::Course;
use msao_registry::driver::Random;
use msao_session::frame::{Cost, Frame, SessionId, encode, limits};

use super::{Event, Options, SWEEP_EVERY_MS, Simulation};
use crate::agenda::Agenda;
use crate::cells::Cells;
use crate::cores::Cores;
use crate::decide::Decides;
use crate::engine::Engine;
use crate::error::{Result, SimulateError};
use crate::link::Link;
use crate::node::{Node, Peer};
use crate::profile::Profile;
use crate::results::Tally;
use crate::slab::Slab;
use crate::traffic::{Arrivals, Traffic};
use crate::world::{EdgeGroup, World};

/// So far apart are the schedules of two links of a group, at most: an hour of a trace.
const MOST_AHEAD_MS: f64 = 3_600_000.0;

/// Nodes, engines and links, as far as they are made.
#[derive(Default)]
struct Plant {
    nodes: Vec<Node>,
    engines: Vec<Engine>,
    /// By engine, another one on the same device.
    beside: Vec<Option<usize>>,
    /// By engine, the node that it is on.
    homes: Vec<usize>,
    /// By node, the cores that all its work shares.
    cores: Vec<Option<Cores<Event>>>,
    links: Vec<Link>,
}

impl Plant {
    /// An engine of the node that is made next.
    fn engine(&mut self, profile: &Profile, name: &str) -> Result<usize> {
        let cost = profile.engine(name, || "engines".to_owned())?;
        self.engines.push(Engine::new(cost));
        self.beside.push(None);
        self.homes.push(self.nodes.len());
        Ok(self.engines.len() - 1)
    }

    fn maybe(&mut self, profile: &Profile, name: Option<&String>) -> Result<Option<usize>> {
        name.map(|name| self.engine(profile, name)).transpose()
    }

    fn node(&mut self, node: Node, cores: Option<u32>) {
        self.nodes.push(node);
        self.cores.push(cores.map(Cores::new));
    }

    /// Edges come first, so that an edge's number is its node's.
    fn edges(&mut self, world: &World, profile: &Profile, seed: u64) -> Result<()> {
        let (edges, clouds) = (world.edge_count() as usize, world.cloud_count() as usize);
        for (number, group) in world.edges.iter().enumerate() {
            let wrong = |error| SimulateError::Link {
                group: number,
                error: Box::new(error),
            };
            let shape = Course::pair(&group.link).map_err(wrong)?;
            for _ in 0..group.count {
                let draft = self.maybe(profile, group.draft.as_ref())?;
                let target = self.maybe(profile, group.target.as_ref())?;
                let mut node = Node::new(draft, target, &world.estimate);
                let edge = self.nodes.len();
                for peer in 0..group.peers as usize {
                    let link = self.link(&shape, group, world, seed);
                    node.peers.push(Peer {
                        node: edges + (edge + peer) % clouds.max(1),
                        link,
                    });
                }
                self.node(node, group.cores);
            }
        }
        Ok(())
    }

    fn link(
        &mut self,
        (up, down): &(Course, Course),
        group: &EdgeGroup,
        world: &World,
        seed: u64,
    ) -> usize {
        let number = self.links.len();
        let mut random = Random::fork(seed ^ group.link.seed, number as u64);
        // The first is as it was written down, so that a world of one edge can be reckoned with; and stalls that come once come
        // at their moment everywhere.
        let once = group.link.repeat_ms.is_none() && !group.link.stalls.is_empty();
        let drawn_ms = random.between(0.0, MOST_AHEAD_MS).round();
        let ahead_ms = if number == 0 || once { 0.0 } else { drawn_ms };
        let own = random.bits();
        let phase = random.unit();
        self.links.push(Link::new(
            up.another(own, ahead_ms),
            down.another(own, ahead_ms),
            &world.estimate,
            phase,
        ));
        number
    }

    fn clouds(&mut self, world: &World, profile: &Profile) -> Result<()> {
        for group in &world.clouds {
            for _ in 0..group.count {
                let draft = self.maybe(profile, group.draft.as_ref())?;
                let target = self.engine(profile, &group.target)?;
                if let Some(draft) = draft.filter(|_| group.one_device) {
                    for (engine, other) in [(draft, target), (target, draft)] {
                        if let Some(beside) = self.beside.get_mut(engine) {
                            *beside = Some(other);
                        }
                    }
                }
                let mut node = Node::new(draft, Some(target), &world.estimate);
                node.price_per_mtok = group.price_per_mtok;
                node.most_sessions = group.most_sessions as usize;
                self.node(node, group.cores);
            }
        }
        Ok(())
    }
}

impl<'a> Simulation<'a> {
    /// Everything has been checked, but for traces that have not been read.
    pub(super) fn new(
        world: &World,
        profile: &Profile,
        traffic: &'a Traffic,
        decides: &'a mut dyn Decides,
        options: &Options,
    ) -> Result<Simulation<'a>> {
        let mut plant = Plant::default();
        plant.edges(world, profile, options.seed)?;
        plant.clouds(world, profile)?;
        let learners = match world.rules.learn_together {
            true => 1,
            false => world.edge_count() as usize,
        };
        Ok(Simulation {
            decides,
            rules: world.rules,
            plugins: profile.plugins,
            costs: profile.nodes,
            estimate: world.estimate.clone(),
            agenda: Agenda::new(),
            nodes: plant.nodes,
            engines: plant.engines,
            beside: plant.beside,
            homes: plant.homes,
            cores: plant.cores,
            links: plant.links,
            runs: Slab::new(),
            policy_cells: Cells::new(learners, &options.calibration),
            score_cells: Cells::new(learners, &Default::default()),
            turns: Vec::new(),
            stirred: Vec::new(),
            flapped: Vec::new(),
            shared: Vec::new(),
            done: Vec::new(),
            wire: Vec::new(),
            keys: Vec::new(),
            cost_bytes: cost_bytes(),
            left: traffic.questions.len() as u32,
            tally: Tally::new(options.keep),
            traffic,
        })
    }

    /// Has the first questions come.
    pub(super) fn begin(&mut self) {
        for number in 0..self.nodes.len() as u32 {
            // Only those whom somebody hears of tell.
            let is_peer = self
                .nodes
                .get(number as usize)
                .is_some_and(|it| it.peers.is_empty());
            if is_peer {
                self.tells_figures(number);
            }
        }
        self.agenda.at(SWEEP_EVERY_MS, Event::Sweep);
        match self.traffic.arrivals {
            Arrivals::ByClock => self.comes_next(0),
            Arrivals::InTurn { clients, .. } => {
                let edges = self.traffic.questions.iter().map(|it| it.edge as usize + 1);
                let edges = edges.max().unwrap_or(0);
                self.turns.resize_with(edges, VecDeque::new);
                for (number, question) in (0..).zip(&self.traffic.questions) {
                    if let Some(turns) = self.turns.get_mut(question.edge as usize) {
                        turns.push_back(number);
                    }
                }
                for edge in 0..edges {
                    for _ in 0..clients {
                        if !self.takes_turn(edge, 0.0) {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Has a question come at its moment.
    pub(super) fn comes_next(&mut self, number: u32) {
        if let Some(question) = self.traffic.questions.get(number as usize) {
            let at_ms = question.arrives_ms;
            self.agenda.at(at_ms, Event::Arrives(number));
        }
    }

    /// A client asks an edge's next question after so long; false if there is none.
    pub(super) fn takes_turn(&mut self, edge: usize, in_ms: f64) -> bool {
        let next = self.turns.get_mut(edge).and_then(VecDeque::pop_front);
        if let Some(number) = next {
            let at_ms = self.now_ms() + in_ms;
            self.agenda.at(at_ms, Event::Arrives(number));
        }
        next.is_some()
    }
}

/// Bytes of a frame that tells what a session has cost: the same for all, but for how long its numbers are.
fn cost_bytes() -> u64 {
    let frame = Frame::Cost(Cost {
        session: SessionId([7; 16]),
        account: u64::MAX,
        target_flops: 1 << 40,
        draft_flops: 0,
        cached_tokens: 0,
        cache_byte_seconds: 0.5,
        busy_ms: 0.5,
        activation_bytes: 1 << 40,
    });
    let mut bytes = Vec::new();
    let written = encode(&frame, limits::NEWEST, &mut bytes);
    written.map_or(0, |()| bytes.len() as u64)
}
