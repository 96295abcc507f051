//! The edge, the cloud, the link between them, and time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use msao_core::offload::Action;
use msao_core::sampling::{TokenLogprob, TopLogprobs};
use msao_session::cloud::{self, Cloud};
use msao_session::edge::{self, Drafted, Edge};
use msao_session::frame::{Decoder, Frame, encode, limits};

use super::engine::{Done, Engine, Order};
use super::link::Direction;
use super::rng::{Rng, mix, unit};
use super::scenario::{Report, Scenario};
use super::toy::END;

#[derive(Debug)]
enum Happening {
    EdgeEngine,
    /// Of this generation of the cloud's engine.
    CloudEngine(u32),
    CloudReady(u32),
    ToCloud(u32, Vec<u8>),
    ToEdge(u32, Vec<u8>),
    Edge(edge::Event),
    CloudTick,
    Spare(bool),
    Cut,
    CutNoticed(u32),
    Back,
    Kill,
}

struct At(f64, u64, Happening);

impl PartialEq for At {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for At {}

impl PartialOrd for At {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for At {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0).then(self.1.cmp(&other.1))
    }
}

/// By these a token can be told from its neighbours.
pub fn logprobs(id: u32) -> TopLogprobs {
    let chosen = TokenLogprob {
        id,
        logprob: -f64::from(id),
    };
    TopLogprobs {
        chosen,
        top: vec![chosen],
    }
}

struct World {
    scenario: Scenario,
    rng: Rng,
    now_ms: f64,
    queue: BinaryHeap<Reverse<At>>,
    count: u64,
    edge: Edge,
    alive: bool,
    edge_engine: Engine,
    /// When the newest tick comes.
    edge_due_ms: Option<f64>,
    cloud_due_ms: Option<f64>,
    cloud: Option<Cloud>,
    cloud_engine: Engine,
    generation: u32,
    spare: bool,
    up: Direction,
    down: Direction,
    /// Of the streams, the one that stands, and the one that the cloud's session came by.
    stream: u32,
    connected: bool,
    cloud_stream: u32,
    edge_decoder: Decoder,
    cloud_decoder: Decoder,
    report: Report,
}

/// Plays a scenario until nothing is left to happen.
pub fn run(scenario: Scenario) -> Report {
    let (edge, first) = Edge::start(scenario.edge.clone(), 0.0);
    let direction = Direction::new(scenario.one_way_ms, scenario.bandwidth_bps);
    let world = World {
        rng: Rng(scenario.seed),
        now_ms: 0.0,
        queue: BinaryHeap::new(),
        count: 0,
        edge,
        alive: true,
        edge_engine: Engine::default(),
        edge_due_ms: None,
        cloud_due_ms: None,
        cloud: None,
        cloud_engine: Engine::default(),
        generation: 0,
        spare: scenario.spare.unwrap_or(false),
        up: direction,
        down: direction,
        stream: 1,
        connected: true,
        cloud_stream: 0,
        edge_decoder: Decoder::of_version(limits::NEWEST),
        cloud_decoder: Decoder::of_version(limits::NEWEST),
        report: Report {
            committed: Vec::new(),
            at_ms: Vec::new(),
            ending: None,
            counters: edge::Counters::default(),
            cloud: cloud::Counters::default(),
            ended_ms: f64::INFINITY,
            freed_ms: 0.0,
            cuts: 0,
        },
        scenario,
    };
    world.play(first)
}

impl World {
    fn play(mut self, first: Vec<edge::Effect>) -> Report {
        if let Some((mean_ms, _)) = self.scenario.cuts_ms {
            let first_ms = self.rng.within(0.0, 2.0 * mean_ms);
            self.later(first_ms, Happening::Cut);
        }
        if let Some(stop_ms) = self.scenario.stop_ms {
            self.later(stop_ms, Happening::Edge(edge::Event::Stop));
        }
        if let Some(kill_ms) = self.scenario.kill_ms {
            self.later(kill_ms, Happening::Kill);
        }
        if self.scenario.spare.is_none() {
            self.later(5.0, Happening::Spare(true));
        }
        self.edge_effects(first);
        let mut steps = 0_u64;
        while let Some(Reverse(At(at_ms, _, happening))) = self.queue.pop() {
            steps += 1;
            assert!(
                steps < 3_000_000,
                "it goes on for ever: {:?}",
                self.scenario
            );
            self.now_ms = at_ms;
            self.happen(happening);
        }
        assert!(self.cloud.is_none(), "the cloud holds on to a session");
        let ids: Vec<u32> = self.report.committed.iter().map(|c| c.id).collect();
        assert_eq!(
            ids,
            self.edge.committed(),
            "what the client got is what is committed"
        );
        self.report.counters = self.edge.counters().clone();
        self.report
    }

    fn later(&mut self, in_ms: f64, happening: Happening) {
        self.at(self.now_ms + in_ms, happening);
    }

    fn at(&mut self, at_ms: f64, happening: Happening) {
        self.count += 1;
        self.queue.push(Reverse(At(at_ms, self.count, happening)));
    }

    fn jitter(&mut self) -> f64 {
        let most = self.scenario.jitter_ms;
        // Now and then a stall.
        let stall = if self.rng.chance(0.02) { 20.0 } else { 1.0 };
        self.rng.within(0.0, most) * stall
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::EdgeEngine => {
                if self.edge_engine.is_settled() && self.alive {
                    let (read, known) = (&self.edge_engine.output, self.edge.committed());
                    let both = read.len().min(known.len());
                    assert_eq!(read[..both], known[..both], "drafts behind another prefix");
                }
                let Done::Drafted { stamp, id } = self.edge_engine.finish(&self.scenario.toy)
                else {
                    panic!("the draft model verified")
                };
                self.edge_engine_begins();
                let p = unit(mix(stamp ^ self.scenario.seed));
                self.tell_edge(edge::Event::Drafted(Drafted {
                    stamp,
                    id,
                    ends: id == END,
                    p_accept: p,
                    sure: p,
                    top1: p,
                    entropy_nats: 1.0,
                    margin: 1.0,
                }));
            }
            Happening::CloudEngine(generation) if generation == self.generation => {
                let done = self.cloud_engine.finish(&self.scenario.toy);
                let Done::Verified {
                    stamp,
                    choices,
                    ended,
                } = done
                else {
                    panic!("the target drafted")
                };
                let told = self.scenario.edge.open.top_logprobs.is_some();
                let choice = |id| cloud::Choice {
                    id,
                    logprobs: told.then(|| logprobs(id)),
                };
                let choices = choices.into_iter().map(choice);
                self.tell_cloud(cloud::Event::Verified {
                    stamp,
                    choices: choices.collect(),
                    ended,
                });
            }
            Happening::CloudReady(generation) if generation == self.generation => {
                self.tell_cloud(cloud::Event::Ready);
            }
            Happening::CloudEngine(_) | Happening::CloudReady(_) => {}
            Happening::ToCloud(stream, bytes) => self.arrives_at_cloud(stream, &bytes),
            Happening::ToEdge(stream, bytes) => self.arrives_at_edge(stream, &bytes),
            Happening::Edge(event) => self.tell_edge(event),
            Happening::CloudTick => self.tell_cloud(cloud::Event::Tick),
            Happening::Spare(spare) => {
                self.spare = spare;
                self.tell_cloud(cloud::Event::Spare(spare));
                if !self.edge.is_done() && self.alive {
                    let next_ms = self.rng.within(1.0, 200.0);
                    self.later(next_ms, Happening::Spare(!spare));
                }
            }
            Happening::Cut => self.cut(),
            Happening::CutNoticed(stream) if stream == self.cloud_stream => {
                self.tell_cloud(cloud::Event::Lost);
            }
            Happening::CutNoticed(_) => {}
            Happening::Back => {
                self.connected = true;
                self.tell_edge(edge::Event::PeerBack);
                let (mean_ms, _) = self.scenario.cuts_ms.unwrap();
                let next_ms = self.rng.within(0.0, 2.0 * mean_ms);
                self.later(next_ms, Happening::Cut);
            }
            Happening::Kill => {
                self.alive = false;
                self.report.ended_ms = self.report.ended_ms.min(self.now_ms);
                self.disconnect();
            }
        }
    }

    fn disconnect(&mut self) {
        let noticed_ms = self.rng.within(0.0, 100.0);
        self.later(noticed_ms, Happening::CutNoticed(self.stream));
        self.stream += 1;
        self.connected = false;
        self.up.reset();
        self.down.reset();
        self.edge_decoder = Decoder::of_version(limits::NEWEST);
        self.cloud_decoder = Decoder::of_version(limits::NEWEST);
    }

    fn cut(&mut self) {
        if self.edge.is_done() || !self.alive {
            return;
        }
        self.report.cuts += 1;
        self.disconnect();
        let (_, most_ms) = self.scenario.cuts_ms.unwrap();
        let back_ms = self.rng.within(0.0, most_ms);
        self.later(back_ms, Happening::Back);
        self.tell_edge(edge::Event::PeerLost);
    }

    /// Feeds bytes in two pieces.
    fn decode(&mut self, at_edge: bool, bytes: &[u8]) -> Vec<Frame> {
        let (first, second) = bytes.split_at(self.rng.below(bytes.len() as u64) as usize);
        let decoder = if at_edge {
            &mut self.edge_decoder
        } else {
            &mut self.cloud_decoder
        };
        let mut frames = Vec::new();
        for mut piece in [first, second] {
            while !piece.is_empty() {
                frames.extend(decoder.feed(&mut piece).unwrap());
            }
        }
        frames
    }

    fn arrives_at_cloud(&mut self, stream: u32, bytes: &[u8]) {
        if stream != self.stream {
            return;
        }
        for frame in self.decode(false, bytes) {
            match frame {
                Frame::Open(open) => {
                    self.cloud_stream = stream;
                    if self.cloud.is_some() {
                        self.tell_cloud(cloud::Event::Reopened(open));
                        continue;
                    }
                    self.generation += 1;
                    self.cloud_engine = Engine::default();
                    let (cloud, effects) = Cloud::open(*open, self.scenario.cloud, self.now_ms);
                    self.cloud = Some(cloud);
                    self.cloud_effects(effects);
                    self.tell_cloud(cloud::Event::Spare(self.spare));
                    let ready = Happening::CloudReady(self.generation);
                    self.later(self.scenario.prefill_ms, ready);
                }
                Frame::Draft(draft) => self.tell_cloud(cloud::Event::Draft(draft)),
                Frame::Cancel(_) | Frame::Close(_) => self.tell_cloud(cloud::Event::Done),
                other => panic!("{other:?} came to the cloud"),
            }
        }
    }

    fn arrives_at_edge(&mut self, stream: u32, bytes: &[u8]) {
        if stream != self.stream {
            return;
        }
        for frame in self.decode(true, bytes) {
            match frame {
                Frame::Verdict(verdict) => self.tell_edge(edge::Event::Verdict(verdict)),
                other => panic!("{other:?} came to the edge: {:?}", self.scenario),
            }
        }
    }

    fn tell_edge(&mut self, event: edge::Event) {
        if self.alive {
            let effects = self.edge.advance(self.now_ms, event);
            self.edge_effects(effects);
        }
    }

    fn edge_effects(&mut self, effects: Vec<edge::Effect>) {
        for effect in effects {
            assert_eq!(self.report.ending, None, "it goes on after its end");
            match effect {
                edge::Effect::Send(frame) => self.edge_sends(&frame),
                edge::Effect::Draft { stamp, position } => {
                    self.edge_engine.order(Order::Draft { stamp, position });
                }
                edge::Effect::RollBack { to } => self.edge_engine.order(Order::RollBack(to)),
                edge::Effect::Append { ids } => self.edge_engine.order(Order::Append(ids)),
                edge::Effect::Commit(tokens) => {
                    let at = std::iter::repeat_n(self.now_ms, tokens.len());
                    self.report.at_ms.extend(at);
                    self.report.committed.extend(tokens);
                }
                edge::Effect::Ask(input) => {
                    let action: Action = self.scenario.policy.step(&input);
                    let in_ms = self.rng.within(0.0, self.scenario.step_ms);
                    self.later(in_ms, Happening::Edge(edge::Event::Action(action)));
                }
                edge::Effect::GiveUpStream(violation) => {
                    panic!("{violation}: {:?}", self.scenario)
                }
                edge::Effect::End(ending) => {
                    self.report.ending = Some(ending);
                    self.report.ended_ms = self.now_ms;
                }
            }
        }
        self.edge_engine_begins();
        let due_ms = self.edge.due_ms();
        if due_ms != std::mem::replace(&mut self.edge_due_ms, due_ms)
            && let Some(due_ms) = due_ms
        {
            self.at(due_ms, Happening::Edge(edge::Event::Tick));
        }
    }

    fn edge_sends(&mut self, frame: &Frame) {
        if !self.connected {
            if let Frame::Open(_) = frame {
                self.later(0.0, Happening::Edge(edge::Event::PeerLost));
            }
            return;
        }
        let mut bytes = Vec::new();
        encode(frame, limits::NEWEST, &mut bytes).unwrap();
        let more_ms = self.jitter();
        let at_ms = self.up.send(self.now_ms, bytes.len(), more_ms);
        self.at(at_ms, Happening::ToCloud(self.stream, bytes));
    }

    fn edge_engine_begins(&mut self) {
        if self.edge_engine.begin() {
            let in_ms = self.scenario.draft_ms + self.jitter();
            self.later(in_ms, Happening::EdgeEngine);
        }
    }

    fn tell_cloud(&mut self, event: cloud::Event) {
        if let Some(cloud) = &mut self.cloud {
            let effects = cloud.advance(self.now_ms, event);
            self.cloud_effects(effects);
        }
    }

    fn cloud_effects(&mut self, effects: Vec<cloud::Effect>) {
        for effect in effects {
            match effect {
                cloud::Effect::Verify {
                    stamp,
                    position,
                    drafts,
                } => self.cloud_engine.order(Order::Verify {
                    stamp,
                    position,
                    drafts,
                }),
                cloud::Effect::RollBack { to } => self.cloud_engine.order(Order::RollBack(to)),
                cloud::Effect::Append { ids } => self.cloud_engine.order(Order::Append(ids)),
                cloud::Effect::Send(frame) => {
                    if self.cloud_stream != self.stream {
                        continue;
                    }
                    let mut bytes = Vec::new();
                    encode(&frame, limits::NEWEST, &mut bytes).unwrap();
                    let more_ms = self.jitter();
                    let at_ms = self.down.send(self.now_ms, bytes.len(), more_ms);
                    let arrives = Happening::ToEdge(self.cloud_stream, bytes);
                    self.at(at_ms, arrives);
                }
                cloud::Effect::Free => {
                    let cloud = self.cloud.take().unwrap();
                    assert!(cloud.is_freed());
                    self.report.cloud = *cloud.counters();
                    self.report.freed_ms = self.now_ms;
                    self.generation += 1;
                    self.cloud_engine = Engine::default();
                }
            }
        }
        if self.cloud_engine.begin() {
            let in_ms = self.scenario.verify_ms + self.jitter();
            self.later(in_ms, Happening::CloudEngine(self.generation));
        }
        let due_ms = self.cloud.as_ref().and_then(Cloud::due_ms);
        if due_ms != std::mem::replace(&mut self.cloud_due_ms, due_ms)
            && let Some(due_ms) = due_ms
        {
            self.at(due_ms, Happening::CloudTick);
        }
    }
}
