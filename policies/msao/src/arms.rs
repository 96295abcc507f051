//! All ways to run a request, and what is predicted of each.
//!
//! With `n` the tokens that the answer is thought to have, `t` a token's time by the route, all in ms:
//!
//! ```text
//! ready       = rtt * trips + waits + upload + prompt * t_read
//! edge          first = waits + prompt * t_read + t_d, here       rest = (1 - left) * (n - 1) * t_d + left * cloud's total
//! cloud         first = ready                                     rest = (n - 1) * t_t
//! cloud-draft   first = ready + prompt * t_read * t_d / t_t       rest = (n - 1) * t, both models side by side
//! speculate     first = ready                                     rest = later + L + (n - 1) * (t_d + (1 - a) * L)
//! total = first * how far such firsts were off + rest * how far such rests were off
//! ```
//!
//! `left`: share of edge answers that are left to a target at a token of which the draft model is not sure, 0 where none can
//! take over. Where media are brought there at once, what of their way is over by the first token is taken off again.
//!
//! `trips`: 1; where media are sent 2, for the peer has them before it is asked the question; where one of them is large
//! 3, for whether it has that it is asked first. `t_d / t_t` is no more than 1: a draft model beside the target reads the
//! prompt as well, on the same machine, and how fast it does nobody tells. `later`: by how much the first draft comes
//! after the target is ready. `L` is there once more for the last verdict. [`stream`] has `L` and `t`.
//!
//! Where the probe is going to run, edge and speculate wait for it first: its time is added to theirs, and half of the edge's reading is
//! then over.
//!
//! What a peer computes is charged by `target-charge`, for others wait for it; so is what this node computes for drafts that are verified,
//! which the target alone would do without.
//!
//! A draft model beside the target has its node compute half as much again, at the expense of whoever comes next: like a stream it
//! must pay by `margin`, or is declined.
//!
//! [`off`] has how far off they were.
//!
//! [`off`]: crate::off
//! [`stream`]: crate::stream

use alloc::vec::Vec;

use msao_plugin::{Node, PlanInput, Route, capability, flag};

use crate::cells::{self, ArmCells, MAX_ROWS, RowCells, mean_beside, seen};
use crate::model::{Link, MOST, Machine, amount};
use crate::off::Off;
use crate::retention::{COARSE, Media, PRUNED, Peer, SMALL, WHOLE};
use crate::shape::{Shape, answer_tokens};
use crate::stream::{Stream, side_by_side_ms, verdict_ms};
use crate::{Settings, larger, probe, root, smaller, within};

/// What the host says of acceptance weighs like so many requests, and requests weigh like so many at most.
const TOLD: f64 = 4.0;
const SURE: f64 = 16.0;
/// Share of edge answers that are thought to be left to a target before any was.
const LEFT: f64 = 0.4;
/// That counts like so many answers.
const GUESSED: f64 = 4.0;
/// What was learned of a mix counts like so many requests whose text is as long.
const ALIKE: f64 = 4.0;
/// The mean of what was left to a target remembers so many answers: each counts a twentieth at least.
const REMEMBERED: f64 = 39.0;
/// Nobody's drafts are thought to stand more often.
const MOST_ACCEPTED: f64 = 0.98;

/// What is predicted, before anything learned corrects it. In ms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) first_ms: f64,
    /// Of the rest, what does not depend on the number of tokens.
    pub(crate) tail_ms: f64,
    /// Each token behind the first.
    pub(crate) token_ms: f64,
}

/// One way to run the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arm {
    pub(crate) route: Route,
    pub(crate) row: u32,
    /// How who answers gets media, by number.
    pub(crate) level: usize,
    /// The same of the target; on route `edge` of the one that an answer would be left to.
    pub(crate) level_there: usize,
    /// On route `edge` the row that media are brought to at once; 0: none.
    pub(crate) brings_to: u32,
    pub(crate) waits_ms: f64,
    pub(crate) upload_ms: f64,
    pub(crate) read_ms: f64,
    pub(crate) times: Times,
    /// Factors by which the first token and the rest were off before.
    pub(crate) first_off: f64,
    pub(crate) rest_off: f64,
    /// What the probe takes before all that, where it is going to run; waiting for its turn is in it where that is not in the waits.
    pub(crate) probe_ms: f64,
    /// Corrected by these, and behind the probe.
    pub(crate) first_ms: f64,
    pub(crate) total_ms: f64,
    /// Share of drafts that stand.
    pub(crate) acceptance: f64,
    /// What others are thought to cost whom it is left to, in ms.
    pub(crate) beside_ms: f64,
    /// Price, that included; what a target's time is charged; and doubt, in ms.
    pub(crate) price_ms: f64,
    pub(crate) charge_ms: f64,
    pub(crate) doubt_ms: f64,
    pub(crate) score: f64,
    /// Requests since it was last taken.
    pub(crate) stale: f64,
    /// 0: it keeps the deadline and finds room. 1: no room as things are; the draft model's own answer, too, where no target
    /// has any that is in time, so that the score decides whether to wait for one. 2 and more: late.
    pub(crate) rank: u32,
    /// Speculation that does not pay.
    pub(crate) declined: bool,
    /// It would take no less time than the target alone if the figures of the node were just right: no trial is worth it.
    pub(crate) hopeless: bool,
    /// Of speculation: a token of the target alone, as far off as such tokens were beside the stream's.
    pub(crate) plain_ms: f64,
}

/// All that was found out about a request.
#[derive(Debug)]
pub(crate) struct Weighed {
    pub(crate) shape: Shape,
    pub(crate) media: Media,
    /// Tokens that the answer is thought to have.
    pub(crate) tokens: f64,
    /// Requests that were learned from.
    pub(crate) requests: f64,
    /// A target takes edge answers over where the draft model is not sure.
    pub(crate) gated: bool,
    pub(crate) arms: Vec<Arm>,
}

struct Weighing<'a> {
    input: &'a PlanInput<'a>,
    settings: &'a Settings,
    weighed: Weighed,
    cells: RowCells<'a>,
    here: Machine,
    /// What the probe is going to take where this node's draft model is asked; 0 where it has run, or may not.
    probe_ms: f64,
    /// It is going to.
    opens: bool,
    /// Share of the draft model's reading that is left behind it.
    behind_probe: f64,
    /// What the draft model takes to read the prompt for somebody who verifies its drafts.
    draft_read_ms: f64,
    /// When this node has the first of these.
    draft_ready_ms: f64,
    /// The target that an edge answer would be left to.
    heir: Option<Heir>,
}

/// A target that can go on with what this node has committed.
#[derive(Clone, Copy)]
struct Heir {
    row: u32,
    /// How it gets media, by number.
    level: usize,
    total_ms: f64,
    /// Of that, until it has the media.
    way_ms: f64,
    price_ms: f64,
    charge_ms: f64,
}

/// A row that has the target.
struct Row<'a> {
    row: u32,
    node: &'a Node,
    machine: Machine,
    link: Link,
    acceptance: f64,
    /// The same as the node tells it.
    told: f64,
    level: usize,
    upload_ms: f64,
    read_ms: f64,
    ready_ms: f64,
}

/// What an arm has beside its times.
#[derive(Clone, Copy, Default)]
struct Beside {
    declined: bool,
    hopeless: bool,
    plain_ms: f64,
    /// What a draft model beside the target takes to read the prompt.
    read_ms: f64,
    /// What is still to be looked at before it is asked.
    probe_ms: f64,
    /// What this node computes for it, which is charged like a peer's time.
    here_ms: f64,
}

/// Weighs all that can run the request.
pub(crate) fn weigh(input: &PlanInput, settings: &Settings) -> Weighed {
    let shape = Shape::of(input);
    let media = Media::of(input, settings, shape);
    let requests = (input.calibration.get(cells::REQUESTS)).map_or(0.0, |cell| cell.count);
    let mut here = Machine::of(input.here());
    if media.scored && !probe::was_refused(input) {
        // It has a seat. Behind a refusal it may have let go of it.
        here.waits_ms = 0.0;
    }
    let opens = probe::is_open(input, settings, &media);
    let behind_probe = match opens || media.scored {
        true => 1.0 - probe::SHARE,
        false => 1.0,
    };
    // The probe waits for its turn, and what comes behind it does not wait once more.
    let (probe_ms, waits_ms) = match opens {
        true => (probe::time_ms(input, &media), 0.0),
        false => (0.0, here.waits_ms),
    };
    let read_ms = behind_probe * media.draft_tokens * here.read_ms;
    let mut weighing = Weighing {
        input,
        settings,
        cells: RowCells::of(input.calibration),
        probe_ms,
        opens,
        behind_probe,
        draft_read_ms: read_ms,
        draft_ready_ms: waits_ms + read_ms + here.draft_ms,
        heir: None,
        here,
        weighed: Weighed {
            shape,
            tokens: answer_tokens(input.request, input.calibration, settings, shape),
            requests: amount(requests, 0.0),
            gated: false,
            media,
            arms: Vec::with_capacity(3 * input.nodes.len() + 1),
        },
    };
    weighing.all();
    weighing.weighed
}

impl<'a> Weighing<'a> {
    fn all(&mut self) {
        let input = self.input;
        let here = input.here();
        let exact = input.request.has(flag::EXACT);
        // Of this node's own cells, the edge's come before those of its target.
        let own = self.cells.acceptance(0, self.weighed.shape);
        let edge = self.cells.arm(0, Route::Edge);
        let mut acceptance = None;
        if here.is(capability::TARGET) {
            let row = self.row(0, here, self.acceptance(here, own));
            acceptance = Some(row.acceptance);
            // Here the two models are each for itself, and may read different ids.
            let both = capability::DRAFT | capability::SAME_TOKENIZER;
            self.peer(&row, here.is(both), false);
        }
        let may_leave = !input.bound_here();
        for (number, node) in input.peers().take_while(|(row, _)| *row < MAX_ROWS) {
            if !node.is(capability::TARGET) {
                continue;
            }
            let learned = self.cells.acceptance(number, self.weighed.shape);
            let stands = self.acceptance(node, learned);
            acceptance.get_or_insert(stands);
            if !node.up || !may_leave {
                continue;
            }
            let row = self.row(number, node, stands);
            let verifies = capability::VERIFY | capability::SAME_TOKENIZER;
            let speculates = here.is(capability::DRAFT) && node.is(verifies);
            self.peer(&row, node.is(capability::DRAFT), speculates);
        }
        if here.is(capability::DRAFT) && !exact {
            let acceptance = acceptance.unwrap_or(self.settings.acceptance_prior);
            self.edge(here, edge, within(acceptance, 0.0, 1.0));
        }
    }

    /// Share of drafts that stand with a node, as it says.
    fn told(&self, node: &Node) -> f64 {
        if (0.0..=1.0).contains(&node.acceptance) {
            node.acceptance
        } else {
            self.settings.acceptance_prior
        }
    }

    /// The same with what requests of this shape showed.
    fn acceptance(&self, node: &Node, learned: Option<(f64, f64)>) -> f64 {
        let told = self.told(node);
        let acceptance = match learned {
            Some((mean, count)) => {
                let count = smaller(count, SURE);
                (mean * count + told * TOLD) / (count + TOLD)
            }
            None => told,
        };
        within(acceptance, 0.0, MOST_ACCEPTED)
    }

    fn row(&self, row: u32, node: &'a Node, acceptance: f64) -> Row<'a> {
        let media = &self.weighed.media;
        let machine = Machine::of(node);
        let link = Link::of(row, node, self.settings.bandwidth_caution);
        let cached = amount(node.cached_bytes, 0.0);
        let peer = Peer {
            link: &link,
            machine: &machine,
            cached,
        };
        let ready_ms = |level: usize| {
            let (upload_ms, read_ms) = media.times_ms(level, &peer);
            let trips = media.round_trips(level, cached);
            let ready_ms = trips * link.rtt_ms + machine.waits_ms + upload_ms + read_ms;
            (ready_ms, upload_ms, read_ms)
        };
        let mut level = WHOLE;
        if media.media_tokens > 0.0 {
            let total_ms = ready_ms(WHOLE).0 + self.weighed.tokens * machine.target_ms;
            let most = if media.scored { SMALL } else { COARSE };
            let [gain_ms, prune_ms] =
                [self.settings.worth, self.settings.prune_worth].map(|share| share * total_ms);
            level = media.pick(&peer, gain_ms, prune_ms, most);
        }
        let (ready_ms, upload_ms, read_ms) = ready_ms(level);
        Row {
            row,
            node,
            acceptance,
            told: within(self.told(node), 0.0, MOST_ACCEPTED),
            level,
            upload_ms,
            read_ms,
            ready_ms,
            machine,
            link,
        }
    }

    /// The arms of a row with the target. `drafts`: it has a draft model beside it. `speculates`: it verifies this
    /// node's drafts.
    fn peer(&mut self, row: &Row, drafts: bool, speculates: bool) {
        let speculation = self.settings.speculation;
        let (drafts, speculates) = (drafts && speculation, speculates && speculation);
        let machine = &row.machine;
        let known = [Route::Cloud, Route::CloudDraft, Route::Speculate]
            .map(|route| self.cells.arm(row.row, route));
        let [cloud, both, stream] = Off::of(known, self.weighed.requests, self.settings);
        let times = |tail_ms: f64, token_ms: f64| Times {
            first_ms: row.ready_ms,
            tail_ms,
            token_ms,
        };
        let alone_ms = machine.target_ms;
        let alone = times(0.0, alone_ms);
        self.add(row, Route::Cloud, alone, cloud, Beside::default());
        let (alone_total_ms, alone_rank) =
            (self.weighed.arms.last()).map_or((MOST, 0), |arm| (arm.total_ms, arm.rank));
        if row.node.is(capability::SAME_TOKENIZER)
            && let Some(arm) = self.weighed.arms.last()
            && self.heir.is_none_or(|heir| arm.total_ms < heir.total_ms)
        {
            let trips = self
                .weighed
                .media
                .round_trips(row.level, amount(row.node.cached_bytes, 0.0));
            self.heir = Some(Heir {
                row: row.row,
                level: row.level,
                total_ms: arm.total_ms,
                way_ms: row.upload_ms + (trips - 1.0) * row.link.rtt_ms,
                price_ms: arm.price_ms,
                charge_ms: arm.charge_ms,
            });
        }
        // What a token takes without this node's drafts; and by the node's own figures, nothing learned.
        let mut plain_ms = alone_ms * cloud.rest;
        let mut plain_told_ms = alone_ms;
        if drafts {
            let token_ms = side_by_side_ms(machine, row.acceptance);
            let token_told_ms = match row.told == row.acceptance {
                true => token_ms,
                false => side_by_side_ms(machine, row.told),
            };
            let read_ms = row.read_ms * machine.beside_share();
            let saved_ms = (self.weighed.tokens - 1.0) * (alone_ms - token_told_ms);
            let beside = Beside {
                hopeless: saved_ms <= read_ms,
                read_ms,
                ..Beside::default()
            };
            let times = Times {
                first_ms: row.ready_ms + read_ms,
                ..times(0.0, token_ms)
            };
            self.add(row, Route::CloudDraft, times, both, beside);
            let margin = 1.0 + self.settings.margin;
            if let Some(arm) = self.weighed.arms.last_mut() {
                // What keeps the deadline that the target alone does not keep is not held against it.
                let is_worse = arm.total_ms * margin > alone_total_ms;
                arm.declined = is_worse && alone_rank <= arm.rank;
                if !arm.declined {
                    plain_ms = smaller(token_ms * both.rest, plain_ms);
                    plain_told_ms = token_told_ms;
                }
            }
        }
        if speculates {
            let round = Stream {
                draft_ms: self.here.draft_ms,
                verdict_ms: row.link.rtt_ms + verdict_ms(machine, &row.link) + machine.queue_ms,
                acceptance: row.acceptance,
            };
            let told = Stream {
                acceptance: row.told,
                ..round
            };
            let later_ms = larger(self.draft_ready_ms - row.ready_ms, 0.0);
            let token_ms = round.token_ms();
            let pays =
                |token_ms: f64, plain_ms: f64| token_ms * (1.0 + self.settings.margin) <= plain_ms;
            let beside = Beside {
                declined: !pays(token_ms * stream.rest, plain_ms),
                hopeless: !pays(told.token_ms(), plain_told_ms),
                plain_ms: alone_ms * cloud.rest / stream.rest,
                read_ms: 0.0,
                probe_ms: match self.opens {
                    true => self.here.waits_ms + self.probe_ms,
                    false => 0.0,
                },
                here_ms: self.probe_ms
                    + self.draft_read_ms
                    + self.weighed.tokens * self.here.draft_ms,
            };
            let times = times(later_ms + round.verdict_ms, token_ms);
            self.add(row, Route::Speculate, times, stream, beside);
        }
    }

    fn add(&mut self, row: &Row, route: Route, times: Times, off: Off, beside: Beside) {
        let tokens = self.weighed.media.tokens.get(row.level).copied();
        let arm = Arm {
            row: row.row,
            level: row.level,
            level_there: row.level,
            waits_ms: row.machine.waits_ms,
            upload_ms: row.upload_ms,
            read_ms: row.read_ms + beside.read_ms,
            acceptance: row.acceptance,
            declined: beside.declined,
            hopeless: beside.hopeless,
            plain_ms: beside.plain_ms,
            ..self.predicted(route, times, off)
        };
        let arm = Arm {
            probe_ms: beside.probe_ms,
            first_ms: arm.first_ms + beside.probe_ms,
            total_ms: arm.total_ms + beside.probe_ms,
            charge_ms: self.settings.target_charge * beside.here_ms,
            ..arm
        };
        self.finish(arm, row.node, tokens.unwrap_or(0.0));
    }

    /// The draft model's own answer.
    fn edge(&mut self, node: &Node, mut cells: ArmCells, acceptance: f64) {
        let here = self.here;
        if self.behind_probe < 1.0 {
            // What is left behind the probe is off by a factor of its own: most of the time is over by then.
            cells.first = seen(self.input.calibration.get(cells::BEHIND_PROBE));
        }
        let [off] = Off::of([cells], self.weighed.requests, self.settings);
        let media = &self.weighed.media;
        let peer = Peer {
            link: &Link::NONE,
            machine: &here,
            cached: 0.0,
        };
        let whole_ms = media.times_ms(WHOLE, &peer).1 + self.weighed.tokens * here.draft_ms;
        let most = if media.scored { PRUNED } else { WHOLE };
        let gain_ms = self.settings.worth * whole_ms;
        let level = media.pick(&peer, gain_ms, gain_ms, most);
        let read_ms = self.behind_probe * media.times_ms(level, &peer).1;
        let tokens = media.tokens.get(level).copied();
        let times = Times {
            first_ms: here.waits_ms + read_ms + here.draft_ms,
            tail_ms: 0.0,
            token_ms: here.draft_ms,
        };
        self.weighed.gated = self.heir.is_some() && self.settings.escalate_below > 0.0;
        let (seen_left, left, amiss) = if self.weighed.gated {
            self.gated()
        } else {
            (0.0, 0.0, 1.0 - acceptance)
        };
        let mut own = self.predicted(Route::Edge, times, off);
        own.probe_ms = self.probe_ms;
        own.first_ms += self.probe_ms;
        own.total_ms += self.probe_ms;
        let alone = Heir {
            row: 0,
            level,
            total_ms: 0.0,
            way_ms: 0.0,
            price_ms: 0.0,
            charge_ms: 0.0,
        };
        let heir = self.heir.filter(|_| self.weighed.gated).unwrap_or(alone);
        let brings = heir.way_ms > 0.0 && seen_left >= self.settings.bring_from;
        // What is on its way meanwhile is not waited for.
        let meanwhile_ms = if brings {
            // Nothing is brought before there is a plan, behind the probe.
            smaller(heir.way_ms, own.first_ms - self.probe_ms)
        } else {
            0.0
        };
        let taken_ms = larger(heir.total_ms - meanwhile_ms, 0.0);
        let rest_ms = (1.0 - left) * (own.total_ms - own.first_ms) + left * taken_ms;
        let arm = Arm {
            level,
            waits_ms: here.waits_ms,
            upload_ms: 0.0,
            read_ms,
            acceptance,
            level_there: heir.level,
            brings_to: if brings { heir.row } else { 0 },
            total_ms: own.first_ms + rest_ms,
            beside_ms: left * heir.price_ms,
            charge_ms: left * heir.charge_ms,
            doubt_ms: self.settings.doubt * amiss * (1.0 - left) * self.weighed.tokens,
            ..own
        };
        let targets = &self.weighed.arms;
        let waits =
            targets.iter().any(|arm| arm.rank == 1) && targets.iter().all(|arm| arm.rank > 0);
        self.finish(arm, node, tokens.unwrap_or(0.0));
        if waits && let Some(own) = self.weighed.arms.last_mut() {
            own.rank = own.rank.max(1);
        }
    }

    /// Of edge answers that a target can take over: the share that were left to it, the least that it may well be, and how often it
    /// would choose otherwise where none is.
    fn gated(&self) -> (f64, f64, f64) {
        let (shape, known) = (self.weighed.shape, self.input.calibration);
        // What the first few came to is no reason never to try again: whoever is not asked here teaches nothing of it.
        let left = mean_beside(known.get(cells::left(shape)), LEFT, GUESSED);
        let alike = known.get(cells::left_by_text(shape));
        let left = mean_beside(alike, left, ALIKE);
        // For the same reason a standard error less is hoped for.
        let known_of = seen(alike).map_or(0.0, |(_, count)| smaller(count, REMEMBERED)) + ALIKE;
        let hoped = left - root(left * (1.0 - left) / known_of);
        // Nobody has looked yet: as unsure as a token may be.
        let unsure = 1.0 - self.settings.escalate_below;
        let amiss = mean_beside(known.get(cells::amiss(shape)), unsure, 1.0);
        let amiss = mean_beside(known.get(cells::amiss_by_text(shape)), amiss, ALIKE);
        [left, hoped, amiss]
            .map(|share| within(share, 0.0, 1.0))
            .into()
    }

    /// The times of an arm of which nothing else is said yet.
    // Inlined, as `finish` is: an arm has some two hundred bytes, which need not be copied from function to function.
    #[inline(always)]
    fn predicted(&self, route: Route, times: Times, off: Off) -> Arm {
        let first_ms = times.first_ms * off.first;
        let behind = self.weighed.tokens - 1.0;
        let rest_ms = (times.tail_ms + behind * times.token_ms) * off.rest;
        Arm {
            route,
            row: 0,
            level: WHOLE,
            level_there: WHOLE,
            brings_to: 0,
            waits_ms: 0.0,
            upload_ms: 0.0,
            read_ms: 0.0,
            times,
            first_off: off.first,
            rest_off: off.rest,
            first_ms,
            total_ms: first_ms + rest_ms,
            acceptance: 0.0,
            price_ms: 0.0,
            charge_ms: 0.0,
            probe_ms: 0.0,
            beside_ms: 0.0,
            doubt_ms: 0.0,
            score: 0.0,
            stale: off.stale,
            rank: 0,
            declined: false,
            hopeless: false,
            plain_ms: 0.0,
        }
    }

    /// Scores an arm and takes it in. `read`: tokens of the prompt that are read.
    #[inline(always)]
    fn finish(&mut self, mut arm: Arm, node: &Node, read: f64) {
        let (settings, request) = (self.settings, self.input.request);
        let tokens = self.weighed.tokens;
        let price = amount(node.price_per_mtok, 0.0) * (read + tokens) * 1e-6;
        arm.price_ms = settings.cost_weight * price + arm.beside_ms;
        if arm.row > 0 {
            // A stream's tokens take as long as its drafts and the link do, of which the target has its passes: no more is charged than
            // what it would take alone.
            let token_ms = smaller(arm.times.token_ms, Machine::of(node).target_ms);
            arm.charge_ms += settings.target_charge * (arm.read_ms + tokens * token_ms);
        }
        let first_weight = if request.has(flag::STREAMED) {
            settings.first_weight
        } else {
            0.0
        };
        let costs_ms = arm.price_ms + arm.charge_ms + arm.doubt_ms;
        let score = arm.total_ms + first_weight * arm.first_ms + costs_ms;
        arm.score = smaller(score, MOST);
        let late = request.deadline_ms > 0.0 && arm.total_ms > request.deadline_ms;
        // The cache sets aside what the answer may come to need.
        let room = read + f64::from(request.max_tokens);
        let full = node.kv_free >= 0.0 && node.kv_free < room;
        arm.rank = 2 * u32::from(late) + u32::from(full);
        self.weighed.arms.push(arm);
    }
}
