//! What is done as drafting goes on.
//!
//! A call is given the last token's acceptance probability and counts, and remembers nothing. With `m` drafts out,
//! unsent or unjudged, the probability that they all stand is taken to be
//!
//! ```text
//! stands = p * a^(m - 1)          p of the last one; a^m where something else than a draft has happened
//! a      = (8 * plan's + accepted) / (8 + judged)
//! ```
//!
//! and one more is drafted while `stands >= tokens/ms * (charge * t_d + more)` ([`crate::stream`]). `charge` is 1 where
//! nothing is under way, and `draft-charge` elsewhere: the edge has nothing better to do then, and a lost draft delays
//! what follows a rejection by a part of its time only.
//!
//! | | the next is worth it | it is not |
//! |---|---|---|
//! | nothing under way | send | send |
//! | something is, and a round is full | send | wait |
//! | something is | draft | wait |
//!
//! A doubtful draft is not sent while others are judged: the verdict over these brings the target's own choice at its
//! place.
//!
//! In confident mode a draft that is sure enough is committed at once where nothing is out before it. An answer whose
//! drafts stand so rarely that the target alone would be quicker by `give-back` is left to the target. A verdict that
//! does not come is waited for until `give-up` times patience; a lost or refusing peer is done without, except for an
//! exact answer, which the host ends if it has to.

use msao_plugin::{Action, Event, Route, StepInput};

use crate::model::amount;
use crate::stream::{Stream, power};
use crate::{Note, noted, within};

/// The plan's acceptance weighs like so many drafts.
const PLANNED: f64 = 8.0;
/// Drafts that are judged at least before an answer is left to the target for them.
const ENOUGH: u32 = 24;

impl Note {
    /// The stream as it is now.
    fn stream(&self, input: &StepInput) -> Stream {
        let judged = PLANNED + f64::from(input.judged);
        let accepted = PLANNED * f64::from(self.acceptance) + f64::from(input.accepted);
        let rtt_ms = amount(input.rtt_ms, f64::from(self.rtt_ms));
        let queue_ms = amount(input.queue_ms, f64::from(self.queue_ms));
        Stream {
            draft_ms: amount(f64::from(self.draft_ms), 0.0),
            verdict_ms: amount(f64::from(self.verdict_ms), 0.0) + rtt_ms + queue_ms,
            acceptance: within(accepted / judged, 0.0, 1.0),
        }
    }
}

/// What to do.
pub(crate) fn next(input: &StepInput, note: &Note) -> Action {
    if note.route == Route::Edge as u8 {
        return alone(input, note);
    }
    // Who must be exact cannot finish here: drafts pile up until the peer is back, or the host ends it.
    let exact = note.flags & noted::EXACT != 0;
    let without_peer = if exact { Action::Draft } else { Action::Finish };
    match input.event {
        Event::LinkDown | Event::Refused => without_peer,
        Event::Overdue => overdue(input, note, without_peer),
        Event::Drafted | Event::Verdict | Event::LinkUp => go_on(input, note),
    }
}

/// The draft model answers. A target takes over from the first token of which it is not sure enough.
fn alone(input: &StepInput, note: &Note) -> Action {
    match input.event {
        // Whoever has taken over, or would, is lost, silent, or takes nothing over.
        Event::LinkDown | Event::Overdue | Event::Refused => Action::Finish,
        Event::LinkUp | Event::Verdict => Action::Draft,
        Event::Drafted => {
            // The one that was drafted is the one behind those that are committed.
            let token = input.committed.saturating_add(input.unsent);
            let early = token <= note.escalate_window;
            let late = f64::from(note.escalate_late);
            let below = if early {
                f64::from(note.escalate_below)
            } else {
                late
            };
            if note.escalate_below <= 0.0 || (!early && late <= 0.0) {
                // Nobody may take over, or it is too late: the host need not ask any more.
                Action::Finish
            } else if input.p_accept >= below {
                Action::Draft
            } else {
                // A probability that is no number is none.
                Action::Escalate
            }
        }
    }
}

fn overdue(input: &StepInput, note: &Note, without_peer: Action) -> Action {
    match (input.in_flight, input.unsent) {
        // The target has the rest, and says nothing.
        (0, 0) => without_peer,
        (0, _) => Action::Send,
        _ if input.waited_ms >= f64::from(note.give_up_ms) => without_peer,
        _ => go_on(input, note),
    }
}

fn go_on(input: &StepInput, note: &Note) -> Action {
    let stream = note.stream(input);
    let out = input.unsent.saturating_add(input.in_flight);
    let drafted = input.event == Event::Drafted && out > 0;
    let alone = input.in_flight == 0;
    let commit_from = f64::from(note.commit_from);
    let sure = commit_from <= 1.0 && input.p_accept >= commit_from;
    if drafted && alone && input.unsent == 1 && sure {
        return Action::Commit;
    }
    let gives_back = amount(f64::from(note.give_back), 0.0);
    let plain_ms = amount(f64::from(note.plain_ms), 0.0);
    if input.event == Event::Verdict
        && input.judged >= ENOUGH
        && stream.token_ms() > (1.0 + gives_back) * plain_ms
    {
        return Action::Escalate;
    }
    let stands = if drafted {
        within(input.p_accept, 0.0, 1.0) * power(stream.acceptance, out - 1)
    } else {
        power(stream.acceptance, out)
    };
    let charge = if alone {
        1.0
    } else {
        amount(f64::from(note.draft_charge), 1.0)
    };
    let more_ms = amount(f64::from(note.more_ms), 0.0);
    let worth = stream.is_worth_drafting(stands, charge, more_ms);
    match (alone, input.unsent) {
        (true, 0) => Action::Draft,
        (true, _) => Action::Send,
        _ if !worth => Action::Wait,
        (_, unsent) if unsent >= note.chunk.max(1) => Action::Send,
        _ => Action::Draft,
    }
}
