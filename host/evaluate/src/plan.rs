//! What is asked in which order: the grid of a specification, cut into short turns.
//!
//! A *cell* is (data set, link, arrivals, policy). In each repeat each cell has one *turn*. The turns of one *block* (data set,
//! link, arrivals) follow each other directly, ask the same items at the same moments with the same seeds, others than other blocks ask,
//! and are in another order in each repeat: over as many repeats as there are policies each policy is once in each place. So what drifts hits all
//! alike, and differences between policies are paired. Turns that are about accuracy alone come behind the timed ones. Where they
//! come in rounds, the plan has all that may be wanted; which of them are, the rows of the rounds before tell ([`crate::rounds`]).
//!
//! A turn's id is a digest of all that it is. It does not depend on what else a specification has, so that finished turns are
//! known again when a run is gone on with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::random::{Random, digest, seed_of};
use crate::spec::{Accuracy, Arrival, Data, Decoding, Link, Pair, Policy, Spec};
use crate::trace::{self, Recorded, TraceError};

/// Why there is no plan.
#[derive(Debug, Error)]
pub enum PlanError {
    /// A recording of requests cannot be used.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// It is too short.
    #[error(
        "{path}: has {has} requests behind those that are skipped, a turn asks {wanted}; lower `requests`, or `skip`",
        path = .path.display()
    )]
    Short {
        /// The recording.
        path: PathBuf,
        /// That it has.
        has: usize,
        /// That a turn has.
        wanted: u32,
    },
    /// It cannot be written as JSON, which no checked specification does.
    #[error("the plan: {0}")]
    Json(#[from] serde_json::Error),
}

/// What a turn is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Everything is measured.
    Timed,
    /// Scores alone: as many requests at once as is convenient.
    Accuracy,
}

/// The names that make a cell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cell {
    /// What its turns are for.
    pub purpose: Purpose,
    /// Of the data set.
    pub data: String,
    /// Of the link.
    pub link: String,
    /// Of the arrivals.
    pub arrival: String,
    /// Of the policy.
    pub policy: String,
}

/// Some requests to one policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Turn {
    /// A digest of all else, without the place.
    pub id: String,
    /// In the order of work, from 0.
    pub place: usize,
    /// From 0; of accuracy turns the chunk.
    pub repeat: u32,
    /// Of accuracy turns, from 0. It follows from all else.
    #[serde(skip)]
    pub round: u32,
    /// What it is for.
    pub purpose: Purpose,
    /// The models.
    pub pair: Pair,
    /// How answers are decoded.
    pub decoding: Decoding,
    /// What is asked.
    pub data: Data,
    /// Over which link.
    pub link: Link,
    /// How requests come.
    pub arrival: Arrival,
    /// Who decides.
    pub policy: Policy,
    /// Of the block: equal for all its policies.
    pub seed: u64,
    /// The first of the data set's items, in its shuffled order, that counts.
    first: u32,
    /// Items that count.
    count: u32,
    /// Items before them that do not.
    warm_up: u32,
}

impl Turn {
    /// The cell that it belongs to.
    pub fn cell(&self) -> Cell {
        Cell {
            purpose: self.purpose,
            data: self.data.name.clone(),
            link: self.link.name.clone(),
            arrival: self.arrival.name().to_owned(),
            policy: self.policy.name.clone(),
        }
    }

    /// Requests that count.
    pub fn counted(&self) -> u32 {
        self.count
    }

    /// Requests in all.
    pub fn requests(&self) -> u32 {
        self.count + self.warm_up
    }
}

/// One request to be asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ItemRef {
    /// Of the data set's first `n` items, from 0.
    pub index: u32,
    /// It does not count, and nothing is told of it. Such ones come first; in timed turns they are asked as soon as the one before has
    /// its answer, whatever the arrivals are, and elsewhere as many at once as what counts.
    pub warm: bool,
    /// When it is due, in ms since the first that counts may be asked. None: as soon as a client is free.
    pub at_ms: Option<f64>,
    /// To sample with: the same for all policies.
    pub seed: u64,
}

/// All turns, in the order of work.
#[derive(Clone, Debug)]
pub struct Plan {
    turns: Vec<Turn>,
    seed: u64,
    recordings: BTreeMap<PathBuf, Vec<Recorded>>,
}

impl Plan {
    /// Of a specification whose files are seen from `base`.
    ///
    /// # Errors
    /// [`PlanError`]: a recording of requests cannot be used.
    pub fn new(spec: &Spec, base: &Path) -> Result<Plan, PlanError> {
        let mut recordings = BTreeMap::new();
        for arrival in &spec.arrivals {
            if let Arrival::Trace {
                file, format, skip, ..
            } = arrival
            {
                if !recordings.contains_key(file) {
                    recordings.insert(file.clone(), trace::read(&base.join(file), *format)?);
                }
                let has = recordings.get(file).map_or(0, Vec::len);
                let has = has.saturating_sub(*skip as usize);
                if has < spec.requests as usize {
                    return Err(PlanError::Short {
                        path: base.join(file),
                        has,
                        wanted: spec.requests,
                    });
                }
            }
        }
        let mut plan = Plan {
            turns: Vec::new(),
            seed: spec.seed,
            recordings,
        };
        plan.timed(spec)?;
        plan.accuracy(spec)?;
        Ok(plan)
    }

    /// In the order of work. Of accuracy all that may be wanted: a round begins when the turns before it are finished.
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// Each block asks questions of its own, as long as there are others: few that all share would say more of themselves than of the
    /// workload.
    fn timed(&mut self, spec: &Spec) -> Result<(), PlanError> {
        let all: u64 = (spec.arrivals.iter())
            .map(|it| u64::from(spec.counted(it)))
            .sum();
        let all = all * spec.links.len() as u64;
        for repeat in 0..spec.repeats {
            for data in &spec.data {
                let mut first = u64::from(repeat) * all;
                for link in &spec.links {
                    for arrival in &spec.arrivals {
                        let count = spec.counted(arrival);
                        let block = Block {
                            spec,
                            repeat,
                            round: 0,
                            purpose: Purpose::Timed,
                            data,
                            link,
                            arrival,
                            first: (first % u64::from(data.n.max(1))) as u32,
                            count,
                            warm_up: spec.warm_up,
                        };
                        first += u64::from(count);
                        self.block(&block)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Chunk after chunk of each data set, so that all are equally far at any time.
    fn accuracy(&mut self, spec: &Spec) -> Result<(), PlanError> {
        let Some(accuracy) = &spec.accuracy else {
            return Ok(());
        };
        let arrival = Arrival::Closed {
            name: format!("accuracy-{}", accuracy.concurrency),
            concurrency: accuracy.concurrency,
        };
        let links = spec.accuracy_links();
        for chunk in 0..accuracy.most().div_ceil(accuracy.chunk.max(1)) {
            let first = chunk * accuracy.chunk;
            // Pooled links take turns.
            let over = match accuracy.pooled {
                true => {
                    let place = chunk as usize % links.len().max(1);
                    links.get(place..=place).unwrap_or(&[])
                }
                false => links.as_slice(),
            };
            for data in &spec.data {
                let data = spec.accuracy_data(data);
                // Behind the last look nobody would look again.
                let last = (accuracy.looks(data.n).last()).copied().unwrap_or(data.n);
                // A chunk is never a part of one: a later run with more requests would ask some twice.
                let whole = last.saturating_sub(first).min(accuracy.chunk);
                if whole == 0 {
                    continue;
                }
                for &link in over {
                    let block = Block {
                        spec,
                        repeat: chunk,
                        round: accuracy.round_of(first),
                        purpose: Purpose::Accuracy,
                        data: &data,
                        link,
                        arrival: &arrival,
                        first,
                        count: whole,
                        warm_up: 0,
                    };
                    self.block(&block)?;
                }
            }
        }
        Ok(())
    }

    fn block(&mut self, block: &Block) -> Result<(), PlanError> {
        let names = [
            &*block.data.name,
            &*block.link.name,
            block.arrival.name(),
            if block.purpose == Purpose::Timed {
                "timed"
            } else {
                "accuracy"
            },
        ];
        let mut policies: Vec<&Policy> = block.spec.policies.iter().collect();
        Random::new(seed_of(self.seed, &names)).shuffle(&mut policies);
        let turned = block.repeat as usize % policies.len().max(1);
        policies.rotate_left(turned);
        if let Some(accuracy) = block.spec.accuracy.as_ref().filter(|_| block.round > 0) {
            let baseline = &block.spec.baseline;
            policies.retain(|it| it.name == *baseline || accuracy.grows(&it.name));
        }
        let repeat = block.repeat.to_string();
        let [data, link, arrival, purpose] = names;
        let seed = seed_of(self.seed, &[data, link, arrival, purpose, &repeat]);
        for policy in policies {
            let mut turn = Turn {
                id: String::new(),
                place: 0,
                repeat: block.repeat,
                round: block.round,
                purpose: block.purpose,
                pair: block.spec.pair.clone(),
                decoding: block.spec.decoding.clone(),
                data: block.data.clone(),
                link: block.link.clone(),
                arrival: block.arrival.clone(),
                policy: policy.clone(),
                seed,
                first: block.first,
                count: block.count,
                warm_up: block.warm_up,
            };
            turn.id = (digest(&serde_json::to_vec(&turn)?).chars().take(16)).collect();
            turn.place = self.turns.len();
            self.turns.push(turn);
        }
        Ok(())
    }

    /// What a turn's policy is asked over its link before anything counts, as if it were about accuracy: as many requests at once, and of
    /// each data set as many of those questions, the last ones in their order. Empty: nothing.
    pub fn learning(&self, spec: &Spec, turn: &Turn) -> Vec<Turn> {
        let concurrency =
            (spec.accuracy.as_ref()).map_or_else(Accuracy::usual_concurrency, |it| it.concurrency);
        let sets = spec.data.len().max(1) as u32;
        let shares = (0..).map(|number| spec.learn / sets + u32::from(number < spec.learn % sets));
        let turns = spec.data.iter().zip(shares).map(|(data, share)| {
            let data = spec.accuracy_data(data);
            Turn {
                id: "learning".to_owned(),
                repeat: 0,
                round: 0,
                purpose: Purpose::Accuracy,
                arrival: Arrival::Closed {
                    name: format!("learning-{concurrency}"),
                    concurrency,
                },
                seed: seed_of(self.seed, &["learning", &data.name, &turn.link.name]),
                first: data.n.saturating_sub(share),
                count: 0,
                warm_up: share,
                data,
                ..turn.clone()
            }
        });
        turns.filter(|it| it.warm_up > 0).collect()
    }

    /// What a turn asks: first what does not count, then what counts, in the order in which it is due.
    pub fn items(&self, turn: &Turn) -> Vec<ItemRef> {
        let n = turn.data.n;
        let order = order(self.seed, &turn.data);
        let item = |place: u32| order.get((place % n.max(1)) as usize).copied().unwrap_or(0);
        let moments = self.moments(turn);
        let seed = |number: u32| seed_of(turn.seed, &["item", &number.to_string()]);
        // Those that come behind: what is asked first has not warmed any cache for what counts.
        let warm = (0..turn.warm_up).map(|number| {
            let place = u64::from(turn.first) + u64::from(turn.count) + u64::from(number);
            ItemRef {
                index: item((place % u64::from(n.max(1))) as u32),
                warm: true,
                at_ms: None,
                seed: seed(turn.count + number),
            }
        });
        let counted = (0..turn.count).map(|number| {
            let place = u64::from(turn.first) + u64::from(number);
            ItemRef {
                index: item((place % u64::from(n.max(1))) as u32),
                warm: false,
                at_ms: moments.get(number as usize).copied(),
                seed: seed(number),
            }
        });
        warm.chain(counted).collect()
    }

    /// When the counted ones of a turn are due, in ms; empty for a closed loop.
    fn moments(&self, turn: &Turn) -> Vec<f64> {
        let count = turn.count as usize;
        let mut random = Random::new(seed_of(turn.seed, &["arrivals"]));
        match &turn.arrival {
            Arrival::Closed { .. } => Vec::new(),
            Arrival::Poisson { rate_per_s, .. } => poisson(&mut random, *rate_per_s, count),
            Arrival::Bursty {
                rate_per_s,
                on_ms,
                off_ms,
                ..
            } => bursty(&mut random, *rate_per_s, *on_ms, *off_ms, count),
            Arrival::Trace {
                file, speed, skip, ..
            } => {
                let all = self.recordings.get(file).map_or(&[][..], Vec::as_slice);
                let all = all.get(*skip as usize..).unwrap_or(&[]);
                // Each repeat has its own part, as long as there are parts.
                let parts = (all.len() / count.max(1)).max(1);
                let begin = turn.repeat as usize % parts * count;
                let part = all.get(begin..begin + count).unwrap_or(&[]);
                let first = part.first().map_or(0.0, |it| it.at_ms);
                part.iter().map(|it| (it.at_ms - first) / speed).collect()
            }
        }
    }
}

/// What a block's turns have in common.
struct Block<'a> {
    spec: &'a Spec,
    repeat: u32,
    round: u32,
    purpose: Purpose,
    data: &'a Data,
    link: &'a Link,
    arrival: &'a Arrival,
    first: u32,
    count: u32,
    warm_up: u32,
}

/// The order in which a data set's items are asked: every seed's own.
fn order(seed: u64, data: &Data) -> Vec<u32> {
    let mut order: Vec<u32> = (0..data.n).collect();
    Random::new(seed_of(seed, &["items", &data.name])).shuffle(&mut order);
    order
}

fn poisson(random: &mut Random, rate_per_s: f64, count: usize) -> Vec<f64> {
    let mut now = 0.0;
    (0..count)
        .map(|_| {
            now += random.exponential(1e3 / rate_per_s);
            now
        })
        .collect()
}

/// Two states (H. Heffes, D. M. Lucantoni, 1986), in one of which nothing comes. While it is on, requests come so much faster that
/// the mean rate is the one that is wanted. It begins in either state, as often as it is in it.
fn bursty(random: &mut Random, rate_per_s: f64, on_ms: f64, off_ms: f64, count: usize) -> Vec<f64> {
    let every_ms = 1e3 / rate_per_s * on_ms / (on_ms + off_ms);
    let mut moments = Vec::with_capacity(count);
    let mut now = if random.uniform() < on_ms / (on_ms + off_ms) {
        0.0
    } else {
        random.exponential(off_ms)
    };
    while moments.len() < count {
        let end = now + random.exponential(on_ms);
        loop {
            now += random.exponential(every_ms);
            if now >= end || moments.len() >= count {
                break;
            }
            moments.push(now);
        }
        now = end + random.exponential(off_ms);
    }
    moments
}

#[cfg(test)]
mod tests;
