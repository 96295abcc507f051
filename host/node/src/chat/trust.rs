//! What of a request's answer may be committed without the target's word, and whether an audit looks at it.
//!
//! The host decides, after the plan and against it: a policy may only be stricter.
//!
//! | the request | in a session | on route `edge` |
//! |---|---|---|
//! | no budget is set | nothing is committed unverified | free |
//! | the client demands the target's answer | nothing | goes to the target |
//! | with a budget; the target cannot be reached, or media may not leave | there is none | free, told as outside the budget, never audited |
//! | with a budget; audited, or nothing is open | nothing | goes to the target |
//! | with a budget; drafts from a floor on are open | from the floor on, where the plan is confident | from the floor on; the rest is left to the target |
//!
//! Every request to which a budget applies is asked of the audits, whatever was planned for it: those that a policy would
//! have run otherwise are of the same traffic, and a policy that looks at the floor would else wait for audits that wait
//! for it.

use std::sync::Arc;

use msao_adapt::acceptance::Mix;
use msao_core::offload::{self, Mode, Part, Plan, Route, capability, flag, modality, overrides};

use super::plan::allowed;
use super::treat::{Fitted, fitting};
use crate::adapt::{Admitted, Auditing, CLOSED, Class, Judge, Pair, Sure};
use crate::node::Node;
use crate::request::Prompt;

/// What was planned for, as the policy saw it.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// The request.
    pub request: &'a offload::Request,
    /// Its parts.
    pub parts: &'a [Part],
    /// The nodes.
    pub nodes: &'a [offload::Node],
    /// Its prompt.
    pub prompt: &'a Prompt,
}

enum Standing {
    /// No budget is set, or the client demands the target's answer.
    Free,
    /// The budget does not cover it.
    Outside,
    /// The budget covers it.
    Within(Admitted),
}

impl Standing {
    /// That of the same request once it was planned again; `class`: by that plan, where a target can be reached.
    fn again(self, class: Option<Class>) -> Standing {
        match (self, class) {
            (Standing::Free, _) => Standing::Free,
            // An audit under way is of this request, whoever is asked now, as long as it is of the same class.
            (Standing::Within(admitted), Some(class)) => Standing::Within(Admitted {
                audit: admitted.audit.and_then(|audit| audit.still(class)),
                ..Admitted::closed()
            }),
            // Now the budget covers it. Audits were not asked while nothing was known of it, and so let nothing pass.
            (Standing::Outside, Some(_)) => Standing::Within(Admitted::closed()),
            // An audit ends here, unfinished.
            (Standing::Within(_) | Standing::Outside, None) => Standing::Outside,
        }
    }
}

/// What may be committed unverified.
pub struct Trust {
    standing: Standing,
    /// The models, where one can draft for the other.
    pair: Option<Arc<Pair>>,
    mix: Mix,
    mas: f64,
}

/// Asks the audits about a request that has been planned, and gives the plan as it may run.
pub fn admit(node: &Node, seen: Seen<'_>, planned: Fitted) -> (Trust, Fitted) {
    let plan = &planned.plan;
    let target = reachable(node, seen, plan);
    let pair = target.and_then(|row| node.pair(row));
    let standing = if seen.request.flags & flag::EXACT != 0 || !node.adapt.has_budget() {
        Standing::Free
    } else {
        match (target, &pair) {
            (None, _) => Standing::Outside,
            // The target's ids are others: nothing of the draft model's can be verified, and so nothing is known of it.
            (Some(_), None) => Standing::Within(Admitted::closed()),
            (Some(_), Some(pair)) => {
                let class = Class::of(&plan.parts, seen.parts, seen.request.temperature);
                Standing::Within(node.adapt.admit(&Arc::new(pair.clone()), class))
            }
        }
    };
    // Where the target cannot be reached now, its drafts are still what they were.
    let pair = pair.or_else(|| (0..=node.peers.len()).find_map(|row| node.pair(row)));
    let mut trust = Trust {
        standing,
        pair: pair.map(Arc::new),
        mix: mix(seen.prompt),
        mas: mas(seen.parts),
    };
    let planned = trust.hold(node, seen, planned, target);
    (trust, planned)
}

/// The request was planned once more, because a peer refused it. It was asked about once, and is not again: what it may
/// commit unverified is at most what it might before, and where it might something, nothing.
pub fn again(node: &Node, seen: Seen<'_>, before: Trust, planned: Fitted) -> (Trust, Fitted) {
    let mut trust = before;
    let plan = &planned.plan;
    let target = reachable(node, seen, plan);
    let class = target.map(|_| Class::of(&plan.parts, seen.parts, seen.request.temperature));
    trust.standing = trust.standing.again(class);
    let planned = trust.hold(node, seen, planned, target);
    let asked = (planned.plan.route != Route::Edge).then_some(planned.plan.peer as usize);
    if let Some(row) = asked.or(target) {
        // The target may be another model now: what it says of drafts is learned of that one.
        trust.pair = node.pair(row).map(Arc::new);
    }
    (trust, planned)
}

impl Trust {
    /// Nothing is known of it: in place of one that is looked at.
    pub fn none() -> Trust {
        Trust {
            standing: Standing::Free,
            pair: None,
            mix: Mix::TEXT,
            mas: 0.0,
        }
    }

    /// The plan without what may not be. `target`: in which row the target is that may say it instead.
    fn hold(
        &mut self,
        node: &Node,
        seen: Seen<'_>,
        planned: Fitted,
        target: Option<usize>,
    ) -> Fitted {
        let plan = &planned.plan;
        let must_be_exact = match &self.standing {
            Standing::Within(admitted) => admitted.floor > 1.0,
            Standing::Free | Standing::Outside => false,
        };
        let is_exact = plan.route != Route::Edge && plan.mode == Mode::Exact;
        if !must_be_exact || is_exact {
            return planned;
        }
        let request = offload::Request {
            flags: seen.request.flags | flag::EXACT,
            ..seen.request.clone()
        };
        let mut exact = plan.clone();
        let mut more = overrides::EXACT;
        if let (Route::Edge, Some(row)) = (plan.route, target) {
            exact.route = Route::Cloud;
            exact.peer = row as u32;
            more |= overrides::ROUTE;
        }
        match allowed(exact, &request, seen.parts, seen.nodes) {
            Ok(exact) => {
                let stays = request.flags & flag::MEDIA_AT_EDGE != 0;
                let of = (seen.request, seen.parts);
                let fitted = fitting(node, exact, seen.prompt, of, stays);
                Fitted {
                    overrides: planned.overrides | more | fitted.overrides,
                    ..fitted
                }
            }
            Err(_) => {
                // The target has gone since: an audit ends here, unfinished.
                self.standing = Standing::Outside;
                planned
            }
        }
    }

    /// Judges the drafts of one answer.
    pub fn judge(&self, node: &Node) -> Judge {
        match &self.pair {
            Some(pair) => node.adapt.judge(pair, self.mix, self.mas, self.sure()),
            None => Judge::untaught(self.mas),
        }
    }

    fn sure(&self) -> Option<Sure> {
        match &self.standing {
            Standing::Within(admitted) => admitted.sure.clone(),
            Standing::Free | Standing::Outside => None,
        }
    }

    /// The lowest acceptance probability that a session may commit unverified; above 1: none.
    pub fn session_floor(&self, plan: &Plan) -> f64 {
        let confident = plan.route == Route::Speculate && plan.mode == Mode::Confident;
        match &self.standing {
            Standing::Within(admitted) if confident => admitted.floor,
            _ => CLOSED,
        }
    }

    /// On route `edge`, the lowest acceptance probability that is the draft model's own to commit; 0: all are.
    pub fn alone_floor(&self, plan: &Plan) -> f64 {
        match &self.standing {
            Standing::Within(admitted) if plan.route == Route::Edge => admitted.floor,
            _ => 0.0,
        }
    }

    /// Whether there is a budget that does not cover the request.
    pub fn is_outside(&self) -> bool {
        matches!(self.standing, Standing::Outside)
    }

    /// Whether there is a budget, and it covers the request.
    pub fn is_within(&self) -> bool {
        matches!(self.standing, Standing::Within(_))
    }

    /// Whether an audit looks at the request.
    pub fn is_audited(&self) -> bool {
        matches!(&self.standing, Standing::Within(admitted) if admitted.audit.is_some())
    }

    /// The audit, to be ended.
    pub fn take_audit(&mut self) -> Option<Auditing> {
        match &mut self.standing {
            Standing::Within(admitted) => admitted.audit.take(),
            Standing::Free | Standing::Outside => None,
        }
    }
}

/// In which row a target is that may answer the request, or verify what the edge would have said; None: nowhere.
fn reachable(node: &Node, seen: Seen<'_>, plan: &Plan) -> Option<usize> {
    let stays = seen.request.flags & flag::MEDIA_AT_EDGE != 0 && !seen.prompt.media.is_empty();
    if plan.route != Route::Edge {
        // It was held against the nodes already.
        return Some(plan.peer as usize);
    }
    // To whom an escalation would go.
    let way = node.target(0, Route::Edge, stays);
    let way = way.filter(|way| way.target.is_there());
    way.map(|way| way.row).or_else(|| {
        let mut rows = seen.nodes.iter().enumerate();
        let there = rows.find(|(row, node)| {
            node.up && node.can & capability::TARGET != 0 && (*row == 0 || !stays)
        });
        there.map(|(row, _)| row)
    })
}

fn mix(prompt: &Prompt) -> Mix {
    prompt.media.iter().map(|medium| medium.modality).collect()
}

/// The request's MAS: that of its media by their tokens, in [0, 1]; 0 where nobody looked.
fn mas(parts: &[Part]) -> f64 {
    let looked = parts.iter().filter(|part| {
        part.modality != modality::TEXT && (0.0..=1.0).contains(&part.mas) && part.tokens > 0
    });
    let (sum, tokens) = looked.fold((0.0, 0.0), |(sum, tokens), part| {
        let own = f64::from(part.tokens);
        (sum + own * part.mas, tokens + own)
    });
    if tokens > 0.0 {
        (sum / tokens).clamp(0.0, 1.0)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use msao_core::digest::Digest;
    use msao_core::sampling::Confidence;
    use msao_registry::state::MemoryStorage;

    use super::*;
    use crate::adapt::{Adapt, Options, Retained};
    use crate::config::Confident;
    use crate::metrics::Metrics;

    #[test]
    fn the_mas_of_a_request_is_that_of_its_media_by_their_tokens() {
        let part = |modality, tokens, mas| Part {
            modality,
            tokens,
            mas,
            ..Part::default()
        };
        assert_eq!(mas(&[part(modality::TEXT, 50, 0.0)]), 0.0);
        // Nobody looked.
        assert_eq!(mas(&[part(modality::IMAGE, 50, -1.0)]), 0.0);
        let both = [
            part(modality::IMAGE, 30, 0.9),
            part(modality::AUDIO, 10, 0.1),
            part(modality::TEXT, 99, 0.0),
        ];
        assert!((mas(&both) - 0.7).abs() < 1e-12);
        assert_eq!(mas(&[part(modality::IMAGE, 50, f64::NAN)]), 0.0);
    }

    /// Where every request is audited; and a pair of models of which enough is known for that.
    fn auditing() -> (Adapt, Arc<Pair>) {
        let adapt = Adapt::start(Options {
            storage: Arc::new(MemoryStorage::default()),
            confident: Confident {
                budget: Some(0.5),
                audit_rate: 1.0,
                delta: 0.05,
                settle_drafts: 1,
            },
            // Never, as far as this test goes.
            checkpoint_every: Duration::from_secs(3600),
            watched: Vec::new(),
            links: Vec::new(),
            metrics: Metrics::default(),
        });
        let adapt = adapt.unwrap();
        let pair = Arc::new(Pair {
            draft: Digest::of(b"draft"),
            target: Digest::of(b"target"),
            held: String::new(),
        });
        let mut judge = adapt.judge(&pair, Mix::TEXT, 0.0, None);
        let said = Confidence {
            top1: 0.9,
            entropy: 0.3,
            margin: 2.0,
        };
        judge.learn(&said, 0.9, true);
        drop(judge);
        adapt.checkpoint().unwrap();
        (adapt, pair)
    }

    #[test]
    fn a_second_plan_escapes_no_audit_and_opens_nothing() {
        let (adapt, pair) = auditing();
        let class = Class::whole(0.0);
        let other = Class {
            target: Retained::Half,
            ..class
        };
        let audited = || Standing::Within(adapt.admit(&pair, class));
        let open = || {
            Standing::Within(Admitted {
                floor: 0.9,
                ..Admitted::closed()
            })
        };
        let again = |standing: Standing, class| trust(standing.again(class));
        let plan = Plan {
            mode: Mode::Confident,
            ..Plan::plain(Route::Speculate, 1)
        };
        // The very audit that was begun, be it planned again twice.
        let mut twice = trust(audited().again(Some(class)).again(Some(class)));
        assert!(twice.is_audited());
        let end = msao_adapt::audit::Audited::Agreed;
        twice.take_audit().unwrap().end(end);
        let figures = || {
            let known = adapt.figures().remove(0);
            let shown = &known.classes[0];
            (shown.audits, shown.pending, shown.disagreements)
        };
        assert_eq!(figures(), (1, 0, 0));
        // Otherwise it is unfinished, which counts as disagreement.
        assert!(!again(audited(), Some(other)).is_audited());
        assert!(again(audited(), None).is_outside());
        assert_eq!(figures(), (3, 0, 2));
        for standing in [open(), Standing::Outside] {
            let trust = again(standing, Some(class));
            assert!(trust.is_within() && !trust.is_audited());
            assert_eq!(trust.session_floor(&plan), CLOSED);
            assert_eq!(trust.alone_floor(&Plan::plain(Route::Edge, 0)), CLOSED);
        }
        assert!(again(open(), None).is_outside() && again(Standing::Outside, None).is_outside());
        let free = again(Standing::Free, Some(class));
        assert!(!free.is_within() && !free.is_outside());
    }

    fn trust(standing: Standing) -> Trust {
        Trust {
            standing,
            pair: None,
            mix: Mix::TEXT,
            mas: 0.0,
        }
    }

    #[test]
    fn floors_are_for_what_was_planned() {
        let confident = Plan {
            mode: Mode::Confident,
            ..Plan::plain(Route::Speculate, 1)
        };
        let exact = Plan::plain(Route::Speculate, 1);
        let edge = Plan::plain(Route::Edge, 0);
        let open = || {
            trust(Standing::Within(Admitted {
                floor: 0.9,
                ..Admitted::closed()
            }))
        };
        assert_eq!(open().session_floor(&confident), 0.9);
        assert_eq!(open().session_floor(&exact), CLOSED);
        assert_eq!(
            (open().alone_floor(&edge), open().alone_floor(&exact)),
            (0.9, 0.0)
        );
        for standing in [Standing::Free, Standing::Outside] {
            let trust = trust(standing);
            assert_eq!(trust.session_floor(&confident), CLOSED);
            assert_eq!(trust.alone_floor(&edge), 0.0);
            assert!(!trust.is_audited() && trust.sure().is_none());
        }
        assert!(open().is_within() && !open().is_outside());
    }
}
