//! Why a request went where it did, in words.

use std::fmt::Write as _;

use msao_core::offload::account::{Account, route_name};
use msao_core::offload::manifest::Manifest;
use msao_core::offload::record::{Called, DecisionRecord, OpenedAhead};
use msao_core::offload::{
    Action, Decision, Node, Outcome, Plan, Route, Status, capability, flag, modality, overrides,
};

use super::account;
use super::treatments;

/// A decision in words: what the plug-ins saw, what they said, what the host did otherwise, and what came of it. `manifest`:
/// the policy's, which names reasons and terms.
pub fn words(record: &DecisionRecord, manifest: Option<&Manifest>) -> String {
    let mut text = String::new();
    let account = Account::of(record, manifest);
    seen(&mut text, record);
    text.push_str(&account::scored(&account));
    said(&mut text, record, manifest);
    text.push_str(&account::decided(&account));
    ran(&mut text, record);
    text.push_str(&account::kept(&account));
    match &record.outcome {
        Some(outcome) => {
            became(&mut text, outcome);
            for words in treatments::in_words(&record.parts, &outcome.parts) {
                line(&mut text, &words);
            }
        }
        None => line(&mut text, "It is not over, or the node stopped first."),
    }
    text
}

fn line(text: &mut String, words: &str) {
    text.push_str(words);
    text.push('\n');
}

fn seen(text: &mut String, record: &DecisionRecord) {
    let request = &record.request;
    line(text, &format!("Request {}", record.id));
    line(text, "\nWhat the policy saw");
    let mut wishes = Vec::new();
    for (bit, wish) in [
        (flag::EXACT, "exact answers only"),
        (flag::MEDIA_AT_EDGE, "media stay at the edge"),
        (flag::LOGPROBS, "log-probabilities"),
        (flag::STREAMED, "streamed"),
        (flag::PROBED, "probed"),
    ] {
        if request.flags & bit != 0 {
            wishes.push(wish);
        }
    }
    line(
        text,
        &format!(
            "  {} tokens of prompt, up to {} of answer, temperature {}{}{}",
            request.prompt_tokens,
            request.max_tokens,
            request.temperature,
            if wishes.is_empty() { "" } else { "; " },
            wishes.join(", ")
        ),
    );
    for part in &record.parts {
        let name = match part.modality {
            modality::IMAGE => "image",
            modality::VIDEO => "clip",
            modality::AUDIO => "sound",
            _ => "text",
        };
        let mut words = format!("  {name}: {} tokens, {} bytes", part.tokens, part.bytes);
        if part.width_px > 0 {
            let _ = write!(words, ", {} x {} pixels", part.width_px, part.height_px);
        }
        if part.duration_ms > 0.0 {
            let _ = write!(words, ", {:.1} s", part.duration_ms / 1000.0);
        }
        line(text, &words);
    }
    for (row, node) in record.nodes.iter().enumerate() {
        line(text, &format!("  {}", node_in_words(row, node)));
    }
}

fn node_in_words(row: usize, node: &Node) -> String {
    let mut words = if row == 0 {
        "this node".to_owned()
    } else {
        format!("peer {row}")
    };
    if !node.up {
        words.push_str(": down");
        return words;
    }
    let mut has = Vec::new();
    for (bit, what) in [
        (capability::DRAFT, "draft"),
        (capability::TARGET, "target"),
        (capability::VERIFY, "verifies"),
    ] {
        if node.can & bit != 0 {
            has.push(what);
        }
    }
    let _ = write!(words, ": {}", has.join(", "));
    let mut figure = |name: &str, value: f64, unit: &str, scale: f64| {
        if value >= 0.0 {
            let _ = write!(words, "; {name} {:.1} {unit}", value / scale);
        }
    };
    figure("queue", node.queue_ms, "ms", 1.0);
    if row > 0 {
        figure("round trip", node.rtt_ms, "ms", 1.0);
        figure("up", node.uplink_bps, "Mbit/s", 1e6);
        figure("down", node.downlink_bps, "Mbit/s", 1e6);
    }
    figure("draft", node.draft_tok_per_s, "tokens/s", 1.0);
    figure("target", node.target_tok_per_s, "tokens/s", 1.0);
    figure("acceptance", node.acceptance * 100.0, "%", 1.0);
    words
}

fn said(text: &mut String, record: &DecisionRecord, manifest: Option<&Manifest>) {
    line(text, "\nWhat it said");
    let policy = match (manifest, record.generation.policy) {
        (Some(manifest), _) => format!("{} {}", manifest.name, manifest.version),
        (None, Some(digest)) => format!("policy {}", digest.short()),
        (None, None) => "the built-in fallback".to_owned(),
    };
    line(
        text,
        &format!("  by {policy}, revision {}", record.generation.revision),
    );
    for called in [&record.asked, &record.planned].into_iter().flatten() {
        let words = match called {
            Called::Answered(Decision::Probe) => "  plan: look first (probe)".to_owned(),
            Called::Answered(Decision::Run(plan)) => format!("  plan: {}", plan_in_words(plan)),
            Called::Failed(kind) => format!("  plan failed ({kind}): the fallback planned"),
        };
        line(text, &words);
    }
    let count = |wanted: fn(&Action) -> bool| {
        let answers = record.steps.iter().filter_map(|step| step.action.answer());
        answers.filter(|action| wanted(action)).count()
    };
    if !record.steps.is_empty() {
        let failed = record
            .steps
            .iter()
            .filter(|step| step.action.answer().is_none())
            .count();
        let mut words = format!("  step, {} times:", record.steps.len());
        for (name, number) in [
            ("draft", count(|it| *it == Action::Draft)),
            ("send", count(|it| *it == Action::Send)),
            ("commit", count(|it| *it == Action::Commit)),
            ("wait", count(|it| *it == Action::Wait)),
            ("escalate", count(|it| *it == Action::Escalate)),
            ("finish", count(|it| *it == Action::Finish)),
            ("failed", failed),
        ] {
            if number > 0 {
                let _ = write!(words, " {name} {number}");
            }
        }
        line(text, &words);
    }
}

fn plan_in_words(plan: &Plan) -> String {
    let mut words = route_name(plan.route).to_owned();
    if plan.route != Route::Edge {
        let _ = write!(words, " on row {}", plan.peer);
    } else if plan.peer > 0 {
        let _ = write!(words, ", media to row {} at once", plan.peer);
    }
    if plan.route == Route::Speculate {
        let _ = write!(
            words,
            ", {} drafts a round, {} rounds in flight",
            plan.gamma_max, plan.in_flight_max
        );
    }
    words
}

fn ran(text: &mut String, record: &DecisionRecord) {
    let changed = record
        .outcome
        .as_ref()
        .map_or(0, |outcome| outcome.overrides);
    line(text, "\nWhat the host did");
    match record.ahead {
        Some(OpenedAhead::Used) => line(
            text,
            "  opened the session while the probe ran, and went on with it",
        ),
        Some(OpenedAhead::Wasted) => line(
            text,
            "  opened a session while the probe ran, for nothing: it could not be opened, or the plan was for another peer, another route, or less than the whole prompt",
        ),
        None => {}
    }
    if changed == 0 {
        line(text, "  as planned");
        return;
    }
    for (bit, words) in [
        (overrides::ROUTE, "took another route"),
        (overrides::EXACT, "committed nothing unverified"),
        (overrides::MEDIA, "kept media where they may be"),
        (
            overrides::RETENTION,
            "kept other parts of the media than planned, or sent them as they came",
        ),
        (overrides::PEER, "asked another peer"),
        (
            overrides::FALLBACK,
            "a call failed, and the fallback took its place",
        ),
    ] {
        if changed & bit != 0 {
            line(text, &format!("  {words}"));
        }
    }
    line(
        text,
        &format!(
            "  ran: {} on row {}",
            route_name(record.ran.route),
            record.ran.peer
        ),
    );
}

fn became(text: &mut String, outcome: &Outcome) {
    line(text, "\nWhat came of it");
    let status = match outcome.status {
        status if status == Status::Answered as u8 => "answered",
        status if status == Status::Degraded as u8 => "answered without the peer, which was lost",
        status if status == Status::Cancelled as u8 => "cancelled by the client",
        status if status == Status::Refused as u8 => "refused",
        _ => "failed",
    };
    let mut words = format!("  {status}: {} tokens", outcome.tokens);
    if outcome.unverified > 0 {
        let _ = write!(words, ", {} of them unverified", outcome.unverified);
    }
    if outcome.ttft_ms >= 0.0 {
        let _ = write!(
            words,
            "; first token after {:.0} ms, last after {:.0} ms",
            outcome.ttft_ms, outcome.total_ms
        );
    }
    line(text, &words);
    let sum = |bins: &[u32]| bins.iter().sum::<u32>();
    let drafted = sum(&outcome.drafted);
    if drafted > 0 {
        line(
            text,
            &format!(
                "  {} of {drafted} drafts accepted in {} rounds",
                sum(&outcome.accepted),
                outcome.rounds
            ),
        );
    }
    if outcome.sent_bytes + outcome.received_bytes > 0.0 {
        line(
            text,
            &format!(
                "  {} bytes to the peer, {} from it",
                outcome.sent_bytes, outcome.received_bytes
            ),
        );
    }
}
