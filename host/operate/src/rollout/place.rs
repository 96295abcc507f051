//! One node of a rollout, and how far it is.

use serde_json::{Value, json};

use super::change::{Away, Became, Payload, change, go_back};
use super::fleet::Member;
use super::guard::{Found, Limits, Ours, Tripped, judge};
use super::report::Standing;
use crate::client::ClientError;
use crate::glance::Glance;

/// Looks in a row that a node may leave unanswered.
const MISSES: u32 = 3;

/// How a release begins on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// It plans all requests.
    Active,
    /// It plans a share of the sessions.
    Canary,
}

impl Begin {
    fn path(self) -> &'static str {
        match self {
            Begin::Active => "/v1/activate",
            Begin::Canary => "/v1/canary",
        }
    }

    fn standing(self, generation: u64) -> Standing {
        match self {
            Begin::Active => Standing::Active { generation },
            Begin::Canary => Standing::Canary { generation },
        }
    }
}

/// A node, and how far it is.
pub struct Place {
    /// Which.
    pub member: Member,
    /// Its state just before the rollout changed it.
    pub before: Glance,
    /// What stands there.
    pub standing: Standing,
    /// What the rollout put there.
    pub ours: Ours,
    /// Requests that were over since.
    pub watched: u64,
    /// What was active when the rollout began.
    seen: Option<u64>,
    misses: u32,
}

fn tripped(guardrail: &'static str, why: impl ToString) -> Tripped {
    Tripped {
        guardrail,
        why: why.to_string(),
    }
}

impl Place {
    /// A node that was looked at.
    pub fn new(member: Member, before: Glance, standing: Standing, ours: Ours) -> Place {
        Place {
            member,
            seen: before.active.as_ref().map(|it| it.number),
            before,
            standing,
            ours,
            watched: 0,
            misses: 0,
        }
    }

    /// Whether the rollout changed it, or goes on with what an earlier one began.
    pub fn is_ours(&self) -> bool {
        matches!(
            self.standing,
            Standing::Active { .. } | Standing::Canary { .. }
        )
    }

    fn state(&self) -> Result<Glance, ClientError> {
        self.member
            .client
            .get("/v1/state")
            .map(|it| Glance::read(&it))
    }

    /// Brings the release and has it plan, if nothing was done here before. `body` names it.
    pub fn begin(&mut self, payload: &Payload, begin: Begin, body: &Value) -> Result<(), Tripped> {
        if self.standing != Standing::Untouched {
            return Ok(());
        }
        if let Err(error) = payload.push(&self.member.client) {
            let why = format!("{error:#}");
            self.standing = Standing::Refused { why: why.clone() };
            return Err(tripped("refused", why));
        }
        // What was before is what was just before: earlier waves may have taken long.
        self.before = self
            .state()
            .map_err(|error| tripped("unreachable", error))?;
        let mut body = body.clone();
        // The rollout was to replace what was active when it began: what somebody else has activated since stays.
        if let (Some(seen), Some(body)) = (self.seen, body.as_object_mut()) {
            body.insert("generation".to_owned(), json!(seen));
        }
        match change(&self.member.client, begin.path(), &body, &self.ours) {
            Became::Done(generation) => {
                self.ours.number = generation;
                self.standing = begin.standing(generation);
                Ok(())
            }
            Became::Refused(why) => {
                self.standing = Standing::Refused { why: why.clone() };
                Err(tripped("refused", why))
            }
            Became::Unknown(why) => {
                self.standing = Standing::Unknown { why: why.clone() };
                Err(tripped("unreachable", why))
            }
        }
    }

    /// Has the canary take over.
    pub fn promote(&mut self) -> Result<(), Tripped> {
        let now = self
            .state()
            .map_err(|error| tripped("unreachable", error))?;
        match self.ours.find(&now) {
            Found::Canary(it) if it.candidate.number == self.ours.number => {}
            Found::Canary(_) => {
                return Err(tripped("left", "somebody has made another canary of it"));
            }
            Found::Active(_) => {
                // The node has promoted it by itself.
                self.keep_up(&now);
                return Ok(());
            }
            Found::Gone => return Err(tripped("left", "the node has dropped the canary")),
        }
        let body = json!({ "generation": self.ours.number });
        match change(&self.member.client, "/v1/promote", &body, &self.ours) {
            Became::Done(generation) => {
                self.standing = Standing::Active { generation };
                Ok(())
            }
            Became::Refused(why) | Became::Unknown(why) => Err(tripped("refused", why)),
        }
    }

    /// The node goes from canary to active by its own steps too.
    fn keep_up(&mut self, now: &Glance) {
        let generation = self.ours.number;
        match self.ours.find(now) {
            Found::Canary(_) => self.standing = Standing::Canary { generation },
            Found::Active(_) => self.standing = Standing::Active { generation },
            Found::Gone => {}
        }
    }

    /// Judges a look at it.
    pub fn judge(
        &mut self,
        state: Result<Value, ClientError>,
        limits: &Limits,
    ) -> Result<(), Tripped> {
        match state {
            Ok(state) => {
                self.misses = 0;
                let now = Glance::read(&state);
                self.watched = now.outcomes().since(self.before.outcomes()).all();
                self.keep_up(&now);
                judge(&self.before, &now, &self.ours, limits)
            }
            Err(error) => {
                self.misses += 1;
                if error.is_silence() && self.misses < MISSES {
                    Ok(())
                } else {
                    Err(tripped("unreachable", error))
                }
            }
        }
    }

    /// Takes the release back, if the rollout put it here. Returns what to say, if there was anything to do.
    pub fn go_back(&mut self, why: &str) -> Option<String> {
        if !self.is_ours() && !matches!(self.standing, Standing::Unknown { .. }) {
            return None;
        }
        let (standing, words) = match go_back(&self.member.client, &self.ours, why) {
            Ok(Away::RolledBack(to)) => {
                let words = format!("rolled back to {to}");
                (Standing::RolledBack { to }, words)
            }
            Ok(Away::Left(to)) => {
                let words = format!("had left it, active is {to}");
                (Standing::Left { to }, words)
            }
            Err(error) => {
                let why = format!("{error:#}");
                let words = format!("not rolled back: {why}");
                (Standing::NotRolledBack { why }, words)
            }
        };
        self.standing = standing;
        Some(words)
    }
}
