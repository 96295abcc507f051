//! From wave to wave.

use std::ops::Range;
use std::thread;
use std::time::Instant;

use anyhow::bail;
use msao_core::offload::manifest::World;
use serde_json::Value;

use super::Manner;
use super::change::{Before, Has, Payload, look};
use super::fleet::Member;
use super::guard::{Ours, Tripped};
use super::place::{Begin, Place};
use super::report::{NodeReport, Report, Standing, Stop};
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::policy::choice_of;
use crate::release::Listed;

/// Nodes that are asked at a time.
const AT_ONCE: usize = 16;

/// A rollout under way.
pub struct Drive {
    places: Vec<Place>,
    waves: Vec<Range<usize>>,
    payload: Payload,
    /// What is rolled out, in words and as nodes are told.
    release: String,
    body: Value,
    manner: Manner,
    interrupt: Interrupt,
    output: Output,
}

/// Asks many nodes, a few at a time; answers in their order.
fn ask_all<T: Send>(members: &[&Member], ask: impl Fn(&Member) -> T + Sync) -> Vec<T> {
    let mut answers = Vec::with_capacity(members.len());
    for some in members.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let ask = &ask;
            let asked: Vec<_> = some
                .iter()
                .map(|member| scope.spawn(move || ask(member)))
                .collect();
            // None of what is asked panics.
            answers.extend(asked.into_iter().filter_map(|it| it.join().ok()));
        });
    }
    answers
}

/// A node as a rollout begins there.
fn place(member: Member, before: Before) -> Place {
    let (standing, number) = match before.has {
        Some(Has::Active(generation)) => (Standing::Already { generation }, generation),
        Some(Has::Canary(generation)) => (Standing::Canary { generation }, generation),
        None => (Standing::Untouched, 0),
    };
    let of = |world: World| {
        let mut found = before.releases.iter().filter(|it| it.world == world);
        found.next().map(|it| it.release.artifact.to_string())
    };
    let ours = Ours {
        number,
        policy: of(World::OffloadPolicy),
        postprocessor: of(World::ProbePostprocessor),
    };
    Place::new(member, before.glance, standing, ours)
}

fn words(releases: &[Listed]) -> String {
    let words: Vec<String> = releases.iter().map(Listed::words).collect();
    words.join(" with ")
}

impl Drive {
    /// Looks at every node before anything is changed.
    ///
    /// # Errors
    /// Every node on which it cannot begin, with the reason.
    pub fn prepare(
        members: Vec<Member>,
        waves: Vec<Range<usize>>,
        payload: Payload,
        manner: Manner,
        interrupt: Interrupt,
        output: Output,
    ) -> anyhow::Result<Drive> {
        let asked: Vec<&Member> = members.iter().collect();
        let looks = ask_all(&asked, |member| look(&member.client, &payload));
        let (mut places, mut problems) = (Vec::new(), Vec::new());
        let mut releases: Option<Vec<Listed>> = None;
        let same = |a: &[Listed], b: &[Listed]| {
            a.iter()
                .map(|it| it.release)
                .eq(b.iter().map(|it| it.release))
        };
        for (member, looked) in members.into_iter().zip(looks) {
            match looked {
                Err(error) => problems.push(format!("{}: {error:#}", member.name)),
                Ok(before) => {
                    let first = releases.get_or_insert_with(|| before.releases.clone());
                    if same(first, &before.releases) {
                        places.push(place(member, before));
                    } else {
                        problems.push(format!(
                            "{}: the same name means {} there: name it by its digest",
                            member.name,
                            words(&before.releases)
                        ));
                    }
                }
            }
        }
        if !problems.is_empty() {
            bail!(
                "nothing was changed, because not every node can take it:\n  {}",
                problems.join("\n  ")
            );
        }
        let releases = releases.unwrap_or_default();
        Ok(Drive {
            places,
            waves,
            payload,
            release: words(&releases),
            body: choice_of(&releases, false)?.body,
            manner,
            interrupt,
            output,
        })
    }

    /// Whether every node that a wave takes has it.
    pub fn is_pointless(&self) -> bool {
        let taken = self.waves.last().map_or(0, |it| it.end);
        let mut places = self.places.iter().take(taken);
        places.all(|it| matches!(it.standing, Standing::Already { .. }))
    }

    /// Goes through the waves, and back if it must.
    pub fn run(&mut self) -> Report {
        let mut done = 0;
        let mut stopped = None;
        for (at, wave) in self.waves.clone().into_iter().enumerate() {
            if self.interrupt.came() {
                break;
            }
            match self.wave(at + 1, wave) {
                Ok(true) => done += 1,
                Ok(false) => break,
                Err(stop) => {
                    stopped = Some(stop);
                    break;
                }
            }
        }
        if let Some(stop) = &stopped {
            self.output
                .note(format_args!("{}: {}", stop.node, stop.tripped.why));
            if !self.manner.keep {
                self.go_back(stop);
            }
        }
        self.report(done, stopped)
    }

    fn report(&self, waves_done: usize, stopped: Option<Stop>) -> Report {
        let wave_of = |at: usize| {
            let wave = self.waves.iter().position(|it| it.contains(&at));
            wave.map_or(0, |it| it + 1)
        };
        let nodes = self.places.iter().enumerate().map(|(at, it)| NodeReport {
            name: it.member.name.clone(),
            url: it.member.client.url().to_owned(),
            wave: wave_of(at),
            standing: it.standing.clone(),
            watched: it.watched,
        });
        Report {
            release: self.release.clone(),
            waves_done,
            waves: self.waves.len(),
            interrupted: stopped.is_none() && waves_done < self.waves.len(),
            nodes: nodes.collect(),
            stopped,
        }
    }

    /// Does something on these nodes, one after another. False: interrupted.
    fn each(
        &mut self,
        wave: usize,
        places: Vec<usize>,
        done: &str,
        act: impl Fn(&mut Place, &Payload, &Value) -> Result<(), Tripped>,
    ) -> Result<bool, Stop> {
        for at in places {
            if self.interrupt.came() {
                return Ok(false);
            }
            let Some(place) = self.places.get_mut(at) else {
                continue;
            };
            let name = place.member.name.clone();
            act(place, &self.payload, &self.body).map_err(|tripped| Stop {
                node: name.clone(),
                wave,
                tripped,
            })?;
            self.output.note(format_args!("{name}: {done}"));
        }
        Ok(true)
    }

    /// The first `until` nodes that are so.
    fn those(&self, until: usize, so: impl Fn(&Place) -> bool) -> Vec<usize> {
        let places = self.places.iter().enumerate().take(until);
        places.filter(|(_, it)| so(it)).map(|(at, _)| at).collect()
    }

    /// One wave. False: interrupted.
    fn wave(&mut self, wave: usize, range: Range<usize>) -> Result<bool, Stop> {
        let (begin, done) = match self.manner.canary {
            true => (Begin::Canary, "a canary"),
            false => (Begin::Active, "active"),
        };
        self.output.note(format_args!(
            "wave {wave} of {}: {} nodes more",
            self.waves.len(),
            range.len()
        ));
        let until = range.end;
        let new = self.those(until, |it| it.standing == Standing::Untouched);
        if !self.each(wave, new, done, |it, payload, body| {
            it.begin(payload, begin, body)
        })? {
            return Ok(false);
        }
        if !self.watch(wave, until)? {
            return Ok(false);
        }
        let canaries = self.those(until, |it| matches!(it.standing, Standing::Canary { .. }));
        if canaries.is_empty() {
            return Ok(true);
        }
        if !self.each(wave, canaries, "promoted", |it, _, _| it.promote())? {
            return Ok(false);
        }
        self.watch(wave, until)
    }

    /// Watches the first `until` nodes. False: interrupted.
    fn watch(&mut self, wave: usize, until: usize) -> Result<bool, Stop> {
        let end = Instant::now() + self.manner.watch;
        loop {
            self.look(wave, until)?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(true);
            }
            if self.interrupt.wait(left.min(self.manner.every)) {
                return Ok(false);
            }
        }
    }

    /// One look at all that have it.
    fn look(&mut self, wave: usize, until: usize) -> Result<(), Stop> {
        let watched = self.those(until, Place::is_ours);
        let members: Vec<&Member> = watched
            .iter()
            .filter_map(|at| self.places.get(*at))
            .map(|it| &it.member)
            .collect();
        let states = ask_all(&members, |member| member.client.get("/v1/state"));
        for (at, state) in watched.into_iter().zip(states) {
            let Some(place) = self.places.get_mut(at) else {
                continue;
            };
            place
                .judge(state, &self.manner.limits)
                .map_err(|tripped| Stop {
                    node: place.member.name.clone(),
                    wave,
                    tripped,
                })?;
        }
        Ok(())
    }

    /// Takes it back where this rollout put it, the newest first.
    fn go_back(&mut self, stop: &Stop) {
        let why = format!(
            "rollout stopped: on {} the guardrail {} gave way",
            stop.node, stop.tripped.guardrail
        );
        for place in self.places.iter_mut().rev() {
            if let Some(words) = place.go_back(&why) {
                self.output
                    .note(format_args!("{}: {words}", place.member.name));
            }
        }
    }
}
