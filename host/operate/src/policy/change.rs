//! `msao policy activate`, `canary`, `promote`, `shadow`, `rollback`, `off`: what changes which plug-ins plan.

use clap::Args;
use serde_json::{Value, json};

use super::choose::Chosen;
use crate::client::Client;
use crate::connect::Common;
use crate::glance::{Canary, Glance};
use crate::output::{Output, plain};

/// A condition that changes have.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Condition {
    /// Only if that generation is still active, or, to promote or drop a canary, if it is still the canary; else nothing
    /// changes and the exit code is 1. `msao policy list` tells the numbers.
    #[arg(long, value_name = "N")]
    if_generation: Option<u64>,
}

impl Condition {
    /// A change's body with the condition in it.
    pub fn on(self, mut body: Value) -> Value {
        if let (Some(number), Some(body)) = (self.if_generation, body.as_object_mut()) {
            body.insert("generation".to_owned(), json!(number));
        }
        body
    }
}

/// Have a plug-in plan all requests from now on
///
/// Requests that are under way keep what they began with. What was active stays warm: `msao policy rollback` goes back to it
/// at once. Needs a token of the role activate.
///
///   msao policy activate patient@0.2.0
///   msao policy activate policies/patient plugins/mas-joint    (pushes both first)
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct ActivateArgs {
    #[command(flatten)]
    chosen: Chosen,
    #[command(flatten)]
    condition: Condition,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Have a plug-in plan a share of the sessions, then more, then all
///
/// The node itself compares it with what is active (errors, overrides, times, cost), goes on while it is no worse and drops it
/// if it is. Shares and tolerances stand under [policy.canary] in the node's configuration. `msao top` shows how it fares;
/// `promote` and `rollback` decide at once. Needs a token of the role activate.
///
///   msao policy canary policies/patient
///   msao top
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct CanaryArgs {
    #[command(flatten)]
    chosen: Chosen,
    #[command(flatten)]
    condition: Condition,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Have the canary plan all requests now
///
///   msao policy promote
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct PromoteArgs {
    #[command(flatten)]
    condition: Condition,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Ask a plug-in beside the active one what it would do, without effect
///
/// What it agrees and disagrees on stands in `msao policy list`. It takes the place of an earlier shadow.
///
///   msao policy shadow patient@0.3.0
///   msao policy shadow --off
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct ShadowArgs {
    /// A release that the node has, or a plug-in's folder or .wasm, which is pushed first.
    #[arg(value_name = "PLUG-IN", num_args = 1..=2, required_unless_present = "off")]
    releases: Vec<String>,
    /// End the shadow.
    #[arg(long, conflicts_with_all = ["releases", "if_generation"])]
    off: bool,
    #[command(flatten)]
    condition: Condition,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Go back: drop the canary, or else return to what was active before
///
/// Takes effect within microseconds. With --to the node activates a release that you name, whatever its serial; that compiles
/// it first where it is not warm.
///
///   msao policy rollback --why "answers got slower"
///   msao policy rollback --to patient@0.1.0 --why "answers got slower"
///   msao policy rollback --if-generation 7
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct RollbackArgs {
    /// The release to go back to, or two: a policy and a post-processor.
    #[arg(long, value_name = "PLUG-IN", num_args = 1..=2)]
    to: Vec<String>,
    /// The reason, for the node's history.
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    #[command(flatten)]
    condition: Condition,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Have the built-in fallback plan everything, whatever is under way
///
/// Takes effect within microseconds. `msao policy rollback` undoes it.
///
///   msao policy off
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct OffArgs {
    #[command(flatten)]
    condition: Condition,
    #[command(flatten)]
    pub(super) common: Common,
}

pub fn activate(args: &ActivateArgs) -> anyhow::Result<bool> {
    let (client, output) = (args.common.client()?, args.common.output());
    let choice = args.chosen.choice(&client, output)?;
    tell(
        &client,
        output,
        "/v1/activate",
        &args.condition.on(choice.body),
        &format!("active: {}", choice.words),
    )
}

pub fn canary(args: &CanaryArgs) -> anyhow::Result<bool> {
    let (client, output) = (args.common.client()?, args.common.output());
    let choice = args.chosen.choice(&client, output)?;
    tell(
        &client,
        output,
        "/v1/canary",
        &args.condition.on(choice.body),
        &format!("a canary now: {}", choice.words),
    )
}

pub fn promote(args: &PromoteArgs) -> anyhow::Result<bool> {
    let (client, output) = (args.common.client()?, args.common.output());
    let body = args.condition.on(json!({}));
    tell(&client, output, "/v1/promote", &body, "promoted")
}

pub fn shadow(args: &ShadowArgs) -> anyhow::Result<bool> {
    let (client, output) = (args.common.client()?, args.common.output());
    if args.off {
        return tell(
            &client,
            output,
            "/v1/shadow-off",
            &json!({}),
            "the shadow has ended",
        );
    }
    let choice = super::choice_of(&super::find(&args.releases, &client, output)?, false)?;
    tell(
        &client,
        output,
        "/v1/shadow",
        &args.condition.on(choice.body),
        &format!("in the shadow: {}", choice.words),
    )
}

pub fn rollback(args: &RollbackArgs) -> anyhow::Result<bool> {
    let (client, output) = (args.common.client()?, args.common.output());
    let with_why = |mut body: Value| {
        if let (Some(why), Some(body)) = (&args.why, body.as_object_mut()) {
            body.insert("why".to_owned(), json!(why));
        }
        args.condition.on(body)
    };
    if args.to.is_empty() {
        let body = with_why(json!({}));
        return tell(&client, output, "/v1/rollback", &body, "gone back");
    }
    let choice = super::choice_of(&super::find(&args.to, &client, output)?, false)?;
    tell(
        &client,
        output,
        "/v1/rollback-to",
        &with_why(choice.body),
        &format!("gone back to {}", choice.words),
    )
}

pub fn off(args: &OffArgs) -> anyhow::Result<bool> {
    let (client, output) = (args.common.client()?, args.common.output());
    tell(
        &client,
        output,
        "/v1/off",
        &args.condition.on(json!({})),
        "off: the built-in fallback plans everything",
    )
}

/// Asks for a change, and tells what became of it and what is active now.
pub fn tell(
    client: &Client,
    output: Output,
    path: &str,
    body: &Value,
    done: &str,
) -> anyhow::Result<bool> {
    let receipt = client.post(path, body)?;
    let mut text = format!("{done}\n");
    let notes = receipt.get("notes").and_then(Value::as_array);
    for note in notes.into_iter().flatten().filter_map(Value::as_str) {
        text.push_str(&format!("note: {}\n", plain(note)));
    }
    if !output.json {
        // It is done; what is active now is only said for convenience.
        match client.get("/v1/state") {
            Ok(state) => text.push_str(&plans(&Glance::read(&state))),
            Err(error) => output.note(format_args!(
                "note: what is active now could not be asked: {error}"
            )),
        }
    }
    output.answer(&receipt, |_| text)?;
    Ok(true)
}

/// What plans a node's requests, in words.
pub fn plans(glance: &Glance) -> String {
    let mut text = String::new();
    let mut line = |what: &str, words: String| text.push_str(&format!("{what:9} {words}\n"));
    if let Some(active) = &glance.active {
        line("active", active.words());
    }
    if let Some(canary) = &glance.canary {
        line(
            "canary",
            format!("{}: {}", canary_words(canary), canary.verdict),
        );
    }
    if let Some(shadow) = &glance.shadow {
        let (alike, otherwise) = shadow.alike;
        line(
            "shadow",
            format!(
                "{}; asked {} times, alike {alike}, otherwise {otherwise}, failed {}",
                shadow.generation.words(),
                shadow.compared,
                shadow.failed
            ),
        );
    }
    if glance.active.is_some() {
        let previous = glance
            .previous
            .as_ref()
            .map_or_else(|| "the built-in fallback".to_owned(), |it| it.words());
        line("before", previous);
    }
    if let Some(why) = &glance.not_durable {
        line(
            "warning",
            format!("the last change is not on the disk yet, and would be lost by a stop: {why}"),
        );
    }
    text
}

/// A canary in words, without its verdict.
pub fn canary_words(canary: &Canary) -> String {
    format!(
        "{}; {:.0}% of sessions, step {}",
        canary.candidate.words(),
        canary.share * 100.0,
        canary.step + 1
    )
}
